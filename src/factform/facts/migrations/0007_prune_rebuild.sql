-- `pruned_at` is when the bytes of a version were removed by the retention policy (null: they are kept). The row stays.
ALTER TABLE versions ADD COLUMN pruned_at TEXT;

-- What an index that is being made anew was made of: the row of `versions`, and how it was read. Taken over into
-- `versions` in the transaction that switches to the new index; until then the old index is told by `versions` alone.
CREATE TABLE rebuilt (
    seq           INTEGER NOT NULL PRIMARY KEY,
    document      TEXT NOT NULL,
    text_sha256   TEXT NOT NULL,
    chunks        INTEGER NOT NULL,
    places_sha256 TEXT,
    note          TEXT
) STRICT;
