-- store.sqlite, version 3: what is taken of diagrams, and the error of those of landmarks.
ALTER TABLE diagram ADD COLUMN error REAL NOT NULL DEFAULT 0 CHECK (error >= 0);

-- A kind of vectorisation or distance with its settings.
CREATE TABLE measure (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE CHECK (digest <> ''),
    settings TEXT NOT NULL CHECK (json_valid(settings))
) STRICT;

-- vector: .npy, float64.
CREATE TABLE vectorisation (
    diagram INTEGER NOT NULL,
    dimension INTEGER NOT NULL,
    measure INTEGER NOT NULL REFERENCES measure,
    vector BLOB NOT NULL,
    UNIQUE (diagram, dimension, measure),
    FOREIGN KEY (diagram, dimension) REFERENCES diagram_bars (diagram, dimension) ON DELETE CASCADE
) STRICT;

-- Each pair of diagrams once; infinite where their numbers of endless bars differ.
CREATE TABLE distance (
    a INTEGER NOT NULL,
    b INTEGER NOT NULL CHECK (b > a),
    dimension INTEGER NOT NULL,
    measure INTEGER NOT NULL REFERENCES measure,
    distance REAL NOT NULL CHECK (distance >= 0),
    PRIMARY KEY (a, b, dimension, measure),
    FOREIGN KEY (a, dimension) REFERENCES diagram_bars (diagram, dimension) ON DELETE CASCADE,
    FOREIGN KEY (b, dimension) REFERENCES diagram_bars (diagram, dimension) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
