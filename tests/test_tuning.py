"""Tuning composed: splits by document, the whole run on the tiny model, what reaches the registry."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factform.errors import RegistryError, TrainingError
from factform.form import registry
from factform.form.dataset import build_rows
from factform.form.rows import question_key
from factform.form.split import gate_cases, held_out, split_examples
from factform.form.train import TrainSettings, adapter_shapes
from factform.ids import chunk_id, sha256_text
from factform.model.grammar import Constraint, compile_constraint
from factform.model.lora import new_adapter
from factform.model.prompt import PLAIN
from factform.model.reader import Reader
from factform.records import AdapterInfo, Behavior, Case, Chunk
from factform.tuning import make_checker, too_long, tune


def chunk(unit: int) -> Chunk:
    text = f"The monthly rent for unit {unit} is 1,{unit}80 euros. The notice period is {unit} months."
    name = f"lease-{unit}"
    return Chunk(chunk_id(name, "v", 0, len(text)), name, "v", 0, len(text), text, sha256_text(text), f"Lease {unit}")


CHUNKS = {f"lease-{unit}": chunk(unit) for unit in range(2, 10)}


def case(unit: int) -> Case:
    return Case(
        f"ex-{unit}",
        f"What is the monthly rent for unit {unit}?",
        expected={
            "source": f"lease-{unit}",
            "quote": f"The monthly rent for unit {unit} is 1,{unit}80 euros.",
            "answer": f"1,{unit}80 euros",
        },
        documents=(f"lease-{unit}",),
    )


UNKNOWN = Case("ex-none", "Who painted the staircase?", answerable=False)
EXAMPLES = (*(case(u) for u in range(2, 10)), UNKNOWN)
BEHAVIOR = Behavior("rents", "", "Give the rent.", PLAIN, EXAMPLES, (), 2, 120, "d1")


def retrieve(question: str) -> list[Chunk]:
    return [c for name, c in sorted(CHUNKS.items()) if name[-1] in question] + sorted(
        CHUNKS.values(), key=lambda c: c.id
    )


def chunks_of(document: str) -> Sequence[Chunk]:
    return [CHUNKS[document]] if document in CHUNKS else []


@given(st.lists(st.integers(0, 12), min_size=8, max_size=60), st.integers(0, 4), st.integers(0, 8), st.integers(0, 99))
def test_no_document_is_in_two_parts_of_a_split(documents: list[int], check: int, gate: int, seed: int) -> None:
    cases = [
        Case(f"c{i}", f"q{i}?", expected={}, documents=(f"d{d}",)) if d else Case(f"c{i}", f"q{i}?", answerable=False)
        for i, d in enumerate(documents)
    ]
    try:
        split = split_examples(cases, check=check, gate=gate, seed=seed)
    except TrainingError:
        return
    parts = [{c.documents[0] for c in part if c.documents} for part in (split.train, split.check, split.gate)]
    assert [parts[0] & parts[1], parts[0] & parts[2], parts[1] & parts[2]] == [set(), set(), set()]
    assert len(split.gate) <= gate
    assert len(split.check) <= check
    ids = [c.id for part in (split.train, split.check, split.gate) for c in part]
    assert len(ids) == len(set(ids))


@given(
    st.lists(st.tuples(st.sets(st.integers(0, 15), max_size=3), st.integers(0, 40)), min_size=8, max_size=60),
    st.integers(0, 6),
    st.integers(0, 12),
    st.integers(0, 99),
)
def test_no_document_and_no_question_is_in_two_parts_whatever_links_them(
    made: list[tuple[set[int], int]], check: int, gate: int, seed: int
) -> None:
    cases = [
        Case(
            f"c{i}", f"Q{q} ?" if i % 2 else f"q{q}", answerable=bool(of), documents=tuple(f"d{d}" for d in sorted(of))
        )
        for i, (of, q) in enumerate(made)
    ]
    try:
        split = split_examples(cases, check=check, gate=gate, seed=seed)
    except TrainingError:
        return
    parts = (split.train, split.check, split.gate)
    for keys in (
        [{d for c in part for d in c.documents} for part in parts],
        [{question_key(c.question) for c in part} for part in parts],
    ):
        assert sum(map(len, keys)) == len(set().union(*keys))
    assert len(split.gate) <= gate
    assert len(split.check) <= check


def test_the_gate_asks_what_was_held_out_then_whatever_was_added_since() -> None:
    examples = [Case(f"e{i}", f"q{i}?", expected={}, documents=(f"d{i}",)) for i in range(60)]
    before = split_examples(examples, check=5, gate=20, seed=0)
    behavior = replace(BEHAVIOR, examples=tuple(examples))
    info = AdapterInfo("a" * 64, "rents", "tiny", "now", False, {"held_out": held_out(before), "behavior_digest": "d0"})
    added = (*examples, *(Case(f"e{i}", f"q{i}?", expected={}, documents=(f"a{i}",)) for i in range(60, 65)))
    after = split_examples(added, check=5, gate=20, seed=0)
    assert {c.id for c in after.gate} & {c.id for c in before.train}  # or there would be nothing to guard against
    cases, gone = gate_cases(info, replace(behavior, examples=added), after)
    assert ({c.id for c in cases}, gone) == ({c.id for c in before.gate}, "")
    first, second = before.gate[:2]
    changed = [replace(c, question="Another?") if c == first else c for c in added if c != second]
    corrected = [replace(c, expected={"answer": "x"}) if c.id in info.lineage["held_out"] else c for c in changed]
    cases, gone = gate_cases(info, replace(behavior, examples=tuple(corrected)), after)
    assert {c.id for c in cases} == {c.id for c in before.gate[2:]}
    assert gone.startswith("2 of 20 examples held out")
    with pytest.raises(RegistryError, match="none of the 20 examples"):
        gate_cases(
            info, replace(behavior, examples=tuple(c for c in added if c.id not in info.lineage["held_out"])), after
        )


def test_an_adapter_that_does_not_say_what_was_held_out_takes_the_split_of_its_own_behavior() -> None:
    split = split_examples(EXAMPLES, check=1, gate=2, seed=0)
    old = AdapterInfo("a" * 64, "rents", "tiny", "now", False, {"behavior_digest": "d1"})
    assert gate_cases(old, BEHAVIOR, split) == (split.gate, "")
    with pytest.raises(RegistryError, match="has changed since rents@aaaaaaaaaaaa was tuned"):
        gate_cases(old, replace(BEHAVIOR, digest="d2"), split)


def test_a_copy_of_the_gold_passage_is_the_gold_passage() -> None:
    """The search keeps one of passages with the same words, and it may be another document's."""
    gold = CHUNKS["lease-2"]
    copy = replace(gold, id="copy", document="archive")
    rows, _ = build_rows(
        BEHAVIOR, [case(2)], lambda q: [CHUNKS["lease-5"], copy, CHUNKS["lease-6"]], chunks_of, seed=0, unanswerable=0.3
    )
    assert {row.origin for row in rows} >= {"example", "twin", "withheld"}
    for row in rows:
        texts = [p.chunk.text for p in row.passages]
        assert len(texts) == len(set(texts))
        assert "copy" not in [p.chunk.id for p in row.passages]
        if row.origin == "twin":
            assert gold.text not in texts


