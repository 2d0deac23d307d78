-- store.sqlite, version 7: whether what a model gives depends on the mates of an item, as it was measured, and
-- which items of an experiment share a batch because of that.
CREATE TABLE invariance (
    fingerprint TEXT NOT NULL CHECK (fingerprint <> ''),
    batch_size INTEGER NOT NULL CHECK (batch_size >= 1),
    threads INTEGER NOT NULL CHECK (threads >= 1),
    surroundings TEXT NOT NULL CHECK (json_valid(surroundings)),
    verdict TEXT NOT NULL CHECK (verdict IN ('independent', 'length', 'alone', 'unrepeatable')),
    duration_s REAL NOT NULL CHECK (duration_s >= 0),
    measured_at REAL NOT NULL,
    PRIMARY KEY (fingerprint, batch_size, threads, surroundings)
) STRICT, WITHOUT ROWID;

-- Mates of an item: any of its bucket, or only those with as many tokens.
ALTER TABLE epoch ADD COLUMN mates TEXT NOT NULL DEFAULT 'bucket' CHECK (mates IN ('bucket', 'length'));

UPDATE meta SET value = value + 1 WHERE key = 'revision';
