-- One row per answer, in the order they were committed. `record` is the canonical JSON as UTF-8 bytes, so that
-- what is hashed is exactly what is stored. `leaf` hashes the record, `link` hashes `previous` and `leaf`.
-- AUTOINCREMENT: numbers are never reused, so rows cut off the end leave a trace in sqlite_sequence.
CREATE TABLE record (
  seq      INTEGER PRIMARY KEY AUTOINCREMENT,
  id       TEXT NOT NULL UNIQUE,
  time     TEXT NOT NULL,
  record   BLOB NOT NULL,
  leaf     TEXT NOT NULL,
  previous TEXT NOT NULL,
  link     TEXT NOT NULL
);

-- Append-only against mistakes; against intent there is the chain.
CREATE TRIGGER record_never_changes BEFORE UPDATE ON record
BEGIN
  SELECT RAISE(ABORT, 'audit records are append-only');
END;

CREATE TRIGGER record_never_goes BEFORE DELETE ON record
BEGIN
  SELECT RAISE(ABORT, 'audit records are append-only');
END;
