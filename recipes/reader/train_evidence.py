"""Train the evidence model: MiniLM grown into a cross-encoder with relevance, answerability and span heads.

    python recipes/reader/train_evidence.py --rows build/reader/rows.jsonl --out build/reader/first-0 --seed 0
    python recipes/reader/train_evidence.py --stage second --from build/reader/first-0 --seed 0 \
        --rows build/reader/rows.jsonl build/reader/generated.jsonl --out build/reader/evidence-0

Each question comes with its own passage and retrieved ones that do not answer it. One softmax over the tokens of all
of them and "no answer" teaches spans; every pair's first token says whether it answers and whether it is about the
question. Word embeddings stay as they are: the model shares the embedder's. A stopped run goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from factform.facts.bert import BertConfig, read_bert_config
from factform.facts.evidence import EncodedPair, PairScores, encode_pair, pair_scores, pair_tokenizer, unpack
from factform.model.fetch import DEFAULT_EMBEDDER, fetch_model

SETTINGS = Path(__file__).with_name("settings.toml")
PART = 8
"""Pairs of one forward pass: those of a step are sorted by length, so that little is padded."""

FROZEN = ("embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight")


@dataclass(frozen=True)
class Pair:
    """One question with one passage, in tokens. `starts` and `ends` are places of answer tokens."""

    encoded: EncodedPair
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    answers: bool
    relevant: bool


# --- rows -------------------------------------------------------------------------------------


def group(row: dict[str, Any], rng: random.Random, size: int, gold: float) -> list[dict[str, Any]]:
    """The passages of one training step for a question: its own (with probability `gold`), then retrieved ones that
    do not hold an answer, the higher ranked more often."""
    own = [p for p in row["passages"] if p["about"] and (p["spans"] or not row["answerable"] or not row["answers"])]
    others = [p for p in row["passages"] if p not in own and not holds_answer(p, row["answers"])]
    chosen = own[:1] if own and (rng.random() < gold or not others) else []
    weights = [1.0 / (p["rank"] or 10) ** 0.5 for p in others]
    while others and len(chosen) < size:
        at = rng.choices(range(len(others)), weights)[0]
        chosen.append(others.pop(at))
        weights.pop(at)
    return chosen


def holds_answer(passage: dict[str, Any], answers: Sequence[str]) -> bool:
    return any(a.lower() in passage["text"].lower() for a in answers)


def make_pair(row: dict[str, Any], passage: dict[str, Any], tokenizer: Tokenizer) -> Pair:
    encoded = encode_pair(tokenizer, row["question"], passage["header"], passage["text"])
    spans = [token_span(encoded, s, e) for s, e in passage["spans"]]
    inside = [span for span in spans if span is not None]
    long_answer = row["answerable"] and not row["answers"] and passage["about"]
    return Pair(
        encoded,
        tuple(s for s, _ in inside),
        tuple(e for _, e in inside),
        bool(inside) or long_answer,
        bool(passage["about"]),
    )


def token_span(pair: EncodedPair, start: int, end: int) -> tuple[int, int] | None:
    """First and last token of the characters `[start, end)` of the text; None where it was cut off."""
    offsets, start, end = pair.encoding.offsets, start + pair.before, end + pair.before
    inside = [i for i in pair.places if offsets[i][0] < end and offsets[i][1] > start]
    if not inside or offsets[inside[-1]][1] < end:
        return None
    return inside[0], inside[-1]


# --- loss -------------------------------------------------------------------------------------


def group_loss(scores: PairScores, pairs: Sequence[Pair], sizes: Sequence[int], spanless: Sequence[bool]) -> Tensor:
    """Mean over groups of the span loss, plus both pair losses. `spanless` groups have an answer that is no span."""
    answers = torch.tensor([float(p.answers) for p in pairs])
    relevant = torch.tensor([float(p.relevant) for p in pairs])
    loss = F.binary_cross_entropy_with_logits(scores.pair[:, 0], answers)
    loss = loss + 0.5 * F.binary_cross_entropy_with_logits(scores.pair[:, 1], relevant)
    at, span_losses = 0, []
    for size, skip in zip(sizes, spanless, strict=True):
        part = range(at, at + size)
        at += size
        if not skip:
            starts = marginal(scores.start[part.start : part.stop], [pairs[i].starts for i in part])
            ends = marginal(scores.end[part.start : part.stop], [pairs[i].ends for i in part])
            span_losses.append((starts + ends) / 2)
    return loss + torch.stack(span_losses).mean() if span_losses else loss


def marginal(scores: Tensor, places: Sequence[Sequence[int]]) -> Tensor:
    """Minus log of the probability, in one softmax over all rows, of being at any of `places` (or at "no answer")."""
    flat = [row * scores.shape[1] + place for row, at in enumerate(places) for place in at]
    wanted = flat or [row * scores.shape[1] for row in range(scores.shape[0])]
    all_scores = scores.reshape(-1)
    return torch.logsumexp(all_scores, 0) - torch.logsumexp(all_scores[wanted], 0)


# --- training ---------------------------------------------------------------------------------


def scores_of(
    config: BertConfig, weights: dict[str, Tensor], pairs: Sequence[Pair], dtype: torch.dtype, dropout: float
) -> PairScores:
    """The scores of all pairs, computed in parts of like length, products in `dtype`."""
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i].encoded.encoding.ids))
    parts = [order[at : at + PART] for at in range(0, len(order), PART)]
    # Attention written out: torch's fused one takes three times as long backwards with heads of 32.
    with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        scores = [pair_scores(config, weights, [pairs[i].encoded for i in part], dropout=dropout) for part in parts]
    width = max(part.start.shape[1] for part in scores)

    def wide(tensor: Tensor) -> Tensor:
        return F.pad(tensor, (0, width - tensor.shape[1]), value=float("-inf"))

    back = torch.tensor(order).argsort()
    return PairScores(
        torch.cat([part.pair for part in scores])[back],
        torch.cat([wide(part.start) for part in scores])[back],
        torch.cat([wide(part.end) for part in scores])[back],
    )


def new_weights(folder: Path, seed: int, start: Path | None) -> dict[str, Tensor]:
    """The embedder's weights with new heads; or those of the finished run, or the model that ships, in `start`."""
    loaded = load_file(folder / "model.safetensors")
    weights = {k.removeprefix("bert."): v.float() for k, v in loaded.items() if v.is_floating_point()}
    weights = {k: v for k, v in weights.items() if not k.startswith("pooler.")}
    hidden = weights["embeddings.word_embeddings.weight"].shape[1]
    g = torch.Generator().manual_seed(seed)
    for head in ("pair", "span"):
        weights[f"heads.{head}.weight"] = torch.randn(2, hidden, generator=g) * 0.02
        weights[f"heads.{head}.bias"] = torch.zeros(2)
    return {**weights, **unpack(load_file(start / "evidence.safetensors"))} if start else weights


