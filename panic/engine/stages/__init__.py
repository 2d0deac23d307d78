"""The stages of an experiment: each finds what the store lacks of one kind of result, and has it computed.

A stage is one module here: restored images, loops, embeddings (calls of models), diagrams, vectorisations,
distances (jobs of the pool). `stage.py` has the protocol and what stages share; `distances.py` is a short
example.

To add a stage, write its module, and then one entry in each of these lists (all of `panic/store`, but for
the last):

- `migrations/store/NUMBER.sql`: a table of its own. A run may grow: its results belong to its length, too.
- `records.py`: the row to write, a list of it in `Commit`, a number of it in `Counts` (under the stage's
  name).
- `writing.py:commit` inserts it, `reading.py:counts` counts it, `missing.py` asks what is lacking.
- `delete.py` (foreign keys are off there: nothing cascades), `dump.py`, `export.py`;
  `tests/store/test_schema.py` fails for a table that one of them does not know.
- `coverage.py`, if an experiment is not complete without it and the dry run shall tell it.
- `phases` in `panic/engine/perform.py` says when it runs; stages of jobs need the pool that is made there.
"""
