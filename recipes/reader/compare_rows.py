"""What the compared readers are asked, what they should write, and how good it is.

Knows nothing of models or masks. A group is several questions on one passage, with that passage and other retrieved
ones as their common context: whatever reads it, the context is read once for all of them.
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from train_evidence import group as chosen_passages
from train_evidence import holds_answer

from factform.facts.evidence import quote_around
from factform.measure.metrics import exact_match, holds, token_f1

Order = Literal["quote", "answer"]
"""What is written first. Both end with what the other begins with; the source's label stands after the quote."""

SETS = ("squad_v1", "squad_v2")
REFUSAL = "not in documents"
QUOTE_WORDS = 6
"""Words of a quote on either side of the answer, at most."""


@dataclass(frozen=True)
class Asked:
    """One question over the passages of its group. `span` is (passage, start, end) of its answer; None where the
    passages do not hold one. `document` is the one that it is about."""

    id: str
    question: str
    document: str
    answers: tuple[str, ...]
    span: tuple[int, int, int] | None


@dataclass(frozen=True)
class Group:
    """Passages in the order they are read, as (document, header, text), and what is asked over them."""

    passages: tuple[tuple[str, str, str], ...]
    asked: tuple[Asked, ...]


@dataclass(frozen=True)
class Written:
    """What a reader wrote, taken apart; empty where it is missing."""

    answer: str
    quote: str
    label: str


def load_rows(path: Path, split: str) -> list[dict[str, Any]]:
    """The rows of one split of the sets that give spans."""
    with path.open(encoding="utf-8") as lines:
        rows = (json.loads(line) for line in lines if line.strip())
        return [row for row in rows if row["split"] == split and row["set"] in SETS]


def training_groups(rows: Sequence[dict[str, Any]], seed: int, size: int, passages: int) -> Iterator[Group]:
    """Groups without end, of up to `size` questions over `passages` passages.

    Each epoch is a new shuffle in which no question is asked twice.
    """
    if any(row["split"] != "train" for row in rows):
        raise ValueError("rows of validation or test articles are not for training: filter them by their split")
    by_document = defaultdict(list)
    for row in rows:
        by_document[row["document"]].append(row)
    epoch = 0
    while True:
        rng = random.Random(f"{seed}/{epoch}")
        order, used = list(rows), set()
        rng.shuffle(order)
        for row in order:
            if row["id"] not in used:
                found = _group(row, by_document[row["document"]], used, rng, size, passages)
                if found is not None:
                    used |= {asked.id for asked in found.asked}
                    yield found
        if not used:
            raise ValueError("no row comes with its own passage: nothing to train on")
        epoch += 1


