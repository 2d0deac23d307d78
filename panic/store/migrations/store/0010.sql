-- store.sqlite: this version has a change of its own on another branch; nothing of it is needed here.
UPDATE meta SET value = value + 1 WHERE key = 'revision';
