"""What a search sees: labels, filters, past moments, all of it decided before anything is ranked."""

from __future__ import annotations

import multiprocessing
import random
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hash_encoder import HashEncoder

from factform.errors import NotFound, QueryError
from factform.facts.asof import past_folder
from factform.facts.store import DataLayer
from factform.records import OWNER, Scope, Source


class Counting(HashEncoder):
    """Counts the texts it was given to embed."""

    def __init__(self) -> None:
        super().__init__()
        self.embedded = 0

    def encode(self, texts: Any) -> Any:
        self.embedded += len(texts)
        return super().encode(texts)

    def encode_both(self, texts: Any) -> Any:
        self.embedded += len(texts)
        return super().encode_both(texts)


def text(document: str, body: str, **more: Any) -> Source:
    return Source(document, body.encode(), f"{document}.txt", **more)


@pytest.fixture
def encoder() -> Counting:
    return Counting()


@pytest.fixture
def layer(tmp_path: Path, encoder: Counting) -> Iterator[DataLayer]:
    with DataLayer.open(tmp_path / "state", encoder, wait_s=0.1) as opened:
        yield opened


def found(layer: DataLayer, question: str, scope: Scope = OWNER, k: int = 10) -> list[str]:
    return [hit.chunk.document for hit in layer.search(question, scope=scope, k=k).hits]


def bodies(layer: DataLayer, question: str, scope: Scope) -> dict[str, str]:
    return {hit.chunk.document: hit.chunk.text for hit in layer.search(question, scope=scope, k=50).hits}


# --- filters --------------------------------------------------------------------------------


def test_a_filter_decides_before_ranking(layer: DataLayer) -> None:
    layer.add([text(f"far{i}", "zebra zebra farm", metadata={"year": 2020}) for i in range(60)])
    layer.add([text("near", "a lonely zebra among giraffes and bears", metadata={"year": 2025, "dept": "tax"})])
    assert found(layer, "zebra farm", Scope(where="year >= 2025")) == ["near"]
    assert found(layer, "zebra farm", Scope(where="year > 2025")) == []
    assert len(found(layer, "zebra farm", Scope(where="not dept = 'tax'"), k=100)) == 60


def test_a_filter_follows_every_change(layer: DataLayer) -> None:
    scope = Scope(where="state = 'final'")
    layer.add([text("a", "zebra", metadata={"state": "final"}), text("b", "zebra", metadata={"state": "draft"})])
    assert found(layer, "zebra", scope) == ["a"]
    layer.add([text("b", "zebra", metadata={"state": "final"})])
    assert sorted(found(layer, "zebra", scope)) == ["a", "b"]
    layer.remove(["a"])
    assert found(layer, "zebra", scope) == ["b"]
    layer.add([text("b", "zebra", metadata={"state": "draft"}), text("c", "zebra", metadata={"state": "final"})])
    assert found(layer, "zebra", scope) == ["c"]


def test_notes_tell_what_cannot_have_been_meant(layer: DataLayer) -> None:
    layer.add([text("a", "zebra", metadata={"year": 2025}), text("s", "zebra", metadata={"salary": 1}, access=("hr",))])

    def notes(where: str, *labels: str) -> tuple[str, ...]:
        return layer.search("zebra", scope=Scope(labels or None, where)).notes

    assert notes("year = 2025 or exists year") == ()
    assert notes("year = '2025'") == ("year is never text but a number: no document matches that",)
    assert notes("yeer = 2025") == ("no document has a value for yeer: the filter never matches it",)
    assert notes("salary = 1") == ()
    # Which keys other people's documents have is none of this reader's business.
    assert notes("salary = 1", "tax") == ("no document has a value for salary: the filter never matches it",)
    layer.add([text("b", "zebra", metadata={"year": "2025"})])
    assert notes("year = '2025'") == ()


def test_a_filter_that_cannot_be_read_is_refused(layer: DataLayer) -> None:
    with pytest.raises(QueryError, match="column 8"):
        layer.search("zebra", scope=Scope(where="year = "))


# --- access ---------------------------------------------------------------------------------

ODD = ["it's", 'say "hi"', "a,b", "') OR ('1'='1", "ä\n", "%", "\\", "[x]", "--"]


@pytest.mark.parametrize("label", ODD)
def test_odd_labels_are_labels(layer: DataLayer, label: str) -> None:
    layer.add([text("open", "zebra"), text("mine", "zebra", access=(label,)), text("other", "zebra", access=("x",))])
    assert sorted(found(layer, "zebra", Scope((label,)))) == ["mine", "open"]
    assert found(layer, "zebra", Scope(("'",))) == ["open"]
    assert sorted(found(layer, "zebra", Scope((label,), where="not exists nothing"))) == ["mine", "open"]


