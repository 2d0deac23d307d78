-- store.sqlite, version 5: an experiment is its name. Of several with one name the oldest keeps it; later ones
-- become name-2, name-3 and so on (names that are free), and their old name is an annotation. None are joined.
CREATE TABLE named_experiment (
    id INTEGER PRIMARY KEY,
    uid TEXT NOT NULL UNIQUE CHECK (length(uid) = 32),
    name TEXT NOT NULL UNIQUE CHECK (name <> ''),
    config TEXT NOT NULL CHECK (json_valid(config)),
    created_at REAL NOT NULL
) STRICT;
WITH RECURSIVE
    number (value) AS
        (SELECT 2 UNION ALL SELECT value + 1 FROM number WHERE value <= (SELECT count(*) FROM experiment)),
    free AS
        (SELECT name, name || '-' || value AS new_name, row_number() OVER (PARTITION BY name ORDER BY value) AS place
         FROM (SELECT name FROM experiment GROUP BY name HAVING count(*) > 1) CROSS JOIN number
         WHERE name || '-' || value NOT IN (SELECT name FROM experiment)),
    known AS
        (SELECT *, row_number() OVER (PARTITION BY name ORDER BY id) - 1 AS place FROM experiment)
INSERT INTO named_experiment
    SELECT known.id, uid, coalesce(new_name, known.name),
        CASE WHEN new_name IS NULL THEN config ELSE json_set(config, '$.name', new_name) END, created_at
    FROM known LEFT JOIN free ON free.name = known.name AND free.place = known.place;
INSERT INTO annotation (target_kind, target, kind, text, author, at)
    SELECT 'experiment', uid, 'former name', experiment.name, 'panic', (julianday('now') - 2440587.5) * 86400.0
    FROM experiment JOIN named_experiment USING (id, uid) WHERE experiment.name <> named_experiment.name;
DROP TABLE experiment;
ALTER TABLE named_experiment RENAME TO experiment;

-- What the session was asked for; the experiment's config is the union of all that it was asked for.
ALTER TABLE session ADD COLUMN config TEXT CHECK (json_valid(config));

-- Why a shape epoch was opened: the first start, lack of memory, or on request.
ALTER TABLE epoch ADD COLUMN reason TEXT NOT NULL DEFAULT 'start' CHECK (reason IN ('start', 'memory', 'request'));
UPDATE epoch SET reason = 'memory' WHERE number > 0;

UPDATE meta SET value = value + 1 WHERE key = 'revision';
