"""The embedder against transformers' own BertModel, and the traps of tokenizer.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_bert import WORDS, bert_folder
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

from factform.errors import ModelError
from factform.facts import embed
from factform.facts.embed import MAX_LENGTH, Embedder
from factform.int8.build import native


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT whose tokenizer.json cuts and pads at 8 tokens, as all-MiniLM-L6-v2's does at 128."""
    return bert_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def embedder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Embedder:
    monkeypatch.setattr(embed, "has_fast_bf16", lambda: False)  # the oracle is exact only in float32
    return Embedder.open(folder)


def texts(number: int = 70) -> list[str]:
    rng = np.random.default_rng(1)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 40))) for _ in range(number)] + ["", "unheard", "fox " * 400]


def oracle(folder: Path, embedder: Embedder, text: str) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Sentence and token vectors by transformers, one text at a time, without padding."""
    model = BertModel.from_pretrained(folder).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_LENGTH)
    ids = torch.tensor([tokenizer.encode(text).ids])
    with torch.no_grad():
        hidden = model(ids).last_hidden_state[0]
    sentence = torch.nn.functional.normalize(hidden.mean(0), dim=0)
    tokens = torch.nn.functional.normalize(hidden[1:-1], dim=1)
    return sentence.numpy(), tokens.numpy()


def test_equal_to_transformers_in_batches_of_mixed_lengths(folder: Path, embedder: Embedder) -> None:
    some = texts()
    sentences, tokens = embedder.encode(some), embedder.encode_tokens(some)
    assert sentences.dtype == np.float32
    assert sentences.shape == (len(some), embedder.dim)
    for place in [*range(0, 70, 7), 70, 71, 72]:
        sentence, words = oracle(folder, embedder, some[place])
        np.testing.assert_allclose(sentences[place], sentence, atol=1e-5)
        np.testing.assert_allclose(tokens[place], words, atol=1e-5)
        alone = embedder.encode_query(some[place])
        np.testing.assert_allclose(alone[0], sentence, atol=1e-5)
        np.testing.assert_allclose(alone[1], words, atol=1e-5)


def test_first_token_prompts_and_length_as_the_folder_says(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 12}))
    prompts = {"query": "query: ", "passage": "passage: "}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    embedder = Embedder.open(tmp_path)
    model = BertModel.from_pretrained(tmp_path).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(12)

    def expected(text: str) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
        with torch.no_grad():
            hidden = model(torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
        unit = torch.nn.functional.normalize(hidden, dim=-1)
        return unit[0].numpy(), unit[3:-1].numpy()  # after [CLS], the prompt's word and its colon

    text = "the quick fox " * 6
    sentence, tokens = embedder.encode_query(text)
    np.testing.assert_allclose(sentence, expected("query: " + text)[0], atol=1e-5)
    np.testing.assert_allclose(tokens, expected("query: " + text)[1], atol=1e-5)
    assert len(tokens) == 12 - 2 - 2
    sentences, (tokens, _) = embedder.encode_both([text, "fox"])
    np.testing.assert_allclose(sentences[0], expected("passage: " + text)[0], atol=1e-5)
    np.testing.assert_allclose(sentences, embedder.encode([text, "fox"]), atol=1e-6)
    np.testing.assert_allclose(tokens, expected("passage: " + text)[1], atol=1e-5)
    assert embedder.count_tokens("fox") == 1
    plain = Embedder.open(folder).identity
    assert {name for name in plain if plain[name] != embedder.identity[name]} == {"pooling", "length"}


def test_vectors_have_length_one(embedder: Embedder) -> None:
    np.testing.assert_allclose(np.linalg.norm(embedder.encode(texts()), axis=1), 1.0, atol=1e-5)
    for tokens in embedder.encode_tokens(texts()):
        np.testing.assert_allclose(np.linalg.norm(tokens, axis=1), 1.0, atol=1e-5)


def test_nothing_to_encode(embedder: Embedder) -> None:
    assert embedder.encode([]).shape == (0, embedder.dim)
    assert embedder.encode_tokens([]) == []
    assert embedder.encode_tokens([""])[0].shape == (0, embedder.dim)


def test_tokens_are_counted_neither_cut_nor_padded(embedder: Embedder) -> None:
    assert embedder.count_tokens("") == 0
    assert embedder.count_tokens("the quick fox") == 3
    assert embedder.count_tokens("fox " * 500) == 500
    assert len(embedder.encode_tokens(["fox " * 500])[0]) == MAX_LENGTH - 2
    assert len(embedder.encode_tokens(["fox " * 20])[0]) == 20


def test_digest_follows_weights_and_tokenizer(folder: Path, tmp_path: Path) -> None:
    def copy(name: str, change: str | None) -> str:
        target = tmp_path / name
        target.mkdir()
        for file in folder.iterdir():
            data = file.read_bytes()
            if file.name == change:
                data = data[:-1] + bytes([data[-1] ^ 1]) if file.suffix == ".safetensors" else data + b"\n"
            (target / file.name).write_bytes(data)
        return Embedder.open(target).digest

    same, weights, tokenizer = copy("s", None), copy("w", "model.safetensors"), copy("t", "tokenizer.json")
    assert same == Embedder.open(folder).digest
    assert len({same, weights, tokenizer}) == 3


def test_folders_this_forward_pass_does_not_compute_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        Embedder.open(tmp_path)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(ModelError, match="pools by max_tokens"):
        Embedder.open(tmp_path)
    (tmp_path / "1_Pooling" / "config.json").unlink()
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense"}]))
    with pytest.raises(ModelError, match="Dense"):
        Embedder.open(tmp_path)
    (tmp_path / "modules.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "roberta"}))
    with pytest.raises(ModelError, match="roberta"):
        Embedder.open(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="fetch it again"):
        Embedder.open(tmp_path)


@pytest.mark.slow
def test_the_real_model_knows_what_belongs_together(minilm_dir: Path) -> None:
    real = Embedder.open(minilm_dir)
    assert real.dim == 384
    question, _ = real.encode_query("How much money did the company make in the third quarter?")
    vectors = real.encode(["Revenue in Q3 was 41 million euros.", "The cafeteria serves soup on Mondays."])
    assert vectors[0] @ question > 0.3 > vectors[1] @ question


@pytest.mark.slow
def test_the_real_model_equals_transformers(minilm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "has_fast_bf16", lambda: False)
    real = Embedder.open(minilm_dir, native=False)
    some = ["Revenue in Q3 was 41 million euros.", "word " * 400, "Ünïcödé 株式会社 🙂", ""]
    sentences = real.encode(some)
    for place, text in enumerate(some):
        np.testing.assert_allclose(sentences[place], oracle(minilm_dir, real, text)[0], atol=1e-4)


# --- in 8 bit -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """A random BERT of a size the compiled library takes, with the tokenizer of `folder`."""
    path = tmp_path_factory.mktemp("wide")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=4 + len(WORDS),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=300,
        initializer_range=0.2,
    )
    BertModel(config).eval().save_pretrained(path)
    (path / "tokenizer.json").write_text((folder / "tokenizer.json").read_text())
    return path


@pytest.fixture
def small(wide: Path, monkeypatch: pytest.MonkeyPatch) -> Embedder:
    if native().library is None:
        pytest.skip(native().reason)
    monkeypatch.setattr(embed, "_native_is_faster", lambda: True)
    made = Embedder.open(wide)
    assert made._packed is not None
    return made


def test_8_bit_is_near_float32_in_every_way_of_asking(wide: Path, small: Embedder) -> None:
    whole = Embedder.open(wide, native=False)
    assert whole._packed is None
    assert whole.digest == small.digest  # one index may hold both
    given = texts()
    vectors, tokens = small.encode_both(given)
    exact, exact_tokens = whole.encode_both(given)
    assert (vectors * exact).sum(1).min() > 0.99
    for mine, theirs in zip(tokens, exact_tokens, strict=True):
        assert mine.shape == theirs.shape
        assert not len(mine) or (mine * theirs).sum(1).min() > 0.98
    assert not np.array_equal(vectors, exact)
    np.testing.assert_array_equal(small.encode(given), vectors)
    for each, one in zip(small.encode_tokens(given), tokens, strict=True):
        np.testing.assert_array_equal(each, one)


def test_8_bit_does_not_depend_on_what_is_encoded_beside_it(small: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    given = texts()
    together = small.encode(given)
    monkeypatch.setattr(embed, "SLICE", 7)
    monkeypatch.setattr(embed, "BATCH_TOKENS", 50)
    np.testing.assert_array_equal(small.encode(given), together)
    np.testing.assert_array_equal(np.stack([small.encode_query(text)[0] for text in given]), together)


def test_settings_can_turn_8_bit_off(wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "_native_is_faster", lambda: True)
    assert Embedder.open(wide, native=False)._packed is None
