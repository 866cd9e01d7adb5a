"""The evidence model: its forward pass against transformers, spans against brute force, what it makes of hits."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, processors
from torch import Tensor

from factform.errors import ModelError
from factform.facts.bert import Batch, BertConfig, forward, pad
from factform.facts.evidence import (
    MAX_SPAN,
    QUOTE_WORDS,
    SHIPPED,
    EncodedPair,
    EvidenceModel,
    batches,
    belongs_to,
    best_spans,
    encode_pair,
    pack,
    pair_tokenizer,
    quote_around,
    read_card,
    unpack,
)
from factform.ids import chunk_id, sha256_file, sha256_text
from factform.int8.build import native as library
from factform.records import Chunk, Hit, SearchResult

CONFIG = BertConfig(32, 2, 4, 256, 1e-12)
CALIBRATION = {"answers_weight": 0.5, "bias": 0.1, "margin": 0.2, "answers": 0.3, "refuse_below": 0.4}
TEXTS = ("The monthly rent for unit 7 is 1,480 euros.", "The boiler must be serviced every 18 months.", "Pets: none.")


def random_bert(vocab: int, seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    n = CONFIG.hidden_size

    def new(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g) * 0.3

    weights = {
        "embeddings.word_embeddings.weight": new(vocab, n),
        "embeddings.position_embeddings.weight": new(256, n),
        "embeddings.token_type_embeddings.weight": new(2, n),
        "embeddings.LayerNorm.weight": new(n) + 1,
        "embeddings.LayerNorm.bias": new(n),
    }
    for i in range(CONFIG.num_hidden_layers):
        at = f"encoder.layer.{i}."
        for name, shape in (
            ("attention.self.query", (n, n)),
            ("attention.self.key", (n, n)),
            ("attention.self.value", (n, n)),
            ("attention.output.dense", (n, n)),
            ("intermediate.dense", (2 * n, n)),
            ("output.dense", (n, 2 * n)),
        ):
            weights[f"{at}{name}.weight"], weights[f"{at}{name}.bias"] = new(*shape), new(shape[0])
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            weights[f"{at}{name}.weight"], weights[f"{at}{name}.bias"] = new(n) + 1, new(n)
    return weights


@pytest.fixture
def folders(tmp_path: Path, tiny_embedder_dir: Path) -> tuple[Path, Path]:
    """A random evidence model and the random embedder it belongs to."""
    embedder, own = tmp_path / "embedder", tmp_path / "evidence"
    embedder.mkdir()
    own.mkdir()
    tokenizer = Tokenizer.from_file(str(tiny_embedder_dir / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A <|im_end|>",
        pair="<|im_start|> $A <|im_end|> $B:1 <|im_end|>:1",
        special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)],
    )
    tokenizer.save(str(embedder / "tokenizer.json"))
    raw = json.loads((tiny_embedder_dir / "config.json").read_text("utf-8"))
    (embedder / "config.json").write_text(
        json.dumps({**raw, "num_hidden_layers": CONFIG.num_hidden_layers, "num_attention_heads": 2})
    )
    weights = random_bert(tokenizer.get_vocab_size())
    save_file(weights, embedder / "model.safetensors")
    g = torch.Generator().manual_seed(3)
    heads = {f"heads.{h}.{kind}": torch.randn(*shape, generator=g)
             for h in ("pair", "span") for kind, shape in (("weight", (2, 32)), ("bias", (2,)))}  # fmt: skip
    layers = {name: tensor + 0.01 for name, tensor in weights.items() if name.startswith("encoder.")}
    save_file(pack({**heads, **layers}), own / "evidence.safetensors")
    card = {"embedder_sha256": sha256_file(embedder / "model.safetensors"), "calibration": CALIBRATION}
    (own / "evidence.json").write_text(json.dumps(card))
    return own, embedder


@pytest.fixture
def model(folders: tuple[Path, Path]) -> EvidenceModel:
    return EvidenceModel.open(*folders)


def hits() -> tuple[Hit, ...]:
    made = []
    for i, text in enumerate(TEXTS):
        chunk = Chunk(
            chunk_id(f"d{i}", "v", 0, len(text)), f"d{i}", "v", 0, len(text), text, sha256_text(text), "Lease"
        )
        made.append(Hit(i + 1, chunk, 1.0 - i / 10, {"fused": 1.0 - i / 10}))
    return tuple(made)


def test_the_forward_pass_is_that_of_transformers() -> None:
    from transformers import BertConfig as TheirConfig
    from transformers import BertModel

    theirs = BertModel(
        TheirConfig(
            vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
            max_position_embeddings=256,
        ),
        add_pooling_layer=False,
    ).eval()  # fmt: skip
    weights = random_bert(50)
    theirs.load_state_dict(weights, strict=False)
    rows = [[1, 7, 9, 2, 30, 31, 2], [1, 8, 2, 5, 2]]
    types = [[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1]]
    batch = pad(rows, types)
    with torch.inference_mode():
        expected = theirs(
            input_ids=batch.ids, attention_mask=batch.mask.long(), token_type_ids=batch.types
        ).last_hidden_state
        got = forward(CONFIG, weights, batch)
        alone = forward(CONFIG, weights, Batch(batch.ids[1:, :5], batch.mask[1:, :5], torch.tensor(types[1:])))
    assert torch.allclose(got[batch.mask], expected[batch.mask], atol=1e-4)
    assert torch.allclose(got[1, :5], alone[0], atol=1e-5)  # padding changes nothing


@pytest.mark.parametrize(("native", "near"), [(False, 1e-4), (True, 1e-4)])
def test_a_passage_is_read_alike_alone_and_among_others(folders: tuple[Path, Path], native: bool, near: float) -> None:
    model = EvidenceModel.open(*folders, native=native)
    together = model.read("What is the rent?", [("Lease", text) for text in TEXTS])
    for text, reading in zip(TEXTS, together, strict=True):
        (alone,) = model.read("What is the rent?", [("Lease", text)])
        assert alone.answers == pytest.approx(reading.answers, abs=near)
        assert alone.none == pytest.approx(reading.none, abs=near)
        assert [s[:2] for s in alone.spans] == [s[:2] for s in reading.spans]


@pytest.mark.skipif(library().library is None, reason=library().reason)
def test_the_compiled_library_reads_as_torch_does(folders: tuple[Path, Path]) -> None:
    """With random weights, so that the 8 bits of its input show."""
    passages = [("Lease", text) for text in TEXTS]
    ours, torchs = (EvidenceModel.open(*folders, native=native).read("Rent?", passages) for native in (True, False))
    size = max(abs(r.answers) for r in torchs)
    assert [r.answers for r in ours] == pytest.approx([r.answers for r in torchs], abs=0.2 * size)
    assert [r.answers for r in ours] != [r.answers for r in torchs]


@given(st.integers(1, 40), st.integers(0, 2**31), st.integers(1, 6))
def test_the_best_spans_are_those_of_brute_force(length: int, seed: int, n: int) -> None:
    g = torch.Generator().manual_seed(seed)
    start, end = torch.randn(length + 2, generator=g), torch.randn(length + 2, generator=g)

    offsets = [(0, 0), *((3 * i + 5, 3 * i + 7) for i in range(length)), (0, 0)]
    pair = EncodedPair(SimpleNamespace(offsets=offsets), range(1, length + 1), 5)  # type: ignore[arg-type]
    ranked = sorted(
        ((float(start[s] + end[e]), s, e) for s in pair.places for e in pair.places if 0 <= e - s < MAX_SPAN),
        reverse=True,
    )
    got = best_spans(start, end, pair, n)
    best = ranked[0]
    assert got[0][:2] == (3 * (best[1] - 1), 3 * (best[2] - 1) + 2)
    assert got[0][2] == pytest.approx(best[0], abs=1e-5)
    assert len(got) <= n
    assert all(a[2] >= b[2] for a, b in pairwise(got))
    spans = sorted(s[:2] for s in got)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))  # none overlaps another


def test_spans_stand_in_the_text_and_never_in_its_header(model: EvidenceModel) -> None:
    (reading,) = model.read("rent?", [("A header that is far longer than the text", "1,480 euros")], spans=20)
    assert reading.spans
    assert all(0 <= start < end <= len("1,480 euros") for start, end, _ in reading.spans)


def test_a_text_of_white_space_has_no_spans(model: EvidenceModel) -> None:
    assert not encode_pair(model._tokenizer, "rent?", "Lease", "").places
    (reading,) = model.read("rent?", [("Lease", "")])
    assert reading.spans == ()
    assert model.answerable([reading]) == 0.0


def test_hits_come_in_the_order_of_their_evidence_with_quotes_that_hold_the_spans(model: EvidenceModel) -> None:
    found = SearchResult(hits(), {"total": 2.0})
    got = model.weigh("What is the rent?", found, depth=2)
    assert [h.rank for h in got.hits] == [1, 2, 3]
    assert {h.chunk.id for h in got.hits[:2]} == {h.chunk.id for h in found.hits[:2]}
    assert got.hits[2] is found.hits[2]  # not read
    assert got.hits[0].score >= got.hits[1].score
    assert got.answerable is not None
    assert 0 < got.answerable < 1
    assert got.ms["total"] == pytest.approx(2.0 + got.ms["evidence"])
    for hit in got.hits[:2]:
        assert hit.evidence is not None
        assert set(hit.scores) == {"fused", "answers", "relevant", "evidence"}
        for p in hit.evidence.proposals:
            assert 0 <= p.quote_start <= p.start < p.end <= p.quote_end <= len(hit.chunk.text)
    assert model.weigh("?", SearchResult((), {})).hits == ()


WORDS = st.text(alphabet="ab.\n| 1", min_size=1, max_size=80)


@given(WORDS, st.data())
def test_a_quote_holds_its_span_and_no_outer_white_space(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    if text[start].isspace() or text[end - 1].isspace():
        return
    first, last = quote_around(text, start, end)
    assert first <= start < end <= last
    assert text[first:last].strip() == text[first:last]


def test_a_quote_is_the_sentence_the_row_or_a_window() -> None:
    prose = "First things. The rent is 1,480 euros. Last things."
    at = prose.index("1,480")
    assert prose[slice(*quote_around(prose, at, at + 5))] == "The rent is 1,480 euros."
    table = "| Unit | Rent |\n| --- | --- |\n| 7 | 1,480 |\n| 9 | 1,600 |"
    at = table.index("1,600")
    assert table[slice(*quote_around(table, at, at + 5))] == "| 9 | 1,600 |"
    endless = "word " * 200 + "needle " + "word " * 200
    at = endless.index("needle")
    first, last = quote_around(endless, at, at + 6)
    assert len(endless[first:last].split()) <= QUOTE_WORDS
    assert "needle" in endless[first:last]
    first, last = quote_around(endless, at, at + 6 + 5 * 45)  # a span nearly as long as a quote may be
    assert len(endless[first:last].split()) <= QUOTE_WORDS
    assert first <= at < at + 6 + 5 * 45 <= last


@given(st.lists(st.integers(1, 300), max_size=60))
def test_batches_hold_every_row_once(lengths: list[int]) -> None:
    groups = batches(lengths)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert all(len(group) * max(lengths[i] for i in group) <= 4096 or len(group) == 1 for group in groups)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31))
def test_packed_weights_come_back_within_half_a_step(rows: int, columns: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    weights = {"a.weight": torch.randn(rows, columns, generator=g) * 0.3, "a.bias": torch.randn(rows, generator=g)}
    weights["a.weight"][0] = 0
    packed = pack(weights)
    assert packed["a.weight"].dtype == torch.int8
    back = unpack(packed)
    assert set(back) == set(weights)
    step = weights["a.weight"].abs().amax(1, keepdim=True) / 127
    assert ((back["a.weight"] - weights["a.weight"]).abs() <= 0.51 * step + 2**-12).all()
    assert torch.allclose(back["a.bias"], weights["a.bias"], rtol=1e-3, atol=1e-6)


def test_another_embedder_or_a_damaged_file_is_refused(folders: tuple[Path, Path]) -> None:
    own, embedder = folders
    weights = load_file(embedder / "model.safetensors")
    save_file({k: v + 1 for k, v in weights.items()}, embedder / "model.safetensors")
    with pytest.raises(ModelError, match=r"was grown from weights .*recipes/reader"):
        EvidenceModel.open(own, embedder)
    (own / "evidence.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="cannot be read"):
        EvidenceModel.open(own, embedder)


def test_the_end_of_what_is_longer_is_cut(folders: tuple[Path, Path]) -> None:
    tokenizer = pair_tokenizer(folders[1])
    for question, text in (("What is the rent?", "rent " * 1000), ("what " * 1000, "The rent is 1,480 euros.")):
        pair = encode_pair(tokenizer, question, "Lease", text)
        assert len(pair.encoding.ids) == 256  # what the embedder has positions for
        whole = min(question, f"Lease\n{text}", key=len)
        kept = pair.encoding.sequence_ids.count(0 if whole == question else 1)
        assert kept == len(tokenizer.encode(whole, add_special_tokens=False).ids)


def test_any_question_can_be_read(model: EvidenceModel) -> None:
    for question in ("", "what " * 1000, "broken \ud800 paste", "\x00", "収入は?"):
        got = model.weigh(question, SearchResult(hits(), {}))
        assert got.answerable is not None
        assert len(got.hits) == 3


def test_a_card_that_lacks_something_is_named(folders: tuple[Path, Path]) -> None:
    own, embedder = folders
    for text in ("", "{}", '{"embedder_sha256": "x", "calibration": {"bias": 1}}'):
        (own / "evidence.json").write_text(text)
        with pytest.raises(ModelError, match=r"evidence\.json"):
            EvidenceModel.open(own, embedder)


def test_whether_a_model_belongs_to_an_embedder_is_told_by_its_card(folders: tuple[Path, Path], tmp_path: Path) -> None:
    own, embedder = folders
    assert belongs_to(own, embedder)
    assert not belongs_to(SHIPPED, embedder)


def test_what_ships_is_small_and_complete() -> None:
    names = {path.name for path in SHIPPED.iterdir()}
    members = read_card(SHIPPED).members
    assert names == {"README.md", "evidence.json", *members}
    assert sum((SHIPPED / name).stat().st_size for name in members) < 30e6


@pytest.mark.slow
def test_the_model_that_ships_finds_an_answer_and_misses_none_that_is_not_there(minilm_dir: Path) -> None:
    model = EvidenceModel.open(SHIPPED, minilm_dir)
    (rent, boiler, pets) = hits()
    found = SearchResult((boiler, pets, rent), {})
    got = model.weigh("How much is the monthly rent for unit 7?", found)
    best = got.hits[0]
    assert best.evidence is not None
    proposal = best.evidence.proposals[0]
    assert best.chunk.text[proposal.start : proposal.end] == "1,480 euros"
    assert best.chunk.text[proposal.quote_start : proposal.quote_end] == TEXTS[0]
    missing = model.weigh("Who won the football match in Lisbon?", found)
    assert got.answerable is not None
    assert missing.answerable is not None
    assert missing.answerable < model.calibration.refuse_below < got.answerable


def test_members_are_read_together_by_the_mean_of_their_logits(folders: tuple[Path, Path]) -> None:
    own, embedder = folders
    card = json.loads((own / "evidence.json").read_text("utf-8"))
    first = load_file(own / "evidence.safetensors")
    second = {name: t.flip(0) if name.startswith("heads.") else t for name, t in first.items()}
    save_file(second, own / "evidence-1.safetensors")
    passages = [("Lease", text) for text in TEXTS]
    alone = {}
    for members in (("evidence.safetensors",), ("evidence-1.safetensors",), ("evidence.safetensors",) * 2):
        (own / "evidence.json").write_text(json.dumps({**card, "members": members}))
        alone[members] = EvidenceModel.open(own, embedder).read("Rent?", passages)
    one, other, twice = alone.values()
    assert one == twice
    (own / "evidence.json").write_text(
        json.dumps({**card, "members": ["evidence.safetensors", "evidence-1.safetensors"]})
    )
    both = EvidenceModel.open(own, embedder)
    for a, b, mean in zip(one, other, both.read("Rent?", passages), strict=True):
        assert a.answers != b.answers
        for name in ("answers", "relevant", "none"):
            assert getattr(mean, name) == pytest.approx((getattr(a, name) + getattr(b, name)) / 2, abs=1e-5)
    (own / "evidence.json").write_text(json.dumps(card))
    assert both.digest != EvidenceModel.open(own, embedder).digest


def test_members_are_files_beside_the_card(folders: tuple[Path, Path]) -> None:
    own, embedder = folders
    card = json.loads((own / "evidence.json").read_text("utf-8"))
    for members, problem in (([], "members"), (["../evidence.safetensors"], "members"), (["no.safetensors"], "no.saf")):
        (own / "evidence.json").write_text(json.dumps({**card, "members": members}))
        with pytest.raises(ModelError, match=problem):
            EvidenceModel.open(own, embedder)


def test_a_calibration_of_another_length_is_refused(folders: tuple[Path, Path]) -> None:
    own, embedder = folders
    card = json.loads((own / "evidence.json").read_text("utf-8"))
    for weights, problem in (([0.1] * 5, None), ([0.1] * 4, "4 weights, not 5")):
        (own / "evidence.json").write_text(json.dumps({**card, "calibration": {**CALIBRATION, "right": weights}}))
        if problem is None:
            assert len(EvidenceModel.open(own, embedder).calibration.right) == 5
        else:
            with pytest.raises(ModelError, match=problem):
                EvidenceModel.open(own, embedder)
