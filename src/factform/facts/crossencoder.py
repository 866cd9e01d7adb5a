"""Rerank by a cross-encoder: a BERT with one output that reads question and passage together.

Knows nothing of the index or of where the model came from. It computes what transformers'
`BertForSequenceClassification` does, from safetensors only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
from factform.facts.bert import BertConfig, encoder_of, forward, pad, read_bert_config
from factform.facts.evidence import batches, pack
from factform.ids import printable, sha256_file, sha256_json
from factform.int8.encoder import PackedEncoder

MAX_LENGTH = 512
"""Tokens of question and passage together, special ones included; the end of the longer one is cut."""

HEAD = ("bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias")


class CrossEncoder:
    """The model in memory. Safe to use from several threads; holds no state between calls."""

    def __init__(
        self,
        config: BertConfig,
        weights: Mapping[str, Tensor],
        tokenizer: Tokenizer,
        digest: str,
        encoder: PackedEncoder | None = None,
    ):
        self.digest = digest
        self._config, self._weights, self._tokenizer, self._encoder = config, weights, tokenizer, encoder

    @classmethod
    def open(cls, folder: Path, *, native: bool = True) -> CrossEncoder:
        """Read a folder with config.json, model.safetensors and tokenizer.json. Raises ModelError.

        With `native` the compiled library computes its layers in 8 bit where it can, else torch in fp32.
        """
        config = read_bert_config(folder)
        try:
            weights = {name: t.float() for name, t in load_file(folder / "model.safetensors").items()}
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            fast = json.loads((folder / "config.json").read_text("utf-8"))
        except (OSError, ValueError, SafetensorError) as error:
            raise ModelError(f"the cross-encoder in {folder} cannot be read: {error}") from error
        except Exception as error:  # tokenizers raises bare Exception
            raise ModelError(f"tokenizer.json in {folder} cannot be read: {error}") from error
        _check_head(folder, weights, config.hidden_size)
        tokenizer.no_padding()
        tokenizer.enable_truncation(min(MAX_LENGTH, config.max_position_embeddings), strategy="longest_first")
        files = {name: sha256_file(folder / name) for name in ("model.safetensors", "tokenizer.json")}
        digest = sha256_json({**files, "config": fast})
        named = {name.removeprefix("bert."): t for name, t in weights.items()}
        encoder = compute.run(partial(encoder_of, config, pack(named))) if native else None
        return cls(config, named, tokenizer, digest, encoder)

    def scores(self, question: str, passages: Sequence[str]) -> list[float]:
        """The logit of each passage for the question, in the order given."""
        encodings = [self._tokenizer.encode(printable(question), passage) for passage in passages]
        found: dict[int, float] = {}
        for places in batches([len(e.ids) for e in encodings]):
            logits = compute.run(partial(self._logits, [encodings[i] for i in places]))
            found.update(zip(places, logits, strict=True))
        return [found[i] for i in range(len(passages))]

    @torch.inference_mode()
    def _logits(self, encodings: Sequence[Encoding]) -> list[float]:
        batch = pad([e.ids for e in encodings], [e.type_ids for e in encodings])
        first = forward(self._config, self._weights, batch, encoder=self._encoder)[:, 0]
        w = self._weights
        pooled = torch.tanh(F.linear(first, w["pooler.dense.weight"], w["pooler.dense.bias"]))
        logits: list[float] = F.linear(pooled, w["classifier.weight"], w["classifier.bias"])[:, 0].tolist()
        return logits


def _check_head(folder: Path, weights: Mapping[str, Tensor], hidden: int) -> None:
    missing = [name for name in HEAD if name not in weights]
    if missing:
        raise ModelError(
            f"the cross-encoder in {folder} lacks {', '.join(missing)}: only BERT models saved for sequence "
            "classification can rerank"
        )
    shape = tuple(weights["classifier.weight"].shape)
    if shape != (1, hidden):
        raise ModelError(
            f"the cross-encoder in {folder} has {shape[0]} outputs; only models with one (a relevance logit) can rerank"
        )
