"""Writes the Tarnholm sample project: documents, the update for the demo, examples and held-out cases.

Knows nothing of Factform itself: what it writes are plain files. Run `python examples/tarnholm/generate.py`
(needs reportlab and python-docx); the same code writes the same files, and they are committed.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from source import contracts, policies, prices, products, results
from source.common import Document, Draw, Fact, Table, plain, sentences
from source.render import render

SEED = 2026
EXAMPLES, CASES = 320, 150
UNANSWERABLE = 0.2
TABLE_SHARE = 0.25
SHARES = {"results": 0.28, "product": 0.24, "contract": 0.19, "policy": 0.17, "price": 0.12}
HANDLING = {"results": "public", "price": "public", "product": "public", "policy": "internal", "contract": "restricted"}
LATEST_QUESTION = "How high was the group's order intake in the latest quarter?"


@dataclass(frozen=True)
class Split:
    name: str
    prefix: str
    size: int


def main(out: Path) -> None:
    modules = (results, prices, policies, contracts, products)
    streams = {module: draw(module.__name__) for module in modules}
    documents = [d for module, stream in streams.items() for d in module.build(stream)]
    before, after = results.latest(streams[results])
    check(documents, before, after)
    for document in (*documents, before):
        write(out / "documents" / document.id, render(document))
    write(out / "documents_update" / after.id, render(after))
    write(out / "documents_update" / "update.json", json_text(update(before, after)))
    for split in (Split("examples", "ex", EXAMPLES), Split("cases", "case", CASES)):
        rows = select(split, [d for d in documents if d.split == split.name], documents)
        write(out / "behaviors" / "desk" / f"{split.name}.jsonl", "".join(json_line(r) for r in rows).encode())


def draw(name: str) -> Draw:
    """One stream of choices for each kind of document, so that a change in one kind leaves the others alone."""
    return Draw(random.Random(f"{SEED} {name}"))


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def json_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def json_text(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()


# --- rows -----------------------------------------------------------------------------------


def expected(document: Document, fact: Fact) -> dict[str, Any]:
    """The contract object that is right for a question about `fact`."""
    return {
        "evidence": {"quote": fact.quote, "source": document.id},
        "topic": document.kind,
        "figure": {"value": fact.value, "unit": fact.unit, "period": fact.period},
        "handling": HANDLING[document.kind],
    }


def update(before: Document, after: Document) -> dict[str, Any]:
    def intake(document: Document) -> Fact:
        return next(f for f in document.facts if f.attribute == "intake")

    return {
        "document": before.id,
        "question": LATEST_QUESTION,
        "before": {"expected": expected(before, intake(before))},
        "after": {"expected": expected(after, intake(after))},
    }


def select(split: Split, documents: Sequence[Document], everything: Sequence[Document]) -> list[dict[str, Any]]:
    """The rows of one split: facts dealt evenly over its documents, near misses, shuffled and numbered."""
    rng = random.Random(f"{SEED} {split.name}")
    unanswerable = round(split.size * UNANSWERABLE)
    rows = [answerable_row(rng, d, f) for d, f in choose_facts(rng, documents, split.size - unanswerable)]
    rows += [
        {"question": q, "expected": None, "answerable": False, "documents": []}
        for q in choose_misses(rng, documents, everything, unanswerable)
    ]
    rng.shuffle(rows)
    return [{"id": f"{split.prefix}-{number:03}", **row} for number, row in enumerate(rows, 1)]


def answerable_row(rng: random.Random, document: Document, fact: Fact) -> dict[str, Any]:
    return {
        "question": rng.choice(fact.questions),
        "expected": expected(document, fact),
        "answerable": True,
        "documents": [document.id],
    }


def choose_facts(rng: random.Random, documents: Sequence[Document], count: int) -> list[tuple[Document, Fact]]:
    """`count` facts, so many of each kind of document as SHARES says (rounding falls to the last kind)."""
    chosen: list[tuple[Document, Fact]] = []
    for kind, share in SHARES.items():
        wanted = count - len(chosen) if kind == list(SHARES)[-1] else round(share * count)
        chosen += deal(rng, [d for d in documents if d.kind == kind], wanted)
    return chosen


def deal(rng: random.Random, documents: Sequence[Document], count: int) -> list[tuple[Document, Fact]]:
    """`count` facts, one document after the other, with at most a quarter of them from tables."""
    queues = [(d, rng.sample(d.facts, len(d.facts))) for d in documents]
    chosen: list[tuple[Document, Fact]] = []
    tables = 0
    while len(chosen) < count:
        if not any(queue for _, queue in queues):
            raise SystemExit(f"only {len(chosen)} of {count} {documents[0].kind} facts in {len(documents)} documents")
        for document, queue in queues:
            if queue and len(chosen) < count:
                fact = queue.pop()
                if fact.table and tables + 1 > TABLE_SHARE * count:
                    continue
                tables += fact.table
                chosen.append((document, fact))
    return chosen


def choose_misses(
    rng: random.Random, documents: Sequence[Document], everything: Sequence[Document], count: int
) -> list[str]:
    """Questions no document answers, dealt evenly over the documents they are near to."""
    texts = {d.id: text_of(d).lower() for d in everything}
    queues = []
    for document in documents:
        sound = [m for m in document.misses if not any(w.lower() in texts[i] for i in m.documents for w in m.absent)]
        queues.append([rng.choice(m.questions) for m in rng.sample(sound, len(sound))])
    chosen: list[str] = []
    rng.shuffle(queues)
    while len(chosen) < count:
        if not any(queues):
            raise SystemExit(f"only {len(chosen)} of {count} near misses; add some")
        for queue in queues:
            if queue and len(chosen) < count:
                question = queue.pop()
                if question not in chosen:
                    chosen.append(question)
    return chosen


# --- checks ---------------------------------------------------------------------------------


def text_of(document: Document) -> str:
    parts: list[str] = [document.title, document.byline]
    for section in document.sections:
        parts.append(section.heading)
        for part in section.parts:
            if isinstance(part, Table):
                parts += ["| " + " | ".join(row) + " |" for row in (part.header, *part.rows)]
            elif isinstance(part, tuple):
                parts += part
            else:
                parts.append(part)
    return "\n".join(parts)


def check(documents: Sequence[Document], before: Document, after: Document) -> None:
    """Stop if a fact is stated twice, a quote is not where it should be, or a question has two answers."""
    faults = [*fact_faults((*documents, before, after)), *question_faults(documents)]
    if faults:
        raise SystemExit("\n".join(faults))


def fact_faults(documents: Sequence[Document]) -> Iterable[str]:
    everything = "\n\n".join(text_of(d) for d in documents)
    stated: dict[tuple[str, str, str], str] = {}
    for document in documents:
        for fact in document.facts:
            where = f"{document.id}: {fact.attribute}"
            if fact.quote not in text_of(document):
                yield f"{where}: the quote is not in the document: {fact.quote}"
            if everything.count(fact.quote) != 1:
                yield f"{where}: the quote stands {everything.count(fact.quote)} times in all documents: {fact.quote}"
            if fact.value not in [plain(n) for n in re.findall(r"\d[\d,]*(?:\.\d+)?", fact.quote)]:
                yield f"{where}: {fact.value} is not a number of the quote: {fact.quote}"
            words = len(fact.quote.split())
            if not 3 <= words <= 25:
                yield f"{where}: quote of {words} words: {fact.quote}"
            key = (fact.entity, fact.attribute, fact.period)
            if key in stated:
                yield f"{where}: {key} is stated in {stated[key]} as well"
            stated[key] = document.id


def question_faults(documents: Sequence[Document]) -> Iterable[str]:
    """No two facts share a question, and no near miss is asked that a fact answers."""
    asked: dict[str, str] = {}
    for document in documents:
        for fact in document.facts:
            for question in set(fact.questions):
                if question in asked:
                    yield f"{document.id}: {question!r} is also a question of {asked[question]}"
                asked[question] = document.id
    for document in documents:
        for miss in document.misses:
            for question in miss.questions:
                if question in asked:
                    yield f"{document.id}: near miss {question!r} is answered by {asked[question]}"
    for document in documents:
        for sentence in sentences(text_of(document)):
            if len(sentence) > 260 and not sentence.startswith("|") and "\n" not in sentence:
                yield f"{document.id}: very long sentence: {sentence[:80]}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the Tarnholm sample project.")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="folder to write into (default: beside this file)"
    )
    main(parser.parse_args().out)
