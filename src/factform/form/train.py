"""The LoRA loop: tails in, an adapter out; contexts are constants read once by the frozen base.

Knows nothing of where rows come from or what becomes of the adapter. Loss only on the completion; the context's
keys and values are computed once for all epochs, so a step costs the tail and not the context.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from factform import compute
from factform.errors import TrainingError
from factform.form.checkpoint import Check, State, alone, restore, save
from factform.form.dataset import TrainingRow
from factform.ids import sha256_json
from factform.model.config import Config
from factform.model.kv import Block, assemble
from factform.model.kvstore import BlockStore
from factform.model.llama import ContextCache, Weights, forward
from factform.model.lora import Adapter, LowRank, new_adapter
from factform.model.prompt import render
from factform.model.reader import Reader


@dataclass(frozen=True)
class TrainSettings:
    """How an adapter is trained. `steps` 0 means `epochs` times the rows; `accumulate` splits a batch in parts."""

    rank: int = 32
    alpha: float = 64.0
    learning_rate: float = 1.5e-3
    warmup: float = 0.05
    weight_decay: float = 0.0
    clip: float = 1.0
    batch: int = 4
    accumulate: int = 1
    epochs: float = 1.0
    steps: int = 0
    seed: int = 0
    check_every: int = 65
    save_every: int = 25
    kv_budget: int = 4 << 30


@dataclass(frozen=True)
class EncodedRow:
    """A row in tokens: context blocks, then tail and target; the loss covers `sequence[prompt_length:]`."""

    id: str
    blocks: tuple[Block, ...]
    sequence: tuple[int, ...]
    prompt_length: int


@dataclass(frozen=True)
class Progress:
    """Where training stands; `check` is what the last held-out check found, None before the first."""

    step: int
    steps: int
    loss: float
    eta_s: float
    tokens_per_s: float
    check: Check | None


@dataclass(frozen=True)
class TrainResult:
    """What came of a run: the adapter of the best check (or the last step), and the losses by step. `begun` is the
    step it was gone on from, 0 for a run from its start."""

    adapter: Adapter
    steps: int
    losses: tuple[float, ...]
    checks: tuple[Check, ...]
    best_step: int
    trained_tokens: int
    seconds: float
    begun: int = 0


Checker = Callable[[Adapter, int], Check]


def encode_rows(rows: Sequence[TrainingRow], reader: Reader, trigger: str) -> list[EncodedRow]:
    """Rows in tokens, as the reader will read them when serving.

    Raises TrainingError for an empty target, a missing end token or a row beyond the window: a row is never
    dropped or cut, since a model trained on half an answer learns to stop there.
    """
    encoded = []
    for row in rows:
        tokens = reader.tokenize(render(row.question, row.passages, reader.chat, trigger=trigger))
        target = (*reader.encode(row.output), reader.end_token)
        if len(target) < 2 or not row.output.strip():
            raise TrainingError(f"row {row.id}: the target is empty, so nothing would be learnt: fix the example")
        window = reader.weights.config.window
        if tokens.total + len(target) > window:
            total = tokens.total + len(target)
            raise TrainingError(f"row {row.id}: {total} tokens do not fit the window of {window}: use fewer passages")
        encoded.append(EncodedRow(row.id, tokens.encodable, tokens.tail + target, len(tokens.tail)))
    check_rows(encoded, reader.end_token)
    return encoded


def check_rows(rows: Sequence[EncodedRow], end_token: int) -> None:
    """Hard stops before the first step: no rows, an empty mask, a target that does not end."""
    if not rows:
        raise TrainingError("there are no rows to train on: add examples to the behavior")
    for row in rows:
        if row.prompt_length >= len(row.sequence):
            raise TrainingError(f"row {row.id}: the loss mask is empty: the target has no tokens")
        if row.sequence[-1] != end_token:
            raise TrainingError(f"row {row.id}: the target does not end with the end-of-turn token {end_token}")


def adapter_shapes(config: Config) -> dict[str, tuple[int, int]]:
    """(in, out) of every adapted map."""
    query, group = config.heads * config.head_dim, config.kv_heads * config.head_dim
    n, i = config.hidden, config.intermediate
    return {
        "q": (n, query), "k": (n, group), "v": (n, group), "o": (query, n),
        "gate": (n, i), "up": (n, i), "down": (i, n),
    }  # fmt: skip


def train(
    rows: Sequence[EncodedRow],
    reader: Reader,
    settings: TrainSettings,
    *,
    folder: Path,
    checker: Checker | None = None,
    checked: str = "",
    progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Train an adapter on `rows`; `folder` holds the checkpoint a second call goes on from.

    Held-out checks decide which weights are returned, the last ones or those of an earlier check that was better by
    more than MARGIN: context reliance rises and then falls within about one epoch while the loss still drops. `checked`
    is a digest of what the `checker` asks. Raises TrainingError on a loss that is not a number, or where another
    process trains in `folder`.
    """
    with alone(folder):
        return _train(rows, reader, settings, folder, checker, checked, progress)


