-- store.sqlite, version 13: trainings, each known by the digest of its recipe and the folder of its model. What they
-- write lies beside the model; here stands how far each has come. A training is no result: no dump or digest knows it.
CREATE TABLE training (
    id INTEGER PRIMARY KEY,
    uid TEXT NOT NULL CHECK (uid <> ''),
    folder TEXT NOT NULL CHECK (folder <> ''),
    name TEXT NOT NULL,
    task TEXT NOT NULL,
    config TEXT NOT NULL CHECK (json_valid(config)),
    provenance TEXT NOT NULL CHECK (json_valid(provenance)),
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    log TEXT,
    step INTEGER NOT NULL CHECK (step >= 0),
    steps INTEGER NOT NULL CHECK (steps >= 1),
    loss REAL,
    val_loss REAL,
    best_loss REAL,
    best_step INTEGER CHECK (best_step >= 0),
    measures TEXT NOT NULL CHECK (json_valid(measures)),
    seconds REAL NOT NULL CHECK (seconds >= 0),
    created_at REAL NOT NULL,
    started_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    ended_at REAL,
    end_state TEXT CHECK (end_state IN ('complete', 'out of time', 'interrupted', 'failed')),
    message TEXT,
    UNIQUE (uid, folder),
    CHECK ((ended_at IS NULL) = (end_state IS NULL))
) STRICT;

UPDATE meta SET value = value + 1 WHERE key = 'revision';
