-- store.sqlite, version 1: everything but pixels. Small integers are row keys inside; digests and
-- sortable text ids are names towards the outside.
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
INSERT INTO meta VALUES ('revision', 0);

CREATE TABLE experiment (
    id INTEGER PRIMARY KEY,
    uid TEXT NOT NULL UNIQUE CHECK (length(uid) = 32),
    name TEXT NOT NULL CHECK (name <> ''),
    identity_digest TEXT NOT NULL UNIQUE CHECK (identity_digest <> ''),
    config TEXT NOT NULL CHECK (json_valid(config)),
    created_at REAL NOT NULL
) STRICT;
CREATE INDEX experiment_name ON experiment (name);

CREATE TABLE model (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL CHECK (name <> ''),
    fingerprint TEXT NOT NULL UNIQUE CHECK (fingerprint <> ''),
    spec TEXT NOT NULL CHECK (json_valid(spec))
) STRICT;

-- Shape epochs: what a model's shape was pinned to, per experiment and name in its networks.
CREATE TABLE epoch (
    experiment INTEGER NOT NULL REFERENCES experiment ON DELETE CASCADE,
    name TEXT NOT NULL,
    number INTEGER NOT NULL CHECK (number >= 0),
    model INTEGER NOT NULL REFERENCES model,
    batch_size INTEGER NOT NULL CHECK (batch_size >= 1),
    device_kind TEXT NOT NULL,
    threads INTEGER CHECK (threads >= 1),
    opened_at REAL NOT NULL,
    PRIMARY KEY (experiment, name, number)
) STRICT, WITHOUT ROWID;

-- One process's work. end_state stays NULL while it works; the next session marks the killed ones.
CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    experiment INTEGER REFERENCES experiment ON DELETE SET NULL,
    command TEXT NOT NULL,
    pid INTEGER NOT NULL,
    host TEXT NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL CHECK (ended_at IS NULL OR end_state IS NOT NULL),
    end_state TEXT,
    provenance TEXT NOT NULL CHECK (json_valid(provenance))
) STRICT;

CREATE TABLE output (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    modality TEXT NOT NULL CHECK (modality IN ('text', 'image')),
    text TEXT CHECK (text <> ''),
    width INTEGER CHECK (width > 0),
    height INTEGER CHECK (height > 0),
    CHECK ((modality = 'text') = (text IS NOT NULL)),
    CHECK ((modality = 'image') = (width IS NOT NULL)),
    CHECK ((modality = 'image') = (height IS NOT NULL))
) STRICT;

CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    experiment INTEGER NOT NULL REFERENCES experiment ON DELETE CASCADE,
    network TEXT NOT NULL CHECK (json_array_length(network) > 0),
    prompt INTEGER NOT NULL REFERENCES output,
    seed INTEGER NOT NULL CHECK (seed >= -1),
    repeat INTEGER NOT NULL CHECK (repeat >= 0),
    max_length INTEGER NOT NULL CHECK (max_length >= 1),
    UNIQUE (experiment, network, prompt, seed, repeat)
) STRICT;

-- One call of a model, padded from size to padded_size items of one token-length bucket.
CREATE TABLE batch (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL REFERENCES session,
    model INTEGER NOT NULL REFERENCES model,
    epoch INTEGER NOT NULL CHECK (epoch >= 0),
    device TEXT NOT NULL,
    size INTEGER NOT NULL CHECK (size >= 1),
    padded_size INTEGER NOT NULL CHECK (padded_size >= size),
    bucket INTEGER NOT NULL,
    started_at REAL NOT NULL,
    duration_s REAL NOT NULL CHECK (duration_s >= 0)
) STRICT;

CREATE TABLE invocation (
    run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
    step INTEGER NOT NULL CHECK (step >= 0),
    input INTEGER NOT NULL REFERENCES output,
    output INTEGER NOT NULL REFERENCES output,
    seed INTEGER NOT NULL CHECK (seed >= 0),
    batch INTEGER NOT NULL REFERENCES batch,
    PRIMARY KEY (run, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE stuck (
    run INTEGER PRIMARY KEY REFERENCES run ON DELETE CASCADE,
    entry_step INTEGER NOT NULL CHECK (entry_step >= 0),
    period INTEGER NOT NULL CHECK (period >= 1)
) STRICT;

CREATE TABLE failure (
    run INTEGER PRIMARY KEY REFERENCES run ON DELETE CASCADE,
    step INTEGER NOT NULL CHECK (step >= 0),
    kind TEXT NOT NULL CHECK (kind <> ''),
    message TEXT NOT NULL,
    detail TEXT NOT NULL,
    attempts INTEGER NOT NULL CHECK (attempts >= 1),
    failed_at REAL NOT NULL
) STRICT;

-- A rowid table, because vectors are large.
CREATE TABLE embedding (
    output INTEGER NOT NULL REFERENCES output ON DELETE CASCADE,
    model INTEGER NOT NULL REFERENCES model,
    batch INTEGER NOT NULL REFERENCES batch,
    dimension INTEGER NOT NULL CHECK (dimension >= 1),
    vector BLOB NOT NULL CHECK (length(vector) = 4 * dimension),
    UNIQUE (output, model)
) STRICT;

CREATE TABLE diagram (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
    model INTEGER NOT NULL REFERENCES model,
    settings_digest TEXT NOT NULL CHECK (settings_digest <> ''),
    settings TEXT NOT NULL CHECK (json_valid(settings)),
    num_points INTEGER NOT NULL CHECK (num_points >= 1),
    num_unique INTEGER NOT NULL CHECK (num_unique BETWEEN 1 AND num_points),
    duration_s REAL NOT NULL CHECK (duration_s >= 0),
    UNIQUE (run, model, settings_digest, num_points)
) STRICT;

-- bars: (m, 2) float64, little-endian; generators: .npy, NULL when not computed.
CREATE TABLE diagram_bars (
    diagram INTEGER NOT NULL REFERENCES diagram ON DELETE CASCADE,
    dimension INTEGER NOT NULL CHECK (dimension >= 0),
    bars BLOB NOT NULL CHECK (length(bars) % 16 = 0),
    generators BLOB,
    UNIQUE (diagram, dimension)
) STRICT;

-- Append-only remarks of people, apart from results; target is a uid or a digest, so that stores merge.
CREATE TABLE annotation (
    id INTEGER PRIMARY KEY,
    target_kind TEXT NOT NULL CHECK (target_kind IN ('experiment', 'run', 'output', 'session')),
    target TEXT NOT NULL CHECK (target <> ''),
    kind TEXT NOT NULL CHECK (kind <> ''),
    text TEXT NOT NULL,
    author TEXT NOT NULL,
    at REAL NOT NULL
) STRICT;
CREATE INDEX annotation_target ON annotation (target_kind, target);
