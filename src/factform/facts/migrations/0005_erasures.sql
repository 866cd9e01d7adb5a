-- What is left of documents that were erased: that it was done, when, and of how many versions. The token is random.
CREATE TABLE erasures (
    token    TEXT NOT NULL PRIMARY KEY,
    at       TEXT NOT NULL,
    versions INTEGER NOT NULL
) STRICT;
