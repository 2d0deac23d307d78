-- store.sqlite, version 8: models whose results are not repeatable, and what was sent to those behind an endpoint.
ALTER TABLE model ADD COLUMN is_repeatable INTEGER NOT NULL DEFAULT 1 CHECK (is_repeatable IN (0, 1));

-- What a server said of the call that is this batch; NULL where it did not say.
CREATE TABLE answer (
    batch INTEGER PRIMARY KEY REFERENCES batch ON DELETE CASCADE,
    input_tokens INTEGER CHECK (input_tokens >= 0),
    output_tokens INTEGER CHECK (output_tokens >= 0),
    served_model TEXT,
    system_fingerprint TEXT
) STRICT;

-- What a session has sent to a model's server, or may have: while it works, requests that may be under way are
-- counted as sent, so that a killed session leaves too much rather than too little.
CREATE TABLE spending (
    session INTEGER NOT NULL REFERENCES session ON DELETE CASCADE,
    model INTEGER NOT NULL REFERENCES model,
    requests INTEGER NOT NULL CHECK (requests >= 0),
    tokens INTEGER NOT NULL CHECK (tokens >= 0),
    PRIMARY KEY (session, model)
) STRICT, WITHOUT ROWID;

-- Runs that were ended on request because they went through one cycle `times` times. Not stuck: that their models
-- would go on so is not known.
CREATE TABLE repeated (
    run INTEGER PRIMARY KEY REFERENCES run ON DELETE CASCADE,
    entry_step INTEGER NOT NULL CHECK (entry_step >= 0),
    period INTEGER NOT NULL CHECK (period >= 1),
    times INTEGER NOT NULL CHECK (times >= 2)
) STRICT;

UPDATE meta SET value = value + 1 WHERE key = 'revision';