def test_new_labels_and_metadata_embed_nothing_and_are_in_force_at_once(layer: DataLayer, encoder: Counting) -> None:
    layer.add([text("a", "zebra " * 400, metadata={"n": 1}), text("b", "bear")])
    before, chunks = encoder.embedded, layer.chunks_of("a")
    (receipt,) = layer.add([text("a", "zebra " * 400, metadata={"n": 1}, access=("hr",))])
    assert (receipt.status, receipt.chunks, encoder.embedded) == ("updated", len(chunks), before)
    assert found(layer, "zebra", Scope(("tax",))) == ["b"]
    assert set(found(layer, "zebra", Scope(("hr",)))) == {"a", "b"}
    (again,) = layer.add([text("a", "zebra " * 400, metadata={"n": 2}, access=("hr",))])
    assert (again.status, encoder.embedded) == ("updated", before)
    assert set(found(layer, "zebra", Scope(where="n = 2"))) == {"a"}
    assert (layer.chunks_of("a"), layer.status()["consistent"]) == (chunks, True)
    assert [row.status for row in layer.history("a")] == ["superseded", "superseded", "indexed"]


def _search_as(folder: str, label: str, asked: Any) -> None:
    """In another process: answer each question that comes until there are no more."""
    with DataLayer.open(Path(folder), HashEncoder()) as layer:
        asked.send("open")
        while question := asked.recv():
            asked.send(found(layer, question, Scope((label,))))


def test_labels_and_removals_are_in_force_in_other_processes_before_the_receipt(layer: DataLayer) -> None:
    layer.add([text("a", "zebra"), text("b", "zebra bear")])
    here, there = multiprocessing.get_context("spawn").Pipe()
    reader = multiprocessing.get_context("spawn").Process(
        target=_search_as, args=(str(layer.folder), "tax", there), daemon=True
    )
    reader.start()
    assert here.recv() == "open"

    def asked() -> list[str]:
        here.send("zebra")
        return sorted(here.recv())

    assert asked() == ["a", "b"]
    layer.add([text("a", "zebra", access=("hr",))])
    assert asked() == ["b"]
    layer.add([text("a", "zebra", access=("hr", "tax"))])
    assert asked() == ["a", "b"]
    layer.remove(["b"])
    assert asked() == ["a"]
    here.send("")
    reader.join(10)


# --- moments --------------------------------------------------------------------------------


def test_the_past_is_searched_as_it_was(layer: DataLayer, encoder: Counting) -> None:
    first = layer.add([text("a", "the rent is 700"), text("b", "a bear"), text("c", "zebra", metadata={"n": 1})])
    point = first[0].point
    layer.add([text("a", "the rent is 800"), text("d", "new giraffe"), text("c", "zebra", metadata={"n": 2})])
    layer.remove(["b"])
    before = encoder.embedded
    past = Scope(as_of=str(point))
    assert bodies(layer, "rent", past) == {"a": "the rent is 700", "b": "a bear", "c": "zebra"}
    assert encoder.embedded == before + 2  # only what the index no longer holds
    assert bodies(layer, "rent", past) == {"a": "the rent is 700", "b": "a bear", "c": "zebra"}
    assert encoder.embedded == before + 2
    assert bodies(layer, "rent", Scope(as_of=str(point), where="n = 1")) == {"c": "zebra"}
    assert set(bodies(layer, "rent", Scope())) == {"a", "c", "d"}
    result = layer.search("rent", scope=past)
    assert result.point == point
    for hit in result.hits:
        c = hit.chunk
        quote = (c.start, c.end, c.text, c.sha256, c.start, c.end)
        assert layer.verify_span(c.document, c.version, *quote)


def test_the_past_survives_a_rebuild_and_the_loss_of_its_tables(layer: DataLayer) -> None:
    point = layer.add([text("a", "old zebra"), text("b", "bear")])[0].point
    layer.add([text("a", "new giraffe")])
    layer.remove(["b"])
    expected = bodies(layer, "zebra", Scope(as_of=str(point)))
    assert expected == {"a": "old zebra", "b": "bear"}
    layer.rebuild()
    assert bodies(layer, "zebra", Scope(as_of=str(point))) == expected
    for path in past_folder(layer.folder).iterdir():
        subprocess.run(["rm", "-r", str(path)], check=True)
    assert bodies(layer, "zebra", Scope(as_of=str(point))) == expected


def test_tables_of_the_past_are_bounded(layer: DataLayer) -> None:
    points = [layer.add([text("a", f"zebra {i}")])[0].point for i in range(8)]
    for number, point in enumerate(points):
        assert bodies(layer, "zebra", Scope(as_of=str(point))) == {"a": f"zebra {number}"}
    assert len(list(past_folder(layer.folder).iterdir())) == 4


def test_who_lost_access_does_not_read_the_past(layer: DataLayer) -> None:
    receipts = layer.add([text("a", "zebra"), text("b", "bear", access=("board",)), text("c", "cat", access=("hr",))])
    point = receipts[0].point
    layer.add([text("a", "zebra", access=("hr",)), text("b", "bear, published")])
    layer.remove(["c"])

    def past(*labels: str) -> set[str]:
        return set(bodies(layer, "zebra", Scope(labels, as_of=str(point))))

    assert past("tax") == set()  # a is closed now, b was closed then, c was always
    assert past("hr") == {"a", "c"}
    assert past("board") == {"b"}
    assert set(bodies(layer, "zebra", Scope(as_of=str(point)))) == {"a", "b", "c"}


