"""The replay benchmark on a history of a few events: what it checks can fail, and nothing does here."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from factform.project import Project

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def event(seq: int, op: str, path: str, text: str = "", old: str = "") -> dict[str, Any]:
    return {"seq": seq, "op": op, "path": path, "commit": "c", "text": text, **({"old_path": old} if old else {})}


EVENTS = [
    event(0, "add", "a.md", "# Zebras\n\nThe zebra farm opened in spring with forty animals."),
    event(1, "add", "p/b.md", "# Harbour\n\nA quiet harbour with three boats and a lighthouse."),
    event(2, "update", "a.md", "# Zebras\n\nThe zebra farm closed in autumn for want of visitors."),
    event(3, "rename", "p/c.md", "# Harbour\n\nA quiet harbour with three boats and a lighthouse.", "p/b.md"),
    event(4, "delete", "a.md"),
]


@pytest.fixture
def replay(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import replay

    yield replay
    del sys.modules["replay"]


@pytest.fixture
def project(tmp_path: Path, tiny_embedder_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setenv("FACTFORM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "factform.toml").write_text(f"[model]\nembedder = {json.dumps(str(tiny_embedder_dir))}\n")
    with Project.open(folder) as opened:
        yield opened


def played(replay: ModuleType, project: Project, events: list[dict[str, Any]], start: int = 0) -> tuple[Any, Any]:
    """What was seen, and the tree that should have come out of it."""
    tally = replay.Tally()
    tree = replay.replay(project, events, start, time.perf_counter() + 60, tally, project.folder / "tally.json")
    assert vars(replay.load(project.folder / "tally.json")) == {**vars(tally), "runs": 2}
    return tally, tree


def test_every_step_is_searched_and_the_end_is_the_tree(replay: ModuleType, project: Project) -> None:
    tally, tree = played(replay, project, EVENTS)
    assert tally.failures == []
    assert tally.actions == {"add": 2, "update": 1, "rename": 1, "remove": 1}
    assert tally.checks == {
        "listed": 5,
        "new words found": 4,
        "no older version found": 4,
        "removed document not found": 2,
    }
    assert {i.document: i.sha256 for i in project.facts.documents()} == {d: replay.digest(t) for d, t in tree.items()}


def test_it_may_begin_later(replay: ModuleType, project: Project) -> None:
    tally, tree = played(replay, project, EVENTS, 3)
    assert (tally.failures, tree.keys()) == ([], {"history/p/c.md"})
    assert tally.actions == {"rename": 1, "remove": 1}


def test_words_that_others_have_are_not_looked_for(replay: ModuleType) -> None:
    old, other = "one two three four five\n", "---\ntopics all of them share\n"
    assert replay.probe("", old + other, []) == (True, "one two three four five")
    assert replay.probe(old, old + other, [other]) == (False, "one two three four five")
    assert replay.probe(old, old + other, []) == (True, "topics all of them share")


def test_its_checks_can_fail(replay: ModuleType, project: Project) -> None:
    tally, tree = played(replay, project, EVENTS[:2])
    replay.look(project, EVENTS[2], tree, {**tree, "history/a.md": EVENTS[2]["text"]}, tally)
    replay.look(project, EVENTS[4], tree, {"history/p/b.md": tree["history/p/b.md"]}, tally)
    assert [failure["check"] for failure in tally.failures] == [
        *("listed", "new words found"),
        *("listed", "removed document not found"),
    ]
