"""A full disk, a disk that fails, kill -9: at every write of a scenario, one after the other.

Knows nothing of what is right afterwards (`invariants`). Whatever happens: no false receipt, searches go on, the error
says what to do, documents can still be removed, and once the fault is gone nobody has to lend a hand.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from factform.errors import StoreError

from .invariants import Log, Wanted, violations
from .kills import Child, _take
from .load import Say, apply, opened
from .shim import ALL, FSYNC, KILL, NAME, WRITE, Shim

LONG = " ".join(f"alpha{i}" for i in range(100))
BASE: dict[str, Wanted | None] = {
    "a": Wanted("first a " + LONG, 1),
    "b": Wanted("beta b", 1),
    "c": Wanted("gamma c", 1),
}

FAULTS = {
    "full": (errno.ENOSPC, WRITE | NAME, True),
    "no_space_once": (errno.ENOSPC, WRITE | NAME, False),
    "fsync_fails": (errno.EIO, FSYNC, True),
    "fsync_fails_once": (errno.EIO, FSYNC, False),
    "write_fails_once": (errno.EIO, WRITE | NAME, False),
    "kill": (KILL, ALL, False),
}
"""Name -> error, kinds of calls, whether it stays until the disk is mended."""


def every_write(folder: Path, faults: list[str], every: int = 1) -> dict[str, Any]:
    """Each fault at each `every`-th call of the scenario that it can strike."""
    folder.mkdir(parents=True)
    base = folder / "base"
    made, code = Child(lambda say: _make(base)).rest()
    report: dict[str, Any] = {"faults": {}, "violations": [] if code == 0 else [f"no store to begin with: {made}"]}
    for name in faults:
        counted: Counter[str] = Counter()
        number = 1
        while not report["violations"]:
            store = folder / "store"
            shutil.rmtree(store, ignore_errors=True)
            shutil.copytree(base, store)
            reached, found = _struck(store, name, number, counted)
            report["violations"] += [f"{name} at call {number}: {text}" for text in found]
            if not reached:
                break
            counted["struck"] += 1
            number += every
        report["faults"][name] = dict(counted)
    return report


def _make(folder: Path) -> None:
    with opened(folder) as layer:
        apply(layer, BASE, lambda _: None)


def _struck(store: Path, name: str, number: int, counted: Counter[str]) -> tuple[bool, list[str]]:
    log = Log(state=dict(BASE))
    child = Child(lambda say: _scenario(store, name, number, say))
    said, code = child.rest()
    told: dict[str, Any] = {"reached": code < 0}
    found: list[str] = []
    for line in said:
        kind, value = json.loads(line)
        if kind == "told":
            told |= value
        elif kind == "error":
            found.append(value)
        else:
            log.read(line)
    if code and not (code < 0 and FAULTS[name][0] == KILL):
        found.append(f"the process ended with {code}")
    counted["errors_told"] += told.get("errors", 0)
    counted["removed_all_the_same"] += told.get("removed", 0)
    found += told.get("wrong", [])
    child = Child(lambda say: _check(store, log, say))
    said, code = child.rest()
    report: dict[str, Any] = {"violations": found, "checked": 0}
    if not _take(said, log, report, []) or code:
        found.append(f"the store does not open ({code})")
    return told["reached"], found


def _scenario(store: Path, name: str, number: int, say: Say) -> None:
    """Add, search and remove with the fault armed; then the fault goes, and adding works again in this process."""
    error, kinds, stays = FAULTS[name]
    shim = Shim()
    wrong: list[str] = []
    errors = removed = 0
    with opened(store) as layer:
        shim.watch(store, None)
        shim.arm(number, error, kinds=kinds, stays=stays)
        for changes in ({"a": Wanted("second a " + LONG, 2), "d": Wanted("delta d", 1)}, {"b": Wanted("beta b", 7)}):
            try:
                apply(layer, changes, say)  # type: ignore[arg-type]
            except StoreError as refusal:
                errors += 1
                if "try again" not in str(refusal) or str(store) not in str(refusal):
                    wrong.append(f"the error does not say where and what to do: {refusal}")
        wrong += _readable(store, layer)
        try:
            apply(layer, {"c": None}, say)
            removed += 1
            if any(hit.chunk.document == "c" for hit in layer.search("gamma", k=5).hits):
                wrong.append("removed, and still found")
        except StoreError as refusal:
            errors += 1
            if name == "full":
                wrong.append(f"nothing can be removed on a full disk: {refusal}")
        reached = shim.seen() >= number
        shim.disarm()
        apply(layer, {"e": Wanted("epsilon e", 1)}, say)
    say(json.dumps(["told", {"reached": reached, "errors": errors, "removed": removed, "wrong": wrong}]) + "\n")


def _readable(store: Path, layer: Any) -> list[str]:
    """Searches go on, in this handle and in one opened anew."""
    wrong = []
    try:
        with opened(store, 0.0) as other:
            for handle in (layer, other):
                if not any(hit.chunk.document == "c" for hit in handle.search("gamma", k=3).hits):
                    wrong.append("a search does not find what is there")
    except StoreError as refusal:
        wrong.append(f"a search failed: {refusal}")
    return wrong


def _check(store: Path, log: Log, say: Say) -> None:
    with opened(store) as layer:
        found = violations(layer, log, search=sorted({*log.state, *log.open}), all_bytes=True)
        if layer.status()["accounting"]["pending"]:
            found.append("something is still pending")
    say(json.dumps(["checked", {"violations": found, "ready_ms": 0.0, "held": {}}]) + "\n")


# --- a disk that is really full ------------------------------------------------------------------


def small_disk(folder: Path, megabytes: int = 12) -> dict[str, Any]:
    """The same on a file system of a few megabytes, filled to the last byte, where this machine lets us mount one."""
    folder.mkdir(parents=True)
    options = ["-o", f"size={megabytes}m"]
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], capture_output=True, check=False)
    if done.returncode:
        return {"skipped": "no file system can be mounted here", "violations": []}
    try:
        child = Child(lambda say: _filled(folder, say))
        said, code = child.rest()
        log, report = Log(), {"violations": [] if code == 0 else [f"the process ended with {code}"], "checked": 0}
        for line in said:
            kind, value = json.loads(line)
            if kind in ("told", "error"):
                report |= value if kind == "told" else {"violations": [value]}
            else:
                log.read(line)
        if not report["violations"]:
            said, code = Child(lambda say: _check(folder / "store", log, say)).rest()
            if not _take(said, log, report, []) or code:
                report["violations"].append(f"the store does not open ({code})")
        return report
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _filled(folder: Path, say: Say) -> None:
    ballast = folder / "ballast"
    taken, errors, wrong = 0, [], []
    with opened(folder / "store") as layer:
        apply(layer, BASE, say)
        _fill(ballast)
        for number in range(200):
            try:
                apply(layer, {f"n{number}": Wanted(f"number{number} {LONG}", 1)}, say)
                taken += 1
            except StoreError as refusal:
                errors.append(str(refusal).replace(str(folder), "DISK"))
                break
        wrong += [] if errors else ["the disk is full and nothing was refused"]
        wrong += _readable(folder / "store", layer)
        apply(layer, {"b": None}, say)
        if layer.search("beta", k=3).hits[0].chunk.document == "b":
            wrong.append("removed, and still found")
        ballast.unlink()
        apply(layer, {"z": Wanted("omega z", 1)}, say)
    say(json.dumps(["told", {"taken": taken, "error": errors[:1], "violations": wrong}]) + "\n")


def _fill(path: Path) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(handle, bytes(4096))
    except OSError:
        os.close(handle)