def test_moments_in_words(layer: DataLayer) -> None:
    point = layer.add([text("a", "old zebra")])[0].point
    row = layer.history("a")[0]
    assert row.indexed_at is not None
    at = datetime.fromisoformat(row.indexed_at)
    layer.add([text("a", "new giraffe")])
    assert layer.search("x", scope=Scope(as_of=at.isoformat())).point == point
    before = layer.search("x", scope=Scope(as_of=(at - timedelta(seconds=1)).isoformat()))
    assert (before.point, before.hits) == (0, ())
    local = layer.search("x", scope=Scope(as_of=at.astimezone().replace(tzinfo=None).isoformat()))
    assert local.point == point
    assert "local time" in local.notes[0]
    today = datetime.now().astimezone().date()
    assert layer.search("x", scope=Scope(as_of=today.isoformat())).hits[0].chunk.text == "new giraffe"
    assert layer.search("x", scope=Scope(as_of=(today - timedelta(days=1)).isoformat())).hits == ()


@pytest.mark.parametrize("moment", ["yesterday", "0", "99", "2999-01-01", "-1", "1e3", "9" * 30, "0001-01-01"])
def test_what_is_no_moment_of_the_past(layer: DataLayer, moment: str) -> None:
    layer.add([text("a", "zebra")])
    if moment == "0001-01-01":
        assert layer.search("x", scope=Scope(as_of="0002-01-02T00:00Z")).hits == ()
        return
    with pytest.raises(QueryError):
        layer.search("x", scope=Scope(as_of=moment))


def test_points_go_on_when_the_clock_is_set_back(layer: DataLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    from factform.facts import ledger

    first = layer.add([text("a", "old zebra")])[0].point or 0
    monkeypatch.setattr(ledger, "_now", lambda: datetime(2001, 1, 1, tzinfo=UTC).isoformat(timespec="milliseconds"))
    second = layer.add([text("a", "new giraffe")])[0].point or 0
    assert second == first + 1
    assert layer._ledger.point_at("2002-01-01T00:00:00.000+00:00") == 0
    assert bodies(layer, "x", Scope(as_of=str(first))) == {"a": "old zebra"}


# --- history --------------------------------------------------------------------------------


def test_diff_and_restore(layer: DataLayer) -> None:
    lines = [f"line {i}" for i in range(20)]
    old = layer.add([text("a", "\n".join(lines), metadata={"n": 1})])[0]
    changed = [*lines[:5], "line five", *lines[6:], "line 20"]
    layer.add([text("a", "\n".join(changed), metadata={"n": 2}, access=("hr",))])
    difference = layer.diff("a")
    assert (difference.added, difference.removed, len(difference.hunks)) == (2, 1, 2)
    assert difference.hunks[0].lines[3:5] == ("-line 5", "+line five")
    first = difference.hunks[0]
    assert (first.old_start, first.old_lines, first.new_start, first.new_lines) == (3, 7, 3, 7)
    assert [name for name, _, _ in difference.told] == ["metadata", "access"]
    assert layer.diff("a", old.version, old.version).hunks == ()
    source = layer.source_of("a", str(old.version)[:6])
    assert (source.data, source.metadata, source.access) == ("\n".join(lines).encode(), {"n": 1}, ("hr",))
    (receipt,) = layer.add([source])
    assert (receipt.status, receipt.version) == ("updated", old.version)
    assert found(layer, "line", Scope(("tax",))) == []
    assert [row.version for row in layer.history("a")][::2] == [old.version] * 2
    layer.remove(["a"])
    assert layer.add([layer.source_of("a", str(old.point))])[0].status == "created"


def test_versions_that_are_not_there(layer: DataLayer) -> None:
    layer.add([text("a", "zebra")])
    with pytest.raises(NotFound, match="no two versions"):
        layer.diff("a")
    with pytest.raises(NotFound, match="never was a document"):
        layer.known_history("nothing")
    with pytest.raises(NotFound, match="has no version"):
        layer.source_of("a", "ffff")


@pytest.mark.parametrize("scope", [Scope(where="own = true"), Scope(("me",)), Scope(("me",), "own = true")])
def test_a_thousand_foreign_rows_change_nothing(layer: DataLayer, scope: Scope) -> None:
    pick = random.Random(7)
    words = [f"word{i}" for i in range(60)]

    def body() -> str:
        return " ".join(pick.choices(words, k=12))

    layer.add([text(f"own{i}", body(), metadata={"own": True}, access=("me",)) for i in range(30)])
    questions = [" ".join(pick.sample(words, 3)) for _ in range(8)]

    def told() -> list[object]:
        results = [layer.search(question, k=40, scope=scope) for question in questions]
        return [[(hit.chunk.id, hit.score, dict(hit.scores)) for hit in result.hits] for result in results]

    before = told()
    layer.add([text(f"other{i}", body(), metadata={"own": False}, access=("them",)) for i in range(1000)])
    assert told() == before
    layer.add([text("own30", body(), metadata={"own": True}, access=("me",))])
    assert told() != before
