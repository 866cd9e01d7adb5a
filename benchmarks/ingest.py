"""The ingest benchmark: documents a second of Factform and its peers, same embedder, one machine, one run.

Knows nothing of any system: each runs as a program of its own (peers/ingest_*.py), in its own environment, one after
another, once in every round. `python benchmarks/ingest.py` writes benchmarks/results/ingest.json and prints its table.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.environments import PeerFailed, public, python_for, run_peer
from speed import environment

from factform.model.fetch import fetch_model

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "ingest.json"
BUILD = ROOT / "build" / "benchmarks"
DATA = ROOT.parent / "shared" / "data" / "scifact" / "corpus.jsonl.gz"
PEERS = ("llamaindex", "haystack", "txtai")
SETTINGS = {
    "own": "its documented defaults: its own chunks, batches and token limit",
    "best": "its own chunks, larger batches",
    "same": "the chunks Factform made, larger batches",
}
BATCH = 64
ASKED_RATIO, ASKED_SHARE = 4.0, 0.85


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if not options.data.is_file():
        print(f"no {options.data}: --data names a JSONL file (.gz or not) with id, title and text", file=sys.stderr)
        return 1
    started, folder = time.perf_counter(), options.build / "ingest"
    folder.mkdir(parents=True, exist_ok=True)
    pythons, problems = environments(options)
    if options.prepare:
        return int(bool(problems))
    embedder = str(fetch_model("minilm-l6").folder)
    documents, chunks = read(options.data, options.documents), folder / "chunks.json"
    (folder / "documents.json").write_text(json.dumps({"documents": documents}), "utf-8")
    common = {"embedder": embedder, "threads": options.threads, "started": time.time_ns()}
    own = {**common, "data": str(folder / "documents.json"), "native": True, "chunks_to": str(chunks)}
    run_peer(Path(sys.executable), "ingest_factform", own, folder / "jobs")
    cut = {"documents": documents, "chunks": json.loads(chunks.read_text("utf-8"))}
    (folder / "cut.json").write_text(json.dumps(cut), "utf-8")
    job = {**common, "data": str(folder / "cut.json"), "native": True, "chunks_to": "", "batch": BATCH}
    rounds: list[dict[str, Any]] = []
    for number in range(options.rounds):
        began = time.perf_counter()
        found: dict[str, Any] = {}
        for peer in ("factform", *PEERS):
            if peer in problems:
                continue
            try:
                found[peer] = run_peer(pythons[peer], f"ingest_{peer}", {**job, "round": number}, folder / "jobs")
            except PeerFailed as error:
                problems[peer] = public(str(error))
            say(f"round {number + 1} of {options.rounds}: {peer} {problems.get(peer, told(found.get(peer)))}")
        rounds.append(found)
        now = time.perf_counter()
        if now - started + (now - began) > 60 * options.minutes:
            break  # the next round would not end in time
    report = {
        **reported(rounds),
        "problems": problems,
        "documents": options.documents,
        "characters": sum(len(row["title"]) + len(row["text"]) for row in documents),
        "settings": SETTINGS,
        "batch": BATCH,
        "rounds": len(rounds),
        "engine": rounds[-1].get("factform", {}).get("engine"),
        "environment": environment(options.threads),
        "load_before": options.load,
        "seconds": time.perf_counter() - started,
        "raw": rounds,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(render(report))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=256, help="documents everybody takes in")
    parser.add_argument("--rounds", type=int, default=3, help="times everybody is run")
    parser.add_argument("--minutes", type=float, default=9.0, help="begin no round that would end later than this")
    parser.add_argument("--data", type=Path, default=DATA, help="JSONL file (.gz or not) with id, title and text")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of everybody")
    parser.add_argument("--build", type=Path, default=BUILD, help="folder for environments, jobs and results")
    parser.add_argument("--out", type=Path, default=OUT, help="the report")
    parser.add_argument("--prepare", action="store_true", help="make the environments and stop")
    options = parser.parse_args(arguments)
    options.build, options.load = options.build.absolute(), os.getloadavg()[0]
    return options


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def told(result: Mapping[str, Any] | None) -> str:
    values = (result or {}).get("settings", {}).items()
    return ", ".join(f"{name} {one['documents'] / one['seconds']:.1f}/s" for name, one in values)


def environments(options: argparse.Namespace) -> tuple[dict[str, Path], dict[str, str]]:
    pythons, problems = {"factform": Path(sys.executable)}, {}
    for peer in PEERS:
        try:
            pythons[peer] = python_for(peer, options.build)
        except PeerFailed as error:
            problems[peer] = f"not installed: {error}"
    return pythons, problems


def read(path: Path, number: int) -> list[dict[str, str]]:
    """The first `number` rows of a JSONL file."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = (json.loads(line) for line in data.decode("utf-8").splitlines()[:number])
    return [{"id": str(row["id"]), "title": row.get("title") or "", "text": row["text"]} for row in rows]


def reported(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Documents a second by system and setting, and Factform's ratio to the best peer of each setting, by round."""
    rates: dict[str, dict[str, list[float]]] = {}
    for found in rounds:
        for peer, result in found.items():
            for setting, one in result["settings"].items():
                rates.setdefault(peer, {}).setdefault(setting, []).append(one["documents"] / one["seconds"])
    ratios: dict[str, list[float]] = {}
    for found in rounds:
        for setting in SETTINGS:
            of = [one["documents"] / one["seconds"] for peer in PEERS if (one := _one(found, peer, setting))]
            mine = _one(found, "factform", "own")
            if of and mine:
                ratios.setdefault(setting, []).append(mine["documents"] / mine["seconds"] / max(of))
    mine = [one for found in rounds if (one := _one(found, "factform", "own"))]
    shares = [one["forward_seconds"] / one["seconds"] for one in mine]
    return {
        "documents_per_second": {p: {s: spread(v) for s, v in by.items()} for p, by in rates.items()},
        "ratio_to_best_peer": {
            s: {**spread(v), "asked": ASKED_RATIO, "met": statistics.median(v) >= ASKED_RATIO}
            for s, v in ratios.items()
        },
        "forward_share": {**spread(shares), "asked": ASKED_SHARE, "met": statistics.median(shares) >= ASKED_SHARE},
        "vectors": {p: {s: r["settings"][s]["vectors"] for s in r["settings"]} for p, r in rounds[-1].items()},
        "peak_mb": {p: max(f[p]["peak_mb"] for f in rounds if p in f) for p in rounds[-1]},
    }


def _one(found: Mapping[str, Any], peer: str, setting: str) -> dict[str, Any] | None:
    value: dict[str, Any] | None = found.get(peer, {}).get("settings", {}).get(setting)
    return value


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "n": len(values)}


def render(report: Mapping[str, Any]) -> str:
    lines = ["| | documents a second, own | best | same chunks | peak MB |", "|---|---:|---:|---:|---:|"]
    for peer, by in report["documents_per_second"].items():
        cells = [
            f"{by[s]['median']:.1f} [{by[s]['low']:.1f}, {by[s]['high']:.1f}]" if s in by else "" for s in SETTINGS
        ]
        lines.append(f"| {peer} | {' | '.join(cells)} | {report['peak_mb'].get(peer, 0):.0f} |")
    for setting, one in report["ratio_to_best_peer"].items():
        lines.append(
            f"\nFactform to the best peer, {setting}: {one['median']:.2f}x [{one['low']:.2f}, {one['high']:.2f}]"
        )
    share = report["forward_share"]
    lines.append(f"\nInside the forward pass: {share['median']:.0%} of the time (asked: {share['asked']:.0%})")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
