-- store.sqlite, version 9: the arm of a run is part of what it is, and what steps into runs.
CREATE TABLE run_of_arm (
    id INTEGER PRIMARY KEY,
    experiment INTEGER NOT NULL REFERENCES experiment ON DELETE CASCADE,
    network TEXT NOT NULL CHECK (json_array_length(network) > 0),
    prompt INTEGER NOT NULL REFERENCES output,
    seed INTEGER NOT NULL CHECK (seed >= -1),
    repeat INTEGER NOT NULL CHECK (repeat >= 0),
    max_length INTEGER NOT NULL CHECK (max_length >= 1),
    arm TEXT NOT NULL DEFAULT 'baseline' CHECK (arm <> ''),
    UNIQUE (experiment, network, prompt, seed, repeat, arm)
) STRICT;
INSERT INTO run_of_arm (id, experiment, network, prompt, seed, repeat, max_length)
    SELECT id, experiment, network, prompt, seed, repeat, max_length FROM run;
DROP TABLE run;
ALTER TABLE run_of_arm RENAME TO run;

-- What stepped into a run before a step: it took what was about to be the step's input, and its output became that.
-- `place` counts those of one step. seed and batch are those of the call, if a model was called.
CREATE TABLE intervention (
    run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
    step INTEGER NOT NULL CHECK (step >= 0),
    place INTEGER NOT NULL CHECK (place >= 0),
    kind TEXT NOT NULL CHECK (kind IN ('model', 'noise', 'text', 'network')),
    input INTEGER NOT NULL REFERENCES output,
    output INTEGER NOT NULL REFERENCES output,
    seed INTEGER CHECK (seed >= 0),
    batch INTEGER REFERENCES batch,
    PRIMARY KEY (run, step, place),
    CHECK ((kind IN ('model', 'noise')) = (batch IS NOT NULL)),
    CHECK ((batch IS NULL) = (seed IS NULL)),
    CHECK (kind <> 'network' OR input = output)
) STRICT, WITHOUT ROWID;

UPDATE meta SET value = value + 1 WHERE key = 'revision';