def _train(
    rows: Sequence[EncodedRow],
    reader: Reader,
    settings: TrainSettings,
    folder: Path,
    checker: Checker | None,
    checked: str,
    progress: Callable[[Progress], None] | None,
) -> TrainResult:
    check_rows(rows, reader.end_token)
    weights = reader.weights
    steps = settings.steps or math.ceil(settings.epochs * len(rows) / settings.batch)
    store = BlockStore(weights, reader.store.model_key, budget=settings.kv_budget)
    state = _start(rows, reader, settings, folder, checked)
    started, first = time.perf_counter(), state.step
    tokens_done = 0
    for step in range(state.step, steps):
        batch = batch_rows(rows, settings, step)
        for group in state.optimizer.param_groups:
            group["lr"] = settings.learning_rate * schedule(step, steps, settings.warmup)
        loss = compute.run(partial(_learn, state, batch, weights, store, settings))
        state.losses.append(loss)
        state.step = step + 1
        tokens_done += sum(len(row.sequence) for row in batch)
        last = state.step == steps
        if checker and (last or state.step % settings.check_every == 0):
            state.note(checker(state.adapter, state.step))
        if last or state.step % settings.save_every == 0:
            save(state, folder)
        if progress:
            spent = time.perf_counter() - started
            eta = spent / (state.step - first) * (steps - state.step)
            check = state.checks[-1] if state.checks else None
            progress(Progress(state.step, steps, loss, eta, tokens_done / spent, check))
    best = state.best if state.best is not None else state.adapter
    return TrainResult(
        adapter=best,
        steps=steps,
        losses=tuple(state.losses),
        checks=tuple(state.checks),
        best_step=state.best_step or steps,
        trained_tokens=tokens_done,
        seconds=time.perf_counter() - started,
        begun=first,
    )


def _learn(
    state: State, batch: Sequence[EncodedRow], weights: Weights, store: BlockStore, settings: TrainSettings
) -> float:
    """Move the adapter by the gradient of one batch; returns the loss before. TrainingError if it is not a number."""
    loss = backward(batch, weights, state.adapter, store, settings.accumulate)
    if not math.isfinite(loss):
        raise TrainingError(f"the loss at step {state.step + 1} is {loss}: lower the learning rate and start again")
    torch.nn.utils.clip_grad_norm_(state.parameters, settings.clip)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    return loss


