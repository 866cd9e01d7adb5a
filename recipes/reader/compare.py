"""Which way of making the language model a reader reads best for its cost: a grid of variants and seeds.

    python recipes/reader/compare.py --rows build/reader/rows.jsonl --out build/reader/compare
    python recipes/reader/compare.py --out build/reader/compare --table

Every run trains for the same processor time and is then asked the same questions. A finished run is a line of
results.jsonl; called again with the same settings, only what is missing is done, and a run that was trained but not yet
asked is not trained again. Rates are chosen with `--split validation`; test questions are for the table alone.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from compare_model import Begun, Variant, begin, blocks_kv, loss_of, segments_of, trainable, write
from compare_rows import REFUSAL, Group, load_rows, questions, scores, taken_apart, training_groups
from compare_table import summary, table

from factform.facts.calibration import candidates
from factform.facts.evidence import SHIPPED, EvidenceModel, quote_around
from factform.measure.report import environment
from factform.model.fetch import DEFAULT_EMBEDDER, DEFAULT_LM, fetch_model
from factform.model.kv import BlockKV
from factform.model.llama import Weights, merged
from factform.model.lora import Adapter, cast, load_adapter, save_adapter
from factform.model.reader import Reader

VARIANTS = (
    Variant("a", "tail"),
    Variant("b", "blocks"),
    Variant("c", "causal"),
    Variant("d", "tail", evidence=True),
    Variant("a quote first", "tail", order="quote"),
    Variant("a links", "tail", links=True),
    Variant("b double", "blocks", double=True),
    Variant("b full tuning", "blocks", rank=0),
)
ROWS_AT_ONCE = 16
"""Questions written side by side."""


@dataclass(frozen=True)
class Settings:
    """What every run shares. `budget` is in seconds: of the process on a CPU, of the clock elsewhere. A step takes
    `groups` groups of up to `size` questions over `passages` passages."""

    budget: float = 360.0
    learning_rate: float = 1.5e-3
    full_learning_rate: float = 1e-4
    warmup: float = 0.05
    clip: float = 1.0
    groups: int = 1
    size: int = 8
    passages: int = 2


@dataclass(frozen=True)
class Models:
    """The language model as a reader and the evidence model in front of it."""

    reader: Reader
    evidence: EvidenceModel

    @property
    def base(self) -> Weights:
        return self.reader.weights


@dataclass(frozen=True)
class Noted:
    """What the evidence model adds to a question: its note, its best span, how likely the passages hold an
    answer, and whether it would refuse."""

    text: str
    answer: str
    answerable: float
    refused: bool
    ms: float


def note(evidence: EvidenceModel, group: Group, number: int) -> Noted:
    """The sentence of the best span in the group's passages, as it is put under question `number`."""
    started = time.perf_counter()
    readings = evidence.read(group.asked[number].question, [(header, text) for _, header, text in group.passages])
    texts = [text for _, _, text in group.passages]
    best = candidates(readings, texts, evidence.calibration.answers_weight)[0]
    first, last = quote_around(texts[best.passage], best.start, best.end)
    quote = " ".join(texts[best.passage][first:last].split())
    return Noted(
        f"\nEvidence: [{best.passage + 1}] {quote}",
        texts[best.passage][best.start : best.end],
        evidence.answerable(readings),
        evidence.answerable(readings) < evidence.calibration.refuse_below,
        1e3 * (time.perf_counter() - started),
    )


# --- training ---------------------------------------------------------------------------------


def share(spent: float, warmup: float) -> float:
    """Share of the learning rate when `spent` of the budget is gone: a linear rise, then a linear fall to nothing."""
    return spent / warmup if spent < warmup else max(0.0, (1 - spent) / (1 - warmup))


