"""kill -9 in a real process at every step of the write path, then a look at what is left.

Whatever was acknowledged is there, nothing is there twice, and what was accepted is finished on the next open.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hash_encoder import HashEncoder

from factform.facts.store import DataLayer
from factform.ids import version_id
from factform.records import Source

CHILD = Path(__file__).with_name("crash_child.py")

OLD = {"a": "old zebra", "b": "bear", "gone": "panther"}
NEW = {"a": "new giraffe", "b": "bear", "gone": "panther", "c": "cat"}
AFTER_REMOVAL = {"a": "old zebra", "b": "bear"}

STEPS = [
    ("add", "after_blob", OLD),  # not accepted yet: as if it had never been offered
    ("add", "after_ledger", NEW),
    ("add", "after_embed", NEW),
    ("add", "after_commit", NEW),
    ("add", "after_fsync", NEW),
    ("add", "after_indexed", NEW),
    ("add", "after_optimize", NEW),
    ("remove", "remove_after_ledger", AFTER_REMOVAL),
    ("add", "after_optimize_fsync", NEW),
    ("remove", "remove_after_commit", AFTER_REMOVAL),
    ("remove", "remove_after_fsync", AFTER_REMOVAL),
    ("remove", "remove_after_all", AFTER_REMOVAL),
    ("rebuild", "rebuild_after_fill", OLD),
    ("rebuild", "rebuild_before_switch", OLD),
    ("rebuild", "rebuild_after_switch", OLD),
]


def run_child(folder: Path, action: str, failpoint: str) -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, CHILD, folder, action, failpoint], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def held(layer: DataLayer) -> dict[str, str]:
    """Documents as the index rows have them; fails on a document in two pieces or two versions."""
    rows = list(layer._current.get().rows())
    assert len({row["id"] for row in rows}) == len(rows)
    assert len({row["document"] for row in rows}) == len(rows)
    return {row["document"]: row["text"] for row in rows}


def check(layer: DataLayer, expected: dict[str, str]) -> None:
    assert held(layer) == expected
    status = layer.status()
    assert status["consistent"]
    assert status["accounting"]["holds"]
    assert (status["pending"], status["documents"]) == (0, len(expected))
    for document, body in expected.items():
        assert [d.version for d in layer.documents() if d.document == document] == [version_id(body.encode())]
        assert layer.search(body, k=1).hits[0].chunk.text == body
        assert layer.text_of(document, version_id(body.encode())) == body
    assert len(list((layer.folder / "index").glob("*.lance"))) <= 2
    assert not list((layer.folder / "blobs").glob("tmp/*"))


@pytest.mark.parametrize(
    ("action", "failpoint", "expected"),
    [pytest.param(*step, id=step[1], marks=[] if step[1] in ("after_commit",) else pytest.mark.slow) for step in STEPS],
)
def test_killed_at(tmp_path: Path, action: str, failpoint: str, expected: dict[str, str]) -> None:
    said = run_child(tmp_path / "state", action, failpoint)
    assert [line[:2] for line in said] == [["a", "created"], ["b", "created"], ["gone", "created"]]
    with DataLayer.open(tmp_path / "state", HashEncoder()) as layer:
        check(layer, expected)
        before = [row.status for row in layer.history("a")]
    with DataLayer.open(tmp_path / "state", HashEncoder()) as layer:
        check(layer, expected)
        assert [row.status for row in layer.history("a")] == before  # replaying once is enough


@pytest.mark.slow
def test_killed_while_replaying(tmp_path: Path) -> None:
    run_child(tmp_path / "state", "add", "after_ledger")
    run_child(tmp_path / "state", "reopen", "after_commit")
    with DataLayer.open(tmp_path / "state", HashEncoder()) as layer:
        check(layer, NEW)


@pytest.mark.slow
def test_a_document_that_kills_every_replay_is_given_up(tmp_path: Path) -> None:
    """Its rows were committed each time, and are taken back: the older version is found again, "c" is finished."""
    run_child(tmp_path / "state", "add", "after_ledger")
    for _ in range(2):
        run_child(tmp_path / "state", "reopen", "after_commit")
    with DataLayer.open(tmp_path / "state", HashEncoder()) as layer:
        assert held(layer) == {**OLD, "c": "cat"}
        assert layer.status()["consistent"]
        last = layer.history("a")[-1]
        assert (last.status, last.error) == (
            "failed",
            "the process died 3 times while taking it in; add it again to retry",
        )
        assert [r.status for r in layer.add([Source("a", b"new giraffe", "a.txt")])] == ["updated"]
        check(layer, NEW)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment(tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "state"
    with subprocess.Popen([sys.executable, CHILD, folder, "stream", ""], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = [child.stdout.readline()]  # it has begun
        time.sleep(random.Random(seed).uniform(0.5, 2.5))
        child.send_signal(signal.SIGKILL)
        said += child.stdout.read().splitlines(keepends=True)
    acknowledged = {}
    for line in said:
        if line.endswith("\n"):
            document, _, version = line.split()
            acknowledged[document] = version
    with DataLayer.open(folder, HashEncoder()) as layer:
        rows = held(layer)
        status = layer.status()
        assert status["consistent"]
        assert (status["pending"], status["failed"]) == (0, 0)
        current = {d.document: d.version for d in layer.documents()}
        assert set(acknowledged) <= set(current) == set(rows)
        ahead = [document for document, version in acknowledged.items() if current[document] != version]
        assert len(ahead) <= 1  # at most the one being updated, whose receipt did not get out
        extra = set(current) - set(acknowledged)
        assert len(extra) <= 2


def test_an_index_set_back_is_not_whole_before_it_has_caught_up(tmp_path: Path) -> None:
    """Every manifest but the first is torn, and the process dies between setting the index back and filling it."""
    with DataLayer.open(tmp_path, HashEncoder()) as layer:
        layer.add([Source("a", b"zebra", "a.txt"), Source("b", b"bear", "b.txt")])
        layer.add([Source("a", b"new zebra", "a.txt")])
    for manifest in sorted((tmp_path / "index").rglob("*.manifest"))[:-1]:
        manifest.write_bytes(manifest.read_bytes()[:20])
    command = [sys.executable, CHILD, tmp_path, "reopen", "catch_up_after_delete"]
    for _ in range(2):
        assert subprocess.run(command, check=False, timeout=120).returncode == -signal.SIGKILL
    with DataLayer.open(tmp_path, HashEncoder()) as layer:
        assert layer.status()["consistent"]
        assert layer.status()["accounting"]["holds"]
        assert {hit.chunk.document for hit in layer.search("zebra bear", k=5).hits} == {"a", "b"}
