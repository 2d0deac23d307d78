-- store.sqlite, version 12: words of outputs, and where outputs came up; when an experiment's results changed.
-- `meta` says up to which output the words are known: what an earlier version stored is taken in by a driver, bit by
-- bit. All of this is derived, and no dump, digest or export has it.
CREATE VIRTUAL TABLE caption USING fts5 (text, content = 'output', content_rowid = 'id', columnsize = 0);
INSERT INTO caption (caption, rank) VALUES ('hashsize', 16777216);
INSERT INTO meta VALUES ('captions', 0);
CREATE INDEX invocation_output ON invocation (output);
CREATE INDEX intervention_output ON intervention (output);
CREATE INDEX run_prompt ON run (prompt);
CREATE INDEX session_experiment ON session (experiment);

-- A number that no two states of an experiment's results have in common, so that what was worked out of one is
-- known to be of that one.
CREATE TABLE change (
    experiment INTEGER PRIMARY KEY REFERENCES experiment ON DELETE CASCADE,
    stamp INTEGER NOT NULL
) STRICT;

UPDATE meta SET value = value + 1 WHERE key = 'revision';
