"""Text to vectors: a small BERT encoder, for sentence-transformers folders.

Knows nothing of stores, chunks or scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from factform import compute
from factform.errors import ModelError
from factform.facts.bert import SCALES, BertConfig, encoder_of, forward, pad, read_bert_config, read_packed
from factform.facts.pooling import MAX_LENGTH, TextReading, text_reading
from factform.hardware import has_fast_bf16
from factform.ids import sha256_file, sha256_json, sha256_text
from factform.int8.build import native as native_library
from factform.int8.quantize import quantize

__all__ = ["MAX_LENGTH", "Embedder", "Encoder", "Vectors"]

Vectors = NDArray[np.float32]

BATCH = 32
"""Texts of a batch that is padded."""

BATCH_TOKENS = 4096
"""Tokens of a batch that is not. A question waits for the batch being computed, and no longer."""

SLICE = 512
"""Texts that are tokenized at a time: the tokens of a whole long document would take a hundred times its size."""

DIGITS = 1
"""Of the input of a product in 8 bit; what 1 and 2 cost in quality is in docs/log.md."""


class Encoder(Protocol):
    """What the data layer needs of an embedder. All vectors have length 1 in the Euclidean norm.

    `identity` holds everything a vector depends on by name (model, tokenizer, pooling, length, precision); `digest` is
    over it. An embedder that has no token vectors gives none: an array of no rows for each text.
    """

    @property
    def dim(self) -> int: ...

    @property
    def digest(self) -> str: ...

    @property
    def identity(self) -> Mapping[str, Any]: ...

    def encode(self, texts: Sequence[str]) -> Vectors: ...

    def encode_tokens(self, texts: Sequence[str]) -> list[Vectors]: ...

    def encode_both(self, texts: Sequence[str]) -> tuple[Vectors, list[Vectors]]: ...

    def encode_query(self, text: str) -> tuple[Vectors, Vectors]: ...

    def count_tokens(self, text: str) -> int: ...


class Embedder:
    """A BERT encoder with its tokenizer. Safe to use from several threads; holds no state between calls."""

    def __init__(
        self,
        config: BertConfig,
        weights: dict[str, Tensor],
        tokenizer: str,
        model: str,
        *,
        reading: TextReading | None = None,
        native: bool = False,
    ):
        self._reading = reading = reading or TextReading()
        self.dim = config.hidden_size
        self._packed = encoder_of(config, _in_8_bit(weights), digits=DIGITS) if native and _native_is_faster() else None
        self.dtype = torch.bfloat16 if has_fast_bf16() and not self._packed else torch.float32
        self.max_length = min(reading.max_length, config.max_position_embeddings)
        self.identity: Mapping[str, Any] = {
            "model": model,
            "tokenizer": sha256_text(tokenizer),
            "pooling": {"tokens": reading.pooling, "query": reading.query_prompt, "passage": reading.passage_prompt},
            "length": self.max_length,
            # Of what is stored. How it is computed is left out on purpose: see `open`.
            "precision": "float32",
        }
        self.digest = sha256_json(self.identity)
        self._config = config
        self._weights = {name: value.to(self.dtype) for name, value in weights.items() if value.is_floating_point()}
        # tokenizer.json carries its author's truncation and padding (128 and 128 for all-MiniLM-L6-v2): both off, or
        # long texts lose their end and every count comes out as 128.
        self._counter = _tokenizer(tokenizer)
        self._counter.no_truncation()
        self._counter.no_padding()
        self._tokenizer = _tokenizer(tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_length)

    @classmethod
    def open(cls, folder: Path, *, native: bool = True) -> Embedder:
        """Read a folder with config.json, model.safetensors and tokenizer.json. Raises ModelError.

        With `native` the compiled library computes it in 8 bit where that is faster on this machine. The digest does
        not say so, on purpose: vectors of both kinds stand in one index, see docs/design/data-layer.md.
        """
        config = read_bert_config(folder)
        try:
            weights = load_file(folder / "model.safetensors")
            tokenizer = (folder / "tokenizer.json").read_text(encoding="utf-8")
            model = sha256_json([sha256_file(folder / "model.safetensors"), asdict(config)])
            # "bert." is there when a BertModel was saved as part of a larger model.
            named = {k.removeprefix("bert."): v for k, v in weights.items()}
            reading = text_reading(folder)
            return compute.run(lambda: cls(config, named, tokenizer, model, reading=reading, native=native))
        except (OSError, SafetensorError, UnicodeDecodeError, ModelError) as error:
            raise ModelError(f"the embedder in {folder} cannot be read: {error}; fetch it again") from error

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Sentence vectors [n, dim] of passages: the mean over all tokens of a text (or its first one), normalised."""
        out = np.zeros((len(texts), self.dim), np.float32)
        self._run(texts, self._reading.passage_prompt, out, None)
        return out

    def encode_tokens(self, texts: Sequence[str]) -> list[Vectors]:
        """Token vectors of each passage, [tokens, dim], normalised; special tokens and the prompt are left out."""
        return self.encode_both(texts)[1]

    def encode_both(self, texts: Sequence[str]) -> tuple[Vectors, list[Vectors]]:
        """Sentence vectors and token vectors of each passage, from one forward pass."""
        return self._both(texts, self._reading.passage_prompt)

    def encode_query(self, text: str) -> tuple[Vectors, Vectors]:
        """Sentence vector [dim] and token vectors [tokens, dim] of one question, from one forward pass."""
        whole, tokens = self._both([text], self._reading.query_prompt)
        return whole[0], tokens[0]

    def count_tokens(self, text: str) -> int:
        """Tokens of `text`, special ones not counted, nothing cut off."""
        # `encode` also notes where each token stands, a sixth of its time. Bulk loads count each text some three times.
        return len(self._counter.encode_batch_fast([text], add_special_tokens=False)[0])

    def _both(self, texts: Sequence[str], prompt: str) -> tuple[Vectors, list[Vectors]]:
        whole = np.zeros((len(texts), self.dim), np.float32)
        tokens = [np.zeros((0, self.dim), np.float32)] * len(texts)
        self._run(texts, prompt, whole, tokens)
        return whole, tokens

    def _run(self, texts: Sequence[str], prompt: str, whole: Vectors, tokens: list[Vectors] | None) -> None:
        """Encode `texts`, each behind `prompt`, into `whole` and, if it is there, `tokens`."""
        # With offsets only where a prompt has to be told from the text: they cost time.
        encode = self._tokenizer.encode_batch if prompt else self._tokenizer.encode_batch_fast
        # Texts of like length together, told by their characters: tokens are not known before they are made.
        order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
        for first in range(0, len(order), SLICE):
            places = order[first : first + SLICE]
            encodings = encode([prompt + texts[i] for i in places])
            for batch in self._batches([len(encoding.ids) for encoding in encodings]):
                mine = [encodings[i] for i in batch]
                vectors, each = compute.run(partial(self._vectors, mine, tokens is not None, len(prompt)))
                for row, i in enumerate(batch):
                    whole[places[i]] = vectors[row]
                    if tokens is not None:
                        tokens[places[i]] = each[row]

    def _batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Places of rows that are computed together."""
        order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
        if self._packed is None:
            return [order[first : first + BATCH] for first in range(0, len(order), BATCH)]
        batches: list[list[int]] = []
        room = 0
        for i in order:
            if room < lengths[i]:
                batches.append([])
                room = BATCH_TOKENS
            batches[-1].append(i)
            room -= lengths[i]
        return batches

    @torch.inference_mode()
    def _vectors(self, encodings: Sequence[Encoding], with_tokens: bool, prompt: int) -> tuple[Vectors, list[Vectors]]:
        """Vectors of a batch, and if they are wanted those of its texts' ordinary tokens behind `prompt` characters."""
        lengths = [len(encoding.ids) for encoding in encodings]
        states = self._states([encoding.ids for encoding in encodings])
        if self._reading.pooling == "mean":
            pooled = torch.segment_reduce(states, "mean", lengths=torch.tensor(lengths), axis=0)
        else:
            pooled = states[torch.tensor([0, *lengths[:-1]]).cumsum(0)]
        vectors = np.asarray(_unit(pooled).numpy(), np.float32)
        if not with_tokens:
            return vectors, []
        parts = torch.split(_unit(states), lengths)
        ordinary = (part[_ordinary(encoding, prompt)] for part, encoding in zip(parts, encodings, strict=True))
        return vectors, [np.asarray(part.numpy(), np.float32) for part in ordinary]

    def _states(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The forward pass: last hidden states [tokens, dim] in float32 of token rows, one behind the other."""
        if self._packed is not None:
            return read_packed(self._config, self._weights, rows, self._packed)
        batch = pad(rows)
        return forward(self._config, self._weights, batch).float()[batch.mask]


def _native_is_faster() -> bool:
    """Whether products of bytes beat torch's own here: with VNNI or AVX2, unless there are tiles of bfloat16."""
    library = native_library().library
    return library is not None and bool(library.factform_wide()) and not has_fast_bf16()


def _in_8_bit(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The layers' matrices rounded to 8 bit, with their scales; everything else as it is."""
    small: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name.startswith("encoder.") and value.dim() == 2:
            rounded = quantize(value)
            small[name], small[name + SCALES] = rounded.values, rounded.scales
        else:
            small[name] = value
    return small


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


def _ordinary(encoding: Encoding, before: int = 0) -> list[int]:
    """Places of the text's own tokens: not special, not among the first `before` characters."""
    own = [i for i, special in enumerate(encoding.special_tokens_mask) if not special]
    return [i for i in own if encoding.offsets[i][0] >= before] if before else own


def _tokenizer(text: str) -> Tokenizer:
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(f"tokenizer.json of the embedder is damaged: {error}") from error