def train(
    models: Models, variant: Variant, seed: int, settings: Settings, rows: Sequence[dict[str, Any]], told: str
) -> tuple[Weights, Adapter | None, dict[str, Any]]:
    """Train until the budget is spent; weights and adapter as they are then, and what came of it.

    The clock counts all a step needs: texts, tokens, the evidence model, reading contexts, both passes, the optimizer.
    """
    weights, adapter, trained = trainable(models.base, variant, seed)
    clock: Callable[[], float] = time.process_time if weights.device.type == "cpu" else time.perf_counter
    peak = settings.learning_rate if variant.rank else settings.full_learning_rate
    optimizer = torch.optim.AdamW(trained, lr=peak, weight_decay=0.0)
    groups = training_groups(rows, seed, settings.size, settings.passages)
    losses: list[float] = []
    asked, read, started = 0, 0, clock()
    while (spent := (clock() - started) / settings.budget) < 1:
        reading = "causal" if variant.double and len(losses) % 2 else variant.reading
        for part in optimizer.param_groups:
            part["lr"] = peak * max(share(spent, settings.warmup), 0.01)
        total, count = torch.zeros((), device=weights.device), 0
        for _ in range(settings.groups):
            group = next(groups)
            places = range(len(group.asked))
            notes = [note(models.evidence, group, i).text if variant.evidence else "" for i in places]
            layout = segments_of(models.reader, group, variant, notes, targets=True)
            loss, tokens = loss_of(models.base, weights, adapter, layout, reading)
            total, count = total + loss, count + tokens
            asked, read = asked + len(group.asked), read + len(layout.owner)
        (total / count).backward()
        if not math.isfinite(total.item()):
            sys.exit(f"{variant.name}: the loss at step {len(losses) + 1} is {total.item()}: lower the learning rate")
        torch.nn.utils.clip_grad_norm_(trained, settings.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(total.item() / count)
        if len(losses) % 10 == 0:
            left = (1 - spent) * settings.budget
            recent = sum(losses[-20:]) / len(losses[-20:])
            print(f"{told}  step {len(losses)}  {asked} questions  loss {recent:.3f}  {left:.0f} s left", flush=True)
    facts = {
        "steps": len(losses), "questions_seen": asked, "tokens_read": read, "seconds": clock() - started,
        "loss": sum(losses[-20:]) / len(losses[-20:]), "losses": [round(x, 3) for x in losses],
    }  # fmt: skip
    return weights, adapter, facts


# --- asking -----------------------------------------------------------------------------------


def ask(
    models: Models, tuned: Weights, variant: Variant, groups: Sequence[Group], kept: dict[str, list[BlockKV]]
) -> list[dict[str, Any]]:
    """Every question read and answered greedily: what is measured of each, no text. `tuned` has the adapter merged.

    A question is refused where the likeliest first token begins the refusal. It is written out all the same, from the
    next likeliest token: how well it is read is one thing, when to refuse another. Where there is no answer, nothing
    is written. `kept` are the blocks of earlier runs as the base encoded them, which all readers of tails share.
    """
    found = []
    for at in range(0, len(groups), ROWS_AT_ONCE):
        part = groups[at : at + ROWS_AT_ONCE]
        begun, noted = zip(*(first_token(models, tuned, variant, group, kept) for group in part), strict=True)
        wanted = [i for i, group in enumerate(part) if group.asked[0].answers]
        rows = write(tuned, [replace(begun[i], token=begun[i].other) for i in wanted], models.reader.end_token)
        written = dict(zip(wanted, rows, strict=True))
        for i, group in enumerate(part):
            text = models.reader.tokenizer.decode(written[i], skip_special_tokens=False) if i in written else ""
            refused = begun[i].token != begun[i].other
            found.append({
                "id": group.asked[0].id, **scores(group, taken_apart(text, variant.order), refused),
                "doubt": begun[i].doubt, "first_token_ms": begun[i].ms + noted[i],
                "written_tokens": len(written[i]) + 1 if i in written else None,
            })  # fmt: skip
    return found


def first_token(
    models: Models, tuned: Weights, variant: Variant, group: Group, kept: dict[str, list[BlockKV]]
) -> tuple[Begun, float]:
    """The group's one question read up to its first token, and what the evidence model took for it."""
    noted = note(models.evidence, group, 0) if variant.evidence else None
    layout = segments_of(models.reader, group, variant, [noted.text if noted else ""], targets=False)
    blocks = None
    if variant.reading == "blocks":
        blocks = blocks_kv(tuned, layout)
    if variant.reading == "tail":
        if group.asked[0].id not in kept:
            kept[group.asked[0].id] = blocks_kv(models.base, layout)
        blocks = kept[group.asked[0].id]
    begun = begin(tuned, layout, variant.reading, blocks, models.reader.encode(REFUSAL)[0])
    return begun, noted.ms if noted else 0.0


def token_ms(models: Models, tuned: Weights, variant: Variant, groups: Sequence[Group]) -> float:
    """Milliseconds a token takes when one question is written alone."""
    spent, count = 0.0, 0
    for group in groups:
        layout = segments_of(models.reader, group, variant, [""], targets=False)
        begun = begin(tuned, layout, "causal", None, 0)
        started = time.perf_counter()
        count += len(write(tuned, [begun], models.reader.end_token, 12)[0])
        spent += time.perf_counter() - started
    return 1e3 * spent / max(1, count)


def ask_evidence(models: Models, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The evidence model alone over the same passages: its best span is the answer, its sentence the quote."""
    found = []
    for group in groups:
        noted = note(models.evidence, group, 0)
        label, quote = noted.text.removeprefix("\nEvidence: ").split(" ", 1)
        text = f"{quote}\n{label}\n{' '.join(noted.answer.split())}"
        found.append({
            "id": group.asked[0].id, **scores(group, taken_apart(text, "quote"), noted.refused),
            "doubt": 1 - noted.answerable, "first_token_ms": noted.ms,
        })  # fmt: skip
    return found


# --- the grid ---------------------------------------------------------------------------------


def run(
    models: Models, variant: Variant, seed: int, settings: Settings, folder: Path, asked: Sequence[Group],
    rows: Callable[[], Sequence[dict[str, Any]]], kept: dict[str, list[BlockKV]], told: str,
) -> dict[str, Any]:  # fmt: skip
    """Train, or take the adapter of a run that was stopped behind its training; then ask."""
    facts_file = folder / "training.json"
    if facts_file.exists() and variant.rank:
        adapter: Adapter | None = load_adapter(folder, models.base.config.layers)
        weights, facts = models.base, json.loads(facts_file.read_text("utf-8"))
    else:
        weights, adapter, facts = train(models, variant, seed, settings, rows(), told)
        folder.mkdir(parents=True, exist_ok=True)
        if adapter:
            save_adapter(adapter, folder, {"variant": asdict(variant), "seed": seed})
        facts_file.write_text(json.dumps(facts), "utf-8")
    with torch.no_grad():
        tuned = merged(weights, cast(adapter, torch.float32, weights.device)) if adapter else weights
    started = time.perf_counter()
    found = ask(models, tuned, variant, asked, kept)
    facts = {**facts, "token_ms": token_ms(models, tuned, variant, asked[:3])}
    return {"training": facts, "asking_seconds": time.perf_counter() - started, "questions": found}


def grid(args: argparse.Namespace, settings: Settings, models: Models) -> None:
    """Every run that results.jsonl does not hold yet, seed by seed, those with one seed behind the second."""
    file = args.out / "results.jsonl"
    held = [json.loads(line) for line in file.read_text("utf-8").split("\n") if line] if file.exists() else []
    done = {key_of(line) for line in held}
    asked = questions(load_rows(args.rows, args.split), args.n, settings.passages)
    shared = {"split": args.split, "n": len(asked), "settings": asdict(settings)}
    wanted = [(v, s) for s in args.seeds for v in VARIANTS if v.name in args.variants]
    once = [(v, args.seeds[0]) for v in VARIANTS if v.name in args.once and v.name not in args.variants]
    wanted[2 * len(args.variants) : 2 * len(args.variants)] = once
    left = [(v, s) for v, s in wanted if key_of({"variant": v.name, "seed": s, **shared}) not in done]
    cache: list[Sequence[dict[str, Any]]] = []
    kept: dict[str, list[BlockKV]] = {}

    def rows() -> Sequence[dict[str, Any]]:
        if not cache:
            cache.append(load_rows(args.rows, "train"))
        return cache[0]

    def keep(variant: str, seed: int, found: dict[str, Any]) -> None:
        line = {"variant": variant, "seed": seed, **shared, **found, "environment": environment()}
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")
        print(f"{variant} seed {seed}: {summary(found['questions'])}", flush=True)

    if key_of({"variant": "evidence alone", "seed": 0, **shared}) not in done:
        keep("evidence alone", 0, {"questions": ask_evidence(models, asked)})
    started = time.monotonic()
    for number, (variant, seed) in enumerate(left):
        each = (time.monotonic() - started) / number if number else settings.budget * 1.3
        told = f"{variant.name}/{seed}  run {number + 1}/{len(left)}, {each * (len(left) - number) / 60:.0f} min left"
        folder = args.out / f"{variant.name.replace(' ', '-')}-{seed}-{settings_name(settings)}"
        keep(variant.name, seed, run(models, variant, seed, settings, folder, asked, rows, kept, told))


def settings_name(settings: Settings) -> str:
    return "-".join(f"{value:g}" for value in asdict(settings).values())


def key_of(line: dict[str, Any]) -> tuple[Any, ...]:
    """What makes two runs the same."""
    return (line["variant"], line["seed"], line["split"], line["n"], json.dumps(line["settings"], sort_keys=True))


def open_models(device: torch.device) -> Models:
    found = fetch_model(DEFAULT_LM)
    reader = Reader.open(found.folder, model=found.name, digest=found.digest, dtype=torch.float32, device=device)
    return Models(reader, EvidenceModel.open(SHIPPED, fetch_model(DEFAULT_EMBEDDER).folder))


def arguments() -> argparse.Namespace:
    names = [v.name for v in VARIANTS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, help="what data.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for results.jsonl and the adapters")
    parser.add_argument("--split", default="validation", choices=("validation", "test"))
    parser.add_argument("-n", type=int, default=120, help="questions asked of every run")
    parser.add_argument("--variants", nargs="+", default=names, choices=names)
    parser.add_argument("--once", nargs="+", default=[], choices=names, help="variants that get the first seed alone")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print the table of what is there, and do nothing else")
    parser.add_argument("--report", type=Path, help="with --table: write the report as JSON here")
    args = parser.parse_args()
    if not args.table and args.rows is None:
        parser.error("--rows is needed: the file that data.py wrote")
    return args


def main() -> None:
    args = arguments()
    if args.table:
        table(args.out / "results.jsonl", args.split, args.report)
        return
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    settings = Settings(**{name: getattr(args, name) for name in asdict(Settings())})
    grid(args, settings, open_models(torch.device(args.device)))


if __name__ == "__main__":
    main()
