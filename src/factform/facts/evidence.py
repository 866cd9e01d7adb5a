"""Evidence before words: how relevant a passage is to a question, whether it answers it, and which span does.

Knows nothing of language models, contracts or stores. One cross-encoder grown from the embedder: its own encoder
layers and two linear heads, over the embedder's word embeddings, which stayed as they were in training. So the model
belongs to one embedder, by digest, and ships without half of its parameters.

Start and end scores of all passages of a question are on one scale (trained under one softmax over all of them and
"no answer", after Clark and Gardner 2018, "Simple and Effective Multi-Paragraph Reading Comprehension").
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from factform import compute
from factform.errors import ModelError
from factform.facts.bert import SCALES, BertConfig, encoder_of, forward, pad, read_bert_config
from factform.facts.calibration import (
    FEATURES,
    Calibration,
    Candidate,
    Reading,
    answerable,
    best_score,
    candidates,
    logistic,
    right,
)
from factform.facts.chunk import sentences
from factform.facts.layout import trimmed
from factform.ids import printable, sha256_file, sha256_json
from factform.int8.encoder import PackedEncoder
from factform.records import Evidence, Hit, Proposal, SearchResult

SHIPPED = Path(__file__).with_name("weights")
"""Folder of the model that comes with the package."""

WEIGHTS = "evidence.safetensors"
"""File of the first, or only, member's weights."""

MAX_LENGTH = 320
"""Tokens of question, header and passage together. The end of the longer of the two is cut: of a chunk of 160 tokens
under an ordinary question nothing is."""

MAX_SPAN = 30
"""Tokens of an answer span: 99 % of the answers in the training data are shorter."""

BATCH_TOKENS = 4096

DEPTH = 6
"""Hits that are read: each costs a forward pass of the pair."""

QUOTE_WORDS, QUOTE_MARGIN = 50, 120
"""Words of a proposed quote at most, and characters kept on both sides of a span where a line is longer."""


@dataclass(frozen=True)
class PairScores:
    """Logits of a batch of pairs: `pair` [n, 2] (answers, relevant), `start` and `end` [n, width].

    Where a token may not be part of an answer they are -inf; the first token's stand for "no answer".
    """

    pair: Tensor
    start: Tensor
    end: Tensor


@dataclass(frozen=True)
class EncodedPair:
    """A question and a passage in tokens. `places` are the tokens of the passage's text, its header left out;
    `before` is how many characters stand before that text in the second part."""

    encoding: Encoding
    places: range
    before: int


def encode_pair(tokenizer: Tokenizer, question: str, header: str, text: str) -> EncodedPair:
    """The pair in tokens, the passage's header above its text as it is when embedded."""
    above = f"{header}\n" if header else ""
    encoding = tokenizer.encode(question, above + text)
    places = [
        i
        for i, (part, (start, _)) in enumerate(zip(encoding.sequence_ids, encoding.offsets, strict=True))
        if part == 1 and start >= len(above)
    ]
    return EncodedPair(encoding, range(places[0], places[-1] + 1) if places else range(0), len(above))


def pair_scores(
    config: BertConfig,
    weights: Mapping[str, Tensor],
    pairs: Sequence[EncodedPair],
    *,
    encoder: PackedEncoder | None = None,
    dropout: float = 0.0,
) -> PairScores:
    """Forward pass of question-passage pairs, differentiable in the weights. `encoder` and `dropout` as in
    `bert.forward`.

    The pair head reads the first token: [answers, relevant]. The span head reads every token: [start, end].
    """
    batch = pad([p.encoding.ids for p in pairs], [p.encoding.type_ids for p in pairs])
    hidden = forward(config, weights, batch, encoder=encoder, dropout=dropout)
    pair = F.linear(hidden[:, 0], weights["heads.pair.weight"], weights["heads.pair.bias"]).float()
    span = F.linear(hidden, weights["heads.span.weight"], weights["heads.span.bias"]).float()
    allowed = torch.zeros(hidden.shape[:2], dtype=torch.bool)
    allowed[:, 0] = True
    for number, item in enumerate(pairs):
        allowed[number, item.places.start : item.places.stop] = True
    span = span.masked_fill(~allowed[:, :, None], float("-inf"))
    return PairScores(pair, span[..., 0], span[..., 1])


