"""The audit log: on disk before the id is returned, and no stored byte changes unseen."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factform.audit import AnswerRecord, AuditLog
from factform.audit.record import (
    DROPPED,
    candidates,
    generation_facts,
    prompt_digest,
    prompt_parts,
    search_facts,
    versions,
)
from factform.audit.recordid import LENGTH, RANDOM_BITS, decode, encode, next_id
from factform.errors import RecordError, StoreBusy
from factform.ids import sha256_text
from factform.records import Chunk, Citation, Generation, Hit, Passage, Prompt, SearchResult

CHUNK = Chunk("c1", "lease-7", "v1", 0, 21, "The rent is 1,480 €.", "ab", "Lease")


def record(question: str = "What is the rent?", **changes: object) -> AnswerRecord:
    base = AnswerRecord(
        question=question,
        status="answered",
        reason="",
        answer={"answer": "1,480 €", "source": "lease-7"},
        model="m" * 64,
        adapter=None,
        behavior="plain",
        mode="exact",
        prompt_sha256="p" * 64,
        prompt={"header_sha256": "h", "passages": [{"label": "1", "chunk": "c1"}], "tail_sha256": "t"},
        output='{"answer":"1,480 €","source":"1"}',
        generation={"completion_tokens": 9, "stop": "end", "interventions": 0},
        ms={"total": 12.5},
        candidates=candidates([Hit(1, CHUNK, 0.9, {"dense": 0.8}, True, "within budget")]),
        documents=({"document": "lease-7", "version": "v1", "sha256": "d" * 64},),
        citations=(Citation("lease-7", "v1", None, 12, 19, "1,480 €", True),),
        principal="clerk",
    )
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return AuditLog.open(tmp_path / "project" / "audit.db")


def test_what_was_written_is_what_is_shown(log: AuditLog) -> None:
    record_id = log.write(record())
    shown = log.show(record_id)
    assert shown["id"] == record_id
    assert shown["question"] == "What is the rent?"
    assert shown["answer"] == {"answer": "1,480 €", "source": "lease-7"}
    assert shown["candidates"][0]["reason"] == "within budget"
    assert shown["candidates"][0]["scores"] == {"dense": 0.8}
    assert shown["citations"][0]["verified"] is True
    assert shown["versions"]["packages"]["numpy"]
    assert shown["chain"]["sequence"] == 1
    assert "text" not in shown["candidates"][0]
    json.dumps(shown)


def test_a_question_with_a_lone_surrogate_is_recorded(log: AuditLog) -> None:
    assert log.show(log.write(record("caf\udce9?")))["question"] == "caf\udce9?"
    assert log.verify() == []


def test_what_is_not_json_is_refused_and_leaves_no_row(log: AuditLog) -> None:
    with pytest.raises(RecordError, match="must not be released"):
        log.write(record(ms={"total": float("nan")}))
    assert log.list() == []


def test_list_pages_backwards(log: AuditLog) -> None:
    ids = [log.write(record(f"question {n}")) for n in range(7)]
    assert ids == sorted(ids)
    first = log.list(3)
    assert [row["question"] for row in first] == ["question 6", "question 5", "question 4"]
    assert [row["id"] for row in log.list(10, before=first[-1]["id"])] == ids[3::-1]
    assert first[0]["documents"] == ["lease-7"]
    with pytest.raises(RecordError, match="limit is 0"):
        log.list(0)


def test_show_takes_a_prefix_and_refuses_unknown_and_ambiguous(log: AuditLog) -> None:
    first, second = log.write(record()), log.write(record())
    assert log.show(second[:-1].lower() if first[:-1] != second[:-1] else second)["id"] == second
    with pytest.raises(RecordError, match="'nothing-like-it'"):
        log.show("nothing-like-it")
    with pytest.raises(RecordError, match="ambiguous"):
        log.show(first[:2])
    with pytest.raises(RecordError, match="no audit record ''"):
        log.show("")


# --- durability -----------------------------------------------------------------------------

WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_record import record
from factform.audit import AuditLog
log = AuditLog.open(sys.argv[2])
for n in range(int(sys.argv[3])):
    print(log.write(record(f"{sys.argv[4]} {n}")), flush=True)
sys.stdin.read()
"""


def writer(path: Path, count: int, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(Path(__file__).parent), str(path), str(count), name]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_record_whose_id_was_seen_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    with writer(path, 1_000_000, "killed") as process:
        assert process.stdout is not None
        seen = [process.stdout.readline().strip() for _ in range(3)]
        process.send_signal(signal.SIGKILL)
        seen += [line for line in process.stdout.read().split("\n") if len(line) == LENGTH]
    log = AuditLog.open(path)
    assert len(seen) >= 3
    for record_id in seen:
        assert log.show(record_id)["id"] == record_id
    assert log.verify() == []