def schedule(step: int, steps: int, warmup: float) -> float:
    """Linear rise over the first `warmup` share of steps, then linear fall to zero after the last."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return (steps - step) / max(1, steps - rise)


def batch_rows(rows: Sequence[EncodedRow], settings: TrainSettings, step: int) -> list[EncodedRow]:
    """The rows of one step: each epoch is a new shuffle by seed, so any step can be found again after a stop."""
    chosen = []
    for place in range(step * settings.batch, (step + 1) * settings.batch):
        epoch, index = divmod(place, len(rows))
        order = list(range(len(rows)))
        random.Random(f"{settings.seed}/{epoch}").shuffle(order)
        chosen.append(rows[order[index]])
    return chosen


def backward(
    batch: Sequence[EncodedRow], weights: Weights, adapter: Adapter, store: BlockStore, accumulate: int = 1
) -> float:
    """Gradients of the mean loss per target token over the whole batch; returns that loss.

    Parts are weighted by their tokens, not averaged by part: splitting a batch must not change its gradient.
    """
    total = sum(len(row.sequence) - row.prompt_length for row in batch)
    size = math.ceil(len(batch) / accumulate)
    loss = 0.0
    for start in range(0, len(batch), size):
        part = batch_loss(batch[start : start + size], weights, adapter, store) / total
        part.backward()  # type: ignore[no-untyped-call]
        loss += part.item()
    return loss


def batch_loss(batch: Sequence[EncodedRow], weights: Weights, adapter: Adapter, store: BlockStore) -> Tensor:
    """Summed cross entropy over the target tokens of `batch`, a scalar with a graph to the adapter only."""
    keys, values, lengths = _contexts(batch, weights, store)
    longest = max(len(row.sequence) for row in batch) - 1
    room = keys.shape[3]
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    target = torch.full((len(batch), longest), -100)
    mask = torch.zeros(len(batch), 1, longest, room + longest, dtype=torch.bool)
    mask[:, :, :, room:] = torch.ones(longest, longest, dtype=torch.bool).tril()
    positions = torch.zeros(len(batch), longest, dtype=torch.long)
    for i, row in enumerate(batch):
        sequence = torch.tensor(row.sequence)
        ids[i, : len(sequence) - 1] = sequence[:-1]
        target[i, row.prompt_length - 1 : len(sequence) - 1] = sequence[row.prompt_length :]
        mask[i, :, :, : lengths[i]] = True
        positions[i] = lengths[i] + torch.arange(longest)
    device = weights.device
    cast_adapter = _in_dtype(adapter, weights.dtype)
    hidden = forward(
        weights,
        ids.to(device),
        positions.to(device),
        ContextCache(keys, values),
        mask=mask.to(device),
        adapter=cast_adapter,
    )
    at = target.to(device) != -100
    scores = F.linear(hidden[at], weights.head).to(torch.float32)
    return F.cross_entropy(scores, target.to(device)[at], reduction="sum")


def _contexts(batch: Sequence[EncodedRow], weights: Weights, store: BlockStore) -> tuple[Tensor, Tensor, list[int]]:
    """Keys and values of the rows' contexts, padded on the right: [L, B, G, C, D] each, and the true lengths."""
    placed = [assemble(weights, store.get(row.blocks)) for row in batch]
    lengths = [keys.shape[2] for keys, _ in placed]
    longest = max(lengths)
    keys = torch.stack([F.pad(k, (0, 0, 0, longest - k.shape[2])) for k, _ in placed], 1)
    values = torch.stack([F.pad(v, (0, 0, 0, longest - v.shape[2])) for _, v in placed], 1)
    return keys, values, lengths


def _in_dtype(adapter: Adapter, dtype: torch.dtype) -> Adapter:
    """The adapter in the model's dtype, still in the graph: the fp32 originals are what the optimiser moves."""
    if dtype == torch.float32:
        return adapter
    layers = tuple(
        {t: LowRank(p.a.to(dtype), p.b.to(dtype), p.scale) for t, p in layer.items()} for layer in adapter.layers
    )
    return Adapter(adapter.rank, adapter.alpha, layers)


def _start(rows: Sequence[EncodedRow], reader: Reader, settings: TrainSettings, folder: Path, checked: str) -> State:
    """A new state, or the one in `folder` if it was made by the same rows, checks, settings and base model, read and
    kept in the same numbers."""
    weights = reader.weights
    adapter = new_adapter(
        adapter_shapes(weights.config),
        weights.config.layers,
        rank=settings.rank,
        alpha=settings.alpha,
        seed=settings.seed,
        device=weights.device,
    )
    plan = {k: v for k, v in asdict(settings).items() if k not in ("save_every", "kv_budget")}
    read = asdict(reader.store.model_key)
    state = State(
        adapter,
        torch.optim.AdamW(adapter.tensors().values(), lr=settings.learning_rate, weight_decay=settings.weight_decay),
        sha256_json([plan, reader.digest, read, checked, [_content(row) for row in rows]]),
    )
    restore(state, folder)
    return state


def _content(row: EncodedRow) -> list[object]:
    return [[block.tokens for block in row.blocks], row.sequence, row.prompt_length]