def pair_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in `folder` set up for pairs. Raises ModelError."""
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(f"tokenizer.json in {folder} cannot be read: {error}; fetch the embedder again") from error
    tokenizer.no_padding()
    length = min(MAX_LENGTH, read_bert_config(folder).max_position_embeddings)
    tokenizer.enable_truncation(length, strategy="longest_first")
    return tokenizer


def pack(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they ship: matrices in 8 bit with a 16-bit scale a row, everything else in 16 bit."""
    packed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if tensor.dim() == 2:
            scales = (tensor.abs().amax(1) / 127).clamp_min(2.0**-14).to(torch.float16)
            packed[name + SCALES] = scales
            packed[name] = (tensor / scales[:, None].float()).round().clamp(-127, 127).to(torch.int8)
        else:
            packed[name] = tensor.to(torch.float16)
    return packed


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in 32 bit from what `pack` made of them."""
    return {
        name: tensor.float() * packed[name + SCALES].float()[:, None] if name + SCALES in packed else tensor.float()
        for name, tensor in packed.items()
        if not name.endswith(SCALES)
    }


@dataclass(frozen=True)
class Card:
    """What evidence.json says: the digest of the weights the model was grown from, the calibration, and the files of
    its members."""

    embedder_sha256: str
    calibration: Calibration
    members: tuple[str, ...] = (WEIGHTS,)


def read_card(folder: Path) -> Card:
    """The card of the model in `folder`. Raises ModelError."""
    try:
        raw = json.loads((folder / "evidence.json").read_text("utf-8"))
        fitted = {**raw["calibration"], "right": tuple(map(float, raw["calibration"].get("right", ())))}
        if len(fitted["right"]) not in (0, FEATURES):
            raise ValueError(f"calibration.right has {len(fitted['right'])} weights, not {FEATURES}")
        members = tuple(map(str, raw.get("members", (WEIGHTS,))))
        if not members or any(Path(name).name != name for name in members):
            raise ValueError(f"members {members} are not names of files beside it")
        return Card(str(raw["embedder_sha256"]), Calibration(**fitted), members)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"the evidence model in {folder} cannot be read: evidence.json: {error!r}") from error


def belongs_to(folder: Path, embedder: Path) -> bool:
    """Whether the evidence model in `folder` was grown from the embedder in `embedder`."""
    return read_card(folder).embedder_sha256 == sha256_file(embedder / "model.safetensors")


@dataclass(frozen=True)
class Member:
    """One trained cross-encoder: its weights, and the encoder that stands for its layers' if there is one."""

    weights: Mapping[str, Tensor]
    encoder: PackedEncoder | None = None


class EvidenceModel:
    """The cross-encoders in memory: one, or several trained apart whose logits are averaged.

    Safe to use from several threads; holds no state between calls.
    """

    def __init__(
        self,
        config: BertConfig,
        members: Sequence[Member],
        tokenizer: Tokenizer,
        calibration: Calibration,
        digest: str,
    ):
        self.calibration, self.digest = calibration, digest
        self._config, self._members, self._tokenizer = config, tuple(members), tokenizer

    @classmethod
    def open(cls, folder: Path, embedder: Path, *, native: bool = True) -> EvidenceModel:
        """The model in `folder` (evidence.json and its members' weights) over the embedder it was grown from.

        With `native` the compiled library computes it, where there is one, else torch in fp32. Raises ModelError
        where a file is damaged or the embedder is another one.
        """
        card = read_card(folder)
        try:
            own = [load_file(folder / name) for name in card.members]
            base = load_file(embedder / "model.safetensors")
        except (OSError, ValueError, SafetensorError) as error:
            raise ModelError(f"the evidence model in {folder} cannot be read: {error}") from error
        found = sha256_file(embedder / "model.safetensors")
        if found != card.embedder_sha256:
            raise ModelError(
                f"the evidence model in {folder} was grown from weights {card.embedder_sha256[:12]}, "
                f'{embedder} holds {found[:12]}: set answer.evidence = "off", or train one for it (recipes/reader)'
            )
        config, digests = read_bert_config(embedder), [sha256_file(folder / name) for name in card.members]
        # What probabilities mean is fitted, so it is part of what the model is: limits go by them.
        digest = sha256_json([digests, asdict(card.calibration)])
        members = [compute.run(partial(_member, config, tensors, base, native)) for tensors in own]
        return cls(config, members, pair_tokenizer(embedder), card.calibration, digest)

    def weigh(self, question: str, found: SearchResult, *, depth: int = DEPTH) -> SearchResult:
        """`found` with its first `depth` hits read, put in the order of their evidence, and the rest behind them."""
        if not found.hits:
            return found
        started = time.perf_counter()
        head, tail = found.hits[:depth], found.hits[depth:]
        readings = self.read(question, [(hit.chunk.header, hit.chunk.text) for hit in head])
        read = candidates(readings, [hit.chunk.text for hit in head], self.calibration.answers_weight)
        order = sorted(range(len(head)), key=lambda i: (-self.score(readings[i]), head[i].chunk.id))
        hits = [
            self._hit(rank, head[i], readings[i], [c for c in read if c.passage == i])
            for rank, i in enumerate(order, 1)
        ]
        ms = 1e3 * (time.perf_counter() - started)
        return replace(
            found,
            hits=(*hits, *tail),
            ms={**found.ms, "evidence": ms, "total": found.ms.get("total", 0.0) + ms},
            answerable=self.answerable(readings),
        )

    def score(self, reading: Reading) -> float:
        """What passages are ordered by."""
        return best_score(reading) + self.calibration.answers_weight * reading.answers

    def answerable(self, readings: Sequence[Reading]) -> float:
        """Probability that one of the passages holds the answer."""
        return answerable(self.calibration, readings)

    def _hit(self, rank: int, hit: Hit, reading: Reading, read: Sequence[Candidate]) -> Hit:
        answers, relevant, score = logistic(reading.answers), logistic(reading.relevant), self.score(reading)
        proposals = tuple(
            Proposal(
                c.start,
                c.end,
                *quote_around(hit.chunk.text, c.start, c.end),
                c.score,
                right(self.calibration, c),
            )
            for c in read
        )
        scores = {**hit.scores, "answers": answers, "relevant": relevant, "evidence": score}
        return replace(
            hit,
            rank=rank,
            score=score,
            scores=scores,
            ranks={**hit.ranks, "evidence": rank},
            evidence=Evidence(answers, relevant, proposals),
        )

    def read(self, question: str, passages: Sequence[tuple[str, str]], *, spans: int = 5) -> list[Reading]:
        """What each `(header, text)` says to the question, in the order given, up to `spans` spans each."""
        pairs = [encode_pair(self._tokenizer, printable(question), header, text) for header, text in passages]
        found: dict[int, Reading] = {}
        for places in batches([len(p.encoding.ids) for p in pairs]):
            readings = compute.run(partial(self._read, [pairs[i] for i in places], spans))
            found.update(zip(places, readings, strict=True))
        return [found[i] for i in range(len(pairs))]

    @torch.inference_mode()
    def _read(self, pairs: Sequence[EncodedPair], spans: int) -> list[Reading]:
        scores = mean_scores([pair_scores(self._config, m.weights, pairs, encoder=m.encoder) for m in self._members])
        return [_reading(scores, row, pair, spans) for row, pair in enumerate(pairs)]


