"""One flipped bit or byte at a time, in every kind of file of a project: what is found, what is mended, what is lost.

Knows nothing of how damage is found or mended: it compares everything a project says before and after.

    python benchmarks/faults/flips.py --trials 1000      # writes benchmarks/results/flips.json

A trial takes a sound project, flips one bit or one byte of one file and asks, in this order: does `doctor` name a
problem; do searches, texts, histories, citations, records and adapters differ from before, or raise; does any citation
verify whose text is not what the documents say; after `doctor --repair`, is everything as before, or is the loss named?
Each worker is a process, so that a flip that kills one is counted and not fatal.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "facts"))

from hash_encoder import DIM, HashEncoder  # noqa: E402

from factform.audit.log import AuditLog  # noqa: E402
from factform.care import adapters_check, audit_check  # noqa: E402
from factform.errors import FactformError  # noqa: E402
from factform.facts import blobs, live  # noqa: E402
from factform.facts.care import Check, Place, examine  # noqa: E402
from factform.facts.care_repair import needs_index, repair_truth  # noqa: E402
from factform.facts.parse import parse  # noqa: E402
from factform.facts.store import DataLayer  # noqa: E402
from factform.records import Scope, Source  # noqa: E402

OUT = ROOT / "benchmarks" / "results" / "flips.json"
TRIAL_S = 120.0
"""Seconds without a result after which a trial has stalled; a machine that is busy with other work needs more."""
DOCUMENTS = 30
live.MERGE_ROWS = 2  # what searches need is kept from the third row on

QUESTIONS = ("notice period of flat 3", "boiler pressure", "rent in euros", "who paints the stairs", "zebra 17")

KINDS: Mapping[str, tuple[str, ...]] = {
    "ledger": ("ledger.db",),
    "ledger copy": ("ledger.log",),
    "originals and texts": ("blobs/??/*",),
    "index data": ("index/*/data/*", "index/*/_deletions/*"),
    "index manifests": ("index/*/_versions/*",),
    "index transactions": ("index/*/_transactions/*",),
    "kept for searching": ("index/*.words/**/*",),
    "index checksums": ("index/*.sums",),
    "audit log": ("audit.db",),
    "adapters": ("adapters/*/adapter.*",),
    "encoded passages": ("kv/blocks/*",),
    "token vectors": ("cache/tokens/*",),
}
"""Kinds of files; each gets the same share of flips, however many files or bytes it has."""


# --- a sound project ----------------------------------------------------------------------------


def body(number: int, version: int) -> str:
    pages = [
        f"# Flat {number}\n\n## Rent\n\nThe rent of flat {number} is {700 + 13 * number + version} euros a month.",
        f"## Notice\n\nThe notice period of flat {number} is {1 + number % 6} months. Letters go to zebra {number}.",
        f"## Heating\n\nThe boiler pressure is {1 + number % 3}.{number % 10} bar. " + "It is looked after. " * 12,
        f"| room | size |\n|---|---|\n| kitchen {number} | {9 + number} |\n| hall | {number + version} |",
    ]
    return "\n\n".join(pages)


def source(number: int, version: int) -> Source:
    access = ("tenants",) if number % 5 == 0 else ()
    return Source(
        f"flats/{number}.md", body(number, version).encode(), f"{number}.md", metadata={"n": number}, access=access
    )


def build(folder: Path) -> None:
    """A project with several versions, a removed document, records, an adapter and encoded passages."""
    from factform.form import registry

    with DataLayer.open(folder, HashEncoder(), chunk_tokens=40) as layer:
        layer.add([source(n, 0) for n in range(DOCUMENTS)])
        layer.rebuild()
        layer.add([source(n, 1) for n in range(4)])
        layer.remove([source(5, 0).document])
        hits = layer.search(QUESTIONS[0], k=4).hits
    write_records(AuditLog.open(folder / "audit.db"), hits)
    write_adapter(registry, folder)
    write_blocks(folder / "kv" / "blocks")


def write_records(log: AuditLog, hits: Any) -> None:
    from factform.audit.record import AnswerRecord, candidates
    from factform.records import Citation

    for number, hit in enumerate(hits):
        c = hit.chunk
        record = AnswerRecord(
            question=QUESTIONS[number % 5],
            status="answered",
            reason="",
            answer={"n": number},
            model="m",
            adapter=None,
            behavior=None,
            mode="exact",
            prompt_sha256="0" * 64,
            prompt={"text": c.text},
            output=c.text,
            generation={},
            ms={"total": 1.5},
            candidates=candidates([hit]),
            citations=(Citation(c.document, c.version, c.page, c.start, c.end, c.text, True, c.id, c.title),),
        )
        log.write(record)


def write_adapter(registry: Any, folder: Path) -> None:
    """A small adapter, registered as `tune` does it."""
    import torch
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as scratch:
        g = torch.Generator().manual_seed(0)
        tensors = {
            "layers.0.q.A": torch.randn(64, 4, generator=g),
            "layers.0.q.B": torch.randn(4, 64, generator=g),
        }
        save_file(tensors, f"{scratch}/adapter.safetensors")
        config = {"format": 1, "rank": 4, "alpha": 8.0, "targets": ["q"]}
        Path(scratch, "adapter.json").write_text(json.dumps(config))
        registry.add(folder / "adapters", Path(scratch), registry.NewAdapter("flats", "0" * 64, "1" * 64))


def write_blocks(folder: Path) -> None:
    import torch

    from factform.model.kv import BlockKV
    from factform.model.kvdisk import DiskTier

    tier, g = DiskTier(folder, 1 << 24), torch.Generator().manual_seed(0)
    for number in range(3):
        name = f"{number:064x}.{number:032x}"
        block = BlockKV(torch.randn(2, 3, 8, 16, generator=g), torch.randn(2, 3, 8, 16, generator=g))
        if unfinished := tier.write(name, block):
            tier.accept(unfinished, name)


# --- everything it says -------------------------------------------------------------------------


def everything(folder: Path, texts: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    """What the project says, part by part; a part that cannot be read says its error's type instead."""
    said: dict[str, Any] = {}

    def ask(name: str, what: Callable[[], Any]) -> None:
        try:
            said[name] = what()
        except FactformError as error:
            said[name] = f"raised {type(error).__name__}"
        except Exception as error:
            said[name] = f"crashed {type(error).__name__}: {error}"[:300]
        except BaseException as error:  # a panic in a library is no Exception
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            said[name] = f"crashed {type(error).__name__}: {error}"[:300]

    layers: list[DataLayer] = []
    ask("open", lambda: layers.append(DataLayer.open(folder, HashEncoder(), chunk_tokens=40)))
    if layers:
        (layer,) = layers
        ask("documents", lambda: [repr(document) for document in layer.documents()])
        for number in range(DOCUMENTS):
            ask(f"history {number}", lambda number=number: versions(layer, f"flats/{number}.md"))  # type: ignore[misc]
        for question in QUESTIONS:
            ask(f"search {question}", lambda question=question: search(layer, question, None, texts))  # type: ignore[misc]
        ask("search as a reader", lambda: search(layer, QUESTIONS[2], frozenset(), texts))
        ask(
            "rows",
            lambda: sorted((r["id"], r["text"], r["page"], tuple(r["access"])) for r in layer._current.get().rows()),
        )
        layer.close()
    ask("records", lambda: records(folder))
    ask("adapters", lambda: adapters(folder))
    ask("encoded", lambda: encoded(folder))
    return said


