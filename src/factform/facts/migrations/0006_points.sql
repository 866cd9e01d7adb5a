-- Every change of what a search finds is a point, numbered in order, with its time: what `--as-of` names.
-- A version is found from the point `began` until just before the point `ended` (null: still).
CREATE TABLE points (
    point INTEGER NOT NULL PRIMARY KEY,
    at    TEXT NOT NULL
) STRICT;

ALTER TABLE versions ADD COLUMN began INTEGER;
ALTER TABLE versions ADD COLUMN ended INTEGER;

INSERT INTO points SELECT row_number() OVER (ORDER BY at), at FROM (
    SELECT indexed_at AS at FROM versions WHERE indexed_at IS NOT NULL
    UNION SELECT ended_at FROM versions WHERE status IN ('superseded', 'removed')
) WHERE at IS NOT NULL;

UPDATE versions SET began = (SELECT point FROM points WHERE at = indexed_at) WHERE indexed_at IS NOT NULL;
UPDATE versions SET ended = (SELECT point FROM points WHERE at = ended_at) WHERE status IN ('superseded', 'removed');

CREATE INDEX versions_current ON versions (document) WHERE status = 'indexed';
CREATE INDEX versions_began ON versions (began);
CREATE INDEX versions_ended ON versions (ended) WHERE ended IS NOT NULL;
