"""Power loss: what is left of a store at any moment, opened again.

Knows nothing of how calls are recorded or of what a file system promises (`shim`, `model`). A store is written once
with everything recorded; then the power fails at many moments of that record; each image must open unaided and hold
what had been acknowledged by then.
"""

from __future__ import annotations

import errno
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .invariants import Log, Wanted, violations
from .kills import Child, _take
from .load import Say, apply, change, opened
from .model import MODES, Disk
from .shim import FSYNC, Event, Shim, events


def power_cuts(folder: Path, images: int, seed: int, operations: int) -> dict[str, Any]:
    """`images` power cuts at random moments of one record, each in one of MODES."""
    folder.mkdir(parents=True)
    root, record = folder / "store", folder / "record"
    child = Child(lambda say: _written(root, record, seed, operations, say))
    said, code = child.rest()
    report: dict[str, Any] = {"images": 0, "violations": [], "modes": Counter(), "quarantined": 0}
    if code:
        return {**report, "violations": [f"the recorded process ended with {code}: {said[-1:]}"]}
    all_events = list(events(record))
    report["record"] = dict(Counter(event.kind for event in all_events))
    seen = {event.path for event in all_events if event.kind == "S"}
    report["data_files_fsynced"] = sum(1 for path in seen if "/data/" in path and path.endswith(".lance"))
    report["acknowledgements"], report["violations"] = fsyncs_before_acknowledgements(all_events)
    draw = random.Random(seed)
    cuts = Counter(draw.randrange(1, len(all_events) + 1) for _ in range(images))
    ready: list[float] = []
    disk, log = Disk(), Log()
    for number, event in enumerate(all_events, 1):
        _step(disk, log, event)
        for _ in range(cuts[number]):
            mode = draw.choice(MODES)
            report["images"] += 1
            report["modes"][mode] += 1
            found = _opened_image(disk, log, root, folder / "image", mode, draw, ready)
            report["quarantined"] += any((folder / "image").glob("index/quarantine/*"))
            report["violations"] += [f"power cut after call {number} ({mode}): {text}" for text in found]
            if len(report["violations"]) > 20:
                return report
    report["ready_ms_max"] = max(ready, default=0.0)
    return report


def fsyncs_before_acknowledgements(record: list[Event]) -> tuple[dict[str, int], list[str]]:
    """The least number of fsyncs, of files and of folders, between the beginning of an operation that wrote anything
    and its acknowledgement; and acknowledgements without either."""
    least: dict[str, int] = {}
    found = []
    disk = Disk()
    before, wrote = dict(disk.fsyncs), False
    number = 0
    for event in record:
        disk.apply(event)
        if event.kind == "M" and event.data.startswith(b'["begin"'):
            before, wrote = dict(disk.fsyncs), False
        elif event.kind == "M" and wrote:
            number += 1
            for kind, count in disk.fsyncs.items():
                least[kind] = min(least.get(kind, 1 << 30), count - before[kind])
                if count == before[kind]:
                    found.append(f"acknowledged without fsync of a {kind}: {event.data[:80]!r}")
        elif event.kind == "W":
            wrote = True
    return {"with_writes": number, **{f"fsyncs_{kind}_least": count for kind, count in least.items()}}, found


def failing_fsyncs(folder: Path, seed: int, operations: int, every: int) -> dict[str, Any]:
    """Each `every`-th fsync of a run fails once, and what it should have written is lost; the run goes on, and whatever
    it acknowledges, before or after, must survive a power cut at the end."""
    report: dict[str, Any] = {"fsyncs_failed": 0, "errors_told": 0, "violations": []}
    number = 1
    while True:
        place = folder / f"n{number}"
        place.mkdir(parents=True)
        child = Child(
            lambda say, n=number, place=place: _written(  # type: ignore[misc]
                place / "store", place / "record", seed, operations, say, fail=n
            )
        )
        said, code = child.rest()
        told = [json.loads(line)[1] for line in said]
        if code or not told:
            report["violations"].append(f"fsync {number} failed: the process ended with {code}: {said[-1:]}")
            return report
        if not told[-1]["reached"]:
            return report
        report["fsyncs_failed"] += 1
        report["errors_told"] += told[-1]["errors"]
        disk, log = Disk(), Log()
        for event in events(place / "record"):
            _step(disk, log, event)
        for mode in ("strict", "all", "mixed"):
            found = _opened_image(disk, log, place / "store", place / "image", mode, random.Random(number), [])
            report["violations"] += [f"fsync {number} failed, then a power cut ({mode}): {text}" for text in found]
        shutil.rmtree(place)
        number += every


def _step(disk: Disk, log: Log, event: Event) -> None:
    if event.kind == "M":
        log.read(event.data.decode())
    else:
        disk.apply(event)


def _opened_image(
    disk: Disk, log: Log, root: Path, goal: Path, mode: str, draw: random.Random, ready: list[float]
) -> list[str]:
    shutil.rmtree(goal, ignore_errors=True)
    disk.image(str(root), goal, mode, draw)
    copy = Log(dict(log.state), {k: list(v) for k, v in log.open.items()}, set(log.kept), log.acknowledged)
    report: dict[str, Any] = {"violations": [], "checked": 0}
    child = Child(lambda say: _check(goal, copy, say))
    said, code = child.rest()
    if not _take(said, copy, report, ready) or code:
        report["violations"].append(f"it did not open ({code})")
    return list(report["violations"])


def _check(folder: Path, log: Log, say: Say) -> None:
    start = time.perf_counter()
    with opened(folder) as layer:
        ready_ms = 1000 * (time.perf_counter() - start)
        found = violations(layer, log, search=sorted({*log.state, *log.open}), all_bytes=True)
        apply(layer, {"after": Wanted("after the power cut", 1)}, lambda _: None)
        if layer.search("after the power cut", k=1).hits[0].chunk.document != "after":
            found.append("nothing can be added any more")
    say(json.dumps(["checked", {"violations": found, "ready_ms": ready_ms, "held": {}}]) + "\n")


def _written(root: Path, record: Path, seed: int, operations: int, say: Say, fail: int = 0) -> None:
    """A store from nothing, with `operations` of all kinds, recorded. `fail` is the fsync that fails."""
    from factform.errors import StoreError

    shim = Shim()
    shim.watch(root, record)
    if fail:
        shim.arm(fail, errno.EIO, kinds=FSYNC)
    errors = 0
    draw = random.Random(seed)
    state: dict[str, Wanted | None] = {}
    done = 0
    while done < operations:
        try:
            with opened(root) as layer:
                for _ in _left(done, operations):
                    done += 1
                    if done == operations // 2:
                        layer.rebuild()
                    change(layer, draw, [f"d{i}" for i in range(8)], state, shim.mark)
        except StoreError as error:
            if "try again" not in str(error):
                raise
            errors += 1
    say(json.dumps(["done", {"errors": errors, "reached": shim.seen() >= fail}]) + "\n")


def _left(done: int, operations: int) -> Iterator[int]:
    yield from range(done, operations)
