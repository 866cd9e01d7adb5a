"""Faults in what is seldom done (`scenarios`): each is short, so everything strikes it everywhere.

Knows nothing of what a scenario does. kill -9 at every failpoint it passes and at every call that changes the disk,
each refusal of the disk at every call it can strike, a power cut after every call.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import factform.encoded  # this and the next two are not called: every process is forked from one that has them
import factform.form.registry
import factform.model.kvdisk  # noqa: F401
from factform.errors import FactformError
from factform.facts import disk as disk_module

from .kills import ELSEWHERE, Child, steps
from .load import Say
from .model import MODES, Disk
from .scenarios import SCENARIOS, Scenario, erase, hidden
from .shim import ALL, FSYNC, GONE, KILL, NAME, WRITE, Shim, events

FAULTS = {
    "kill": (KILL, ALL, False),
    "full": (errno.ENOSPC, WRITE | NAME, True),
    "no_space_once": (errno.ENOSPC, WRITE | NAME, False),
    "write_fails_once": (errno.EIO, WRITE | NAME, False),
    "fsync_fails": (errno.EIO, FSYNC, True),
    "fsync_fails_once": (errno.EIO, FSYNC, False),
    "delete_fails": (errno.EIO, GONE, True),
    "delete_fails_once": (errno.EIO, GONE, False),
}
"""Name -> error, kinds of calls, whether it stays until the disk is mended."""


ENDS = 8
"""Power cuts after the last call of a scenario."""


def upkeep(folder: Path, names: list[str], faults: list[str], every: int, seed: int) -> dict[str, Any]:
    """Every scenario under every fault, at every `every`-th call, and with the power cut after every one of them."""
    report: dict[str, Any] = {"violations": [], "scenarios": {}, "failpoints": {}}
    for name in names:
        place = folder / name
        place.mkdir(parents=True)
        counts: dict[str, Any] = {}
        report["scenarios"][name] = counts
        scenario, wrong = SCENARIOS[name], report["violations"]
        said, code = _child(partial(scenario.prepare, place / "base"))
        if code:
            wrong.append(f"{name}: there is nothing to begin with: {said}")
            continue
        counts["failpoints"] = _failpoints(scenario, place, report["failpoints"], wrong, name)
        for fault in (name for name in faults if name != "power"):
            counts[fault] = _every_call(scenario, place, fault, every, wrong, name)
        if "power" in faults or faults == list(FAULTS):
            counts["power"] = _power(scenario, place, every, random.Random(seed), wrong, name)
        shutil.rmtree(place)
    if names == list(SCENARIOS):
        report["violations"] += [
            f"failpoint {name} is never passed" for name in _named() if not report["failpoints"].get(name)
        ]
    return report


def _named() -> list[str]:
    return [name for name in steps() if name.startswith(ELSEWHERE)]


def _child(work: Callable[[], Any]) -> tuple[list[Any], int]:
    """What a process that does `work` comes to: what it returns, and errors, each said in a line."""

    def run(say: Say) -> None:
        say(json.dumps(["returned", work()]) + "\n")

    said, code = Child(run).rest()
    return [json.loads(line) for line in said], code


def _copied(place: Path) -> Path:
    shutil.rmtree(place / "store", ignore_errors=True)
    shutil.copytree(place / "base", place / "store")
    return place / "store"


def _judged(scenario: Scenario, store: Path, done: bool) -> list[str]:
    said, code = _child(lambda: scenario.judge(store, done))
    return list(said[-1][1]) if code == 0 else [f"judging it ended with {code}: {str(said)[-1500:]}"]


def _failpoints(scenario: Scenario, place: Path, passed: dict[str, int], wrong: list[str], name: str) -> dict[str, int]:
    """kill -9 at every failpoint each time it is passed; once more while what that left is mended."""
    store = _copied(place)

    def listed() -> dict[str, int]:
        os.environ["FACTFORM_FAILPOINT"] = "count"
        scenario.act(store)
        return dict(disk_module._passed)

    said, code = _child(listed)
    if code:
        wrong.append(f"{name}: it fails without a fault: {said}")
        return {}
    steps = said[-1][1]
    for step, times in steps.items():
        passed[step] = passed.get(step, 0) + times
        for hit in range(1, times + 1):
            store = _copied(place)
            for _ in range(2):
                code = _child(partial(_armed, scenario, store, f"{step}:{hit}"))[1]
                if code not in (0, -signal.SIGKILL):
                    wrong.append(f"{name}: killed at {step} twice, it ended with {code}")
            wrong += [f"{name}: killed at {step}:{hit}: {text}" for text in _judged(scenario, store, code == 0)]
            if len(wrong) > 20:
                return dict(steps)
    return dict(steps)


def _armed(scenario: Scenario, store: Path, step: str) -> None:
    os.environ["FACTFORM_FAILPOINT"] = step
    with suppress(FactformError):  # the second time it may have nothing to do: it is erased, or there already
        scenario.act(store)


def _every_call(scenario: Scenario, place: Path, fault: str, every: int, wrong: list[str], name: str) -> dict[str, int]:
    counted: Counter[str] = Counter()
    number = 1
    while len(wrong) <= 20:
        store = _copied(place)
        said, code = _child(partial(_struck, scenario, store, fault, number))
        came = said[-1][1] if said and code == 0 else {"reached": code == -signal.SIGKILL, "done": False, "wrong": []}
        found = list(came["wrong"])
        if code not in (0, -signal.SIGKILL) or (code and FAULTS[fault][0] != KILL):
            found.append(f"the process ended with {code}: {str(said)[-1500:]}")
        if not came["reached"] and not found:
            break
        found += _judged(scenario, store, came["done"])
        counted["struck"] += 1
        counted["done_all_the_same"] += came["done"]
        wrong += [f"{name}: {fault} at call {number}: {text}" for text in found]
        number += every
    return dict(counted)


def _struck(scenario: Scenario, store: Path, fault: str, number: int) -> dict[str, Any]:
    error, kinds, stays = FAULTS[fault]
    shim, wrong, done = Shim(), [], False
    shim.watch(store, None)
    shim.arm(number, error, kinds=kinds, stays=stays)
    try:
        scenario.act(store)
        done = True
    except FactformError as refusal:
        if not any(words in str(refusal) for words in ("try again", "goes on", "run `factform", "then")):
            wrong.append(f"the error does not say what to do: {refusal}")
    if scenario.act is erase and stays and not done:
        wrong += hidden(store)
    reached = shim.seen() >= number
    shim.disarm()
    return {"reached": reached, "done": done, "wrong": wrong}


# --- power --------------------------------------------------------------------------------------


def _power(
    scenario: Scenario, place: Path, every: int, draw: random.Random, wrong: list[str], name: str
) -> dict[str, Any]:
    """The power fails after every call that changes the disk, and ENDS times more when all is done: what was not forced
    to disk by then is the most there is, and chance takes another part of it each time."""
    store, record = place / "recorded", place / "record"
    said, code = _child(lambda: _recorded(scenario, store, record))
    if code:
        wrong.append(f"{name}: the recorded process ended with {code}: {str(said)[-1500:]}")
        return {}
    state, images, begun, done = Disk(), 0, False, False
    for number, event in enumerate(events(record), 1):
        if event.kind == "M":
            begun, done = True, event.data == b"done"
        state.apply(event)
        if not begun or (number % every and not done):
            continue
        for mode in ["mixed"] * ENDS if done else [draw.choice(MODES)]:
            images += 1
            shutil.rmtree(place / "image", ignore_errors=True)
            state.image(str(store), place / "image", mode, draw)
            found = _judged(scenario, place / "image", done)
            wrong += [f"{name}: power cut after call {number} ({mode}): {text}" for text in found]
        if len(wrong) > 20:
            break
    return {"images": images}


def _recorded(scenario: Scenario, store: Path, record: Path) -> None:
    store.mkdir()
    shim = Shim()
    shim.watch(store, record)
    scenario.prepare(store)
    for path in [*store.rglob("*"), store]:  # what was there before is on disk
        disk_module.fsync_path(path)
    shim.mark("act")
    scenario.act(store)
    shim.mark("done")
