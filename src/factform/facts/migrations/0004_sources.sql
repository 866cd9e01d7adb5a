-- Where documents come from, for what keeps them equal to it. Never edit this file: a change of schema is a new one.

-- Folders that were synced. `access` and `metadata` are what its documents get (JSON; null: nothing was ever said).
CREATE TABLE synced_roots (
    root     TEXT NOT NULL PRIMARY KEY,
    access   TEXT,
    metadata TEXT
) STRICT;

-- Documents that belong to a synced folder, with their files as they looked when they were last read. A row with an
-- empty sha256 was written before the document was taken in, so that a crash in between leaves no document that belongs
-- to nobody. `read_ns` is the time of reading: a file changed shortly before it is read again.
CREATE TABLE synced (
    root     TEXT NOT NULL,
    document TEXT NOT NULL,
    path     TEXT NOT NULL,
    sha256   TEXT NOT NULL,
    size     INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    inode    INTEGER NOT NULL,
    read_ns  INTEGER NOT NULL,
    PRIMARY KEY (root, document)
) STRICT;

-- What a server said about a page, for asking it whether the page has changed.
CREATE TABLE fetched (
    url           TEXT NOT NULL PRIMARY KEY,
    document      TEXT NOT NULL,
    sha256        TEXT NOT NULL,
    etag          TEXT NOT NULL,
    last_modified TEXT NOT NULL
) STRICT;
