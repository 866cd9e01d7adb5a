"""Training rows in the exact serving layout, with contexts from the live retriever.

Knows nothing of stores: chunks come through two callables. Contexts hold the gold passage among real distractors; part
of the rows lack it and are answered by the refusal; counterfactual twins have other numbers and names in passage and
answer alike, so that copying is the only way to be right.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from factform.form.quotes import locate_quote
from factform.form.twins import make_twin
from factform.jsonvalue import value_at, with_value_at
from factform.model.prompt import REFUSAL
from factform.model.schema import dump_answer
from factform.records import Behavior, Case, Chunk, Contract, Passage

CLOSED_BOOK = 0.05
"""Share of rows asked without any passage, to be refused: an adapter without documents must not answer from weights."""

SHUFFLED = 0.25
"""Share of rows whose passages stand in random order instead of the retriever's."""

Retrieve = Callable[[str], Sequence[Chunk]]
"""A question in, candidate chunks out, best first: more than a prompt holds, so that distractors can be chosen."""

ChunksOf = Callable[[str], Sequence[Chunk]]
"""All chunks of a document's current version."""


@dataclass(frozen=True)
class TrainingRow:
    """One question over its passages and the text the model shall write.

    `origin` is "example", "twin" (numbers or names swapped), "withheld" (gold passage left out, so refused) or
    "closed" (no passage at all, so refused).
    """

    id: str
    question: str
    passages: tuple[Passage, ...]
    output: str
    output_object: Mapping[str, Any] | None
    answerable: bool
    origin: str


@dataclass(frozen=True)
class RowProblem:
    """Why an example became no row. Nothing is dropped without one of these."""

    id: str
    detail: str


def build_rows(
    behavior: Behavior,
    examples: Sequence[Case],
    retrieve: Retrieve,
    chunks_of: ChunksOf,
    *,
    seed: int,
    twins: float = 1.0,
    unanswerable: float = 0.25,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[TrainingRow], list[RowProblem]]:
    """Rows for `examples`: each as it is, a twin for a share `twins` of the answerable ones, and withheld ones until
    a share `unanswerable` of all rows is refused (10-30 % is what keeps refusing and answering both alive).

    The same `seed` gives the same rows. Raises nothing for a bad example: it is returned as a RowProblem.
    """
    rng = random.Random(seed)
    rows: list[TrainingRow] = []
    problems: list[RowProblem] = []
    answered: list[tuple[Case, Chunk, Sequence[Chunk]]] = []
    for done, case in enumerate(examples, 1):
        found = list(retrieve(case.question))
        if progress:
            progress(done, len(examples))
        if not case.answerable:
            rows.append(_refusal_row(case, found, behavior, rng, "example"))
            continue
        gold = _gold_chunk(case, behavior.contract, chunks_of)
        if isinstance(gold, RowProblem):
            problems.append(gold)
            continue
        found = _with_gold(found, gold)
        answered.append((case, gold, found))
        rows.append(_answer_row(case, gold, found, behavior, rng, "example"))
        if rng.random() < twins:
            rows.extend(_twin_rows(case, gold, found, behavior, rng))
    rows.extend(_withheld_rows(rows, answered, behavior, rng, unanswerable))
    closed = rng.sample(answered, min(len(answered), round(CLOSED_BOOK * len(rows)))) if unanswerable else []
    rows.extend(_refusal_row(case, (), behavior, rng, "closed") for case, _, _ in closed)
    return rows, problems


def quote_of(expected: Mapping[str, Any], contract: Contract) -> str:
    """The (first) quote of an expected answer."""
    return str(value_at(expected, contract.quote_paths[0])) if contract.quote_paths else ""


def _gold_chunk(case: Case, contract: Contract, chunks_of: ChunksOf) -> Chunk | RowProblem:
    if case.expected is None:
        return RowProblem(case.id, "answerable but without `expected`: training needs the whole contract object")
    quote = quote_of(case.expected, contract)
    for document in case.documents:
        for chunk in chunks_of(document):
            if locate_quote(chunk.text, quote) is not None:
                return chunk
    where = ", ".join(case.documents)
    return RowProblem(
        case.id, f"quote {quote!r} stands in no single chunk of {where}: add the document or fix the quote"
    )


