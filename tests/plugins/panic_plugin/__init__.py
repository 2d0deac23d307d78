"""A package of another author: one question and one null model, found by the entry points beside it."""
