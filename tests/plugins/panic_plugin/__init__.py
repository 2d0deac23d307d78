"""A package of another author: a question, a null model and a kind of model, found by their entry points."""