def step_groups(rows: Sequence[dict[str, Any]], seed: int, batch: int, step: int) -> list[tuple[int, dict[str, Any]]]:
    """Rows of one step, each with the number of the epoch: a new shuffle each epoch, found again after a stop."""
    found = []
    for place in range(step * batch, (step + 1) * batch):
        epoch, index = divmod(place, len(rows))
        order = list(range(len(rows)))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        found.append((epoch, rows[order[index]]))
    return found


def train(
    rows: Sequence[dict[str, Any]],
    settings: dict[str, Any],
    seed: int,
    out: Path,
    start: Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    folder = fetch_model(DEFAULT_EMBEDDER).folder
    tokenizer, config = pair_tokenizer(folder), read_bert_config(folder)
    weights = new_weights(folder, seed, start)
    trained = [name for name in sorted(weights) if name not in FROZEN]
    for name in trained:
        weights[name].requires_grad_(True)
    decayed = [weights[n] for n in trained if weights[n].dim() > 1]
    plain = [weights[n] for n in trained if weights[n].dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings["weight_decay"]}, {"params": plain, "weight_decay": 0.0}],
        lr=settings["learning_rate"],
    )
    steps = settings["steps"] or math.ceil(settings["epochs"] * len(rows) / settings["batch"])
    done, losses = restore(out, optimizer, weights, trained)
    started, first = time.monotonic(), done
    for step in range(done, steps):
        rise = max(1, round(settings["warmup"] * steps))
        share = (step + 1) / rise if step < rise else (steps - step) / (steps - rise)
        for part in optimizer.param_groups:
            part["lr"] = settings["learning_rate"] * share
        pairs, sizes, spanless = batch_of(rows, settings, seed, step, tokenizer)
        torch.manual_seed(seed * 1_000_003 + step)  # what is dropped is the same after a stop
        scores = scores_of(config, weights, pairs, dtype, settings["dropout"])
        loss = group_loss(scores, pairs, sizes, spanless)
        if not math.isfinite(loss.item()):
            raise SystemExit(f"the loss at step {step + 1} is {loss.item()}: lower the learning rate")
        loss.backward()
        torch.nn.utils.clip_grad_norm_([weights[n] for n in trained], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if (step + 1) % 20 == 0:
            spent = time.monotonic() - started
            eta = spent / (step + 1 - first) * (steps - step - 1)
            recent = sum(losses[-20:]) / len(losses[-20:])
            print(f"step {step + 1}/{steps}  loss {recent:.3f}  {eta / 60:.1f} min left", flush=True)
        if (step + 1) % settings["save_every"] == 0 or step + 1 == steps:
            save(out, optimizer, weights, trained, step + 1, losses)
    return {name: tensor.detach() for name, tensor in weights.items()}


def batch_of(
    rows: Sequence[dict[str, Any]], settings: dict[str, Any], seed: int, step: int, tokenizer: Tokenizer
) -> tuple[list[Pair], list[int], list[bool]]:
    pairs, sizes, spanless = [], [], []
    for epoch, row in step_groups(rows, seed, settings["batch"], step):
        rng = random.Random(f"{seed}/{epoch}/{row['id']}")
        chosen = group(row, rng, settings["passages"], settings["gold_share"])
        made = [make_pair(row, p, tokenizer) for p in chosen]
        if not made:
            continue  # its own passage was cut at the answer, and every other one holds the answer's words
        pairs += made
        sizes.append(len(made))
        spanless.append(any(p.answers and not p.starts for p in made))
    return pairs, sizes, spanless


def restore(out: Path, optimizer: torch.optim.Optimizer, weights: dict[str, Tensor], trained: list[str]) -> Any:
    meta = out / "checkpoint.json"
    if not meta.exists():
        return 0, []
    saved = json.loads(meta.read_text("utf-8"))
    tensors = load_file(out / saved["file"])
    with torch.no_grad():
        for name in trained:
            weights[name].copy_(tensors[f"weight.{name}"])
            optimizer.state[weights[name]] = {
                "step": torch.tensor(float(saved["step"])),
                "exp_avg": tensors[f"mean.{name}"].clone(),
                "exp_avg_sq": tensors[f"square.{name}"].clone(),
            }
    return saved["step"], saved["losses"]


def save(
    out: Path, optimizer: torch.optim.Optimizer, weights: dict[str, Tensor], trained: list[str], step: int,
    losses: list[float],
) -> None:  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name in trained:
        moments = optimizer.state[weights[name]]
        tensors[f"weight.{name}"] = weights[name].detach()
        tensors[f"mean.{name}"], tensors[f"square.{name}"] = moments["exp_avg"], moments["exp_avg_sq"]
    file = f"checkpoint-{step}.safetensors"
    save_file(tensors, out / file)
    temporary = out / "checkpoint.json.new"
    temporary.write_text(json.dumps({"file": file, "step": step, "losses": losses}), "utf-8")
    temporary.replace(out / "checkpoint.json")
    for old in out.glob("checkpoint-*.safetensors"):
        if old.name != file:
            old.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, nargs="+", required=True)
    parser.add_argument("--stage", default="first", help="section of settings.toml")
    parser.add_argument("--from", type=Path, dest="start", help="the run to go on from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the products")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    stages = tomllib.loads(SETTINGS.read_text("utf-8"))
    if args.stage not in stages:
        parser.error(f"--stage {args.stage}: settings.toml has {', '.join(stages)}")
    settings = stages[args.stage]
    lines = (line for path in args.rows for line in path.read_text("utf-8").split("\n") if line)
    rows = [row for row in map(json.loads, lines) if row["split"] == "train"]
    print(f"{len(rows)} questions, seed {args.seed}, {args.threads} threads", flush=True)
    weights = train(rows, settings, args.seed, args.out, args.start, getattr(torch, args.dtype))
    save_file({n: t for n, t in weights.items() if n not in FROZEN}, args.out / "evidence.safetensors")


if __name__ == "__main__":
    main()
