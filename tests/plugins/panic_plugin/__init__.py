"""A package of another author: one question, one null model and one kind of model, found by the entry points beside it."""