def versions(layer: DataLayer, document: str) -> list[Any]:
    """Every version's row, text and original."""
    found = []
    for row in layer.history(document):
        original = blobs.get(layer.folder / "blobs", row.sha256)
        found.append((repr(row), layer.text_of(document, row.version), original.decode()))
    return found


def search(
    layer: DataLayer, question: str, allowed: frozenset[str] | None, texts: Mapping[tuple[str, str], str]
) -> list[Any]:
    """Hits, each with whether it may be cited, and whether that is right: [..., verified, wrong]."""
    found = []
    for hit in layer.search(question, k=4, scope=Scope(None if allowed is None else tuple(allowed))).hits:
        chunk = hit.chunk
        place = (chunk.document, chunk.version, chunk.start, chunk.end)
        verified = layer.verify_span(*place, chunk.text, chunk.sha256, chunk.start, chunk.end)
        truth = texts.get((chunk.document, chunk.version), "")[chunk.start : chunk.end]
        wrong = verified and truth != chunk.text
        told = (chunk.id, *place, chunk.text, chunk.title, chunk.heading, chunk.page, chunk.pages)
        found.append([told, round(hit.score, 4), verified, wrong])
    return found


def records(folder: Path) -> Any:
    if not (folder / "audit.db").exists():
        return None
    log = AuditLog.open(folder / "audit.db")
    return [json.dumps(log.show(line["id"]), sort_keys=True) for line in log.list()]


