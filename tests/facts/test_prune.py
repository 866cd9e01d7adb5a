"""Retention: just what the policy keeps is kept, nothing that counts is touched, and a kill loses nothing."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lancedb
import pytest
from hash_encoder import HashEncoder
from hypothesis import given, settings
from hypothesis import strategies as st

from factform.errors import NotFound, Pruned, StoreBusy, StoreError
from factform.facts import blobs, ledger
from factform.facts.asof import past_folder
from factform.facts.care import Place, examine
from factform.facts.disk import bytes_below, files_below
from factform.facts.ledger import VersionRow
from factform.facts.prune import Policy, beyond
from factform.facts.rebuild import Rebuilder
from factform.facts.store import DataLayer
from factform.ids import sha256, version_id
from factform.records import Scope, Source

CHILD = Path(__file__).with_name("prune_child.py")

NOBODY: frozenset[tuple[str, str]] = frozenset()


def text(document: str, body: str, **more: Any) -> Source:
    return Source(document, body.encode(), f"{document}.txt", **more)


def version(body: str) -> str:
    return version_id(body.encode())


@pytest.fixture
def layer(tmp_path: Path) -> Iterator[DataLayer]:
    with DataLayer.open(tmp_path / "state", HashEncoder(), wait_s=0.1) as opened:
        yield opened


def grown(layer: DataLayer) -> None:
    """Three versions of a, one of b, c removed after two."""
    layer.add([text("a", "first zebra"), text("b", "only bear"), text("c", "first cat")])
    layer.add([text("a", "second zebra"), text("c", "second cat")])
    layer.remove(["c"])
    layer.add([text("a", "third zebra")])


def readable(layer: DataLayer) -> dict[str, str]:
    """Version -> text of every version whose text can be read."""
    found = {}
    for row in layer._ledger.versions():
        try:
            found[row.version] = layer.text_of(row.document, row.version)
        except NotFound:
            continue
    return found


def words_on_disk(folder: Path, *words: str) -> set[str]:
    """Of `words` those that stand in any file of the index, the blobs or the caches, in old states of tables too."""
    found = set()
    for place in ("index", "blobs", "cache"):
        for path in (folder / place).rglob("*"):
            data = path.read_bytes() if path.is_file() else b""
            found |= {word for word in words if word.encode() in data}
    for path in (folder / "index").glob("*.lance"):
        table = lancedb.connect(folder / "index").open_table(path.stem)
        for number in table.list_versions():
            table.checkout(number["version"])
            told = repr(table.to_arrow().to_pydict())
            found |= {word for word in words if word in told}
    return found


def test_without_a_policy_everything_is_kept(layer: DataLayer) -> None:
    grown(layer)
    before = readable(layer)
    report = layer.pruner().prune(Policy(), lambda: NOBODY)
    assert (report.versions, report.cited, report.files, report.bytes) == ((), (), 0, 0)
    assert readable(layer) == before
    assert len(before) == 6


def test_what_is_beyond_the_policy_goes_and_is_told(layer: DataLayer) -> None:
    grown(layer)
    layer.search("zebra", scope=Scope(as_of="1"))  # makes a table of the past
    assert words_on_disk(layer.folder, "first zebra", "second zebra") == {"first zebra", "second zebra"}
    hits = [hit.chunk.text for hit in layer.search("zebra bear cat").hits]
    foreseen = layer.pruner().foresee(Policy(keep_versions=2), lambda: NOBODY)
    assert foreseen.dry_run
    report = layer.pruner().prune(Policy(keep_versions=2), lambda: NOBODY)
    assert [(v.document, v.version, v.status) for v in report.versions] == [("a", version("first zebra"), "superseded")]
    assert (foreseen.versions, foreseen.files, foreseen.bytes) == (report.versions, report.files, report.bytes)
    assert (report.files, report.bytes) == (1, len("first zebra"))
    assert report.index_bytes > 0
    assert words_on_disk(layer.folder, "first zebra", "second zebra") == {"second zebra"}
    assert [hit.chunk.text for hit in layer.search("zebra bear cat").hits] == hits
    assert not past_folder(layer.folder).exists()
    status = layer.status()
    assert (status["consistent"], status["accounting"]["holds"], status["accounting"]["accepted"]) == (True, True, 3)
    first, second, third = layer.history("a")
    assert first.pruned_at is not None
    assert (second.pruned_at, third.pruned_at) == (None, None)
    assert (first.sha256, first.chunks, first.began) == (sha256(b"first zebra"), 1, 1)  # what is known of it stays
    # Again there is nothing to do.
    assert layer.pruner().prune(Policy(keep_versions=2), lambda: NOBODY).versions == ()
    place = Place(layer.folder, HashEncoder().identity, HashEncoder.dim, 160, 1.0)
    checks = {check.name: check for check in examine(place, quick=False, progress=lambda *_: None)}
    assert {check.status for check in checks.values()} <= {"ok", "note"}
    assert checks["orphans"].status == "ok"


def test_a_removed_document_keeps_as_many_versions_as_the_policy_says(layer: DataLayer) -> None:
    grown(layer)
    report = layer.pruner().prune(Policy(keep_versions=1), lambda: NOBODY)
    assert {v.version for v in report.versions} == {version(t) for t in ("first zebra", "second zebra", "first cat")}
    assert set(readable(layer).values()) == {"third zebra", "only bear", "second cat"}
    assert layer.source_of("c", version("second cat")).data == b"second cat"


def test_days_count_from_when_a_version_was_last_found(layer: DataLayer) -> None:
    grown(layer)
    in_a_week = datetime.now(UTC) + timedelta(days=7)
    assert layer.pruner().prune(Policy(keep_days=8), lambda: NOBODY, in_a_week).versions == ()
    # Kept by one of the two is kept.
    both = layer.pruner().foresee(Policy(keep_versions=2, keep_days=6), lambda: NOBODY, in_a_week)
    assert [v.version for v in both.versions] == [version("first zebra")]
    assert layer.pruner().foresee(Policy(keep_versions=1, keep_days=8), lambda: NOBODY, in_a_week).versions == ()
    report = layer.pruner().prune(Policy(keep_days=6), lambda: NOBODY, in_a_week)
    assert len(report.versions) == 4
    assert set(readable(layer).values()) == {"third zebra", "only bear"}  # current, however old


def test_what_an_answer_cites_stays_unless_the_policy_says_otherwise(layer: DataLayer) -> None:
    grown(layer)
    cited = {("a", version("first zebra"))}
    report = layer.pruner().prune(Policy(keep_versions=1), lambda: cited)
    assert [(v.version, v.cited) for v in report.cited] == [(version("first zebra"), True)]
    assert layer.text_of("a", version("first zebra")) == "first zebra"
    assert "second zebra" not in readable(layer).values()
    report = layer.pruner().prune(Policy(keep_versions=1, keep_cited=False), lambda: cited)
    assert [v.version for v in report.versions] == [version("first zebra")]
    assert "first zebra" not in readable(layer).values()


def test_an_answer_written_while_it_is_decided_keeps_its_version(layer: DataLayer) -> None:
    grown(layer)
    calls: list[int] = []

    def cited() -> set[tuple[str, str]]:
        calls.append(1)
        return {("a", version("second zebra"))} if len(calls) > 1 else set()

    report = layer.pruner().prune(Policy(keep_versions=1), cited)
    assert [v.version for v in report.cited] == [version("second zebra")]
    assert layer.text_of("a", version("second zebra")) == "second zebra"
    assert layer.history("a")[1].pruned_at is None


def test_a_pruned_version_is_refused_by_name(layer: DataLayer) -> None:
    grown(layer)
    layer.pruner().prune(Policy(keep_versions=1), lambda: NOBODY)
    gone = version("first zebra")
    with pytest.raises(Pruned, match=rf"version {gone} of 'a' was pruned on 20"):
        layer.source_of("a", gone)
    with pytest.raises(Pruned, match="was pruned"):
        layer.diff("a", gone)
    assert not layer.verify_span("a", gone, 0, 5, "first", sha256(b"first zebra"), 0, 11)
    assert layer.place_of("a", gone, 0, 5) == {}
    with pytest.raises(Pruned, match=r"point 1 were pruned .* From point 4 on nothing is missing"):
        layer.search("zebra", scope=Scope(as_of="1"))
    assert len(layer.search("zebra", scope=Scope(as_of="4")).hits) == 2
    # What comes again is as good as new, and then the version is there again.
    layer.add([text("a", "first zebra")])
    assert layer.text_of("a", gone) == "first zebra"
    assert layer.source_of("a", gone).data == b"first zebra"


def test_the_past_of_other_people_is_neither_refused_nor_told(layer: DataLayer) -> None:
    layer.add([text("mine", "zebra one", access=("tax",)), text("theirs", "zebra secret", access=("hr",))])
    layer.add([text("theirs", "zebra hidden", access=("hr",)), text("mine", "zebra two", access=("tax",))])
    layer.add([text("theirs", "zebra covert", access=("hr",))])
    layer.pruner().prune(Policy(keep_versions=2), lambda: NOBODY)
    found = layer.search("zebra", scope=Scope(("tax",), as_of="1")).hits
    assert [hit.chunk.text for hit in found] == ["zebra one"]
    with pytest.raises(Pruned, match="theirs"):
        layer.search("zebra", scope=Scope(("hr",), as_of="1"))
    with pytest.raises(Pruned):
        layer.search("zebra", scope=Scope(as_of="1"))


def test_bytes_that_another_version_has_stay(layer: DataLayer) -> None:
    layer.add([text("a", "the same zebra"), text("b", "the same zebra")])
    layer.add([text("a", "another zebra")])
    layer.add([text("a", "the same zebra")])
    layer.add([text("a", "a last zebra")])
    report = layer.pruner().prune(Policy(keep_versions=2), lambda: NOBODY)
    assert [v.version for v in report.versions] == [version("the same zebra"), version("another zebra")]
    assert report.files == 1
    assert layer.text_of("b", version("the same zebra")) == "the same zebra"
    assert layer.text_of("a", version("the same zebra")) == "the same zebra"  # another row of it is kept


def test_it_waits_for_nobody_who_makes_the_index_anew_and_drops_what_was_left(layer: DataLayer) -> None:
    grown(layer)
    rebuilder: Rebuilder = layer._writer.rebuilder
    with rebuilder._alone():
        rebuilder._begin(background=True)
        with pytest.raises(StoreBusy, match="made anew in the background"):
            layer.pruner().prune(Policy(keep_versions=1), lambda: NOBODY)
        assert layer.history("a")[0].pruned_at is None
    assert layer.pruner().prune(Policy(keep_versions=1), lambda: NOBODY).versions
    assert layer.status()["rebuild"] is None
    assert len(list((layer.folder / "index").glob("*.lance"))) == 1


def test_a_damaged_ledger_is_not_pruned(layer: DataLayer) -> None:
    grown(layer)
    layer._ledger._connection.execute("UPDATE versions SET name = 'other' WHERE seq = 1")
    layer._ledger._connection.execute("DELETE FROM temp.changed_rows")
    with pytest.raises(StoreError, match="doctor --repair"):
        layer.pruner().prune(Policy(keep_versions=1), lambda: NOBODY)
    assert "first zebra" in readable(layer).values()


# --- killed ---------------------------------------------------------------------------------

STEPS = [
    "prune_begun",
    "erase_blob_gone",
    "prune_blobs_gone",
    "prune_past_gone",
    "erase_index_copied",
    "erase_index_switched",
    "erase_index_gone",
    "prune_index_written",
    "prune_finished",
]


@pytest.mark.parametrize(
    "step",
    [pytest.param(s, marks=[] if s in ("prune_begun", "erase_index_switched") else pytest.mark.slow) for s in STEPS],
)
def test_killed_at(tmp_path: Path, step: str) -> None:
    folder = tmp_path / "state"
    with DataLayer.open(folder, HashEncoder()) as layer:
        grown(layer)
        layer.search("zebra", scope=Scope(as_of="1"))
    done = subprocess.run([sys.executable, CHILD, folder, step], check=False, timeout=120, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with DataLayer.open(folder, HashEncoder()) as layer:
        # Before it is finished nothing that is kept is missing, and what goes is not shown.
        assert {"third zebra", "only bear", "second cat"} <= set(readable(layer).values())
        assert "first zebra" not in readable(layer).values()
        assert layer.status()["consistent"]
        assert layer.pruner().marked() == (step != "prune_finished")
        layer.pruner().finish(lambda: NOBODY)
        assert not layer.pruner().marked()
        assert set(readable(layer).values()) == {"third zebra", "only bear", "second cat"}
        assert words_on_disk(folder, "first zebra", "second zebra", "first cat", "second cat") == {"second cat"}
        assert [row.pruned_at is not None for row in layer.history("a")] == [True, True, False]
        status = layer.status()
        assert status["accounting"]["holds"]
        assert [hit.chunk.text for hit in layer.search("zebra", k=1).hits] == ["third zebra"]
    assert len(list((folder / "index").glob("*.lance"))) == 1


# --- any history ----------------------------------------------------------------------------

DOCUMENTS, BODIES = ("a", "b", "c"), ("zebra one", "bear two", "cat three", "zebra four")

step = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(DOCUMENTS), st.sampled_from(BODIES), st.integers(0, 1)),
    st.tuples(st.just("fail"), st.sampled_from(DOCUMENTS), st.just(""), st.integers(2, 4)),
    st.tuples(st.just("remove"), st.sampled_from(DOCUMENTS), st.just(""), st.just(0)),
)


class Clock:
    """A day a step."""

    def __init__(self) -> None:
        self.days = 0

    def now(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(days=self.days)

    def text(self) -> str:
        return self.now().isoformat(timespec="milliseconds")


def kept_by(rows: list[VersionRow], policy: Policy, cited: set[tuple[str, str]], now: datetime) -> set[int]:
    """The policy said again, from what its words mean: for each row look at all others."""
    kept = set()
    for row in rows:
        later = [other for other in rows if other.document == row.document and other.seq > row.seq]
        found_later = len([other for other in later if other.began is not None])
        young = row.ended_at is not None and datetime.fromisoformat(row.ended_at) >= now - timedelta(policy.keep_days)
        if (
            row.status in ("indexed", "accepted")
            or not (policy.keep_versions or policy.keep_days)
            or (policy.keep_versions and found_later < policy.keep_versions)
            or (policy.keep_days and young)
            or (policy.keep_cited and (row.document, row.version) in cited)
        ):
            kept.add(row.seq)
    return kept


@settings(max_examples=12)
@given(
    steps=st.lists(step, min_size=4, max_size=14),
    keep_versions=st.integers(0, 3),
    keep_days=st.integers(0, 6),
    keep_cited=st.booleans(),
    cited=st.sets(st.tuples(st.sampled_from(DOCUMENTS), st.sampled_from(BODIES)), max_size=3),
)
def test_exactly_what_the_policy_keeps_is_kept(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, str, str, int]],
    keep_versions: int,
    keep_days: int,
    keep_cited: bool,
    cited: set[tuple[str, str]],
) -> None:
    clock = Clock()
    policy, named = Policy(keep_versions, keep_days, keep_cited), {(d, version(body)) for d, body in cited}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "_now", clock.text)
        folder = tmp_path_factory.mktemp("history") / "state"
        with DataLayer.open(folder, HashEncoder()) as layer:
            for what, document, body, year in steps:
                clock.days += 1
                if what == "add":
                    layer.add([text(document, body, metadata={"year": year})])
                elif what == "fail":
                    layer.add([Source(document, b"\xff\xfe\x00%PDF" + bytes([year]), "x.pdf")])
                else:
                    layer.remove([document])
            rows = layer._ledger.versions()
            held, found = layer.status()["accounting"], [h.chunk.text for h in layer.search("zebra bear", k=9).hits]
            wanted = kept_by(rows, policy, named, clock.now())
            report = layer.pruner().prune(policy, lambda: named, clock.now())
            after = layer._ledger.versions()
            assert {row.seq for row in after if row.pruned_at is None} == wanted
            assert len(report.versions) == len(rows) - len(wanted)
            names = {path.parent.name + path.name for path in (folder / "blobs").glob("??/*")}
            needed = {d for r in rows if r.seq in wanted for d in (r.sha256, r.text_sha256, r.places_sha256) if d}
            if report.versions:
                assert names == needed
            assert needed <= names
            for digest in needed:
                blobs.get(folder / "blobs", digest)
            assert layer.status()["accounting"] == held
            assert held["holds"]
            assert [hit.chunk.text for hit in layer.search("zebra bear", k=9).hits] == found
            assert [[getattr(row, name) for name in ("seq", "status", "began", "ended")] for row in after] == [
                [getattr(row, name) for name in ("seq", "status", "began", "ended")] for row in rows
            ]


def test_the_policy_is_a_function_of_the_rows(layer: DataLayer) -> None:
    grown(layer)
    rows = layer._ledger.versions()
    once = beyond(rows, Policy(keep_versions=1), NOBODY, datetime.now(UTC))
    assert beyond(reversed(rows), Policy(keep_versions=1), NOBODY, datetime.now(UTC)) == once
    assert [row.seq for row in once[0]] == [1, 3, 4]


def test_sizes_are_told_while_others_tidy(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name / "x").mkdir(parents=True)
        (tmp_path / name / "x" / "f").write_bytes(b"1234")
        (tmp_path / name / "f").write_bytes(b"12")
    assert bytes_below(tmp_path) == 18
    rest = files_below(tmp_path)
    path, size = next(rest)
    assert (path.name, size) == ("f", 2)
    for name in "abc":
        shutil.rmtree(tmp_path / name)
    assert list(rest) == []
    assert bytes_below(tmp_path / "never") == 0
