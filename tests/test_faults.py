"""The fault harness: its checks see what they are for, and a short run of all its parts finds nothing lost."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from factform.facts import blobs
from factform.ids import sha256

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    from faults import invariants, load, model, power, shim

    yield {"invariants": invariants, "load": load, "model": model, "power": power, "shim": shim}
    for name in set(sys.modules) - before:
        if name.split(".")[0] == "faults":
            del sys.modules[name]


def test_the_judge_sees_what_is_lost_doubled_partial_or_old(faults: dict[str, ModuleType], tmp_path: Path) -> None:
    invariants, load = faults["invariants"], faults["load"]
    log = invariants.Log()
    wanted = {name: invariants.Wanted(f"{name}word " + "more " * 90, 1) for name in ("a", "b", "c", "d")}
    with load.opened(tmp_path / "store") as layer:
        load.apply(layer, wanted, lambda line: log.read(line))
        load.apply(layer, {"d": None}, lambda line: log.read(line))
        assert invariants.violations(layer, log, search=list(wanted), all_bytes=True) == []
        assert log.acknowledged == 5

        index = layer._current.get()
        row = next(index.rows())
        index._table.delete(f"id = '{row['id']}'")
        found = invariants.violations(layer, log)
        assert any(f"{row['document']}: partly visible" in text for text in found)
        layer._writer.catch_up()
        assert invariants.violations(layer, log) == []

        twice = next(item for item in index.scan() if item[0].chunk.document == "b")
        index.append([twice[0]], twice[2][None])
        assert any("2 times in the index" in text for text in invariants.violations(layer, log))
        layer.rebuild()
        assert invariants.violations(layer, log) == []

        layer.remove(["a"])
        assert "a: lost" in invariants.violations(layer, log)
        log.state["b"] = invariants.Wanted("other words", 1)
        assert any(text.startswith("b: neither") for text in invariants.violations(layer, log))
        log.state["b"] = wanted["b"]
        blobs.blob_path(layer.folder / "blobs", sha256(wanted["a"].body.encode())).unlink()
        assert any("is missing" in text for text in invariants.violations(layer, log, all_bytes=True))


def test_a_disk_that_forgets(faults: dict[str, ModuleType], tmp_path: Path) -> None:
    disk, event = faults["model"].Disk(), faults["shim"].Event
    steps = [
        event("D", 0, 9, 0, "/s", "", b""),
        event("S", 0, 8, 0, "", "", b""),
        event("O", 0, 1, 0, "/s/kept", "", b""),
        event("W", 0, 1, 0, "/s/kept", "", b"durable"),
        event("S", 0, 1, 0, "/s/kept", "", b""),
        event("S", 0, 9, 0, "/s", "", b""),
        event("W", 0, 1, 0, "/s/kept", "", b"CHANGED"),
        event("O", 0, 2, 0, "/s/.tmp", "", b""),
        event("W", 0, 2, 0, "/s/.tmp", "", b"unnamed"),
        event("S", 0, 2, 0, "/s/new", "", b""),  # renamed by a call nobody saw
    ]
    for step in steps:
        disk.apply(step)

    def left(mode: str) -> dict[str, bytes]:
        goal = tmp_path / f"{mode}{random.random()}"
        disk.image("/s", goal, mode, random.Random(1))
        return {path.name: path.read_bytes() for path in goal.rglob("*") if path.is_file()}

    assert left("strict") == {"kept": b"durable"}
    assert left("all") == {"kept": b"CHANGED", "new": b"unnamed"}
    disk.apply(event("S", 5, 1, 0, "/s/kept", "", b""))  # a failed fsync: lost for good
    disk.apply(event("S", 0, 1, 0, "/s/kept", "", b""))
    disk.apply(event("S", 0, 9, 0, "/s", "", b""))
    assert left("strict") == {"kept": b"durable", "new": b"unnamed"}


def test_a_folder_that_is_renamed_takes_along_what_is_durable_in_it(
    faults: dict[str, ModuleType], tmp_path: Path
) -> None:
    disk, event = faults["model"].Disk(), faults["shim"].Event
    steps = [
        *(event("D", 0, inode, 0, path, "", b"") for inode, path in ((9, "/s"), (8, "/s/new"))),
        *(event("O", 0, inode, 0, f"/s/new/{name}", "", b"") for inode, name in ((1, "kept"), (2, "unnamed"))),
        event("W", 0, 1, 0, "/s/new/kept", "", b"durable"),
        event("S", 0, 1, 0, "/s/new/kept", "", b""),
        event("U", 0, 2, 0, "/s/new/unnamed", "", b""),
        event("S", 0, 8, 0, "/s/new", "", b""),
        event("O", 0, 2, 0, "/s/new/later", "", b""),  # the inode of a file that is gone, used again
        event("S", 0, 9, 0, "/s", "", b""),
        event("R", 0, 8, 0, "/s/new", "/s/goal", b""),
    ]
    for step in steps:
        disk.apply(step)

    def left() -> list[str]:
        goal = tmp_path / f"{random.random()}"
        disk.image("/s", goal, "strict", random.Random(1))
        return sorted(str(path.relative_to(goal)) for path in goal.rglob("*") if path.is_file())

    assert left() == ["new/kept"]
    disk.apply(event("S", 0, 9, 0, "/s", "", b""))
    assert left() == ["goal/kept"]


def test_every_failpoint_is_known_and_struck_somewhere(faults: dict[str, ModuleType]) -> None:
    from faults import kills

    named = kills.steps()
    assert {"after_blob", "erase_begun", "backup_written", "restore_synced", "ledger_migrated"} <= set(named)
    texts = [path.read_text("utf-8") for path in (BENCHMARKS.parent / "src").rglob("*.py")]
    called = sum(text.count("failpoint(") - text.count("def failpoint(") for text in texts)
    assert called == sum(len(kills.NAMED.findall(text)) for text in texts)  # none whose name cannot be read


def test_an_acknowledgement_without_fsync_is_seen(faults: dict[str, ModuleType]) -> None:
    event = faults["shim"].Event
    begin, end = (event("M", 0, 0, 0, "", "", f'["{kind}", {{}}]'.encode()) for kind in ("begin", "acknowledged"))
    made = [event("D", 0, 9, 0, "/s", "", b""), event("O", 0, 1, 0, "/s/x", "", b"")]
    written = event("W", 0, 1, 0, "/s/x", "", b"x")
    file, folder = event("S", 0, 1, 0, "/s/x", "", b""), event("S", 0, 9, 0, "/s", "", b"")
    check = faults["power"].fsyncs_before_acknowledgements
    assert check([*made, begin, written, file, folder, end])[1] == []
    assert len(check([*made, begin, written, file, end])[1]) == 1
    assert len(check([*made, begin, written, end])[1]) == 2
    assert check([*made, begin, end]) == ({"with_writes": 0}, [])


@pytest.mark.slow
def test_a_short_run_of_all_faults(tmp_path: Path) -> None:
    options = [
        "--parts",
        "kills,power,fsyncs,disk,writers",
        "--kills",
        "8",
        "--images",
        "10",
        "--operations",
        "8",
    ]
    options += ["--updates", "5", "--processes", "3", "--every", "45", "--out", str(tmp_path / "report.json")]
    program = BENCHMARKS / "faults" / "run.py"
    done = subprocess.run([sys.executable, program, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["violations"] == 0
    assert report["kills"]["kills"] == 8
    assert report["writers"]["receipts"] == 15
    if "skipped" in report["power"]:
        pytest.skip(report["power"]["skipped"])
    assert report["power"]["images"] == 10
    assert report["power"]["acknowledgements"]["fsyncs_folder_least"] >= 1
    assert report["power"]["acknowledgements"]["fsyncs_file_least"] >= 1
    assert all(part.get("struck", 0) >= 1 for part in report["disk"]["faults"].values())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_is_seldom_done_survives_a_short_run_of_faults(tmp_path: Path) -> None:
    program = BENCHMARKS / "faults" / "run.py"
    options = ["--parts", "upkeep", "--every-upkeep", "500", "--out", str(tmp_path / "report.json")]
    done = subprocess.run([sys.executable, program, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))["upkeep"]
    assert set(report["scenarios"]) == {
        *("erase", "prune", "backup", "restore", "migrate", "rebuild", "background", "words"),
    }
    assert all(part["power"]["images"] >= 8 for part in report["scenarios"].values())