def _group(
    row: dict[str, Any], near: Sequence[dict[str, Any]], used: set[str], rng: random.Random, size: int, most: int
) -> Group | None:
    """`row` and unused questions on the same passage which the other passages, `most` in all, do not answer.

    At most one of six is without an answer: taught a third or more, a reader that has seen some hundred questions
    refuses everything.
    """
    passages = chosen_passages(row, rng, most, 1.0)
    if not passages or not passages[0]["about"]:
        return None
    own, others = passages[0]["text"], passages[1:]
    rng.shuffle(passages)
    rest = [r for r in near if r["id"] not in used and r["id"] != row["id"]]
    rng.shuffle(rest)
    asked = [_asked(row, passages)]
    for other in rest:
        here = _asked(other, passages)
        if other["answerable"]:
            fits = here.span is not None and passages[here.span[0]]["text"] == own
        else:
            fits = sum(a.span is None for a in asked) < max(1, size // 6)
        if len(asked) < size and fits and not any(holds_answer(p, other["answers"]) for p in others):
            asked.append(here)
    return Group(tuple((p["document"], p["header"], p["text"]) for p in passages), tuple(asked))


def questions(rows: Sequence[dict[str, Any]], n: int, most: int) -> list[Group]:
    """`n` fixed questions, each alone over the `most` passages the retriever found first, in an order drawn by its id.

    Nothing is known of which passage is the right one, or whether there is one.
    """
    found = []
    for row in random.Random(0).sample(sorted(rows, key=lambda r: str(r["id"])), min(n, len(rows))):
        passages = [p for p in row["passages"] if p["rank"] is not None][:most]
        random.Random(row["id"]).shuffle(passages)
        texts = tuple((p["document"], p["header"], p["text"]) for p in passages)
        found.append(Group(texts, (_asked(row, passages),)))
    return found


def _asked(row: dict[str, Any], passages: Sequence[dict[str, Any]]) -> Asked:
    """`row` over `passages`, which may be those of another row: spans are found by the passage's text.

    Where people marked several answers, the first that the passages hold counts.
    """
    spans = {p["text"]: p["spans"] for p in row["passages"] if p["spans"]}
    at = [(i, s, e) for i, p in enumerate(passages) for s, e in spans.get(p["text"], ())]
    at.sort(key=lambda x: passages[x[0]]["text"][x[1] : x[2]] != row["answers"][0])
    return Asked(row["id"], row["question"], row["document"], tuple(row["answers"]), at[0] if at else None)


# --- what is written --------------------------------------------------------------------------


def quote_of(text: str, start: int, end: int) -> str:
    """The words around `[start, end)`: its sentence, at most QUOTE_WORDS on either side."""
    first, last = quote_around(text, start, end)
    before = [m.start() for m in re.finditer(r"\S+", text[first:start])][-QUOTE_WORDS:]
    after = [m.end() for m in re.finditer(r"\S+", text[end:last])][:QUOTE_WORDS]
    return " ".join(text[first + before[0] if before else start : end + after[-1] if after else end].split())


def target(group: Group, asked: Asked, order: Order) -> str:
    """What a reader should write."""
    if asked.span is None:
        return REFUSAL
    place, start, end = asked.span
    text = group.passages[place][2]
    answer, proof = " ".join(text[start:end].split()), f"{quote_of(text, start, end)}\n[{place + 1}]"
    return f"{proof}\n{answer}" if order == "quote" else f"{answer}\n{proof}"


def taken_apart(text: str, order: Order) -> Written:
    """`text` as it was meant; what is missing is empty."""
    lines = [line.strip() for line in text.strip().split("\n")]
    lines += [""] * (3 - len(lines))
    quote, label, answer = lines[:3] if order == "quote" else (lines[1], lines[2], lines[0])
    return Written(answer, quote, label.strip("[]"))


def scores(group: Group, written: Written | None, refused: bool) -> dict[str, float | bool | None]:
    """What is measured of one question; None where a measure says nothing about it.

    `written` is what stands there if nothing is refused; it is looked at only where the question has an answer. What
    has "released" in its name counts a refusal as wrong; the other measures are over all that have an answer.
    """
    asked = group.asked[0]
    found: dict[str, float | bool | None] = {
        "answerable": bool(asked.answers), "given": asked.span is not None, "refused": refused,
    }  # fmt: skip
    if not asked.answers or written is None:
        return found
    texts = [" ".join(text.split()) for _, _, text in group.passages]
    verbatim = bool(written.quote) and any(" ".join(written.quote.split()) in text for text in texts)
    place = int(written.label) - 1 if written.label.isdigit() else -1
    named = group.passages[place][0] if 0 <= place < len(group.passages) else ""
    f1, match = token_f1(written.answer, asked.answers), exact_match(written.answer, asked.answers)
    return found | {
        "token_f1": f1,
        "exact_match": match,
        "token_f1_released": 0.0 if refused else f1,
        "exact_match_released": 0.0 if refused else match,
        "quote_verbatim": verbatim,
        "quote_supporting": verbatim and any(holds(written.quote, a) for a in asked.answers),
        "source_right": named == asked.document,
    }
