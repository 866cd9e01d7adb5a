-- kind: answer    as written
--       erased    its content was replaced, wholly or in part, because a document was erased; leaf and links are as they
--                 were, so the chain holds, and a later erasure names the SHA-256 of what stands there now
--       erasure   says which records were replaced; itself a link of the chain
ALTER TABLE record ADD COLUMN kind TEXT NOT NULL DEFAULT 'answer';

DROP TRIGGER record_never_changes;
CREATE TRIGGER record_never_changes BEFORE UPDATE ON record
WHEN NOT (
  NEW.kind = 'erased' AND OLD.kind IN ('answer', 'erased') AND NEW.seq = OLD.seq AND NEW.id = OLD.id AND
  NEW.time = OLD.time AND NEW.leaf = OLD.leaf AND NEW.previous = OLD.previous AND NEW.link = OLD.link
)
BEGIN
  SELECT RAISE(ABORT, 'audit records are append-only');
END;
