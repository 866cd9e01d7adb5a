"""The compared readers: how a group's tokens lie in one sequence, who may look at what, the loss, and greedy writing.

Knows nothing of sets, splits or scores. A sequence is [header] [label 1] [passage 1] (links 1) … [label k] [passage k]
(links k) [tail 1] … [tail n]: tails stand side by side at the same positions and do not see one another, so each is
what it would be alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from compare_rows import Group, Order, target
from torch import Tensor

from factform.form.train import adapter_shapes
from factform.model.kv import BlockKV, encode_blocks, place
from factform.model.llama import ContextCache, NoCache, StaticCache, Weights, forward, logits
from factform.model.lora import Adapter, new_adapter
from factform.model.prompt import render
from factform.model.reader import Reader
from factform.records import Chunk, Passage

Reading = Literal["tail", "blocks", "causal"]
"""Blocks read alone by the base; blocks read alone by the trained weights; everything read in full by them."""

LINK_TOKENS = (5, 5, 5, 5)
"""What stands after a passage where there are links: a separator that the base's tokenizer has and text never holds."""

MOST_WRITTEN = 48


@dataclass(frozen=True)
class Variant:
    """One way to make a reader. `double` trains every other group read in full; `rank` 0 trains all matrices."""

    name: str
    reading: Reading
    order: Order = "answer"
    evidence: bool = False
    links: bool = False
    double: bool = False
    rank: int = 32


@dataclass(frozen=True)
class Segment:
    """Tokens that stand together. Of a tail, the loss covers `tokens[prompt:]`."""

    kind: Literal["block", "link", "tail"]
    tokens: tuple[int, ...]
    prompt: int = 0


@dataclass(frozen=True)
class Layout:
    """Segments in order, context before tails, and for each token its place and its segment's number."""

    segments: tuple[Segment, ...]
    positions: Tensor
    owner: Tensor

    @property
    def tokens(self) -> list[int]:
        return [t for segment in self.segments for t in segment.tokens]

    @property
    def context(self) -> int:
        """Tokens before the tails."""
        return sum(len(s.tokens) for s in self.segments if s.kind != "tail")

    def of(self, kind: str) -> Tensor:
        """For each token, whether its segment is a `kind`."""
        return torch.tensor([s.kind == kind for s in self.segments])[self.owner]


def lay_out(segments: Sequence[Segment]) -> Layout:
    """`segments`, context first; every tail begins where the context ends."""
    context = sum(len(s.tokens) for s in segments if s.kind != "tail")
    places, owner, at = [], [], 0
    for number, segment in enumerate(segments):
        start = context if segment.kind == "tail" else at
        places += range(start, start + len(segment.tokens))
        owner += [number] * len(segment.tokens)
        at += len(segment.tokens)
    return Layout(tuple(segments), torch.tensor(places), torch.tensor(owner))


def segments_of(reader: Reader, group: Group, variant: Variant, notes: Sequence[str], *, targets: bool) -> Layout:
    """The group as the product renders it, one tail a question; `notes` are put under each question."""
    passages = [
        Passage(str(i), Chunk(str(i), document, "", 0, len(text), text, "", header))
        for i, (document, header, text) in enumerate(group.passages, 1)
    ]
    segments: list[Segment] = []
    for asked, note in zip(group.asked, notes, strict=True):
        prompt = reader.tokenize(render(asked.question + note, passages, reader.chat))
        if not segments:
            for number, block in enumerate((prompt.header, *prompt.blocks)):
                segments.append(Segment("block", block))
                if variant.links and number and number % 2 == 0:
                    segments.append(Segment("link", LINK_TOKENS))
        goal = (*reader.encode(target(group, asked, variant.order)), reader.end_token) if targets else ()
        segments.append(Segment("tail", prompt.tail + goal, len(prompt.tail)))
    return lay_out(segments)


def full_mask(layout: Layout, reading: Reading) -> Tensor:
    """Mask [N, N] over the whole sequence, True where a token may look.

    Nobody looks ahead or into another's tail. Tails and links see all of the context before them; a block sees itself
    alone, unless all is read in full.
    """
    owner, n = layout.owner, len(layout.owner)
    same = owner[:, None] == owner[None]
    free = torch.ones(n, dtype=torch.bool) if reading == "causal" else ~layout.of("block")
    context = ~layout.of("tail")
    return (same | (free[:, None] & context[None])) & torch.ones(n, n, dtype=torch.bool).tril()


