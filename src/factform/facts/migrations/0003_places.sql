-- Where spans of a version's canonical text stand in the original (a blob, see facts/places.py; null where the format
-- has no places), and what a reader should know about how it was read.
ALTER TABLE versions ADD COLUMN places_sha256 TEXT;
ALTER TABLE versions ADD COLUMN note TEXT;
