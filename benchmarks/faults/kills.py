"""kill -9: at every named step, and at random moments under load, in recovery too.

Knows nothing of what is right afterwards; that is `invariants`. Every child is forked from this process, which has the
imports behind it and never uses the index itself: a start costs milliseconds instead of seconds.
"""

from __future__ import annotations

import json
import os
import random
import re
import select
import shutil
import signal
import statistics
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import factform
from factform.facts import index
from factform.facts.store import DataLayer

from .invariants import Log, Wanted, violations
from .load import Say, apply, change, opened

DOCUMENTS = 24
THREADS = 3
KILLS_A_STORE = 50

ELSEWHERE = ("erase_", "backup_", "restore_", "ledger_migrated", "rebuild_given_up", "prune_")
"""Beginnings of the names of failpoints that only what is seldom done passes: `upkeep` kills there."""

NAMED = re.compile(r'failpoint\("(\w+)"\)')

Work = Callable[[Say], None]


class Child:
    """A forked process that runs `work`; what it says comes through a pipe, line by line."""

    def __init__(self, work: Work):
        sys.stdout.flush()
        # The index's library warns of forks in the middle of its work; this process never has any.
        warnings.filterwarnings("ignore", message="lancedb fork support")
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            code = 1
            try:
                work(lambda line: _write(writer, line))
                code = 0
            except BaseException:
                _write(writer, json.dumps(["error", traceback.format_exc()]) + "\n")
            finally:
                os._exit(code)
        os.close(writer)
        self._reader = reader
        self._rest = b""
        self.ended = False

    def lines(self, until: float) -> list[str]:
        """What it says up to a moment (of `time.monotonic`), or until it ends."""
        found: list[str] = []
        while not self.ended and (left := until - time.monotonic()) > 0:
            if select.select([self._reader], [], [], left)[0]:
                found += self._read()
        return found

    def _read(self) -> list[str]:
        data = os.read(self._reader, 1 << 16)
        self.ended = not data
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [line.decode() for line in whole]

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def rest(self) -> tuple[list[str], int]:
        """Everything else it said before it ended, and how it ended (negative: the signal)."""
        found: list[str] = []
        while not self.ended:
            found += self._read()
        os.close(self._reader)
        return found, os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _write(handle: int, line: str) -> None:
    data = line.encode()
    while data:
        data = data[os.write(handle, data) :]


# --- random moments -------------------------------------------------------------------------


