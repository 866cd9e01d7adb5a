-- The truth about documents. Never edit this file: a change of schema is a new numbered file.

CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- One row for every time a version of a document was offered; rows are never deleted, so the history stays.
-- status: accepted   the bytes are stored, the index does not hold them yet (replayed on open)
--         indexed    this is what a search finds
--         superseded a later version took its place
--         failed     the bytes could not be taken in; `error` says why
--         removed    the document was removed while this version was the current one
CREATE TABLE versions (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    document    TEXT NOT NULL,
    version     TEXT NOT NULL,
    sha256      TEXT NOT NULL,
    text_sha256 TEXT,
    media_type  TEXT,
    name        TEXT NOT NULL,
    title       TEXT,
    metadata    TEXT NOT NULL,
    access      TEXT NOT NULL,
    status      TEXT NOT NULL CHECK (status IN ('accepted', 'indexed', 'superseded', 'failed', 'removed')),
    chunks      INTEGER NOT NULL DEFAULT 0,
    error       TEXT,
    accepted_at TEXT NOT NULL,
    indexed_at  TEXT,
    ended_at    TEXT
) STRICT;

CREATE INDEX versions_by_document ON versions (document, version);
CREATE INDEX versions_pending ON versions (status) WHERE status = 'accepted';

-- `current` is the row a search finds, null when the document was removed or never got in.
-- `removing` is 1 from the decision to remove until the index no longer holds the document.
CREATE TABLE documents (
    id       TEXT NOT NULL PRIMARY KEY,
    current  INTEGER REFERENCES versions (seq),
    removing INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX documents_removing ON documents (removing) WHERE removing = 1;