def adapters(folder: Path) -> Any:
    from factform.form import registry

    for info in registry.list_adapters(folder / "adapters"):
        registry.verify(folder / "adapters", info.digest)
    return [(info.digest, repr(info)) for info in registry.list_adapters(folder / "adapters")]


def encoded(folder: Path) -> int:
    """Blocks that are read as something else. A damaged one that is no block any more is made anew when needed."""
    import torch

    from factform.model.kvdisk import DiskTier

    tier, g, wrong = DiskTier(folder / "kv" / "blocks", 1 << 24), torch.Generator().manual_seed(0), 0
    for number in range(3):
        keys, values = torch.randn(2, 3, 8, 16, generator=g), torch.randn(2, 3, 8, 16, generator=g)
        block, _ = tier.read(f"{number:064x}.{number:032x}")
        wrong += block is not None and not (torch.equal(block.keys, keys) and torch.equal(block.values, values))
    return wrong


def texts_of(folder: Path) -> dict[tuple[str, str], str]:
    with DataLayer.open(folder, HashEncoder(), chunk_tokens=40) as layer:
        names = [f"flats/{number}.md" for number in range(DOCUMENTS)]
        rows = [row for name in names for row in layer.history(name)]
        return {(row.document, row.version): layer.text_of(row.document, row.version) for row in rows}


# --- one trial ----------------------------------------------------------------------------------


def flip_one(folder: Path, dice: random.Random) -> tuple[str, str]:
    """Flip one bit or byte; returns the kind of file and what was done."""
    found = {kind: sorted(p for g in globs for p in folder.glob(g) if p.is_file()) for kind, globs in KINDS.items()}
    found = {kind: [p for p in paths if p.stat().st_size] for kind, paths in found.items()}
    kind = dice.choice([kind for kind, paths in found.items() if paths])
    path = dice.choice(found[kind])
    at, flip = dice.randrange(path.stat().st_size), 1 << dice.randrange(8)
    if dice.random() < 0.5:
        flip = dice.randrange(1, 256)
    with path.open("r+b") as file:
        file.seek(at)
        (old,) = file.read(1)
        file.seek(at)
        file.write(bytes([old ^ flip]))
    return kind, f"{path.relative_to(folder)} at {at} of {path.stat().st_size}: {flip:#04x}"


def place(folder: Path) -> Place:
    return Place(folder, HashEncoder().identity, DIM, 40, 5.0)


def silent(*_: object) -> None:
    return None


def checked(folder: Path) -> list[Check]:
    checks = [*examine(place(folder), quick=False, progress=silent), audit_check(folder / "audit.db")]
    return [check for check in [*checks, adapters_check(folder / "adapters")] if check.status == "problem"]


def repaired(folder: Path) -> list[str]:
    done = [action.what for action in repair_truth(place(folder), lambda row: None, parse, silent)]
    if needs_index(examine(place(folder), quick=False, progress=silent)):
        with DataLayer.open(folder, HashEncoder(), chunk_tokens=40, for_rebuild=True) as layer:
            layer.rebuild()
        done.append("index made anew")
    return done


