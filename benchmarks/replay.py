"""Replays the history of a folder of policies event by event, syncing and searching after each.

Knows nothing of how a sync or a search works. After every event: the store lists exactly the files that are there, with
their bytes; a search for words that came with the event finds them in the present version of that document; no search
for words of a document that went finds it. Where what came stands in other documents as well (one word of front matter,
say), the search is for words that only this document has.

    python benchmarks/replay.py --data DATA/site_policy_history --keep build/replay

With `--keep` the project stays in that folder, and a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from factform.measure.report import environment
from factform.project import Project
from factform.records import Hit

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "site_policy_history"
OUT = ROOT / "benchmarks" / "results" / "replay.json"

DEPTH = 10
"""Hits among which the new words must be."""

PROBE_WORDS = 12
FEWEST_WORDS = 4

SAVE_EVERY = 10
"""Events between two notes of what was seen: as many are done again by a run that goes on."""


@dataclass
class Tally:
    """What was seen on the way."""

    events: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    ranks: Counter[int] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    sync_ms: list[float] = field(default_factory=list)
    visible_ms: list[float] = field(default_factory=list)
    remove_ms: list[float] = field(default_factory=list)
    search_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0
    runs: int = 1

    def check(self, name: str, event: dict[str, Any], problem: str) -> None:
        """Count a check; `problem` is empty when it held."""
        self.checks[name] += 1
        if problem:
            place = {key: event[key] for key in ("seq", "op", "path")}
            self.failures.append({"check": name, **place, "problem": problem[:300]})


def main() -> int:
    options = arguments()
    if not (options.data / "events.jsonl.xz").is_file():
        sys.stderr.write(f"no history at {options.data}: nothing is measured\n")
        return 0
    events = list(read(options.data / "events.jsonl.xz"))[: options.limit or None]
    with ExitStack() as stack:
        scratch = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="replay-")))
        folder, notes = scratch / "project", scratch / "tally.json"
        if not (folder / "factform.toml").is_file():
            Project.init(folder).close()
        if options.embedder or options.rerank:
            model = f"[model]\nembedder = {json.dumps(options.embedder)}\n" if options.embedder else ""
            facts = f"[facts]\nrerank = {json.dumps(options.rerank)}\n" if options.rerank else ""
            (folder / "factform.toml").write_text(model + facts, "utf-8")
        tally = Tally() if not notes.is_file() else load(notes)
        start = options.start + sum(tally.events.values())
        with Project.open(folder) as project:
            tree = replay(project, events, start, time.perf_counter() + 60 * options.minutes, tally, notes)
            status = project.facts.status()
        with Project.open(folder) as project:  # what a new process finds
            final = {info.document: info.sha256 for info in project.facts.documents()}
    report = {
        "events": dict(tally.events),
        "n": sum(tally.events.values()),
        "start": options.start,
        "embedder": options.embedder or "default",
        "rerank": options.rerank or "default",
        "of": len(events),
        "commits": len({event["commit"] for event in events}),
        "runs": tally.runs,
        "actions": dict(tally.actions),
        "checks": dict(tally.checks),
        "failures": tally.failures,
        "final_documents": len(final),
        "final_equal": final == {document: digest(text) for document, text in tree.items()},
        "consistent": status["consistent"],
        "rank_of_new_words": {str(rank): n for rank, n in sorted(tally.ranks.items())},
        "sync_ms": spread(tally.sync_ms),
        "visible_ms": spread(tally.visible_ms),
        "remove_ms": spread(tally.remove_ms),
        "search_ms": spread(tally.search_ms),
        "seconds": round(tally.seconds, 1),
        "load_at_end": os.getloadavg()[0],
        "environment": environment(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    shown = {key: value for key, value in report.items() if key not in ("environment", "failures")}
    print(json.dumps(shown, indent=2))
    print(f"{len(tally.failures)} failures")
    return 1 if tally.failures or not report["final_equal"] else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with events.jsonl.xz")
    parser.add_argument("--out", type=Path, default=OUT, help="where the result goes")
    parser.add_argument("--limit", type=int, default=0, help="only the first so many events")
    parser.add_argument("--embedder", default="", help="a folder or name instead of the default embedder")
    parser.add_argument("--rerank", default="", help="another value of facts.rerank than the default")
    parser.add_argument("--start", type=int, default=0, help="begin with the files as they stood before this event")
    parser.add_argument("--keep", type=Path, help="folder that keeps the project; a run that was stopped goes on there")
    parser.add_argument("--minutes", type=float, default=600, help="stop after so long, and report what was done")
    return parser.parse_args()


def read(path: Path) -> Iterator[dict[str, Any]]:
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def load(path: Path) -> Tally:
    """What a run that was stopped had seen."""
    told = json.loads(path.read_text("utf-8"))
    told["ranks"] = {int(rank): n for rank, n in told["ranks"].items()}
    counters = {key: Counter(told[key]) for key in ("events", "actions", "ranks", "checks")}
    return Tally(**{**told, **counters, "runs": told["runs"] + 1})


def save(tally: Tally, path: Path) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(vars(tally)), "utf-8")
    fresh.replace(path)


def replay(
    project: Project, events: list[dict[str, Any]], start: int, end: float, tally: Tally, notes: Path
) -> dict[str, str]:
    """Every event from `start` until the time `end` done to files, synced and searched; returns the tree that should
    have come out of it. `tally` is noted in `notes` now and then."""
    tree, files = dict[str, str](), project.folder / "history"
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir()
    for event in events[:start]:
        apply(event, tree, files)
    if start:
        project.sync(files, force=True)
    began = time.perf_counter() - tally.seconds
    for number, event in enumerate(events[start:], start):
        if time.perf_counter() > end:
            break
        before = dict(tree)
        apply(event, tree, files)
        started = time.perf_counter()
        changes = project.sync(files, force=True)  # the history removes most of its files once itself
        ms = 1000 * (time.perf_counter() - started)
        done = [change for change in changes if change.action != "unchanged"]
        tally.actions.update(change.action for change in done)
        tally.visible_ms += [change.visible_ms for change in done if change.visible_ms is not None]
        (tally.remove_ms if event["op"] == "delete" else tally.sync_ms).append(ms)
        look(project, event, before, tree, tally)
        tally.events[event["op"]] += 1
        tally.seconds = time.perf_counter() - began
        if number % SAVE_EVERY == 0 or number + 1 == len(events):
            save(tally, notes)
        if number % 50 == 0:
            sys.stderr.write(f"{number} of {len(events)}, {len(tally.failures)} failures, {tally.seconds:.0f} s\n")
    save(tally, notes)
    return tree


def apply(event: dict[str, Any], tree: dict[str, str], files: Path) -> None:
    """Do to the files, and to `tree` (document to text), what the event did."""
    old, new = event.get("old_path"), event["path"]
    if event["op"] == "rename" and old:
        tree.pop(f"history/{old}", None)
        (files / new).parent.mkdir(parents=True, exist_ok=True)
        (files / old).rename(files / new)
    if event["op"] == "delete":
        tree.pop(f"history/{new}", None)
        (files / new).unlink()
        return
    tree[f"history/{new}"] = event["text"]
    (files / new).parent.mkdir(parents=True, exist_ok=True)
    (files / new).write_bytes(event["text"].encode())


def look(project: Project, event: dict[str, Any], before: dict[str, str], tree: dict[str, str], tally: Tally) -> None:
    """The three checks after an event."""
    held = {info.document: info for info in project.facts.documents()}
    wrong = {d for d in held.keys() | tree.keys() if d not in held or held[d].sha256 != digest(tree.get(d, ""))}
    tally.check("listed", event, f"not as in the folder: {sorted(wrong)[:3]}" if wrong else "")
    document = f"history/{event['path']}"
    if document in tree:
        new, words = probe(before.get(document, ""), tree[document], [t for d, t in tree.items() if d != document])
        hits = search(project, words, tally)
        ranks = [hit.rank for hit in hits if hit.chunk.document == document and has(hit, words)]
        stale = [hit for hit in hits if hit.chunk.version != held[hit.chunk.document].version] if not wrong else []
        name = "new words found" if new else "new version found"
        tally.check(name, event, "" if ranks else f"not among {DEPTH} hits: {words}")
        tally.check("no older version found", event, "a chunk of an older version" if stale else "")
        tally.ranks[min(ranks, default=0)] += 1
    for gone in before.keys() - tree.keys():
        hits = search(project, probe("", before[gone], [])[1], tally)
        still = [hit for hit in hits if hit.chunk.document == gone]
        tally.check("removed document not found", event, f"{gone} is still found" if still else "")


def search(project: Project, words: str, tally: Tally) -> tuple[Hit, ...]:
    started = time.perf_counter()
    hits = project.search(words, k=DEPTH).hits
    tally.search_ms.append(1000 * (time.perf_counter() - started))
    return hits


def probe(before: str, after: str, others: list[str]) -> tuple[bool, str]:
    """Words to look for a document by, and whether they came with the change.

    Of the lines that were not there before the one with the most words that no other text has; where none is, of all.
    """
    old, plain = set(before.splitlines()), [" ".join(words_of(other)) for other in others]
    lines = after.splitlines()
    for new, those in ((True, [line for line in lines if line not in old]), (False, lines)):
        found = sorted((" ".join(words_of(line)[:PROBE_WORDS]) for line in those), key=lambda w: -len(w.split()))
        for words in found:
            if len(words.split()) >= FEWEST_WORDS and not any(words in other for other in plain):
                return new, words
    return False, max((" ".join(words_of(line)[:PROBE_WORDS]) for line in lines), key=len)


def words_of(text: str) -> list[str]:
    """Words of a line of Markdown as its reader sees them: no targets of links, no tags."""
    return re.findall(r"\w+", re.sub(r"\]\([^)]*\)|\[[^\]]*\]:\s*\S+|<[^>]*>|https?://\S+|&\w+;", " ", text))


def has(hit: Hit, words: str) -> bool:
    """Whether a hit holds the words, in their order, but for one that the end of a chunk may have cut off.

    Both sides as a reader sees them: "the [Privacy Statement](https://…) and the" has no address between its words.
    """
    text = " ".join(words_of(f"{hit.chunk.header} {hit.chunk.text}"))
    given = words.split()
    half = max(len(given) // 2, 1)
    return " ".join(given[:half]) in text or " ".join(given[half:]) in text


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {"n": 0}
    ordered = sorted(values)
    at = {"median": statistics.median(ordered), "p99": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]}
    return {"n": len(ordered), **{name: round(value, 1) for name, value in at.items()}}


if __name__ == "__main__":
    sys.exit(main())