def _with_gold(found: Sequence[Chunk], gold: Chunk) -> list[Chunk]:
    """`found` with the gold chunk where the search kept another document's passage of the same words."""
    same = [gold if chunk.text == gold.text else chunk for chunk in found]
    return list({chunk.id: chunk for chunk in same}.values())


def _arrange(gold: Chunk | None, found: Sequence[Chunk], behavior: Behavior, rng: random.Random) -> list[Passage]:
    """The best-ranked chunks as serving lays them out, best last, the gold one at its own rank.

    Where the retriever missed it, gold takes a random place. A share SHUFFLED of rows is in random order: the place
    of the gold passage must not be learnt instead of reading.
    """
    chosen = list(found[: behavior.passages])
    if gold is not None and not any(_same_place(c, gold) for c in chosen):
        chosen = chosen[: behavior.passages - 1]
        chosen.insert(rng.randrange(len(chosen) + 1), gold)
    ordered = [gold if gold is not None and _same_place(c, gold) else c for c in reversed(chosen)]
    if rng.random() < SHUFFLED:
        rng.shuffle(ordered)
    return [Passage(str(i), chunk) for i, chunk in enumerate(ordered, 1)]


def _same_place(a: Chunk, b: Chunk) -> bool:
    """The same chunk, or a twin of it: a twin keeps document and start."""
    return a.document == b.document and a.start == b.start


def _answer_row(
    case: Case, gold: Chunk, found: Sequence[Chunk], behavior: Behavior, rng: random.Random, origin: str
) -> TrainingRow:
    passages = _arrange(gold, found, behavior, rng)
    label = next(p.label for p in passages if p.chunk.id == gold.id)
    answer = _answer_in(case, gold, label, behavior.contract)
    return TrainingRow(
        id=f"{case.id}/{origin}",
        question=case.question,
        passages=tuple(passages),
        output=dump_answer(answer, behavior.contract),
        output_object=answer,
        answerable=True,
        origin=origin,
    )


def _answer_in(case: Case, gold: Chunk, label: str, contract: Contract) -> dict[str, Any]:
    """The expected object as the model shall write it: source labels for documents, quotes as they stand."""
    answer = dict(case.expected or {})
    for path in contract.source_paths:
        answer = with_value_at(answer, path, label)
    for path in contract.quote_paths:
        place = locate_quote(gold.text, str(value_at(answer, path)))
        if place is not None:
            answer = with_value_at(answer, path, gold.text[place[0] : place[1]])
    return answer


def _twin_rows(
    case: Case, gold: Chunk, found: Sequence[Chunk], behavior: Behavior, rng: random.Random
) -> list[TrainingRow]:
    made = make_twin(case, Passage("1", gold), rng, behavior.contract)
    if made is None:
        return []
    twin, passage = made
    return [_answer_row(twin, passage.chunk, found, behavior, rng, "twin")]


def _refusal_row(
    case: Case, found: Sequence[Chunk], behavior: Behavior, rng: random.Random, origin: str
) -> TrainingRow:
    return TrainingRow(
        id=f"{case.id}/{origin}",
        question=case.question,
        passages=tuple(_arrange(None, found, behavior, rng)),
        output=dump_answer(REFUSAL, behavior.contract),
        output_object=dict(REFUSAL),
        answerable=False,
        origin=origin,
    )


def _withheld_rows(
    rows: Sequence[TrainingRow],
    answered: Sequence[tuple[Case, Chunk, Sequence[Chunk]]],
    behavior: Behavior,
    rng: random.Random,
    share: float,
) -> list[TrainingRow]:
    """Answerable questions whose gold passage is missing: what a failed retrieval looks like."""
    refused = sum(not row.answerable for row in rows)
    wanted = max(0, round((share * len(rows) - refused) / (1 - share)))
    made = []
    for case, gold, found in rng.sample(list(answered), min(wanted, len(answered))):
        quote = quote_of(case.expected or {}, behavior.contract)
        rest = [c for c in found if c.id != gold.id and locate_quote(c.text, quote) is None]
        made.append(_refusal_row(replace(case, answerable=False), rest, behavior, rng, "withheld"))
    return made
