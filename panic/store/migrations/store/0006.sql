-- store.sqlite, version 6: what a session spent its time on, by place, name, model and stretch of time.
ALTER TABLE session ADD COLUMN timeline TEXT CHECK (json_valid(timeline));

UPDATE meta SET value = value + 1 WHERE key = 'revision';
