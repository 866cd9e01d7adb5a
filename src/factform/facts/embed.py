"""Text to vectors: a small BERT encoder in torch, for sentence-transformers folders with mean pooling.

Knows nothing of stores, chunks or scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Protocol

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
from factform.facts.bert import BertConfig, forward, pad, read_bert_config
from factform.hardware import has_fast_bf16
from factform.ids import sha256_file, sha256_json, sha256_text

Vectors = NDArray[np.float32]

MAX_LENGTH = 256
"""Tokens read of a text, the special ones included: what all-MiniLM-L6-v2 was trained for."""

BATCH = 32


class Encoder(Protocol):
    """What the data layer needs of an embedder. All vectors have length 1 in the Euclidean norm."""

    @property
    def dim(self) -> int: ...

    @property
    def digest(self) -> str: ...

    def encode(self, texts: Sequence[str]) -> Vectors: ...

    def encode_tokens(self, texts: Sequence[str]) -> list[Vectors]: ...

    def encode_both(self, texts: Sequence[str]) -> tuple[Vectors, list[Vectors]]: ...

    def encode_query(self, text: str) -> tuple[Vectors, Vectors]: ...

    def count_tokens(self, text: str) -> int: ...


class Embedder:
    """A BERT encoder with its tokenizer. Safe to use from several threads; holds no state between calls."""

    def __init__(self, config: BertConfig, weights: dict[str, Tensor], tokenizer: str, digest: str):
        self.dim = config.hidden_size
        self.digest = digest
        self.dtype = torch.bfloat16 if has_fast_bf16() else torch.float32
        self.max_length = min(MAX_LENGTH, config.max_position_embeddings)
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
    def open(cls, folder: Path) -> Embedder:
        """Read a folder with config.json, model.safetensors and tokenizer.json. Raises ModelError."""
        config = read_bert_config(folder)
        try:
            weights = load_file(folder / "model.safetensors")
            tokenizer = (folder / "tokenizer.json").read_text(encoding="utf-8")
            parts = [
                sha256_file(folder / "model.safetensors"),
                sha256_text(tokenizer),
                asdict(config),
                "mean+l2",
                MAX_LENGTH,
            ]
            # "bert." is there when a BertModel was saved as part of a larger model.
            named = {k.removeprefix("bert."): v for k, v in weights.items()}
            return compute.run(lambda: cls(config, named, tokenizer, sha256_json(parts)))
        except (OSError, SafetensorError, UnicodeDecodeError, ModelError) as error:
            raise ModelError(f"the embedder in {folder} cannot be read: {error}; fetch it again") from error

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Sentence vectors [n, dim]: the mean over all tokens of a text, normalised."""
        out = np.zeros((len(texts), self.dim), np.float32)

        def keep(place: int, hidden: Tensor, encoding: Encoding) -> None:
            out[place] = _unit(hidden.mean(0)).numpy()

        self._run(texts, keep)
        return out

    def encode_tokens(self, texts: Sequence[str]) -> list[Vectors]:
        """Token vectors of each text, [tokens, dim], normalised; special tokens are left out."""
        out = [np.zeros((0, self.dim), np.float32)] * len(texts)

        def keep(place: int, hidden: Tensor, encoding: Encoding) -> None:
            out[place] = _unit(hidden[_ordinary(encoding)]).numpy()

        self._run(texts, keep)
        return out

    def encode_both(self, texts: Sequence[str]) -> tuple[Vectors, list[Vectors]]:
        """Sentence vectors and token vectors of each text, from one forward pass."""
        whole = np.zeros((len(texts), self.dim), np.float32)
        tokens = [np.zeros((0, self.dim), np.float32)] * len(texts)

        def keep(place: int, hidden: Tensor, encoding: Encoding) -> None:
            whole[place] = _unit(hidden.mean(0)).numpy()
            tokens[place] = _unit(hidden[_ordinary(encoding)]).numpy()

        self._run(texts, keep)
        return whole, tokens

    def encode_query(self, text: str) -> tuple[Vectors, Vectors]:
        """Sentence vector [dim] and token vectors [tokens, dim] of one text, from one forward pass."""
        whole, tokens = self.encode_both([text])
        return whole[0], tokens[0]

    def count_tokens(self, text: str) -> int:
        """Tokens of `text`, special ones not counted, nothing cut off."""
        return len(self._counter.encode(text, add_special_tokens=False).ids)

    def _run(self, texts: Sequence[str], keep: Callable[[int, Tensor, Encoding], None]) -> None:
        """Encode in batches of like length, so that little is computed on padding; `keep` gets each one's place."""
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        order = sorted(range(len(texts)), key=lambda i: (len(encodings[i].ids), i))
        for first in range(0, len(order), BATCH):
            compute.run(partial(self._run_batch, encodings, order[first : first + BATCH], keep))

    def _run_batch(
        self, encodings: Sequence[Encoding], places: Sequence[int], keep: Callable[[int, Tensor, Encoding], None]
    ) -> None:
        hidden = self._forward([encodings[i].ids for i in places])
        for row, place in enumerate(places):
            keep(place, hidden[row, : len(encodings[place].ids)], encodings[place])

    @torch.inference_mode()
    def _forward(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Last hidden states [batch, length, dim] in float32 of token rows of any lengths."""
        return forward(self._config, self._weights, pad(rows)).float()


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


def _ordinary(encoding: Encoding) -> list[int]:
    return [i for i, special in enumerate(encoding.special_tokens_mask) if not special]


def _tokenizer(text: str) -> Tokenizer:
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(f"tokenizer.json of the embedder is damaged: {error}") from error
