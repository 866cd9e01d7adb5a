"""The comparison of readers on tiny models: who sees what, what is trained on, greedy writing, and going on."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from factform.facts.calibration import Calibration, Reading
from factform.model.llama import NoCache, forward, logits
from factform.model.reader import Reader

RECIPE = Path(__file__).parent.parent / "recipes" / "reader"
MODULES = ("evaluate", "compare", "compare_model", "compare_rows", "compare_table", "train_evidence")
WORDS = ("boiler", "lease", "pressure", "certified technician", "second quarter", "notice period")


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(RECIPE))
    import compare

    yield compare
    for name in MODULES:
        sys.modules.pop(name, None)


def row(number: int, *, split: str = "train", answerable: bool = True, unit: int | None = None) -> dict[str, Any]:
    """A question on unit `unit`'s passage; two units' passages are found beside it."""
    unit = number if unit is None else unit
    answer = f"1,{unit}80 euros" if number % 2 else f"unit {unit}"
    text = f"The rent of unit {unit} is 1,{unit}80 euros a month. The boiler is serviced every {unit} years."
    at = text.find(answer)
    own = {"document": f"d{unit}", "header": "Leases", "text": text, "rank": 2, "about": True,
           "spans": [[at, at + len(answer)]] if answerable else []}  # fmt: skip
    others = [
        {"document": f"o{unit}{k}", "header": "", "text": f"The {word} of house {k} is {k}{unit} bar.", "rank": rank,
         "about": False, "spans": []}
        for k, word, rank in ((1, WORDS[unit % 6], 1), (2, WORDS[(unit + 1) % 6], 3))
    ]  # fmt: skip
    return {
        "id": f"{split}{number}", "set": "squad_v2", "split": split, "document": f"d{unit}", "answerable": answerable,
        "question": f"What is the {'rent' if number % 2 else 'name'} of unit {unit}?",
        "answers": [answer] if answerable else [], "passages": [others[0], own, others[1]],
    }  # fmt: skip


def rows(split: str = "train", n: int = 12) -> list[dict[str, Any]]:
    return [row(i, split=split, answerable=i % 3 > 0, unit=i // 4) for i in range(n)]


def layout(compare: Any, reader: Reader, name: str, group: Any) -> Any:
    variant = next(v for v in compare.VARIANTS if v.name == name)
    return compare.segments_of(reader, group, variant, [""] * len(group.asked), targets=True)


@pytest.fixture
def group(compare: Any) -> Any:
    found = next(compare.training_groups(rows(), 0, 6, 3))
    assert len(found.asked) > 1
    return found


def test_blocks_see_themselves_links_see_all_before_and_tails_all_but_one_another(
    compare: Any, tiny: Reader, group: Any
) -> None:
    import compare_model

    laid = layout(compare, tiny, "a links", group)
    kinds = [s.kind for s in laid.segments]
    assert kinds[:10] == ["block", "block", "block", "link", "block", "block", "link", "block", "block", "link"]
    starts = [0]
    for segment in laid.segments:
        starts.append(starts[-1] + len(segment.tokens))
    blocks, causal = compare_model.full_mask(laid, "blocks"), compare_model.full_mask(laid, "causal")
    for number, kind in enumerate(kinds):
        last = starts[number + 1] - 1
        seen = {int(laid.owner[i]) for i in blocks[last].nonzero()[:, 0]}
        before = {n for n in range(number) if kinds[n] != "tail"}
        assert seen == {number} if kind == "block" else seen == before | {number}
        assert {int(laid.owner[i]) for i in causal[last].nonzero()[:, 0]} == before | {number}
        assert int(blocks[last].sum()) == sum(len(laid.segments[n].tokens) for n in seen)
    assert not torch.triu(blocks, 1).any()
    tails = [i for i, kind in enumerate(kinds) if kind == "tail"]
    assert {int(laid.positions[starts[i]]) for i in tails} == {laid.context}


@pytest.mark.parametrize("name", ["a", "a links"])
def test_a_tail_over_encoded_blocks_is_the_masked_forward_over_all(
    compare: Any, tiny: Reader, group: Any, name: str
) -> None:
    import compare_model

    laid = layout(compare, tiny, name, group)
    reused, now = compare_model.states(tiny.weights, tiny.weights, None, laid, "tail")
    whole, _ = compare_model.states(tiny.weights, tiny.weights, None, laid, "blocks")
    assert torch.allclose(reused, whole[now], atol=1e-4)
    full, _ = compare_model.states(tiny.weights, tiny.weights, None, laid, "causal")
    assert not torch.allclose(full[now], whole[now], atol=1e-2)


def test_what_is_read_in_full_is_an_ordinary_forward_of_each_question_alone(
    compare: Any, tiny: Reader, group: Any
) -> None:
    import compare_model

    together, n = compare_model.loss_of(tiny.weights, tiny.weights, None, layout(compare, tiny, "c", group), "causal")
    total, count = 0.0, 0
    for asked in group.asked:
        alone = layout(compare, tiny, "c", replace(group, asked=(asked,)))
        tokens, last = torch.tensor(alone.tokens), alone.segments[-1]
        hidden = forward(tiny.weights, tokens[None], torch.arange(len(tokens)), NoCache())
        at = len(tokens) - len(last.tokens) + last.prompt
        scores = logits(tiny.weights, hidden[0, at - 1 : -1])
        total += float(torch.nn.functional.cross_entropy(scores, tokens[at:], reduction="sum"))
        count += len(tokens) - at
    assert n == count
    assert together.item() == pytest.approx(total, rel=1e-4)


def test_only_the_trained_part_gets_gradients_and_the_base_stays(compare: Any, tiny: Reader, group: Any) -> None:
    import compare_model

    before = [layer.qkv.clone() for layer in tiny.weights.layers]
    for name, trained_tensors in (("a", 3 * 7 * 2), ("b", 3 * 7 * 2), ("b full tuning", 3 * 4)):
        variant = next(v for v in compare.VARIANTS if v.name == name)
        weights, adapter, trained = compare.trainable(tiny.weights, variant, 0)
        laid = layout(compare, tiny, name, group)
        loss, _ = compare_model.loss_of(tiny.weights, weights, adapter, laid, variant.reading)
        loss.backward()
        assert len(trained) == trained_tensors
        assert all(t.grad is not None for t in trained)
        with torch.no_grad():
            for tensor in trained:
                tensor -= tensor.grad
    assert all(torch.equal(a, layer.qkv) for a, layer in zip(before, tiny.weights.layers, strict=True))


@pytest.mark.parametrize("name", ["a", "a links", "b", "c"])
def test_writing_side_by_side_is_greedy_writing_alone(compare: Any, tiny: Reader, name: str) -> None:
    import compare_model

    variant = next(v for v in compare.VARIANTS if v.name == name)
    begun, expected = [], []
    for found in compare.questions(rows("validation"), 3, 3):
        laid = compare.segments_of(tiny, found, variant, ["" if begun else " Now?"], targets=False)
        blocks = None if name == "c" else compare.blocks_kv(tiny.weights, laid)
        begun.append(compare.begin(tiny.weights, laid, variant.reading, blocks, 0))
        reading = "causal" if name == "c" else "blocks"
        for _ in range(6):
            states, _ = compare_model.states(tiny.weights, tiny.weights, None, laid, reading)
            expected.append(int(logits(tiny.weights, states[-1]).argmax()))
            last = laid.segments[-1]
            longer = replace(last, tokens=(*last.tokens, expected[-1]))
            laid = compare_model.lay_out([*laid.segments[:-1], longer])
    written = compare.write(tiny.weights, begun, -1, most=6)
    assert [t for one in written for t in one] == expected


def test_the_end_stops_a_row_and_not_its_neighbours(compare: Any, tiny: Reader) -> None:
    begun = []
    for found in compare.questions(rows("validation"), 2, 3):
        laid = compare.segments_of(tiny, found, compare.VARIANTS[2], [""], targets=False)
        begun.append(compare.begin(tiny.weights, laid, "causal", None, 0))
    free = compare.write(tiny.weights, begun, -1, most=8)
    end = free[0][3]
    cut = compare.write(tiny.weights, begun, end, most=8)
    assert compare.write(tiny.weights, [], end) == []
    assert cut == [one[: one.index(end)] if end in one else one for one in free]


def test_training_takes_train_articles_alone(compare: Any, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    lines = [*rows(), *rows("validation"), *rows("test"), {**row(1), "set": "clapnq"}]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n", "utf-8")
    for split in ("train", "validation", "test"):
        assert {r["split"] for r in compare.load_rows(file, split)} == {split}
        assert {r["set"] for r in compare.load_rows(file, split)} == {"squad_v2"}
    for split in ("validation", "test"):
        with pytest.raises(ValueError, match="not for training"):
            next(compare.training_groups([*rows(), row(1, split=split)], 0, 6, 3))


def test_a_group_asks_about_one_passage_each_question_once_an_epoch(compare: Any) -> None:
    given, seen = rows(n=24), []
    groups = compare.training_groups(given, 1, 3, 3)
    while len(seen) < len(given):
        group = next(groups)
        assert len(group.passages) == 3
        assert len({asked.document for asked in group.asked}) == 1
        assert sum(asked.span is None for asked in group.asked) <= 1
        for asked in group.asked:
            seen.append(asked.id)
            texts = [text for _, _, text in group.passages]
            if asked.span is not None:
                place, start, end = asked.span
                assert texts[place][start:end] == asked.answers[0]
                assert sum(asked.answers[0] in text for text in texts) == 1
    assert len(set(seen)) == len(seen) == len(given)


def test_what_is_asked_does_not_depend_on_the_answers(compare: Any) -> None:
    given = rows("test")
    blind = [
        {
            **r,
            "answers": [],
            "answerable": False,
            "passages": [{**p, "spans": [], "about": False} for p in r["passages"]],
        }
        for r in given
    ]
    asked, unaware = compare.questions(given, 9, 3), compare.questions(blind, 9, 3)
    assert [g.passages for g in asked] == [g.passages for g in unaware]
    assert [g.asked[0].id for g in asked] == [g.asked[0].id for g in unaware]
    assert len({g.passages.index(next(p for p in g.passages if p[0] == g.asked[0].document)) for g in asked}) > 1


def test_targets_are_read_back_and_scored(compare: Any) -> None:
    import compare_rows

    asked = [g for g in compare.questions(rows("test"), 12, 3) if g.asked[0].answers]
    for found in asked:
        for order in ("quote", "answer"):
            written = compare_rows.taken_apart(compare_rows.target(found, found.asked[0], order), order)
            measured = compare.scores(found, written, False)
            names = ("token_f1", "exact_match", "quote_verbatim", "quote_supporting", "source_right")
            assert [measured[n] for n in names] == [1.0, 1.0, True, True, True]
            refused = compare.scores(found, written, True)
            assert (refused["token_f1"], refused["token_f1_released"], refused["refused"]) == (1.0, 0.0, True)
    wrong = compare.scores(asked[0], compare_rows.Written("nothing", "not in any passage", "7"), False)
    assert (wrong["token_f1"], wrong["quote_verbatim"], wrong["source_right"]) == (0.0, False, False)
    bare = compare.scores(asked[0], compare_rows.taken_apart("", "quote"), False)
    assert (bare["token_f1"], bare["quote_verbatim"], bare["source_right"]) == (0.0, False, False)
    unanswerable = next(g for g in compare.questions(rows("test"), 12, 3) if not g.asked[0].answers)
    assert compare_rows.target(unanswerable, unanswerable.asked[0], "quote") == compare_rows.REFUSAL
    assert set(compare.scores(unanswerable, None, True)) == {"answerable", "given", "refused"}


@dataclass(frozen=True)
class FirstWords:
    """An evidence model that takes the first words of the first passage for the answer to everything."""

    calibration = Calibration(1.0, 0.0, 0.0, 0.0, 0.4)

    def read(self, question: str, passages: list[tuple[str, str]]) -> list[Reading]:
        return [Reading(0.0, 0.0, 0.0, ((0, 8, 1.0 - i),)) for i in range(len(passages))]

    def answerable(self, readings: list[Reading]) -> float:
        return 0.5


def test_the_note_is_the_sentence_of_the_best_span(compare: Any) -> None:
    found = compare.questions(rows("test"), 1, 3)[0]
    noted = compare.note(FirstWords(), found, 0)
    sentence = found.passages[0][2].split(". ")[0]
    assert noted.text.startswith(f"\nEvidence: [1] {sentence}")
    assert (noted.answer, noted.refused) == (found.passages[0][2][:8], False)


def test_the_rate_follows_the_spent_budget(compare: Any) -> None:
    assert [round(compare.share(x, 0.1), 3) for x in (0.0, 0.05, 0.1, 0.55, 1.0, 1.2)] == [0, 0.5, 1, 0.5, 0, 0]


def test_a_stopped_grid_goes_on_and_repeats_nothing(
    compare: Any, tiny: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, [*rows(), *rows("validation")])) + "\n", "utf-8")
    args = argparse.Namespace(
        rows=file, out=tmp_path, split="validation", n=4, variants=["a", "c"], once=["d"], seeds=[0]
    )
    models, settings = compare.Models(tiny, FirstWords()), compare.Settings(budget=0.15)
    ask, train, trained = compare.ask, compare.train, []

    def stop_at_c(models: Any, tuned: Any, variant: Any, *rest: Any) -> Any:
        if variant.name == "c":
            raise KeyboardInterrupt
        return ask(models, tuned, variant, *rest)

    def counted(models: Any, variant: Any, *rest: Any) -> Any:
        trained.append(variant.name)
        return train(models, variant, *rest)

    monkeypatch.setattr(compare, "train", counted)
    monkeypatch.setattr(compare, "ask", stop_at_c)
    with pytest.raises(KeyboardInterrupt):
        compare.grid(args, settings, models)
    monkeypatch.setattr(compare, "ask", ask)
    compare.grid(args, settings, models)
    compare.grid(args, settings, models)
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text("utf-8").splitlines()]
    assert [line["variant"] for line in lines] == ["evidence alone", "a", "c", "d"]
    assert trained == ["a", "c", "d"]
    assert all(line["training"]["questions_seen"] > 0 for line in lines[1:])
    assert not any("rent" in json.dumps(line["questions"]) for line in lines)  # ids and numbers, no text
    compare.table(tmp_path / "results.jsonl", "validation", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    expected = sum(bool(g.asked[0].answers) for g in compare.questions(rows("validation"), 4, 2))
    assert report["variants"]["a"]["rates"]["token_f1"]["n"] == expected > 0
    assert report["variants"]["d"]["difference"]["n"] == expected


def test_the_table_in_the_docs_is_made_from_the_report(compare: Any) -> None:
    import compare_table

    root = RECIPE.parent.parent
    report = json.loads((root / "benchmarks" / "results" / "readers.json").read_text("utf-8"))
    assert compare_table.markdown(report) in (root / "docs" / "design" / "reader.md").read_text("utf-8")