def trial(
    number: int, sound: Path, scratch: Path, before: Mapping[str, Any], texts: Mapping[tuple[str, str], str]
) -> dict[str, Any]:
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(sound, scratch)
    kind, what = flip_one(scratch, random.Random(f"flip {number}"))
    found: dict[str, Any] = {"trial": number, "kind": kind, "flip": what}
    try:
        found["problems"] = [check.name for check in checked(scratch)]
    except FactformError as error:
        found["problems"] = [f"raised {error}"]
    after = everything(scratch, texts)
    found["differs"] = sorted(name for name in before if after.get(name) != before[name])
    kinds = {name: str(after.get(name))[:7] for name in found["differs"]}
    found["raised"] = sorted(name for name, start in kinds.items() if start == "raised ")
    found["crashed"] = sorted(f"{name}: {after[name]}" for name, start in kinds.items() if start == "crashed")
    found["wrong_citations"] = wrong_citations(after)
    if found["problems"] or found["differs"]:
        found |= mended(scratch, before, texts)
    return found


def wrong_citations(said: Mapping[str, Any]) -> int:
    return sum(
        hit[3] for name, hits in said.items() if name.startswith("search") and isinstance(hits, list) for hit in hits
    )


def mended(scratch: Path, before: Mapping[str, Any], texts: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    """What repairing came to: everything as before, or what is lost and whether it is named."""
    try:
        done = repaired(scratch)
        left = checked(scratch)
    except FactformError as error:
        return {"repaired": [], "left": [f"raised {error}"], "lost": ["everything"], "named": True}
    after = everything(scratch, texts)
    lost = sorted(name for name in before if unscored(after.get(name)) != unscored(before[name]))
    examples = " ".join([check.name for check in left] + [example for check in left for example in check.examples])
    named = all(any(word in examples for word in named_by(name)) for name in lost)
    return {
        "repaired": done,
        "left": [check.name for check in left],
        "lost": lost,
        "named": named,
        "wrong_citations_after": wrong_citations(after),
    }


def named_by(part: str) -> list[str]:
    """Words one of which a problem must hold to tell of a loss in this part."""
    if part.startswith("history "):
        return [f"flats/{part.partition(' ')[2]}.md version"]
    if part.startswith("search"):
        return ["originals", "texts"]  # hits whose citations are refused: the document stands in the examples
    return {"records": ["audit"], "adapters": ["adapters"]}.get(part, [part])


def unscored(said: Any) -> Any:
    """Without scores and their order: an index made anew has other statistics in the last places."""
    hits = isinstance(said, list) and said and isinstance(said[0], list)
    return sorted([hit[0], hit[2]] for hit in said) if hits else said


# --- many ---------------------------------------------------------------------------------------


def work(sound: Path, numbers: range, out: Path) -> None:
    """Trials one after another; each is noted when it begins and when it ends."""
    with tempfile.TemporaryDirectory() as folder:
        scratch, copy = Path(folder) / "state", Path(folder) / "sound"
        shutil.copytree(sound, copy)
        texts = texts_of(copy)
        before = everything(copy, texts)
        with out.open("a") as file:
            for number in numbers:
                file.write(json.dumps({"begun": number}) + "\n")
                file.flush()
                file.write(json.dumps(trial(number, sound, scratch, before, texts)) + "\n")
                file.flush()


def run(trials: int, jobs: int, folder: Path, first: int = 0, stall_s: float = TRIAL_S) -> list[dict[str, Any]]:
    """Results of all trials, by worker processes; a trial that kills or stalls its worker is told as such."""
    sound = folder / "sound"
    build(sound)
    outs = [folder / f"results-{job}.jsonl" for job in range(jobs)]
    ranges = [range(first + job, first + trials, jobs) for job in range(jobs)]
    running = {job: start(sound, ranges[job], outs[job]) for job in range(jobs)}
    seen = dict.fromkeys(running, time.monotonic())
    sizes = dict.fromkeys(running, 0)
    while running:
        time.sleep(0.5)
        for job, process in list(running.items()):
            size = outs[job].stat().st_size if outs[job].exists() else 0
            if size != sizes[job]:
                sizes[job], seen[job] = size, time.monotonic()
            stalled = time.monotonic() - seen[job] > stall_s
            if process.poll() is None and not stalled:
                continue
            if stalled:
                process.kill()
                process.wait()
            ranges[job] = left_of(outs[job], ranges[job], "stalled" if stalled else f"exit {process.returncode}")
            if ranges[job]:
                running[job], seen[job] = start(sound, ranges[job], outs[job]), time.monotonic()
            else:
                del running[job]
    lines = [json.loads(line) for out in outs for line in out.read_text().splitlines()]
    return sorted((line for line in lines if "trial" in line), key=lambda line: line["trial"])


def start(sound: Path, numbers: range, out: Path) -> subprocess.Popen[bytes]:
    said = [str(numbers.start), str(numbers.stop), str(numbers.step)]
    return subprocess.Popen([sys.executable, __file__, "--worker", str(sound), *said, str(out)])


def left_of(out: Path, numbers: range, how: str) -> range:
    """What a worker that ended left undone; the trial it ended in is noted as fatal."""
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    begun = [line["begun"] for line in lines if "begun" in line]
    done = {line["trial"] for line in lines if "trial" in line}
    fatal = [number for number in begun if number not in done]
    if not begun or max(begun) < numbers.start:
        raise SystemExit(f"a worker ended before its first trial ({how})")
    with out.open("a") as file:
        for number in fatal:
            file.write(json.dumps({"trial": number, "fatal": how}) + "\n")
    return range(max(begun) + numbers.step, numbers.stop, numbers.step)


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts over all trials and by kind of file."""

    def counts(rows: list[dict[str, Any]]) -> dict[str, int]:
        alive = [row for row in rows if "fatal" not in row]
        matter = [row for row in alive if row["differs"]]
        silent_ones = [row for row in matter if set(row["differs"]) - set(row["raised"])]
        lost = [row for row in alive if row.get("lost")]
        return {
            "flips": len(rows),
            "killed_the_process": len(rows) - len(alive),
            "mattered": len(matter),
            "mattered_and_named_by_doctor": sum(bool(row["problems"]) for row in matter),
            "read_differently_without_an_error": len(silent_ones),
            "of_these_named_by_doctor": sum(bool(row["problems"]) for row in silent_ones),
            "reads_that_crashed": sum(bool(row["crashed"]) for row in alive),
            "wrong_citations_verified": sum(
                row["wrong_citations"] + row.get("wrong_citations_after", 0) for row in alive
            ),
            "named_though_nothing_differed": sum(bool(row["problems"]) and not row["differs"] for row in alive),
            "repaired_completely": sum("lost" in row and not row["lost"] and not row["left"] for row in alive),
            "something_lost": len(lost),
            "of_these_named": sum(row["named"] for row in lost),
            "problems_left_without_a_loss": sum(bool(row.get("left")) and not row["lost"] for row in alive),
        }

    kinds = sorted({row.get("kind", "unknown") for row in results})
    by_kind = {kind: counts([row for row in results if row.get("kind", "unknown") == kind]) for kind in kinds}
    return {"all": counts(results), "by_kind": by_kind}


def failures(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Trials that show a fault: not named, wrong, crashed, or lost without a word."""
    return [
        row
        for row in results
        if "fatal" in row
        or (row["differs"] and not row["problems"])
        or row["crashed"]
        or row["wrong_citations"]
        or row.get("wrong_citations_after")
        or (row.get("lost") and not row["named"])
    ]


def environment() -> dict[str, Any]:
    import lancedb

    from factform import __version__

    asked = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    return {
        "commit": subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "factform": __version__,
        "python": platform.python_version(),
        "lancedb": lancedb.__version__,
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first trial: its seed")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--stall", type=float, default=TRIAL_S, help="seconds after which a trial has stalled")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--worker", nargs=5, metavar=("SOUND", "FIRST", "STOP", "STEP", "OUT"))
    given = parser.parse_args()
    if given.worker:
        sound, *numbers, out = given.worker
        work(Path(sound), range(*map(int, numbers)), Path(out))
        return 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        results = run(given.trials, given.jobs, Path(folder), given.first, given.stall)
    report = {"environment": environment(), "seconds": round(time.monotonic() - began), **summary(results)}
    report["failures"] = failures(results)
    with suppress(FileNotFoundError):
        given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({"seconds": report["seconds"], **report["all"]}, indent=1))
    print(f"{len(report['failures'])} faults; {given.out.name} holds them")
    return 1 if report["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
