"""The data layer: what receipts promise, what searches find, and what is left after things go wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hash_encoder import HashEncoder
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from factform.errors import NotFound, SettingsError, StoreBusy, StoreError
from factform.facts import blobs, sandbox
from factform.facts.batches import BATCH_DOCUMENTS
from factform.facts.embed import Vectors
from factform.facts.index import Index
from factform.facts.rows import LAYOUT, Row
from factform.facts.store import DataLayer
from factform.facts.writer import Writer
from factform.ids import sha256, version_id
from factform.records import Scope, Source


def text(document: str, body: str, **more: Any) -> Source:
    return Source(document, body.encode(), f"{document}.txt", **more)


@pytest.fixture
def layer(tmp_path: Path) -> Iterator[DataLayer]:
    with DataLayer.open(tmp_path / "state", HashEncoder(), wait_s=0.1) as opened:
        yield opened


def found(layer: DataLayer, question: str, **more: Any) -> list[str]:
    return [hit.chunk.document for hit in layer.search(question, **more).hits]


def bodies(layer: DataLayer) -> dict[str, str]:
    """What the index holds, document by document, straight from its rows."""
    held: dict[str, list[tuple[int, str]]] = {}
    for record in layer._current.get().rows():
        held.setdefault(record["document"], []).append((record["start"], record["text"]))
    return {document: "\n".join(part for _, part in sorted(parts)) for document, parts in held.items()}


# --- receipts -------------------------------------------------------------------------------


def test_receipts_tell_what_happened(layer: DataLayer) -> None:
    (created,) = layer.add([text("a", "The zebra farm opened.")])
    data = b"The zebra farm opened."
    assert (created.document, created.version, created.sha256) == ("a", version_id(data), sha256(data))
    assert (created.status, created.chunks, created.error) == ("created", 1, None)
    assert created.visible_ms is not None
    assert created.visible_ms > 0
    (same,) = layer.add([text("a", "The zebra farm opened.")])
    assert (same.status, same.version, same.chunks, same.visible_ms) == ("unchanged", created.version, 1, None)
    (updated,) = layer.add([text("a", "The zebra farm closed.")])
    assert updated.status == "updated"
    assert updated.version != created.version
    (removed,) = layer.remove(["a"])
    assert (removed.status, removed.version) == ("removed", updated.version)
    (missing,) = layer.remove(["a"])
    assert missing.status == "failed"
    assert "no document 'a'" in (missing.error or "")
    (again,) = layer.add([text("a", "The zebra farm closed.")])
    assert again.status == "created"


@pytest.mark.parametrize(
    "change", [{"title": "T"}, {"metadata": {"year": 2026}}, {"access": ("staff",)}, {"media_type": "markdown"}]
)
def test_unchanged_means_title_metadata_and_access_too(layer: DataLayer, change: dict[str, Any]) -> None:
    layer.add([text("a", "The zebra farm.")])
    assert [r.status for r in layer.add([text("a", "The zebra farm.", **change)])] == ["updated"]
    assert [r.status for r in layer.add([text("a", "The zebra farm.", **change)])] == ["unchanged"]
    assert layer.status()["chunks"] == 1


def test_unchanged_writes_nothing(layer: DataLayer) -> None:
    layer.add([text("a", "The zebra farm.")])
    before = {path: path.stat().st_mtime_ns for path in layer.folder.rglob("*") if path.is_file()}
    layer.add([text("a", "The zebra farm.")])
    assert {path: path.stat().st_mtime_ns for path in layer.folder.rglob("*") if path.is_file()} == before


def test_one_bad_document_fails_alone(layer: DataLayer) -> None:
    sources = [
        text("a", "apple"),
        Source("empty", b"", "empty.txt"),
        Source("binary", b"\x00\x01\x02\xff" * 50, "binary.txt"),
        Source("pdf", b"%PDF-1.7 broken", "broken.pdf"),
        Source("", b"text", "noid.txt"),
        Source("bad\ud800id", b"text", "x.txt"),
        Source("odd", b"text", "x.txt", metadata={"when": float("nan")}),
        text("b", "banana"),
    ]
    receipts = layer.add(sources)
    assert [r.document for r in receipts] == [s.document for s in sources]
    assert [r.status for r in receipts] == ["created", *["failed"] * 6, "created"]
    assert all(r.error and r.chunks == 0 and r.visible_ms is None for r in receipts[1:-1])
    assert sorted(bodies(layer)) == ["a", "b"]
    assert layer.status()["failed"] == 3  # those with an id a ledger can hold
    assert layer.status()["pending"] == 0


def test_a_parser_that_breaks_costs_its_document_only(layer: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sandbox.parse

    def breaking(source: Source, *, max_bytes: int) -> Any:
        if source.document == "odd":
            raise RecursionError("too deep")
        return real(source, max_bytes=max_bytes)

    monkeypatch.setattr(sandbox, "parse", breaking)
    receipts = layer.add([text("odd", "x"), text("a", "apple")])
    assert [r.status for r in receipts] == ["failed", "created"]
    assert "RecursionError" in (receipts[0].error or "")


def test_a_failed_update_leaves_the_older_version(layer: DataLayer) -> None:
    layer.add([text("a", "The zebra farm opened.")])
    (failed,) = layer.add([Source("a", b"", "a.txt")])
    assert failed.status == "failed"
    assert found(layer, "zebra") == ["a"]
    assert [d.document for d in layer.documents()] == ["a"]
    assert [r.status for r in layer.add([text("a", "The zebra farm opened.")])] == ["unchanged"]


def test_the_same_document_twice_in_one_call(layer: DataLayer) -> None:
    receipts = layer.add([text("a", "first"), text("b", "other"), text("a", "second"), text("a", "second")])
    assert [r.status for r in receipts] == ["created", "created", "updated", "unchanged"]
    assert bodies(layer) == {"a": "second", "b": "other"}


def test_progress_counts_every_document(layer: DataLayer) -> None:
    seen: list[tuple[int, int, str]] = []
    sources = [text(f"d{i:02}", f"body {i}") for i in range(40)]
    layer.add(sources, progress=lambda done, total, document: seen.append((done, total, document)))
    assert seen == [(i + 1, 40, f"d{i:02}") for i in range(40)]
    layer.add(iter([text("x", "y")]), progress=lambda done, total, document: seen.append((done, total, document)))
    assert seen[-1] == (1, 0, "x")
    assert layer.status()["documents"] == 41


# --- searching ------------------------------------------------------------------------------


def test_old_text_is_gone_and_new_text_found(layer: DataLayer) -> None:
    layer.add([text("a", "The zebra farm."), text("b", "A quiet harbour.")])
    assert found(layer, "zebra")[0] == "a"
    layer.add([text("a", "The giraffe farm.")])
    assert all("zebra" not in hit.chunk.text for hit in layer.search("zebra", k=50).hits)
    assert layer.search("giraffe").hits[0].chunk.text == "The giraffe farm."
    layer.remove(["a"])
    assert found(layer, "giraffe farm", k=50) == ["b"]


def test_hits_carry_ranks_scores_and_times(layer: DataLayer) -> None:
    layer.add([text(f"d{i}", f"zebra number {i}") for i in range(5)])
    result = layer.search("zebra number 3", k=3)
    assert [hit.rank for hit in result.hits] == [1, 2, 3]
    assert result.hits[0].chunk.document == "d3"
    assert set(result.hits[0].scores) == {"bm25", "dense", "fused", "maxsim"}
    assert [hit.score for hit in result.hits] == sorted((hit.score for hit in result.hits), reverse=True)
    assert set(layer.search("zebra", rerank=False).hits[0].scores) == {"bm25", "dense", "fused"}
    assert set(result.ms) == {"embed", "search", "rerank", "total"}
    assert sum(result.ms.values()) == pytest.approx(2 * result.ms["total"])
    assert len(layer.search("zebra", k=100).hits) == 5


def test_identical_documents_rank_by_id(layer: DataLayer) -> None:
    layer.add([text(f"d{i}", "the very same words", title="T") for i in range(8)])
    ids = [hit.chunk.id for hit in layer.search("same words", k=8).hits]
    assert ids == sorted(ids)


def test_access_labels(layer: DataLayer) -> None:
    layer.add([text("open", "zebra price"), text("hr", "zebra salary", access=("hr", "board"))])
    assert sorted(found(layer, "zebra")) == ["hr", "open"]
    assert found(layer, "zebra salary", scope=Scope(())) == ["open"]
    assert found(layer, "zebra salary", scope=Scope(("sales",))) == ["open"]
    assert found(layer, "zebra salary", scope=Scope(("board",)))[0] == "hr"
    layer.add([text("hr", "zebra salary", access=("board",))])
    assert found(layer, "zebra salary", scope=Scope(("hr",))) == ["open"]


@pytest.mark.parametrize("question", ["", " ", "?!", "\ud800", "zebra AND (", "\x00", "a" * 5000])
def test_odd_questions(layer: DataLayer, question: str) -> None:
    assert layer.search(question).hits == ()
    layer.add([text("a", "zebra")])
    assert found(layer, question) == ["a"]


def test_an_empty_layer(layer: DataLayer) -> None:
    assert layer.search("anything").hits == ()
    assert layer.documents() == []
    assert layer.add([]) == []
    assert layer.remove([]) == []
    status = layer.status()
    assert (status["documents"], status["chunks"], status["consistent"]) == (0, 0, True)


# --- the truth ------------------------------------------------------------------------------

LONG = "\n\n".join(f"Paragraph {i} says that value {i} is {i * 7} euros, no more and no less." for i in range(40))


def test_spans_are_checked_against_stored_bytes(layer: DataLayer) -> None:
    layer.add([text("a", LONG.replace("\n", "\r\n"))])  # so that original and canonical text are two blobs
    chunk = layer.search("value 17 is 119 euros", k=1).hits[0].chunk
    assert layer.text_of("a", chunk.version)[chunk.start : chunk.end] == chunk.text
    quote = "value 17 is 119 euros"
    start = chunk.start + chunk.text.index(quote)

    def verify(**change: Any) -> bool:
        given = {
            "document": "a",
            "version": chunk.version,
            "start": start,
            "end": start + len(quote),
            "quote": quote,
            "chunk_sha256": chunk.sha256,
            "chunk_start": chunk.start,
            "chunk_end": chunk.end,
        }
        return layer.verify_span(**{**given, **change})

    assert verify()
    changes: list[dict[str, Any]] = [
        {"quote": "value 17 is 120 euros"},
        {"start": start + 1},
        {"document": "b"},
        {"version": "0" * 16},
        {"chunk_sha256": "0" * 64},
        {"chunk_start": start + 1},
        {"chunk_end": chunk.end + 10_000},
        {"start": -5, "end": -1},
        {"start": start, "end": start, "quote": ""},
    ]
    assert not any(verify(**change) for change in changes)
    layer.add([text("a", "Something else.")])
    assert verify()  # an old citation stays checkable
    layer.remove(["a"])
    assert verify()
    row = layer.history("a")[0]
    assert row.sha256 != row.text_sha256
    for digest in (row.sha256, row.text_sha256 or ""):
        path = blobs.blob_path(layer.folder / "blobs", digest)
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + b"!")
        assert not verify()
        path.write_bytes(whole)
    assert verify()


def test_text_of_an_unknown_version(layer: DataLayer) -> None:
    with pytest.raises(NotFound, match="no version 'x' of document 'a'"):
        layer.text_of("a", "x")


def test_rebuild_gives_the_same_index(layer: DataLayer) -> None:
    layer.add([text(f"d{i}", LONG.replace("value", f"value{i}"), title=f"T{i}", access=("x",)) for i in range(4)])
    layer.add([text("d1", "changed"), Source("bad", b"", "bad.txt")])
    layer.remove(["d2"])
    before = sorted(layer._current.get().rows(), key=lambda record: record["id"])
    ranking = [hit.chunk.id for hit in layer.search("value3 17", k=5).hits]
    seen: list[tuple[int, int, str]] = []
    report = layer.rebuild(lambda *step: seen.append(step))
    after = sorted(layer._current.get().rows(), key=lambda record: record["id"])
    assert after == before
    assert [hit.chunk.id for hit in layer.search("value3 17", k=5).hits] == ranking
    assert (report["documents"], report["failed"], report["changed"]) == (3, [], [])
    assert report["chunks"] == len(after) == layer.status()["chunks"]
    assert seen == [(3, 3, "d3")]
    assert len(list((layer.folder / "index").glob("*.lance"))) == 1


def test_another_handle_follows_a_rebuild_and_sees_writes(layer: DataLayer) -> None:
    layer.add([text("a", "zebra")])
    with DataLayer.open(layer.folder, HashEncoder()) as other:
        assert found(other, "zebra") == ["a"]
        layer.rebuild()
        assert found(other, "zebra") == ["a"]
        layer.add([text("a", "giraffe")])
        assert other.search("giraffe").hits[0].chunk.text == "giraffe"
        other.add([text("b", "rhino")])
        layer.remove(["a"])
        assert found(other, "rhino") == found(layer, "rhino") == ["b"]


def test_a_rebuild_in_the_middle_of_a_search(layer: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    layer.add([text("a", "zebra")])
    with DataLayer.open(layer.folder, HashEncoder()) as other:
        real, names = Index.candidates, []

        def rebuilt_meanwhile(self: Index, *given: Any, **more: Any) -> Any:
            names.append(self.name)
            if len(names) == 1:
                layer.rebuild()
            return real(self, *given, **more)

        monkeypatch.setattr(Index, "candidates", rebuilt_meanwhile)
        assert found(other, "zebra") == ["a"]
        assert names == ["chunks_1", "chunks_2"]


def test_a_rebuild_says_which_documents_it_lost(layer: DataLayer) -> None:
    layer.add([text("a", "zebra"), text("b", "giraffe")])
    blobs.blob_path(layer.folder / "blobs", sha256(b"zebra")).write_bytes(b"zebrA")
    report = layer.rebuild()
    assert [item["document"] for item in report["failed"]] == ["a"]
    assert "damaged" in report["failed"][0]["error"]
    assert not layer.status()["consistent"]
    layer.add([text("c", "zebra")])  # the same bytes again mend the blob
    assert layer.rebuild()["failed"] == []
    assert layer.status()["consistent"]


def test_another_embedder_or_chunk_size_is_refused_until_rebuilt(layer: DataLayer) -> None:
    layer.add([text("a", LONG)])
    other = HashEncoder("hash-2")
    for encoder, tokens in [(other, 160), (HashEncoder(), 40)]:
        with pytest.raises(SettingsError, match="factform index rebuild"):
            DataLayer.open(layer.folder, encoder, chunk_tokens=tokens)
    with DataLayer.open(layer.folder, other, chunk_tokens=40, for_rebuild=True) as opened:
        opened.rebuild()
        assert opened.status()["consistent"]
    with pytest.raises(SettingsError, match="factform index rebuild"):
        layer.search("value")
    with pytest.raises(SettingsError, match="factform index rebuild"):
        layer.add([text("b", "x")])
    with DataLayer.open(layer.folder, other, chunk_tokens=40) as opened:
        assert opened.status()["chunks"] > 5


def test_an_index_of_another_layout_is_refused_until_rebuilt(layer: DataLayer) -> None:
    layer.add([text("a", "The zebra farm.")])
    settings = layer._ledger.get_meta("index_settings") or ""
    layer._current.get()._table.drop_columns(["pages"])  # what the first layout did not have
    layer._ledger.set_meta("index_settings", settings.replace(f'"layout":{LAYOUT}', '"layout":1'))
    layer.close()
    says = rf"layout 1, .* layout {LAYOUT}; run `factform index rebuild`"
    with pytest.raises(StoreError, match=says):
        DataLayer.open(layer.folder, HashEncoder())
    with DataLayer.open(layer.folder, HashEncoder(), for_rebuild=True) as opened:
        with pytest.raises(StoreError, match=says):
            opened.search("zebra")
        with pytest.raises(StoreError, match=says):
            opened.add([text("b", "bear")])
        assert opened.rebuild()["documents"] == 1
    with DataLayer.open(layer.folder, HashEncoder()) as opened:
        assert found(opened, "zebra") == ["a"]
        assert [r.status for r in opened.add([text("b", "bear")])] == ["created"]


# --- when things go wrong -------------------------------------------------------------------


def reopened(layer: DataLayer) -> DataLayer:
    layer.close()
    return DataLayer.open(layer.folder, HashEncoder(), wait_s=0.1)


@pytest.mark.parametrize("torn", [1, 2, 5])
def test_torn_manifests_are_moved_aside_and_what_they_held_is_caught_up(layer: DataLayer, torn: int) -> None:
    """The table goes on with what its older versions hold; nothing else is embedded again."""
    layer.add([text("a", "zebra"), text("c", "same bytes", access=("staff",)), text("d", "dog")])
    layer.add([text("b", "giraffe")])
    layer.add([text("c", "same bytes", access=("board",))])
    layer.remove(["d"])
    name = layer._current.get().name
    versions = sorted((layer.folder / "index").rglob("*.manifest"))  # newest first
    for path in versions[:torn]:
        path.write_bytes(path.read_bytes()[:20])
    with reopened(layer) as opened:
        assert bodies(opened) == {"a": "zebra", "b": "giraffe", "c": "same bytes"}
        assert found(opened, "same bytes", scope=Scope(("staff",))).count("c") == 0
        assert found(opened, "same bytes", scope=Scope(("board",))).count("c") == 1
        status = opened.status()
        assert status["consistent"]
        assert status["accounting"]["holds"]
        assert len(status["quarantine"]) == torn
        assert opened._current.get().name == name
        assert [r.status for r in opened.add([text("e", "emu")])] == ["created"]
        opened._current.get().check()


def test_a_table_without_a_whole_manifest_is_rebuilt_on_open(layer: DataLayer) -> None:
    layer.add([text("a", "zebra")])
    for path in (layer.folder / "index").rglob("*.manifest"):
        path.write_bytes(b"")
    with reopened(layer) as opened:
        assert bodies(opened) == {"a": "zebra"}
        assert opened.status()["consistent"]


def test_catching_up_puts_right_whatever_the_index_holds_otherwise(layer: DataLayer) -> None:
    layer.add([text("a", "zebra"), text("b", "bear"), text("c", "cat")])
    index = layer._current.get()
    rows = [Row(chunk, (), 99) for chunk in layer.chunks_of("a")]
    stray = [replace(row, chunk=replace(row.chunk, id="stray", document="stray")) for row in rows]
    index.append(stray, layer._encoder.encode(["zebra"]))
    index.append([Row(chunk, (), 2) for chunk in layer.chunks_of("a")], layer._encoder.encode(["zebra"]))  # another's
    index.delete(["b"])
    before = layer.status()["accounting"]
    assert (before["searchable"], before["strays"], before["holds"]) == (1, 1, False)
    assert layer._writer.catch_up() == {"removed": 1, "indexed": 2}
    assert bodies(layer) == {"a": "zebra", "b": "bear", "c": "cat"}
    assert layer.status()["accounting"] == {
        **dict.fromkeys(("pending", "failed", "removed", "strays"), 0),
        "accepted": 3,
        "searchable": 3,
        "holds": True,
    }
    assert layer._writer.catch_up() == {"removed": 0, "indexed": 0}


def test_a_removal_ends_what_waits_to_be_taken_in(layer: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    layer.add([text("a", "zebra")])

    def full(*_: object) -> None:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Index, "replace", full)
        with pytest.raises(StoreError, match="full"):
            layer.add([text("a", "giraffe"), text("b", "bear")])
        assert layer.status()["accounting"]["pending"] == 2
        assert [r.status for r in layer.remove(["a", "b"])] == ["removed", "removed"]
        assert found(layer, "zebra") == []
    layer.add([text("c", "cat")])
    assert bodies(layer) == {"c": "cat"}
    accounting = layer.status()["accounting"]
    assert (accounting["removed"], accounting["searchable"], accounting["holds"]) == (2, 1, True)


def test_a_missing_index_is_rebuilt_on_open(layer: DataLayer) -> None:
    layer.add([text("a", "zebra")])
    layer.close()
    shutil.rmtree(layer.folder / "index")
    with reopened(layer) as opened:
        assert found(opened, "zebra") == ["a"]


def test_a_flipped_byte_is_never_shown(layer: DataLayer) -> None:
    layer.add([text("a", "The zebra farm costs 1000 euros a year.")])
    flipped = 0
    for path in (layer.folder / "index").rglob("data/*.lance"):
        data = path.read_bytes()
        path.write_bytes(data.replace(b"costs 1000 euros", b"costs 9000 euros"))
        flipped += data != path.read_bytes()
    assert flipped
    with reopened(layer) as opened:
        with pytest.raises(StoreError, match="factform index rebuild"):
            opened.search("zebra farm")
        opened.rebuild()
        assert "1000" in opened.search("zebra farm").hits[0].chunk.text


def test_damage_after_a_broken_tidying_is_looked_for(layer: DataLayer) -> None:
    layer.add([text("a", "The zebra farm costs 1000 euros a year.")])
    layer.add([text("b", "The bear costs nothing.")])
    held = set((layer.folder / "index").rglob("data/*.lance"))
    layer._current.get().optimize()  # it writes the rows together, and the process dies before the fsync
    new = set((layer.folder / "index").rglob("data/*.lance")) - held
    assert new
    for path in new:
        path.write_bytes(path.read_bytes().replace(b"costs 1000 euros", b"costs 9000 euros"))
    with reopened(layer) as opened:
        opened._current.get().check()
        assert "1000" in opened.search("zebra farm").hits[0].chunk.text


class InterruptedEncoder(HashEncoder):
    """Ctrl-C arrives while texts are embedded."""

    armed = False

    def encode(self, texts: Sequence[str]) -> Vectors:
        if self.armed:
            raise KeyboardInterrupt
        return super().encode(texts)


def test_ctrl_c_while_embedding(tmp_path: Path) -> None:
    encoder = InterruptedEncoder()
    with DataLayer.open(tmp_path / "state", encoder, wait_s=0.1) as layer:
        layer.add([text("a", "zebra"), text("b", "bear")])
        encoder.armed = True
        with pytest.raises(KeyboardInterrupt):
            layer.add([text("a", "giraffe"), text("c", "cat")])
        encoder.armed = False
        assert bodies(layer) == {"a": "zebra", "b": "bear"}
        assert layer.status()["pending"] == 2
        layer.add([text("d", "dog")])  # the next writer finishes what was begun
        assert bodies(layer) == {"a": "giraffe", "b": "bear", "c": "cat", "d": "dog"}
        assert layer.status()["pending"] == 0
        assert layer.status()["consistent"]


def test_ctrl_c_between_documents(tmp_path: Path) -> None:
    with DataLayer.open(tmp_path / "state", HashEncoder(), wait_s=0.1) as layer:

        def sources() -> Iterator[Source]:
            for i in range(40):
                yield text(f"d{i}", f"body {i}")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            layer.add(sources())
        assert layer.status()["documents"] == BATCH_DOCUMENTS
        assert layer.status()["consistent"]
        receipts = layer.add([text(f"d{i}", f"body {i}") for i in range(40)])
        assert [r.status for r in receipts].count("unchanged") == BATCH_DOCUMENTS


def test_a_removed_document_is_hidden_before_the_index_knows(layer: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    layer.add([text("a", "zebra"), text("b", "bear")])

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "_remove_from_index", lambda self, documents: interrupted(documents))
        with pytest.raises(KeyboardInterrupt):
            layer.remove(["a"])
    assert sorted(bodies(layer)) == ["a", "b"]
    assert found(layer, "zebra") == ["b"]
    with reopened(layer) as opened:
        assert sorted(bodies(opened)) == ["b"]
        assert opened.status()["pending"] == 0


HOLD = """
import sys
from pathlib import Path
from factform.facts.ledger import WriterLock
with WriterLock(Path(sys.argv[1]), 1.0).held():
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_reading_works_while_another_process_writes(layer: DataLayer) -> None:
    layer.add([text("a", "zebra")])
    lock = str(layer.folder / "writer.lock")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StoreBusy, match="another process is writing"):
            layer.add([text("b", "bear")])
        assert found(layer, "zebra") == ["a"]
        with DataLayer.open(layer.folder, HashEncoder(), wait_s=0.1) as reader:
            assert found(reader, "zebra") == ["a"]
        other.kill()
    assert [r.status for r in layer.add([text("b", "bear")])] == ["created"]