def random_kills(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """`kills` processes under load, each killed at some moment; each first checks what the one before it left."""
    draw = random.Random(seed)
    report: dict[str, Any] = {"kills": 0, "in_recovery": 0, "acknowledged": 0, "checked": 0, "violations": []}
    ready: list[float] = []
    start = time.monotonic()
    while report["kills"] < kills and not report["violations"]:
        _one_store(folder / "store", draw, min(KILLS_A_STORE, kills - report["kills"]), report, ready)
    report["ready_ms"] = _spread(ready)
    report["seconds"] = time.monotonic() - start
    return report


def _one_store(folder: Path, draw: random.Random, kills: int, report: dict[str, Any], ready: list[float]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    log = Log()
    for number in range(kills + 1):
        last = number == kills
        seed = draw.getrandbits(32)
        child = Child(lambda say, seed=seed, last=last: _live(folder, log, seed, last, say))  # type: ignore[misc]
        checked = False
        if not last:
            # A quarter of the time while it opens and recovers, otherwise under load.
            early = draw.random() < 0.25
            wait = draw.uniform(0.0, 0.3) if early else 60.0
            said = child.lines(time.monotonic() + wait) if early else _until_checked(child, wait)
            checked = _take(said, log, report, ready)
            if checked:
                _take(child.lines(time.monotonic() + draw.uniform(0.0, 0.5)), log, report, ready)
            child.kill()
        said, code = child.rest()
        checked = _take(said, log, report, ready) or checked
        if not last:
            report["kills"] += 1
            report["in_recovery"] += not checked
        if code not in (0, -signal.SIGKILL) or (last and not checked):
            report["violations"].append(f"a process ended with {code}")
        if report["violations"]:
            return
    report["acknowledged"] += log.acknowledged


def _until_checked(child: Child, wait: float) -> list[str]:
    end, said = time.monotonic() + wait, []
    while not child.ended and time.monotonic() < end:
        said += child.lines(min(end, time.monotonic() + 0.02))
        if any(line.startswith('["checked"') for line in said):
            break
    return said


def _take(lines: list[str], log: Log, report: dict[str, Any], ready: list[float]) -> bool:
    """Lines of a child into the log; whether it has checked the store. The child settled its own copy of the log when
    it did, so this one is settled with what it found."""
    checked = False
    for line in lines:
        kind, value = json.loads(line)
        if kind == "checked":
            checked = True
            report["checked"] += 1
            report["violations"] += value["violations"]
            ready.append(value["ready_ms"])
            log.settle({d: None if w is None else Wanted(*w) for d, w in value["held"].items()})
        elif kind == "error":
            report["violations"].append(value)
        else:
            log.read(line)
    return checked


def _live(folder: Path, log: Log, seed: int, last: bool, say: Say) -> None:
    """Open, check, say so; then work until killed."""
    start = time.perf_counter()
    with opened(folder) as layer:
        ready_ms = 1000 * (time.perf_counter() - start)
        draw = random.Random(seed)
        documents = sorted({*log.state, *log.open})
        chosen = documents if last else draw.sample(documents, min(4, len(documents)))
        unsettled = list(log.open)
        found = violations(layer, log, search=chosen, all_bytes=last)
        held = {d: None if (w := log.state[d]) is None else [w.body, w.year] for d in unsettled}
        say(json.dumps(["checked", {"violations": found, "ready_ms": ready_ms, "held": held}]) + "\n")
        if last:
            return
        if draw.random() < 0.02:
            layer.rebuild()
        threads = [
            threading.Thread(target=_work, args=(layer, number, seed, log, say), daemon=True)
            for number in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _work(layer: DataLayer, number: int, seed: int, log: Log, say: Say) -> None:
    draw = random.Random(f"{seed} {number}")
    mine = [f"d{i}" for i in range(number, DOCUMENTS, THREADS)]
    state = {document: log.state.get(document) for document in mine}
    try:
        while True:
            change(layer, draw, mine, state, say)
    except BaseException:
        say(json.dumps(["error", traceback.format_exc()]) + "\n")
        os._exit(1)


# --- named steps ----------------------------------------------------------------------------


def steps() -> list[str]:
    """Every failpoint in the source."""
    folder = Path(factform.__file__).parent
    texts = [path.read_text("utf-8") for path in folder.rglob("*.py")]
    return sorted({name for text in texts for name in NAMED.findall(text)})


def named_kills(folder: Path, hits: int = 2) -> dict[str, Any]:
    """Killed at each failpoint the first time it is reached, and the second, …; then again while recovering from it."""
    report: dict[str, Any] = {"steps": {}, "unreached": [], "kills": 0, "violations": []}
    for step in steps():
        if step.startswith(ELSEWHERE):
            continue
        reached = 0
        for hit in range(1, hits + 1):
            store = folder / f"{step}-{hit}"
            log = Log()
            reached += _killed_at(store, step, hit, log, report)
            shutil.rmtree(store, ignore_errors=True)
        report["steps"][step] = reached
        if not reached:
            report["unreached"].append(step)
    report["violations"] += [f"failpoint {step} is never passed" for step in report["unreached"]]
    return report


def _killed_at(store: Path, step: str, hit: int, log: Log, report: dict[str, Any]) -> int:
    """Run the scenario with one failpoint armed, and again on what is left until it is not reached any more."""
    killed = 0
    for _ in range(3):
        child = Child(lambda say: _armed(store, step, hit, log, say))
        said, code = child.rest()
        ready: list[float] = []
        _take(said, log, {**report, "checked": 0}, ready)
        if code == -signal.SIGKILL:
            killed += 1
            report["kills"] += 1
        elif code != 0:
            report["violations"].append(f"{step}: a process ended with {code}")
        check = Child(lambda say: _live(store, log, 0, True, say))
        said, code = check.rest()
        if not _take(said, log, {**report, "checked": 0}, ready) or code:
            report["violations"].append(f"{step}: the store does not open")
        if report["violations"]:
            report["violations"].append(f"at {step}, hit {hit}")
            break
    return killed


def _armed(store: Path, step: str, hit: int, log: Log, say: Say) -> None:
    index.FRAGMENTS = -1000  # a few documents are not tidied otherwise
    os.environ["FACTFORM_FAILPOINT"] = f"{step}:{hit}"
    scenario(store, log, say)


def scenario(store: Path, log: Log, say: Say) -> None:
    """Every kind of write there is, small: new, updated, other metadata, the same again, removed, taken in again, a
    crash finished, an index set back and caught up, all made anew."""
    with opened(store) as layer:
        everything(layer, say)
        layer._current.get().delete(["a"])  # a commit that nobody noted as durable
    with opened(store) as layer:
        apply(layer, {"e": Wanted("epsilon e", 1), "f": Wanted("zeta f", 1)}, say)
    for manifest in sorted((store / "index").rglob("*.manifest"))[:5]:
        manifest.write_bytes(manifest.read_bytes()[:20])
    with opened(store) as layer:
        apply(layer, {"e": Wanted("eta e", 1)}, say)


def everything(layer: DataLayer, say: Say) -> None:
    long = " ".join(f"alpha{i}" for i in range(100))
    apply(layer, {"a": Wanted("first a " + long, 1), "b": Wanted("beta b", 1), "c": Wanted("gamma c", 1)}, say)
    apply(layer, {"a": Wanted("second a " + long, 1), "d": Wanted("delta d", 1)}, say)
    apply(layer, {"b": Wanted("beta b", 2)}, say)
    apply(layer, {"b": Wanted("beta b", 2)}, say)
    apply(layer, {"c": None, "d": None}, say)
    apply(layer, {"c": Wanted("gamma c", 1)}, say)
    layer.rebuild()
    apply(layer, {"a": Wanted("third a", 1)}, say)


def _spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    return {"n": len(values), "median": statistics.median(values), "max": max(values)}