def tail_mask(layout: Layout) -> tuple[Tensor, Tensor]:
    """Of blocks that are encoded already: the tokens still to be read (links and tails) [T], and their mask [T, C + T].

    The C places of the context come first, with nothing at the places of its links; then the tokens read now.
    """
    mask, now = full_mask(layout, "blocks"), ~layout.of("block")
    context = mask[now][:, : layout.context].clone()
    context[:, layout.of("link")[: layout.context]] = False
    return now.nonzero()[:, 0], torch.cat((context, mask[now][:, now]), 1)


# --- reading ----------------------------------------------------------------------------------


def blocks_kv(weights: Weights, layout: Layout) -> list[BlockKV]:
    """The sequence's blocks, each encoded alone: long ones in one batch, short ones in another."""
    blocks = [s.tokens for s in layout.segments if s.kind == "block"]
    found: dict[int, BlockKV] = {}
    for long in (True, False):
        at = [i for i, block in enumerate(blocks) if (len(block) > 16) == long]
        if at:
            found.update(zip(at, encode_blocks(weights, [blocks[i] for i in at]), strict=True))
    return [found[i] for i in range(len(blocks))]


def placed(weights: Weights, layout: Layout, blocks: Sequence[BlockKV]) -> StaticCache:
    """Encoded blocks at their places, with room between them where links will stand."""
    cache = StaticCache(weights.config, layout.context, weights.dtype, weights.device)
    cache.keys.zero_(), cache.values.zero_()
    left = iter(blocks)
    for segment in layout.segments:
        if segment.kind == "block":
            place(weights, [next(left)], cache)
        elif segment.kind == "link":
            cache.length += len(segment.tokens)
    return cache


def states(
    base: Weights, weights: Weights, adapter: Adapter | None, layout: Layout, reading: Reading
) -> tuple[Tensor, Tensor]:
    """Hidden states [T, N] of the tokens that are read with the trained weights, and which tokens [T] these are."""
    device, tokens = weights.device, torch.tensor(layout.tokens)
    if reading == "tail":
        cache = placed(base, layout, blocks_kv(base, layout))
        now, mask = tail_mask(layout)
        before: ContextCache | NoCache = ContextCache(cache.keys, cache.values)
    else:
        now, mask, before = torch.arange(len(tokens)), full_mask(layout, reading), NoCache()
    hidden = forward(
        weights, tokens[now][None].to(device), layout.positions[now].to(device), before,
        mask=mask[None, None].to(device), adapter=adapter,
    )  # fmt: skip
    return hidden[0], now


def loss_of(
    base: Weights, weights: Weights, adapter: Adapter | None, layout: Layout, reading: Reading
) -> tuple[Tensor, int]:
    """Summed cross entropy over the targets of all tails, and how many tokens these are."""
    hidden, now = states(base, weights, adapter, layout, reading)
    tokens, starts, at = layout.tokens, [], 0
    for segment in layout.segments:
        if segment.kind == "tail":
            starts += range(at + segment.prompt - 1, at + len(segment.tokens) - 1)
        at += len(segment.tokens)
    row_of = {int(token): row for row, token in enumerate(now)}
    rows = torch.tensor([row_of[s] for s in starts], device=hidden.device)
    goal = torch.tensor([tokens[s + 1] for s in starts], device=hidden.device)
    return F.cross_entropy(logits(weights, hidden[rows]), goal, reduction="sum"), len(starts)


# --- what is trained --------------------------------------------------------------------------


def trainable(weights: Weights, variant: Variant, seed: int) -> tuple[Weights, Adapter | None, list[Tensor]]:
    """Weights, adapter and the tensors that are trained: the adapter's, or a copy of all matrices of the layers."""
    if variant.rank:
        adapter = new_adapter(
            adapter_shapes(weights.config), weights.config.layers,
            rank=variant.rank, alpha=2.0 * variant.rank, seed=seed, device=weights.device,
        )  # fmt: skip
        return weights, adapter, list(adapter.tensors().values())
    layers = tuple(
        replace(
            layer,
            **{n: getattr(layer, n).clone().requires_grad_(True) for n in ("qkv", "out", "gate_up", "down")},
        )
        for layer in weights.layers
    )
    return replace(weights, layers=layers), None, [t for x in layers for t in (x.qkv, x.out, x.gate_up, x.down)]


