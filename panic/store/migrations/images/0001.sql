-- images.sqlite, version 1: encoded pixels by digest. A rowid table, because the rows are large.
CREATE TABLE image (
    digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    encoding TEXT NOT NULL,
    bytes BLOB NOT NULL CHECK (length(bytes) > 0)
) STRICT;
