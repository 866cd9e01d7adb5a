"""Answers put to the instrument whose scores are known, from both sides."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from factform.errors import CaseError, FactformError, RemoteError
from factform.measure.evaluate import AnswersReport, Observation, compare, evaluate_answers
from factform.measure.report import environment, print_answers, print_retrieval, write_report
from factform.measure.retrieval import evaluate_retrieval
from factform.measure.score import predicted_text, quotes
from factform.records import Case, Citation, Contract

CONTRACT = Contract({}, (("evidence", "quote"),), (("evidence", "source"),))
GOLD = {
    "metric": "revenue",
    "value": 1480,
    "unit": "EUR",
    "evidence": {"quote": "Revenue was EUR 1,480 in May.", "source": "may"},
}
REFUSAL = {"status": "not_in_documents"}
PLAIN = Case("plain", "Notice period?", answers=("three months",), documents=("lease",))
OBJECT = Case("object", "Revenue in May?", expected=GOLD, documents=("may",))
NEVER = Case("never", "Who painted it?", answerable=False)


def cited(document: str, quote: str) -> Citation:
    return Citation(document, "v1", None, 0, len(quote), quote, True)


def answered(answer: Mapping[str, Any], *citations: Citation, **changes: Any) -> Observation:
    values: dict[str, Any] = {
        "answer": answer,
        "status": "answered",
        "valid_free": True,
        "valid": True,
        "citations": citations,
        "verbatim": (True,) * len(citations),
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "ms": 5.0,
    }
    return Observation(**{**values, **changes})


def refused(**changes: Any) -> Observation:
    return answered(REFUSAL, status="not_in_documents", **changes)


RIGHT = {
    "plain": answered({"answer": "Three months"}, cited("lease", "a notice of three months applies")),
    "object": answered(GOLD, cited("may", "Revenue was EUR 1,480 in May.")),
    "never": refused(),
}


def evaluated(cases: tuple[Case, ...], **arms: Mapping[str, Observation]) -> AnswersReport:
    def arm(given: Mapping[str, Observation]) -> Any:
        return lambda case: given[case.id]

    return evaluate_answers(cases, {name: arm(given) for name, given in arms.items()}, contract=CONTRACT)


def values(report: AnswersReport, arm: str = "arm") -> dict[str, float | None]:
    body = report.as_json()["arms"][arm]
    return {name: cell and cell["value"] for name, cell in body.items() if name != "errors"}


def test_everything_right_is_one_everywhere() -> None:
    report = evaluated((PLAIN, OBJECT, NEVER), arm=RIGHT)
    assert values(report) == {
        "valid": 1.0,
        "valid_masked": 1.0,
        "exact_match": 1.0,
        "token_f1": 1.0,
        "field_accuracy": 1.0,
        "source_right": 1.0,
        "quote_precision": 1.0,
        "quote_verbatim": 1.0,
        "grounded": 1.0,
        "refusal": 1.0,
        "false_refusal": 0.0,
        "prompt_tokens": 100.0,
        "completion_tokens": 10.0,
        "ms": 5.0,
    }
    body = report.as_json()
    assert body["n"] == 3
    counts = {name: cell["n"] for name, cell in body["arms"]["arm"].items() if name != "errors"}
    assert (counts["exact_match"], counts["field_accuracy"], counts["source_right"], counts["refusal"]) == (2, 1, 2, 1)
    assert set(body["arms"]["arm"]["ms"]) == {"p50", "p95", "value", "low", "high", "n"}


def test_refusing_everything() -> None:
    got = values(evaluated((PLAIN, OBJECT, NEVER), arm=dict.fromkeys(("plain", "object", "never"), refused())))
    assert (got["refusal"], got["false_refusal"]) == (1.0, 1.0)
    assert got["exact_match"] == 0.5  # SQuAD 2.0: right where unanswerable
    assert got["field_accuracy"] == 0.0
    assert got["source_right"] is None
    assert got["quote_precision"] is None
    assert got["grounded"] == 0.0


def test_never_refusing() -> None:
    made_up = answered({"answer": "Smith"}, cited("lease", "painted by Smith"))
    got = values(evaluated((PLAIN, NEVER), arm={**RIGHT, "never": made_up}))
    assert (got["refusal"], got["false_refusal"]) == (0.0, 0.0)
    assert got["exact_match"] == 0.5
    assert got["quote_precision"] == 0.5  # a true quote that answers a question nothing answers supports nothing
    assert got["quote_verbatim"] == 1.0


def test_silence_is_not_a_refusal() -> None:
    silent = answered({"answer": ""})
    got = values(evaluated((PLAIN, NEVER), arm={**RIGHT, "never": silent}))
    assert got["refusal"] == 0.0
    assert got["exact_match"] == 0.5


def test_an_answer_withheld_is_no_refusal_but_refuses_the_answerable() -> None:
    withheld = Observation({"answer": "x"}, "refused", valid_free=True, valid=False)
    got = values(evaluated((PLAIN, NEVER), arm=dict.fromkeys(("plain", "never"), withheld)))
    assert (got["refusal"], got["false_refusal"], got["exact_match"]) == (0.0, 1.0, 0.0)
    right_but_withheld = Observation(GOLD, "refused", valid_free=True, valid=True)
    assert values(evaluated((OBJECT,), arm={"object": right_but_withheld}))["field_accuracy"] == 0.0


def test_an_error_is_wrong_everywhere_and_kept() -> None:
    def broken(case: Case) -> Observation:
        raise RemoteError("HTTP 500 from the model")

    report = evaluate_answers((PLAIN, OBJECT, NEVER), {"arm": broken}, contract=CONTRACT)
    got = values(report)
    assert (got["valid"], got["valid_masked"], got["exact_match"], got["field_accuracy"]) == (0.0, 0.0, 0.0, 0.0)
    assert (got["refusal"], got["false_refusal"], got["grounded"]) == (0.0, 0.0, 0.0)
    assert (got["prompt_tokens"], got["ms"]) == (None, None)
    assert report.arms["arm"].errors == 3
    assert report.rows[0].observation.error == "RemoteError: HTTP 500 from the model"


def test_other_exceptions_go_up() -> None:
    def buggy(case: Case) -> Observation:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        evaluate_answers((PLAIN,), {"arm": buggy})


def test_validity_without_the_mask_is_null_where_nobody_knows() -> None:
    unknown = {key: answered({"answer": "x"}, valid_free=None) for key in ("plain", "never")}
    report = evaluated((PLAIN, NEVER), arm=unknown)
    assert report.arms["arm"].valid is None
    assert report.arms["arm"].valid_masked is not None
    error = Observation.failed("RemoteError: down")
    assert evaluated((PLAIN, NEVER), arm={**unknown, "never": error}).arms["arm"].valid is None
    mixed = evaluated((PLAIN, NEVER), arm={"plain": RIGHT["plain"], "never": error}).arms["arm"].valid
    assert mixed is not None
    assert (mixed.value, mixed.n) == (0.5, 2)


def test_metrics_that_do_not_apply_are_null() -> None:
    report = evaluated((Case("object", "?", expected=GOLD), NEVER), arm=RIGHT)
    arm = report.as_json()["arms"]["arm"]
    assert arm["source_right"] is None  # no documents named
    assert arm["exact_match"] is None  # no short answers: it would be the refusal rate
    assert evaluated((PLAIN,), arm=RIGHT).arms["arm"].refusal is None
    assert evaluated((PLAIN,), arm=RIGHT).arms["arm"].field_accuracy is None


def test_fields_are_judged_apart_from_quote_and_source() -> None:
    other = {**GOLD, "value": 1500, "evidence": {"quote": "something else", "source": "other"}}
    report = evaluated((OBJECT,), arm={"object": answered(other, cited("other", "something else"))})
    got = values(report)
    assert got["field_accuracy"] == pytest.approx(2 / 3)
    assert got["source_right"] == 0.0
    assert got["quote_precision"] == 0.0


# --- quotes ---------------------------------------------------------------------------------

CODED = Case("c", "?", expected={"code": "X1", "evidence": {"quote": "pets are not allowed here"}})


@pytest.mark.parametrize(
    ("case", "document", "quote", "supports"),
    [
        (PLAIN, "lease", "is Three months, in writing", True),
        (PLAIN, "lease", "is three calendar months", False),
        (PLAIN, "annex", "is three months", False),
        (OBJECT, "may", "EUR 1480", True),
        (OBJECT, "may", "EUR 1,4801", False),
        (OBJECT, "may", "all amounts in EUR; revenue rose", False),  # units and names do not make a support
        (NEVER, "lease", "three months", False),
        (Case("c", "?", answers=("7",)), "anything", "unit 7", True),
        (CODED, "d", "pets are not allowed", True),
        (CODED, "d", "the rent is due", False),
        (Case("c", "?", expected={"kind": "pets", "evidence": {"quote": "No pets."}}), "d", "about pets", True),
    ],
)
def test_when_a_quote_supports(case: Case, document: str, quote: str, supports: bool) -> None:
    (found,) = quotes(case, answered({"answer": "x"}, cited(document, quote)), CONTRACT)
    assert found.verbatim is True
    assert found.supporting is supports


def test_quotes_that_stand_nowhere_have_no_citation_and_count() -> None:
    seen = answered({"answer": "x"}, cited("lease", "three months"), verbatim=(False, True))
    assert [(q.verbatim, q.supporting) for q in quotes(PLAIN, seen, None)] == [(False, False), (True, True)]
    both = answered({"answer": "x"}, cited("lease", "three months"), cited("lease", "x"), verbatim=(False, True))
    assert [(q.verbatim, q.supporting) for q in quotes(PLAIN, both, None)] == [(False, True), (True, False)]
    got = values(evaluated((PLAIN,), arm={"plain": seen}))
    assert (got["quote_precision"], got["quote_verbatim"], got["grounded"]) == (0.5, 0.5, 0.0)
    with pytest.raises(ValueError, match="2 citations fit neither 1 quotes"):
        answered({}, cited("a", "b"), cited("a", "b"), verbatim=(True,))


def test_withheld_answers_release_no_quote() -> None:
    seen = Observation(GOLD, "refused", True, True, (cited("may", "EUR 1480"),), (True,))
    assert quotes(OBJECT, seen, CONTRACT) == ()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"answer": "x"}, "x"),
        ({"evidence": {"quote": "q", "source": "s"}, "status": "found", "period": {"name": "May"}, "u": "EUR"}, "May"),
        ({"unit": "EUR", "answer": 1480}, "1480"),
        ({"answer": True}, "true"),
        ({"value": 3}, ""),
        ({}, ""),
        (None, ""),
    ],
)
def test_the_short_answer_of_an_object(answer: Mapping[str, Any] | None, text: str) -> None:
    assert predicted_text(answer, CONTRACT) == text


# --- arms, reports --------------------------------------------------------------------------

MANY = tuple(Case(f"c{n}", "?", answers=("yes",)) for n in range(40))


def test_arms_are_compared_case_by_case() -> None:
    right = {case.id: answered({"answer": "yes"}) for case in MANY}
    half = {case.id: answered({"answer": "yes" if n % 2 else "no"}) for n, case in enumerate(MANY)}
    report = evaluated(MANY, both=right, base=half)
    difference = compare(report, "exact_match", "both", "base")
    assert difference is not None
    assert difference.value == 0.5
    assert 0.3 < difference.low < 0.5 < difference.high < 0.7
    assert compare(report, "refusal", "both", "base") is None
    with pytest.raises(CaseError, match="no arm 'form'"):
        compare(report, "exact_match", "both", "form")
    with pytest.raises(CaseError, match="no per-case metric 'speed'"):
        compare(report, "speed", "both", "base")


def test_cases_that_would_be_mixed_up_or_are_none() -> None:
    with pytest.raises(CaseError, match="repeated: plain"):
        evaluate_answers((PLAIN, PLAIN), {"arm": lambda case: RIGHT[case.id]})
    with pytest.raises(CaseError, match="no cases"):
        evaluate_answers((), {"arm": lambda case: RIGHT[case.id]})


def test_progress_tells_arm_and_count() -> None:
    seen: list[tuple[str, int, int]] = []
    arms = {"a": lambda case: RIGHT[case.id], "b": lambda case: RIGHT[case.id]}
    evaluate_answers((PLAIN, NEVER), arms, progress=lambda arm, done, of: seen.append((arm, done, of)))
    assert seen == [("a", 1, 2), ("a", 2, 2), ("b", 1, 2), ("b", 2, 2)]


def test_tables_and_report_file(tmp_path: Path) -> None:
    wrong = dict.fromkeys(("plain", "object", "never"), Observation.failed("RemoteError: down"))
    report = evaluated((PLAIN, OBJECT, NEVER), base=wrong, both=RIGHT)
    console = Console(file=io.StringIO(), width=120)
    print_answers(console, report)
    print_retrieval(console, evaluate_retrieval({"1": "q"}, {"1": {"d": 1}}, lambda text, k: [("d", 1.0)]))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for expected in ("base", "both", "fields right", "100.0 % [21 %, 100 %] n=1", "errors", "ndcg@10", "1.0000"):
        assert expected in text
    path = tmp_path / "reports" / "report.json"
    write_report(path, {"answers": report.as_json(rows=True)})
    body = json.loads(path.read_text())
    assert body["answers"]["arms"]["both"]["field_accuracy"]["value"] == 1.0
    assert body["answers"]["rows"][0]["observation"]["error"] == "RemoteError: down"
    assert body["environment"]["packages"]["numpy"]
    assert [file.name for file in path.parent.iterdir()] == ["report.json"]


def test_a_report_that_cannot_be_written_is_an_error_and_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(FactformError, match=r"report\.json cannot be written"):
        write_report(tmp_path / "file" / "report.json", {})
    with pytest.raises(ValueError):
        write_report(tmp_path / "file", {"x": float("nan")})
    assert (tmp_path / "file").read_text() == "old"


def test_the_environment_names_no_path() -> None:
    found = environment()
    assert found["cores"] >= 1
    assert not any("/" in str(found[key]) for key in ("python", "packages", "commit", "system"))