# --- writing ----------------------------------------------------------------------------------


class RowsCache:
    """Keys and values of several rows of unlike length in one, room behind them for what is written."""

    def __init__(self, rows: Sequence[StaticCache], room: int):
        self.length = max(row.length for row in rows)
        layers, _, groups, _, size = rows[0].keys.shape
        shape = (layers, len(rows), groups, self.length + room, size)
        self.keys = torch.zeros(shape, dtype=rows[0].keys.dtype, device=rows[0].keys.device)
        self.values = torch.zeros_like(self.keys)
        for i, row in enumerate(rows):
            self.keys[:, i, :, : row.length] = row.keys[:, 0, :, : row.length]
            self.values[:, i, :, : row.length] = row.values[:, 0, :, : row.length]

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        end = self.length + keys.shape[2]
        self.keys[layer][:, :, self.length : end] = keys
        self.values[layer][:, :, self.length : end] = values
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]


@dataclass(frozen=True)
class Begun:
    """A question read up to its first token. `seen` [C] are the places that hold something; `ms` is what reading took
    at question time: with warm blocks everything but encoding them.

    `token` is the likeliest, `other` the likeliest that begins no refusal, `doubt` the probability of one that does.
    """

    cache: StaticCache
    seen: Tensor
    position: int
    token: int
    other: int
    doubt: float
    ms: float


@torch.inference_mode()
def begin(weights: Weights, layout: Layout, reading: Reading, blocks: Sequence[BlockKV] | None, refusal: int) -> Begun:
    """Read a question with one tail: in full, or over `blocks` that are encoded already. `refusal` begins a refusal."""
    started = time.perf_counter()
    device, n = weights.device, len(layout.owner)
    tokens = torch.tensor(layout.tokens)
    cache = StaticCache(weights.config, n + int(layout.of("link").sum()), weights.dtype, device)
    if blocks is None:
        now, mask = torch.arange(n), full_mask(layout, reading)
        seen = torch.ones(n, dtype=torch.bool)
    else:
        context = placed(weights, layout, blocks)
        cache.keys[:, :, :, : context.length] = context.keys
        cache.values[:, :, :, : context.length] = context.values
        cache.length = context.length
        now, mask = tail_mask(layout)
        seen = torch.cat((~layout.of("link")[: layout.context], torch.ones(len(now), dtype=torch.bool)))
    hidden = forward(
        weights, tokens[now][None].to(device), layout.positions[now].to(device), cache,
        mask=mask[None, None].to(device),
    )  # fmt: skip
    cache.length += len(now)
    first = logits(weights, hidden[0, -1])
    token, ms = int(first.argmax()), 1e3 * (time.perf_counter() - started)
    doubt = float(first.softmax(-1)[refusal])
    first[refusal] = float("-inf")
    return Begun(cache, seen, n, token, int(first.argmax()), doubt, ms)


@torch.inference_mode()
def write(weights: Weights, begun: Sequence[Begun], end: int, most: int = MOST_WRITTEN) -> list[list[int]]:
    """Greedy continuations, all rows in one step, the end token left out."""
    if not begun:
        return []
    cache, device = RowsCache([b.cache for b in begun], most), weights.device
    seen = torch.zeros(len(begun), cache.length + most, dtype=torch.bool)
    for i, b in enumerate(begun):
        seen[i, : len(b.seen)] = b.seen
    first = cache.length
    written = [[b.token] for b in begun]
    while len(written[0]) < most and any(row[-1] != end for row in written):
        step = len(written[0])
        seen[:, first + step - 1] = True
        hidden = forward(
            weights,
            torch.tensor([row[-1:] for row in written], device=device),
            torch.tensor([[b.position + step - 1] for b in begun], device=device),
            cache,
            mask=seen[:, None, None, : cache.length + 1].to(device),
        )
        cache.length += 1
        for row, token in zip(written, logits(weights, hidden[:, 0]).argmax(-1).tolist(), strict=True):
            row.append(end if row[-1] == end else token)
    return [row[: row.index(end)] if end in row else row for row in written]