def test_an_answer_that_could_not_be_written_is_not_taught(tiny: Reader) -> None:
    rows, _ = build_rows(BEHAVIOR, [case(2)], retrieve, chunks_of, seed=0, twins=0, unanswerable=0)
    size = len(tiny.encode(rows[0].output)) + 1
    assert too_long(rows, tiny, size) == []
    (problem,) = too_long(rows, tiny, size - 1)
    assert (problem.kind, problem.detail) == (
        "contract", f"the target has {size} tokens and max_tokens is {size - 1}: raise it, or shorten it",
    )  # fmt: skip


def test_too_few_examples_are_refused_with_the_numbers() -> None:
    with pytest.raises(TrainingError, match="9 examples leave none to train on"):
        split_examples(EXAMPLES, check=20, gate=20, seed=0)


def test_every_target_is_one_the_grammar_of_its_row_accepts(tiny: Reader) -> None:
    """A row must not teach what the mask would forbid when serving."""
    rows, problems = build_rows(BEHAVIOR, EXAMPLES, retrieve, chunks_of, seed=3)
    assert problems == []
    assert {row.origin for row in rows} == {"example", "twin", "withheld", "closed"}
    for row in rows:
        grammar = compile_constraint(Constraint(PLAIN, row.passages), tiny.grammar_tokenizer)
        assert grammar.accepts(row.output), row.output
        gold = [p for p in row.passages if row.output_object and p.label == row.output_object.get("source")]
        assert len(gold) == row.answerable


