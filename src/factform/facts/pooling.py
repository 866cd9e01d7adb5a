"""How a sentence-transformers folder wants texts read: pooling, length, and what is put before queries and passages.

Knows nothing of weights. Only what Factform computes is accepted: a Transformer, pooling by mean or first token, and
normalisation, which is always done.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from factform.errors import ModelError

MAX_LENGTH = 256
"""Tokens read of a text where the folder says nothing, the special ones included."""

LONGEST = 512
MODULES = {"Transformer", "Pooling", "Normalize"}
PASSAGE_PROMPTS = ("document", "passage", "corpus")
"""Names under which sentence-transformers looks for the prompt of passages, first found."""


@dataclass(frozen=True)
class TextReading:
    """`pooling` of token states to one vector, tokens read of a text, and the words before a query and a passage."""

    pooling: Literal["mean", "cls"] = "mean"
    max_length: int = MAX_LENGTH
    query_prompt: str = ""
    passage_prompt: str = ""


def text_reading(folder: Path) -> TextReading:
    """What the files of `folder` say; a plain BERT folder without any is read by the mean of 256 tokens.

    Raises ModelError where they ask for something that is not computed here.
    """
    modules = _read(folder, "modules.json")
    kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in modules or []]
    if strange := sorted(set(kinds) - MODULES):
        raise ModelError(
            f"the embedder in {folder} has modules {', '.join(strange)}; only Transformer, Pooling and Normalize "
            "are supported: use another model, or serve it behind model.embedder_url"
        )
    length = (_read(folder, "sentence_bert_config.json") or {}).get("max_seq_length")
    prompts = (_read(folder, "config_sentence_transformers.json") or {}).get("prompts") or {}
    passage = next((prompts[name] for name in PASSAGE_PROMPTS if prompts.get(name)), "")
    return TextReading(
        _pooling(folder), min(int(length or MAX_LENGTH), LONGEST), str(prompts.get("query") or ""), str(passage)
    )


def _pooling(folder: Path) -> Literal["mean", "cls"]:
    said = _read(folder, "1_Pooling/config.json")
    if said is None:
        return "mean"
    modes = {key.removeprefix("pooling_mode_") for key, on in said.items() if key.startswith("pooling_mode_") and on}
    # Newer versions of sentence-transformers write one name instead of a switch for each.
    named = said.get("pooling_mode")
    modes |= {str(named)} if isinstance(named, str) else set()
    if modes in ({"mean_tokens"}, {"mean"}):
        return "mean"
    if modes in ({"cls_token"}, {"cls"}):
        return "cls"
    raise ModelError(
        f"the embedder in {folder} pools by {', '.join(sorted(modes)) or 'nothing'}; only the mean of the tokens or "
        "the first one is supported"
    )


def _read(folder: Path, name: str) -> Any:
    path = folder / name
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError) as error:
        raise ModelError(f"the embedder in {folder} cannot be read: {name}: {error}; fetch it again") from error
