"""The stages of an experiment: each finds what the store lacks of one kind of result, and has it computed.

A stage is one module here: restored images, loops, embeddings (calls of models), diagrams, vectorisations,
distances (jobs of the pool). `stage.py` has the protocol and what stages share.

To add a stage: write its module, with a `due` that asks `panic.store.missing` for what is lacking; add its
rows to `Commit` (`panic/store/records.py`), their insertion to `panic/store/writing.py`, a migration for
their table; name it in `phases` of `panic/engine/perform.py`.
"""
