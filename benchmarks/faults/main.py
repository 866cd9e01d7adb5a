"""The command of the fault work: runs the parts, writes the report.

Knows nothing of how faults are made. Parts that this machine cannot run (no compiler) are named with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import disk, kills, power, ready, scenarios, shim, upkeep, writers

OUT = Path(__file__).resolve().parents[1] / "results" / "faults.json"


def main() -> None:
    options = _options()
    if set(SHIMMED) & set(options.parts.split(",")) and not shim.why_not() and shim.LOADED not in os.environ:
        with tempfile.TemporaryDirectory(prefix="factform-shim-") as built:
            command = [sys.executable, *sys.orig_argv[1:]]
            sys.exit(subprocess.run(command, env=shim.environment(shim.compiled(Path(built))), check=False).returncode)
    report: dict[str, Any] = {"environment": environment(options)}
    with tempfile.TemporaryDirectory(prefix="factform-faults-", dir=options.folder) as folder:
        for name in options.parts.split(","):
            start = time.monotonic()
            without = shim.why_not() if name in SHIMMED else None
            if without:
                report[name] = {"skipped": without, "violations": []}
                continue
            report[name] = PARTS[name](Path(folder) / name, options)
            report[name]["seconds"] = round(time.monotonic() - start, 1)
            print(f"{name}: {json.dumps(report[name])[:1500]}", flush=True)
    bad = [f"{name}: {text}" for name, part in report.items() for text in part.get("violations", [])]
    report["violations"] = len(bad)
    if options.out:
        Path(options.out).write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", "utf-8")
    if bad:
        sys.exit("\n".join(["something was lost:", *bad]))


def environment(options: argparse.Namespace) -> dict[str, Any]:
    root = Path(__file__).resolve().parents[2]
    commit = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    packages = {name: version(name) for name in ("lancedb", "pyarrow", "numpy")}
    return {
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "sqlite": sqlite3.sqlite_version,
        "packages": packages,
        "options": {k: v for k, v in vars(options).items() if k not in ("folder", "out")},
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _kills(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    return kills.random_kills(folder, options.kills, options.seed)


def _steps(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    return kills.named_kills(folder, options.hits)


def _power(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    return power.power_cuts(folder, options.images, options.seed, options.operations)


def _fsyncs(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    return power.failing_fsyncs(folder, options.seed, 6, options.every)


def _disk(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    return disk.every_write(folder, options.faults.split(","), options.every)


def _small(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    return disk.small_disk(folder)


def _upkeep(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    faults = list(upkeep.FAULTS) if options.upkeep_faults == "all" else options.upkeep_faults.split(",")
    return upkeep.upkeep(folder, options.scenarios.split(","), faults, options.every_upkeep, options.seed)


def _writers(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    folder.mkdir(parents=True)
    return writers.concurrent(folder, options.processes, options.updates, options.seed)


def _ready(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    return ready.ready(folder, options.chunks)


PARTS = {
    "kills": _kills,
    "steps": _steps,
    "power": _power,
    "fsyncs": _fsyncs,
    "disk": _disk,
    "small": _small,
    "upkeep": _upkeep,
    "writers": _writers,
    "ready": _ready,
}
SHIMMED = ("power", "fsyncs", "disk", "upkeep")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--kills", type=int, default=1000, help="processes killed at random moments")
    parser.add_argument("--images", type=int, default=500, help="power cuts")
    parser.add_argument("--operations", type=int, default=30, help="operations of the record the power fails in")
    parser.add_argument("--faults", default=",".join(disk.FAULTS), help="what strikes a write")
    parser.add_argument("--every", type=int, default=1, help="strike each N-th write only")
    parser.add_argument("--scenarios", default=",".join(scenarios.SCENARIOS), help="of what is seldom done")
    parser.add_argument("--upkeep-faults", default="all", help=f"of {', '.join(upkeep.FAULTS)}, power; all of them")
    parser.add_argument("--every-upkeep", type=int, default=1, help="strike each N-th call of those scenarios only")
    parser.add_argument("--processes", type=int, default=4, help="writers at once")
    parser.add_argument("--updates", type=int, default=250, help="updates of each writer")
    parser.add_argument("--chunks", type=int, default=100_000, help="size of the store that has to be ready again")
    parser.add_argument("--hits", type=int, default=2, help="times each named step is reached before the kill")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", help="where the stores are made (a real disk); default: the temporary folder")
    parser.add_argument("--out", default=str(OUT), help="the report; empty for none")
    return parser.parse_args()