def test_use_after_close_is_a_clear_error(layer: DataLayer) -> None:
    layer.close()
    with pytest.raises(StoreError, match="ledger"):
        layer.search("x")


# --- any sequence of calls against a dictionary ---------------------------------------------

IDS = st.sampled_from(["a", "b", "c's", 'd"é', "e/f.txt"])
BODIES = st.lists(st.sampled_from(["zebra", "giraffe", "bear", "1,480 euros", "Ω"]), max_size=4).map(" ".join)
ACCESS = st.sampled_from([(), ("staff",), ("board", "staff")])


class Sequences(RuleBasedStateMachine):
    """The data layer holds what a dictionary would, whatever was called before."""

    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, tuple[str, tuple[str, ...]]] = {}
        self.layer = DataLayer.open(self.fresh(), HashEncoder(), chunk_tokens=2)

    @staticmethod
    def fresh() -> Path:
        return Path(tempfile.mkdtemp(dir=Sequences.folder)) / "state"

    @rule(batch=st.lists(st.tuples(IDS, BODIES, ACCESS), min_size=1, max_size=4))
    def add(self, batch: list[tuple[str, str, tuple[str, ...]]]) -> None:
        expected = []
        for document, body, access in batch:
            if not body:
                expected.append("failed")
            elif document not in self.held:
                expected.append("created")
            else:
                expected.append("unchanged" if self.held[document] == (body, access) else "updated")
            if body:
                self.held[document] = (body, access)
        receipts = self.layer.add([text(document, body, access=access) for document, body, access in batch])
        assert [receipt.status for receipt in receipts] == expected

    @rule(documents=st.lists(IDS, max_size=2, unique=True))
    def remove(self, documents: list[str]) -> None:
        receipts = self.layer.remove(documents)
        assert sorted(r.document for r in receipts if r.status == "removed") == sorted(set(documents) & set(self.held))
        for document in documents:
            self.held.pop(document, None)

    @precondition(lambda self: self.held)
    @rule()
    def rebuild(self) -> None:
        self.layer.rebuild()

    @rule()
    def reopen(self) -> None:
        self.layer.close()
        self.layer = DataLayer.open(self.layer.folder, HashEncoder(), chunk_tokens=2)

    @invariant()
    def same_as_the_dictionary(self) -> None:
        squeezed = {document: " ".join(body.split()) for document, body in bodies(self.layer).items()}
        assert squeezed == {document: body for document, (body, _) in self.held.items()}
        assert self.layer.status()["consistent"]
        assert {d.document: d.access for d in self.layer.documents()} == {d: a for d, (_, a) in self.held.items()}
        for allowed in (frozenset[str](), frozenset({"board"})):
            visible = {d for d, (_, access) in self.held.items() if not access or allowed & set(access)}
            assert set(found(self.layer, "zebra bear", k=100, scope=Scope(tuple(allowed)))) == visible

    def teardown(self) -> None:
        self.layer.close()


def test_any_sequence(tmp_path: Path) -> None:
    Sequences.folder = tmp_path
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Sequences,
        settings=settings(
            max_examples=5, stateful_step_count=6, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