def test_the_row_is_committed_before_the_id_is_returned(log: AuditLog) -> None:
    """Another connection sees it at once, with the journal gone: nothing is left to roll back."""
    record_id = log.write(record())
    with sqlite3.connect(f"file:{log.path}?mode=ro", uri=True) as other:
        assert other.execute("SELECT id FROM record").fetchone() == (record_id,)
    other.close()
    assert not log.path.with_name("audit.db-journal").exists()
    with log._connection() as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (3,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_two_processes_append_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    with writer(path, 50, "left") as left, writer(path, 50, "right") as right:
        outputs = [process.communicate("")[0].split() for process in (left, right)]
    log = AuditLog.open(path)
    rows = log.list(1000)
    assert sorted(row["id"] for row in rows) == sorted(outputs[0] + outputs[1])
    assert len(rows) == 100
    assert [row["id"] for row in rows] == sorted((row["id"] for row in rows), reverse=True)
    assert log.verify() == []


def test_threads_share_a_log(log: AuditLog) -> None:
    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda n: log.write(record(f"q{n}")), range(20)))
    assert len(set(ids)) == 20
    assert log.verify() == []


def test_a_writer_that_never_lets_go_is_reported(tmp_path: Path) -> None:
    log = AuditLog.open(tmp_path / "audit.db", busy_seconds=0.05)
    holder = sqlite3.connect(log.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy, match="another process is writing"):
        log.write(record())
    holder.close()
    assert log.write(record())


# --- tampering ------------------------------------------------------------------------------


def tamper(log: AuditLog, statement: str, values: tuple[object, ...] = ()) -> None:
    """What someone with the file and the sqlite3 shell can do: the triggers do not stop them."""
    db = sqlite3.connect(log.path, isolation_level=None)
    db.execute("DROP TRIGGER IF EXISTS record_never_changes")
    db.execute("DROP TRIGGER IF EXISTS record_never_goes")
    db.execute(statement, values)
    db.close()


def test_rows_cannot_be_changed_by_mistake(log: AuditLog) -> None:
    log.write(record())
    db = sqlite3.connect(log.path)
    for statement in ("UPDATE record SET record = 'x'", "DELETE FROM record"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            db.execute(statement)
    db.close()


def test_every_byte_of_a_record_is_guarded(log: AuditLog) -> None:
    """Flip each byte of the stored record in the file itself, under the database's feet."""
    log.write(record())
    log.write(record("the next one"))
    with log._reading() as db:
        (stored,) = db.execute("SELECT record FROM record WHERE seq = 1").fetchone()
    original = log.path.read_bytes()
    start = original.index(stored)
    assert log.verify() == []
    for offset in range(start, start + len(stored)):
        damaged = bytearray(original)
        damaged[offset] ^= 0x01
        log.path.write_bytes(damaged)
        assert log.verify(), f"byte {offset - start} of the record changed unseen"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", "01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        ("time", "2001-01-01T00:00:00.000Z"),
        ("record", b"{}"),
        ("record", "text"),
        ("leaf", "0" * 64),
        ("previous", "0" * 64),
        ("link", "0" * 64),
        ("seq", 9),
    ],
)
def test_every_column_is_guarded(log: AuditLog, column: str, value: object) -> None:
    for n in range(3):
        log.write(record(f"q{n}"))
    tamper(log, f"UPDATE record SET {column} = ? WHERE seq = 2", (value,))
    assert log.verify()


def test_the_last_link_is_guarded_though_nothing_follows_it(log: AuditLog) -> None:
    record_id = log.write(record())
    tamper(log, "UPDATE record SET link = ?", ("0" * 64,))
    assert log.verify() == [f"record 1 ({record_id}): its link is not the hash of its record and the link before"]
    with pytest.raises(RecordError, match="damaged"):
        log.show(record_id)


def test_a_forged_record_with_its_own_hashes_put_right_breaks_the_chain(log: AuditLog) -> None:
    """Recomputing one row's hashes is not enough: every later link would have to follow."""
    ids = [log.write(record(f"q{n}")) for n in range(3)]
    shown = log.show(ids[1])
    chain = shown.pop("chain")
    from factform.audit.log import _encode, _link
    from factform.ids import sha256

    forged = _encode({**shown, "question": "something else"})
    leaf = sha256(forged)
    values = (forged, leaf, _link(chain["previous"], leaf))
    tamper(log, "UPDATE record SET record = ?, leaf = ?, link = ? WHERE seq = 2", values)
    assert any("record 3" in problem and "does not follow" in problem for problem in log.verify())


