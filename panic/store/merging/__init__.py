"""Stores become one: what their tables are by nature, what has to agree, and the walk over them."""
