"""Questions asked at once get the answers they get one after another, and every one its record."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from factform.project import Project
from factform.records import Answer


def told(answer: Answer) -> tuple[object, ...]:
    return answer.question, answer.status, answer.answer, answer.citations, answer.completion_tokens


def test_questions_asked_at_once_get_the_answers_they_get_alone(project: Path) -> None:
    questions = [f"What is the rent for flat {flat}?" for flat in range(1, 9)]
    with Project.open(project) as opened:
        together = opened.ask_many(questions, behavior="rents", at_once=8)
        alone = [opened.ask(question, behavior="rents") for question in questions]
        assert [told(answer) for answer in together] == [told(answer) for answer in alone]
        assert {answer.status for answer in together} == {"answered"}
        assert len({answer.record for answer in (*together, *alone)}) == 16
        assert opened.audit.verify() == []
        assert opened.audit.head()[0] == 16


def test_threads_of_a_callers_own_may_ask_too(project: Path) -> None:
    """The parts are opened by whoever comes first; with and without a behavior, in both modes."""
    with Project.open(project) as opened:
        kinds = [("rents", "exact"), (None, "exact"), ("rents", "reuse"), (None, "reuse")] * 2

        def ask(kind: tuple[str | None, str]) -> Answer:
            mode = "exact" if kind[1] == "exact" else "reuse"
            return opened.ask("What is the rent for flat 5?", behavior=kind[0], mode=mode)  # type: ignore[arg-type]

        with ThreadPoolExecutor(8) as threads:
            together = list(threads.map(ask, kinds))
        assert [told(a) for a in together] == [told(ask(kind)) for kind in kinds]
        assert opened.audit.verify() == []
