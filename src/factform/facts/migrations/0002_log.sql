-- The mark of the last transaction that ledger.log holds (facts/ledgerlog.py): equal marks mean that the log is complete.
CREATE TABLE log_mark (
    id   INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    mark TEXT NOT NULL
) STRICT;
