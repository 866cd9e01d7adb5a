"""A block's name: whatever changes its numbers changes it, and nothing else does."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from factform.ids import chunk_id, sha256_text
from factform.model.kv import make_block
from factform.model.kvkey import BlockKey, model_key, text_of
from factform.model.kvstore import Keep
from factform.model.prompt import render
from factform.model.reader import Reader
from factform.records import Chunk, Passage, Prompt

KEY = BlockKey("w", "t", "r", "float32", "int8", 1, sha256_text("rent"), (5, 23))
OTHER: dict[str, Any] = {
    "weights": "w2",
    "tokenizer": "t2",
    "rope": "r2",
    "computed": "bfloat16",
    "stored": "float16",
    "version": 2,
    "text": sha256_text("rents"),
    "tokens": (52, 3),
}


def test_every_field_changes_the_name() -> None:
    assert set(OTHER) == {field.name for field in fields(BlockKey)}
    names = {replace(KEY, **{field: value}).name for field, value in OTHER.items()}
    assert len({KEY.name, *names}) == 1 + len(OTHER)
    assert replace(KEY).name == KEY.name


def test_a_name_holds_hashes_only_and_begins_with_that_of_the_text() -> None:
    assert text_of(KEY.name) == sha256_text("rent")
    assert set(KEY.name) <= set("0123456789abcdef.")


@pytest.mark.parametrize("field", ["title", "heading", "text"])
def test_title_headings_and_words_of_a_passage_change_its_block(tiny: Reader, field: str) -> None:
    text = "The rent is 1,480 euros."
    chunk = Chunk(chunk_id("d", "v", 0, 24), "d", "v", 0, 24, text, sha256_text(text), "Lease", ("Lease", "Rent"))
    value = ("Lease", "Deposit") if field == "heading" else "Other."
    changed = replace(chunk, **{field: value})  # type: ignore[arg-type]
    moved = replace(chunk, id="x", document="other", version="w", start=7, end=31, page=3)

    def names(chunk: Chunk) -> list[str]:
        tokens = tiny.tokenize(render("rent?", [Passage("1", chunk)], tiny.chat))
        return [tiny.store.model_key.of(block).name for block in tokens.encodable]

    assert names(chunk)[:2] == names(changed)[:2]  # the prompt's header and the label
    assert names(chunk)[2] != names(changed)[2]
    assert names(moved) == names(chunk)


def test_a_model_key_follows_weights_digest_tokenizer_rope_and_dtypes(tiny: Reader) -> None:
    weights = tiny.weights
    base = model_key(weights, "digest", "tokenizer", "int8")
    faster = replace(weights, config=replace(weights.config, rope_theta=20000.0))
    turned = replace(weights, frequencies=weights.frequencies * 2)
    half = replace(weights, embedding=weights.embedding.to(torch.bfloat16))
    others = [
        model_key(weights, "digest 2", "tokenizer", "int8"),
        model_key(weights, "digest", "tokenizer 2", "int8"),
        model_key(weights, "digest", "tokenizer", "float16"),
        *(model_key(changed, "digest", "tokenizer", "int8") for changed in (faster, turned, half)),
    ]
    block = make_block("rent", [5])
    assert len({key.of(block).name for key in (base, *others)}) == 7


PROMPT = Prompt("<|im_start|>user\n", ("[1] ", "The rent is 1,480 euros.\n"), "Question: rent?<|im_end|>\n")


def change_weights(folder: Path) -> str:
    tensors = load_file(str(folder / "model.safetensors"))
    tensors["model.layers.0.self_attn.k_proj.weight"] *= 1.5
    save_file(tensors, str(folder / "model.safetensors"))
    return "another digest"


def change_tokenizer(folder: Path) -> str:
    """A merge less: the same text in other tokens, though the digest is not told of it."""
    path = folder / "tokenizer.json"
    raw = json.loads(path.read_text("utf-8"))
    raw["model"]["merges"].pop()
    path.write_text(json.dumps(raw), "utf-8")
    return "digest"


def change_rope(folder: Path) -> str:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rope_theta": 500.0}))
    return "digest"


@pytest.mark.parametrize("change", [change_weights, change_tokenizer, change_rope])
def test_a_changed_model_never_reads_what_another_left_on_disk(tiny_dir: Path, tmp_path: Path, change: Any) -> None:
    folder = Path(shutil.copytree(tiny_dir, tmp_path / "model"))
    keep = Keep(stored="float32", disk_budget=1 << 24, folder=tmp_path / "kv")

    def opened(digest: str, keep: Keep) -> Reader:
        return Reader.open(folder, model="m", digest=digest, dtype=torch.float32, keep=keep)

    opened("digest", keep).generate(PROMPT, mode="reuse", max_tokens=8)
    again = opened("digest", keep)
    again.generate(PROMPT, mode="reuse", max_tokens=8)
    assert (again.store.counts.disk_hits, again.store.counts.misses) == (3, 0)
    digest = change(folder)
    other, fresh = opened(digest, keep), opened(digest, Keep(stored="float32"))
    got, expected = (reader.generate(PROMPT, mode="reuse", max_tokens=8) for reader in (other, fresh))
    assert (other.store.counts.disk_hits, other.store.counts.misses) == (0, 3)
    assert (got.text, got.logprob) == (expected.text, expected.logprob)