def test_withheld_rows_do_not_hold_their_quote_and_reach_the_wanted_share() -> None:
    rows, _ = build_rows(BEHAVIOR, EXAMPLES, retrieve, chunks_of, seed=3, unanswerable=0.3)
    refused = [row for row in rows if not row.answerable]
    assert len([r for r in refused if r.origin != "closed"]) / len(rows) == pytest.approx(0.3, abs=0.06)
    for row in refused:
        unit = row.id.removeprefix("ex-").split("/")[0]
        assert not any(f"rent for unit {unit} is" in p.chunk.text for p in row.passages)


def test_the_same_seed_builds_the_same_rows_and_another_seed_others() -> None:
    def build(seed: int) -> list[str]:
        rows, _ = build_rows(BEHAVIOR, EXAMPLES, retrieve, chunks_of, seed=seed)
        return [json.dumps([r.id, r.output, [p.chunk.text for p in r.passages]]) for r in rows]

    assert build(1) == build(1)
    assert build(1) != build(2)


def test_an_example_whose_quote_stands_nowhere_is_reported_not_dropped() -> None:
    lost = Case(
        "lost",
        "Rent?",
        expected={"source": "lease-2", "quote": "Rent is nil.", "answer": "nil"},
        documents=("lease-2",),
    )
    rows, problems = build_rows(BEHAVIOR, [lost], retrieve, chunks_of, seed=0)
    assert rows == []
    assert problems[0].id == "lost"
    assert "'Rent is nil.' stands in no single chunk of lease-2" in problems[0].detail


def test_where_the_adapter_may_not_refuse_only_rows_with_an_answer_are_checked(tiny: Reader) -> None:
    rows, _ = build_rows(BEHAVIOR, EXAMPLES, retrieve, chunks_of, seed=3, twins=0, unanswerable=0)
    adapter = new_adapter(
        adapter_shapes(tiny.weights.config),
        tiny.weights.config.layers,
        rank=2,
        alpha=4,
        seed=0,
        device=tiny.weights.device,
    )
    short = replace(BEHAVIOR, max_tokens=8)
    both = [make_checker(short, rows, tiny, may_refuse=may)(adapter, 1) for may in (True, False)]
    assert [check.n for check in both] == [9, 8]


def test_a_run_registers_an_adapter_with_its_lineage_and_can_be_loaded(tiny: Reader, tmp_path: Path) -> None:
    seen: list[str] = []
    result = tune(
        BEHAVIOR,
        split_examples(EXAMPLES, check=1, gate=1, seed=0),
        tiny,
        retrieve,
        chunks_of,
        TrainSettings(rank=4, alpha=8, batch=2, steps=4, check_every=2),
        twins=1.0,
        unanswerable=0.2,
        work=tmp_path / "work",
        adapters=tmp_path / "adapters",
        lineage={"model": "tiny"},
        report=lambda stage, done, total, note: seen.append(stage),
    )
    assert {"rows", "train"} <= set(seen)
    assert [c.step for c in result.checks] == [2, 4]
    info = registry.get(tmp_path / "adapters", result.adapter.digest)
    assert info.lineage["model"] == "tiny"
    assert info.lineage["settings"]["steps"] == 4
    assert info.base == "tiny"
    tiny.load_adapter(info.name, registry.adapter_folder(tmp_path / "adapters", info))
    assert info.name in tiny.adapters