def mean_scores(scores: Sequence[PairScores]) -> PairScores:
    """The mean of several members' logits for the same pairs."""
    if len(scores) == 1:
        return scores[0]
    fields = ("pair", "start", "end")
    return PairScores(*(torch.stack([getattr(each, name) for each in scores]).mean(0) for name in fields))


def _member(config: BertConfig, own: Mapping[str, Tensor], base: Mapping[str, Tensor], native: bool) -> Member:
    """Weights in fp32 from a member's `own` and its embedder's, and the encoder that needs none of them, if any."""
    shared = {k.removeprefix("bert."): v.float() for k, v in base.items() if v.is_floating_point()}
    encoder = encoder_of(config, own) if native else None
    used = {name: t for name, t in own.items() if encoder is None or not name.startswith("encoder.")}
    return Member({**shared, **unpack(used)}, encoder)


def batches(lengths: Sequence[int]) -> list[list[int]]:
    """Places of rows of like length together, each batch within BATCH_TOKENS once padded."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if groups and (len(groups[-1]) + 1) * lengths[i] <= BATCH_TOKENS:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def quote_around(text: str, start: int, end: int) -> tuple[int, int]:
    """The sentence around `[start, end)`; in a table its row, and where that is very long the words around it."""
    line = (text.rfind("\n", 0, start) + 1, len(text) if (at := text.find("\n", end)) < 0 else at)
    whole = [(s, e) for s, e in sentences(text, 0, len(text)) if s < end and e > start]
    sentence = (min(s for s, _ in whole), max(e for _, e in whole)) if whole else line
    in_row = text[line[0] : line[1]].lstrip().startswith("|")
    for first, last in (line, sentence) if in_row else (sentence, line):
        if len(text[first:last].split()) <= QUOTE_WORDS:
            return trimmed(text, first, last)
    margin = QUOTE_MARGIN
    while margin and len(text[max(0, start - margin) : end + margin].split()) > QUOTE_WORDS:
        margin -= QUOTE_MARGIN // 4
    return trimmed(text, max(0, start - margin), min(len(text), end + margin))


def _reading(scores: PairScores, row: int, pair: EncodedPair, spans: int) -> Reading:
    answers, relevant = scores.pair[row].tolist()
    none = float(scores.start[row, 0] + scores.end[row, 0])
    return Reading(answers, relevant, none, tuple(best_spans(scores.start[row], scores.end[row], pair, spans)))


def best_spans(start: Tensor, end: Tensor, pair: EncodedPair, n: int) -> list[tuple[int, int, float]]:
    """The `n` best spans by the sum of both logits, none overlapping a better one, in characters of the text."""
    if not pair.places:
        return []
    first, last = pair.places.start, pair.places.stop
    total = start[first:last, None] + end[None, first:last]
    length = last - first
    at = torch.arange(length)
    gap = at[None, :] - at[:, None]
    total = total.masked_fill((gap < 0) | (gap >= MAX_SPAN), float("-inf")).reshape(-1)
    top = torch.topk(total, min(len(total), 20 * n))
    found: list[tuple[int, int, float]] = []
    for score, flat in zip(top.values.tolist(), top.indices.tolist(), strict=True):
        s, e = first + flat // length, first + flat % length
        begin, finish = pair.encoding.offsets[s][0] - pair.before, pair.encoding.offsets[e][1] - pair.before
        if score > float("-inf") and all(finish <= a or b <= begin for a, b, _ in found):
            found.append((begin, finish, score))
        if len(found) == n:
            break
    return found
