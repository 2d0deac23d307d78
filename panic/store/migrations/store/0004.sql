-- store.sqlite, version 4: what calls of a model have needed is told apart by the shape of their items, too:
-- the bucket is the token length of texts or the size of pictures where a model's need follows them, else 0.
CREATE TABLE working_memory_by_shape (
    fingerprint TEXT NOT NULL CHECK (fingerprint <> ''),
    device_kind TEXT NOT NULL CHECK (device_kind <> ''),
    bucket INTEGER NOT NULL,
    batch_size INTEGER NOT NULL CHECK (batch_size >= 1),
    peak_bytes INTEGER NOT NULL CHECK (peak_bytes >= 0),
    observed_at REAL NOT NULL,
    PRIMARY KEY (fingerprint, device_kind, bucket, batch_size)
) STRICT, WITHOUT ROWID;
INSERT INTO working_memory_by_shape SELECT fingerprint, device_kind, 0, batch_size, peak_bytes, observed_at
    FROM working_memory;
DROP TABLE working_memory;
ALTER TABLE working_memory_by_shape RENAME TO working_memory;
