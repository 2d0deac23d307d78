-- store.sqlite, version 2: what calls of a model have needed beyond its weights, the most seen per batch size.
-- The fingerprint stands for revision, dtype and image size. No results: learnt anew when it is gone.
CREATE TABLE working_memory (
    fingerprint TEXT NOT NULL CHECK (fingerprint <> ''),
    device_kind TEXT NOT NULL CHECK (device_kind <> ''),
    batch_size INTEGER NOT NULL CHECK (batch_size >= 1),
    peak_bytes INTEGER NOT NULL CHECK (peak_bytes >= 0),
    observed_at REAL NOT NULL,
    PRIMARY KEY (fingerprint, device_kind, batch_size)
) STRICT, WITHOUT ROWID;
