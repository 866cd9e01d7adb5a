"""Records of answers without a document that was erased: the chain holds, and nobody can feign an erasure."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from factform.audit.log import AuditLog
from factform.audit.record import AnswerRecord
from factform.errors import RecordError
from factform.records import Citation


def record(question: str, *candidates: tuple[str, int, bool], cited: str = "") -> AnswerRecord:
    entries = tuple({"document": d, "rank": rank, "kept": kept, "reason": "ranked"} for d, rank, kept in candidates)
    citations = (Citation(cited, "v", None, 0, 5, f"words of {cited}", True),) if cited else ()
    return AnswerRecord(
        question=question,
        status="answered",
        reason="",
        answer={"quote": f"words of {cited}"},
        model="m",
        adapter=None,
        behavior=None,
        mode="exact",
        prompt_sha256="0" * 64,
        prompt={"text": f"prompt with {cited}"},
        output=f"output of {cited}",
        generation={},
        ms={},
        candidates=entries,
        documents=tuple({"document": d, "version": "v", "sha256": "f" * 64} for d, _, _ in candidates),
        citations=citations,
    )


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    log = AuditLog.open(tmp_path / "audit.db")
    log.write(record("who is Jones?", ("jones.md", 1, True), ("other.md", 2, False), cited="jones.md"))
    log.write(record("what is the rent?", ("other.md", 1, True), ("jones.md", 2, False), cited="other.md"))
    log.write(record("what is the notice?", ("third.md", 1, True), cited="third.md"))
    log.write(record("what does jones.md say?", ("other.md", 1, True), ("jones.md", 7, False), cited="other.md"))
    return log


def all_of(log: AuditLog) -> list[dict[str, Any]]:
    return [log.show(line["id"]) for line in reversed(log.list())]


def test_what_was_made_from_it_goes_and_the_rest_stays(log: AuditLog) -> None:
    before, head = all_of(log), log.head()
    assert log.erase({"jones.md"}, {"jones.md", "Jones"}) == (2, 1)
    about, weighed, apart, asked, note = all_of(log)
    assert (about["status"], about["question"], about["answer"], about["output"]) == ("erased", "", None, "")
    assert (about["id"], about["time"], about["model"]) == tuple(before[0][name] for name in ("id", "time", "model"))
    assert asked["status"] == "erased"  # its question names the document
    assert (weighed["question"], weighed["output"]) == ("what is the rent?", "output of other.md")
    assert [entry["document"] for entry in weighed["candidates"]] == ["other.md"]
    assert weighed["documents"] == [{"document": "other.md", "version": "v", "sha256": "f" * 64}]
    assert apart == before[2]
    assert note["status"] == "erasure"
    assert set(note["erased"]["records"]) == {about["id"], weighed["id"], asked["id"]}
    assert log.verify(head) == []
    data = log.path.read_bytes()
    assert b"jones.md" not in data
    assert b"Jones" not in data
    assert b"what is the rent?" in data


@pytest.mark.parametrize("name", ["jones.md", "7"])
def test_a_record_that_only_ranked_it_low_keeps_its_question(tmp_path: Path, name: str) -> None:
    """What was found and given up stands deeper in a record than its hits; names of any length go from there."""
    log = AuditLog.open(tmp_path / "audit.db")
    dropped = [{"chunk": f"of-{d}", "document": d, "reason": "ranked too low"} for d in ("third.md", name)]
    whole = replace(record("what is the rent?", ("other.md", 1, True), cited="other.md"), search={"dropped": dropped})
    log.write(whole)
    assert log.erase({name}, {name}) == (0, 1)
    left, _ = all_of(log)
    assert (left["question"], left["status"]) == ("what is the rent?", "answered")
    assert [entry["document"] for entry in left["search"]["dropped"]] == ["third.md"]
    assert f"of-{name}".encode() not in log.path.read_bytes()
    assert log.verify() == []


@pytest.mark.parametrize("question", ['is the "salary" in O\'Neil contract?', "what of o'neil\u00a0 CONTRACT\n?"])
def test_a_title_in_a_question_is_found_however_it_is_written(tmp_path: Path, question: str) -> None:
    log = AuditLog.open(tmp_path / "audit.db")
    log.write(record(question, ("other.md", 1, True), ("n.md", 2, False), cited="other.md"))
    assert log.erase({"n.md"}, {"O'Neil contract"}) == (1, 0)


def test_erasing_again_and_another_document(log: AuditLog) -> None:
    log.erase({"jones.md"}, {"Jones"})
    assert log.erase({"jones.md"}, {"Jones"}) == (0, 0)
    assert log.erase({"other.md"}, set()) == (1, 0)  # a record that was shortened before
    assert log.verify() == []
    assert b"other.md" not in log.path.read_bytes()
    log.write(record("after", ("third.md", 1, True)))
    assert log.verify() == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE record SET record = :body, kind = 'erased' WHERE seq = 3",  # never erased
        "UPDATE record SET record = :body WHERE seq = 1",  # erased, and changed again
        "UPDATE record SET record = :body WHERE seq = 5",  # the note itself
        "UPDATE record SET kind = 'answer' WHERE seq = 1",
        "DELETE FROM record WHERE seq = 5",
    ],
)
def test_an_erasure_cannot_be_feigned(log: AuditLog, change: str) -> None:
    log.erase({"jones.md"}, {"Jones"})
    head = log.head()
    assert log.verify(head) == []
    with sqlite3.connect(log.path) as db:
        body = json.dumps({"status": "erased"}).encode()
        db.execute("DROP TRIGGER record_never_changes")
        db.execute("DROP TRIGGER record_never_goes")
        db.execute(change, {"body": body} if ":body" in change else {})
    db.close()
    assert log.verify(head) != []


def test_only_erasing_may_change_a_record(log: AuditLog) -> None:
    with sqlite3.connect(log.path) as db, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        db.execute("UPDATE record SET record = x'00' WHERE seq = 1")
    with sqlite3.connect(log.path) as db, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        db.execute("UPDATE record SET kind = 'erased', leaf = 'x' WHERE seq = 1")
    db.close()
    with pytest.raises(RecordError, match="damaged"):
        feigned(log)


def feigned(log: AuditLog) -> object:
    with sqlite3.connect(log.path) as db:
        db.execute("UPDATE record SET record = x'00', kind = 'erased' WHERE seq = 3")
    db.close()
    return log.show(log.list()[1]["id"])


def test_a_flipped_byte_in_a_name_of_the_schema_is_an_error_of_ours(log: AuditLog) -> None:
    data = log.path.read_bytes()
    at = data.index(b"TABLE record")
    log.path.write_bytes(data[: at + 8] + b"\xc6" + data[at + 9 :])
    assert any("cannot be used" in problem for problem in log.verify())
