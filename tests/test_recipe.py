"""The reader's recipe on a handful of questions: what it learns from, that it learns, that it goes on after a stop."""

from __future__ import annotations

import random
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

RECIPE = Path(__file__).parent.parent / "recipes" / "reader"
MODULES = ("train_evidence", "generate", "written", "data", "evaluate")
SETTINGS = {
    "batch": 2, "passages": 2, "gold_share": 0.9, "epochs": 1.0, "steps": 6, "learning_rate": 3e-4,
    "weight_decay": 0.01, "warmup": 0.1, "save_every": 2, "dropout": 0.1,
}  # fmt: skip


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(RECIPE))
    import train_evidence

    yield train_evidence
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(RECIPE))
    import generate

    yield generate
    for name in MODULES:
        sys.modules.pop(name, None)


def passage(text: str, rank: int | None, *, about: bool = False, answer: str = "") -> dict[str, Any]:
    at = text.find(answer) if answer else -1
    spans = [[at, at + len(answer)]] if at >= 0 else []
    return {"document": f"d{rank}", "header": "Leases", "text": text, "rank": rank, "about": about, "spans": spans}


def row(number: int, *, answerable: bool = True) -> dict[str, Any]:
    rent = f"1,{number}80 euros"
    own = passage(f"The rent of unit {number} is {rent} a month.", 2, about=True, answer=rent if answerable else "")
    others = [passage("The boiler is serviced every 18 months.", 1), passage(f"It rained for {number} days.", 3)]
    return {
        "id": f"q{number}", "question": f"What is the rent of unit {number}?", "answerable": answerable,
        "answers": [rent] if answerable else [], "passages": [others[0], own, others[1]],
    }  # fmt: skip


def test_a_group_holds_its_own_passage_and_none_that_answers_beside_it(recipe: Any) -> None:
    asked = row(7)
    asked["passages"].append(passage("Somewhere else the rent is 1,780 EUROS too.", 4))
    for seed in range(20):
        chosen = recipe.group(asked, random.Random(seed), 3, 1.0)
        assert chosen[0]["about"]
        assert len(chosen) == 3
        assert not any("EUROS" in p["text"] for p in chosen)
        assert not any(p["about"] for p in recipe.group(asked, random.Random(seed), 3, 0.0))
    assert recipe.group(row(7, answerable=False), random.Random(0), 2, 1.0)[0]["about"]


def test_the_marginal_is_one_softmax_over_all_passages(recipe: Any) -> None:
    scores = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    scores[1, 3:] = float("-inf")
    flat = torch.softmax(scores.reshape(-1), 0)
    two = recipe.marginal(scores, [(2,), (), (4,)])
    assert torch.allclose(two, -torch.log(flat[2] + flat[14]))
    none = recipe.marginal(scores, [(), (), ()])  # "no answer" stands on the first token of each
    assert torch.allclose(none, -torch.log(flat[0] + flat[5] + flat[10]))


@pytest.mark.slow
def test_the_scores_of_pairs_are_those_of_one_pass_over_all(recipe: Any, minilm_dir: Path) -> None:
    from factform.facts.evidence import pair_scores, pair_tokenizer, read_bert_config

    tokenizer, config = pair_tokenizer(minilm_dir), read_bert_config(minilm_dir)
    weights = recipe.new_weights(minilm_dir, 0, None)
    texts = [f"Unit {i} costs {i}80 euros. " * (1 + i % 4) for i in range(11)]
    pairs = [recipe.make_pair(row(1), passage(text, 1), tokenizer) for text in texts]
    with torch.inference_mode():
        parts = recipe.scores_of(config, weights, pairs, torch.float32, 0.0)
        whole = pair_scores(config, weights, [p.encoded for p in pairs])
    assert torch.allclose(parts.pair, whole.pair, atol=1e-4)
    for part, of_all in ((parts.start, whole.start), (parts.end, whole.end)):
        assert torch.equal(part.isinf(), of_all.isinf())
        assert torch.allclose(part.nan_to_num(neginf=0), of_all.nan_to_num(neginf=0), atol=1e-4)


