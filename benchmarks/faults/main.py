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

from . import kills

OUT = Path(__file__).resolve().parents[1] / "results" / "faults.json"


def main() -> None:
    options = _options()
    report: dict[str, Any] = {"environment": environment(options)}
    with tempfile.TemporaryDirectory(prefix="factform-faults-", dir=options.folder) as folder:
        for name in options.parts.split(","):
            start = time.monotonic()
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


PARTS = {"kills": _kills, "steps": _steps}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--kills", type=int, default=1000, help="processes killed at random moments")
    parser.add_argument("--hits", type=int, default=2, help="times each named step is reached before the kill")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", help="where the stores are made (a real disk); default: the temporary folder")
    parser.add_argument("--out", default=str(OUT), help="the report; empty for none")
    return parser.parse_args()
