"""The cross-encoder against transformers, and what it refuses to read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_bert import WORDS, bert_folder
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification, BertModel

from factform.errors import ModelError
from factform.facts.crossencoder import CrossEncoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("cross"), BertForSequenceClassification, num_labels=1)


def pairs(number: int = 40) -> tuple[str, list[str]]:
    rng = np.random.default_rng(2)
    return "the price of a fox ?", [" ".join(rng.choice(WORDS, rng.integers(1, 60))) for _ in range(number)]


def test_equal_to_transformers_in_batches_of_mixed_lengths(folder: Path) -> None:
    question, passages = pairs()
    passages += ["", "fox " * 500]  # nothing, and more than the model has positions for
    theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(300)
    expected = []
    for passage in passages:
        encoding = tokenizer.encode(question, passage)
        ids, types = torch.tensor([encoding.ids]), torch.tensor([encoding.type_ids])
        with torch.no_grad():
            expected.append(float(theirs(input_ids=ids, token_type_ids=types).logits[0, 0]))
    found = CrossEncoder.open(folder, native=False).scores(question, passages)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.std(expected) > 0.01
    assert CrossEncoder.open(folder, native=False).scores(question, []) == []


def test_only_models_with_one_output_are_taken(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="2 outputs"):
        CrossEncoder.open(bert_folder(tmp_path / "two", BertForSequenceClassification, num_labels=2))
    with pytest.raises(ModelError, match=r"lacks .*classifier"):
        CrossEncoder.open(bert_folder(tmp_path / "plain", BertModel))
    (tmp_path / "plain" / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        CrossEncoder.open(tmp_path / "plain")
    (tmp_path / "two" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="cannot be read"):
        CrossEncoder.open(tmp_path / "two")


def test_the_digest_follows_the_weights(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = bert_folder(tmp_path / "other", BertForSequenceClassification, num_labels=1, classifier_dropout=0.5)
    assert CrossEncoder.open(folder).digest == CrossEncoder.open(folder).digest != CrossEncoder.open(other).digest