def test_a_record_taken_out_is_missed(log: AuditLog) -> None:
    for n in range(4):
        log.write(record(f"q{n}"))
    tamper(log, "DELETE FROM record WHERE seq = 2")
    assert any("records 2 to 2: missing" in problem for problem in log.verify())


def test_the_end_cut_off_is_missed_and_provable_with_a_kept_head(log: AuditLog) -> None:
    for n in range(4):
        log.write(record(f"q{n}"))
    head = log.head()
    assert log.verify(head) == []
    tamper(log, "DELETE FROM record WHERE seq > 2")
    assert log.verify() == ["records 3 to 4: cut off the end"]
    tamper(log, "UPDATE sqlite_sequence SET seq = 2")
    assert log.verify() == []
    assert log.verify(head) == ["records 3 to 4: cut off the end"]


def test_a_rewritten_history_does_not_match_a_kept_head(log: AuditLog, tmp_path: Path) -> None:
    log.write(record("true"))
    other = AuditLog.open(tmp_path / "other.db")
    other.write(record("false"))
    assert other.verify() == []
    assert any("kept elsewhere" in problem for problem in other.verify(log.head()))


def test_a_damaged_record_is_not_shown_but_listed_as_damaged(log: AuditLog) -> None:
    record_id = log.write(record())
    tamper(log, "UPDATE record SET record = CAST(replace(CAST(record AS TEXT), 'rent', 'loan') AS BLOB)")
    with pytest.raises(RecordError, match=rf"{record_id} is damaged"):
        log.show(record_id)
    assert log.list()[0]["status"] == "damaged"


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "audit.db"
    path.write_bytes(b"not a database, but long enough to be read as a header by anything that tries" * 20)
    with pytest.raises(RecordError, match="cannot be used"):
        AuditLog.open(path)


def test_a_log_of_a_newer_factform_is_left_alone(log: AuditLog) -> None:
    tamper(log, "PRAGMA user_version = 999")
    with pytest.raises(RecordError, match="newer factform"):
        AuditLog.open(log.path)


# --- parts ----------------------------------------------------------------------------------


@given(st.integers(0, 2**128 - 1), st.integers(0, 2**128 - 1))
def test_ids_sort_as_their_numbers(a: int, b: int) -> None:
    assert decode(encode(a)) == a
    assert (encode(a) < encode(b)) == (a < b)


@given(st.lists(st.integers(0, 2**47), min_size=2, max_size=20))
def test_ids_sort_as_written_whatever_the_clock_does(clock: list[int]) -> None:
    ids: list[str] = []
    for moment in clock:
        ids.append(next_id(moment, ids[-1] if ids else None))
    assert ids == sorted(set(ids))
    assert decode(ids[0]) >> RANDOM_BITS == clock[0]


def test_the_prompt_is_recorded_by_its_parts() -> None:
    prompt = Prompt("head ", ("[1] ", CHUNK.text), "ask")
    passages = (Passage("1", CHUNK),)
    parts = prompt_parts(prompt, passages, keep_text=False)
    assert parts["passages"] == [{"label": "1", "chunk": "c1"}]
    assert "text" not in parts
    assert prompt_parts(prompt, passages, keep_text=True)["text"] == "head [1] The rent is 1,480 €.ask"
    assert prompt_digest(prompt) == sha256_text("head [1] The rent is 1,480 €.ask")
    assert prompt_digest(prompt) != prompt_digest(replace(prompt, tail="ask!"))


def test_generation_and_versions_are_plain_json() -> None:
    facts = generation_facts(Generation("{}", 10, 2, "end", None, {"total": 1.0}))
    assert facts["interventions"] is None
    assert facts["completion_tokens"] == 2
    assert set(versions()) == {"factform", "python", "packages"}
    json.dumps([facts, versions()])


def test_what_was_dropped_before_the_hits_is_told_briefly_and_bounded() -> None:
    dropped = tuple(
        Hit(i, CHUNK, 0.5, {"dense": 0.123456789}, False, f"place {i}", ranks={"dense": i}) for i in range(2 * DROPPED)
    )
    assert search_facts(SearchResult((), {})) == {}
    told = search_facts(SearchResult((), {}, dropped=dropped, ranking={"depth": 30}, notes=("no rerank",)))
    assert (told["ranking"], told["notes"], len(told["dropped"])) == ({"depth": 30}, ["no rerank"], DROPPED)
    assert told["dropped"][3] == {
        "chunk": CHUNK.id,
        "document": CHUNK.document,
        "rank": 3,
        "scores": {"dense": 0.12346},
        "ranks": {"dense": 3},
        "reason": "place 3",
    }
    assert len(json.dumps(told)) < 300 * DROPPED
