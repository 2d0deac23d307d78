-- store.sqlite, version 10: remarks on trainings, too, and their signatures; failures of runs that were tried
-- again; and what was deleted and can come back.
CREATE TABLE signed_annotation (
    id INTEGER PRIMARY KEY,
    target_kind TEXT NOT NULL CHECK (target_kind IN ('experiment', 'run', 'output', 'session', 'training')),
    target TEXT NOT NULL CHECK (target <> ''),
    kind TEXT NOT NULL CHECK (kind <> ''),
    text TEXT NOT NULL,
    author TEXT NOT NULL,
    at REAL NOT NULL,
    signature TEXT CHECK (signature <> '')
) STRICT;
INSERT INTO signed_annotation
    SELECT id, target_kind, target, kind, text, author, at, NULL FROM annotation;
DROP TABLE annotation;
ALTER TABLE signed_annotation RENAME TO annotation;
CREATE INDEX annotation_target ON annotation (target_kind, target);
-- What tags and labels there are now is told by these alone: half a million of them cost no listing its time.
CREATE INDEX annotation_tag ON annotation (target_kind, target, text, kind) WHERE kind IN ('tag', 'untag');
CREATE INDEX annotation_origin ON annotation (target_kind) WHERE kind = 'origin';
CREATE INDEX annotation_label ON annotation (target_kind, target, text) WHERE kind = 'label';

-- How a run failed before it was tried again.
CREATE TABLE attempt (
    run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
    step INTEGER NOT NULL CHECK (step >= 0),
    kind TEXT NOT NULL CHECK (kind <> ''),
    message TEXT NOT NULL,
    detail TEXT NOT NULL,
    attempts INTEGER NOT NULL CHECK (attempts >= 1),
    failed_at REAL NOT NULL
) STRICT;
CREATE INDEX attempt_run ON attempt (run);

-- What was deleted and has not been purged: an experiment that no question sees. It had the name itself, or it
-- holds runs of the experiment `origin`.
CREATE TABLE deletion (
    experiment INTEGER PRIMARY KEY REFERENCES experiment ON DELETE CASCADE,
    name TEXT NOT NULL CHECK (name <> ''),
    origin INTEGER REFERENCES experiment ON DELETE SET NULL,
    author TEXT NOT NULL,
    at REAL NOT NULL
) STRICT;

UPDATE meta SET value = value + 1 WHERE key = 'revision';