def test_a_question_that_found_nothing_counts_as_refused_and_wrong(recipe: Any, minilm_dir: Path) -> None:
    import evaluate

    from factform.facts.evidence import SHIPPED, EvidenceModel

    model = EvidenceModel.open(SHIPPED, minilm_dir)
    rows = [{**r, "document": "d2"} for r in (row(7), {**row(8), "passages": []}, row(9, answerable=False))]
    told = evaluate.score(rows, evaluate.read_all(model, rows, 3), model, 3)
    assert (told["n"], told["token_f1"]["n"], told["token_f1"]["value"]) == (3, 2, 0.5)
    assert told["false_refusal"]["value"] == 0.5
    alone = evaluate.alone(row(7))
    assert [(p["rank"], p["about"]) for p in alone["passages"]] == [(1, True)]
    assert row(7)["passages"][1]["rank"] == 2


def test_every_stage_of_the_settings_has_what_training_reads() -> None:
    stages = tomllib.loads((RECIPE / "settings.toml").read_text("utf-8"))
    assert {"first", "second"} <= set(stages)
    for name, stage in stages.items():
        assert set(stage) == set(SETTINGS), name


def test_written_texts_hold_the_answer_once_or_not_at_all(made: Any) -> None:
    rows = list(made.written_rows(300, random.Random(0)))
    assert rows == list(made.written_rows(300, random.Random(0)))
    unanswerable = [r for r in rows if not r["answerable"]]
    assert 60 < len(unanswerable) < 140
    for made_row in rows:
        spans = [p["text"][s:e] for p in made_row["passages"] for s, e in p["spans"]]
        assert spans == made_row["answers"]
        assert made_row["passages"][0]["about"]
        assert 2 <= len(made_row["passages"]) <= 7


def test_a_changed_question_differs_in_one_place_and_has_no_answer(made: Any) -> None:
    text = "In 1912 Alva Norling led the Harbour Trust, and the town of Brenn gave it the largest crane."
    asked = {
        "id": "q", "set": "squad_v1", "article": "Cranes", "split": "train", "document": "d", "answerable": True,
        "question": "What did Brenn give the Harbour Trust, the largest in 1912?", "answers": ["crane"],
        "passages": [passage(text, 1, about=True, answer="crane")], "names": ["Otterfjord"],
    }  # fmt: skip
    seen = set()
    for seed in range(40):
        new = made.twin(asked, random.Random(seed))
        assert (new["answerable"], new["answers"], new["set"]) == (False, [], "twins")
        assert not any(p["spans"] for p in new["passages"])
        assert new["question"] != asked["question"]
        seen.add(new["question"])
    assert any("smallest" in q for q in seen)
    assert any("Otterfjord" in q or "Alva Norling" in q for q in seen)
    assert all("1912" in q or made.YEAR.search(q)[0] not in text for q in seen)
    assert made.twin({**asked, "question": "why?"}, random.Random(0)) is None


def test_cells_are_found_by_row_and_dated_column(made: Any) -> None:
    table = (
        "|  | Year ended | |\n| --- | --- | --- |\n|  | 2019 | 2018 |\n| Sales | $ 1,496 | 1,202 |\n| Other | 44 | - |"
    )
    text = f"{table}\n\nSales fell in 2018."
    found = [(c.row, c.column, text[c.start : c.end]) for c in made.cells_of(text)]
    assert found == [
        ("Sales", "Year ended 2019", "1,496"), ("Sales", "2018", "1,202"), ("Other", "Year ended 2019", "44"),
    ]  # fmt: skip


@pytest.mark.slow
def test_it_learns_and_goes_on_after_a_stop_as_if_there_had_been_none(
    recipe: Any, tmp_path: Path, minilm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(i, answerable=i % 4 > 0) for i in range(1, 9)]
    whole = recipe.train(rows, SETTINGS, 0, tmp_path / "whole")
    batch_of = recipe.batch_of

    def stop_at_four(given: Any, settings: Any, seed: int, step: int, tokenizer: Any) -> Any:
        if step == 3:
            raise KeyboardInterrupt
        return batch_of(given, settings, seed, step, tokenizer)

    monkeypatch.setattr(recipe, "batch_of", stop_at_four)
    with pytest.raises(KeyboardInterrupt):
        recipe.train(rows, SETTINGS, 0, tmp_path / "part")
    monkeypatch.setattr(recipe, "batch_of", batch_of)
    again = recipe.train(rows, SETTINGS, 0, tmp_path / "part")
    start = recipe.new_weights(minilm_dir, 0, None)
    for name, tensor in whole.items():
        assert torch.allclose(tensor, again[name], atol=1e-5), name
        assert torch.equal(tensor, start[name]) == (name in recipe.FROZEN), name
