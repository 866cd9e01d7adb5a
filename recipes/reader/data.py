"""Questions with the passages the product's own retriever finds for them: the rows the reader is trained on.

    python recipes/reader/data.py --data DATA --out build/reader

DATA holds the public sets (see README.md beside this file). Articles, not questions, are divided into train,
validation and test: no passage of a test article is seen in training, and all passages of all articles are searched.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from factform.facts.embed import Embedder
from factform.facts.store import DataLayer
from factform.model.fetch import DEFAULT_EMBEDDER, fetch_model
from factform.records import Chunk, Source

RETRIEVED = 10
SHARES = {"test": 0.2, "validation": 0.1}
SPLITS = ("train", "validation", "test")
"""Shares of a set's articles; at least one each."""


@dataclass(frozen=True)
class Question:
    """A question on one document. `starts` are places of the answers in that document's text as the set gives them,
    -1 where it gives none."""

    id: str
    set: str
    article: str
    document: str
    question: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]
    answerable: bool


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def source(document: str, title: str, text: str, media_type: str = "text") -> Source:
    return Source(document, text.encode("utf-8"), document, media_type, title)


# --- the sets ---------------------------------------------------------------------------------


def squad(data: Path, name: str) -> tuple[list[Source], list[Question]]:
    sources = [source(f"{name}/{p['id']}", p["title"], p["text"]) for p in read_rows(data / name / "passages.jsonl.gz")]
    questions = [
        Question(
            id=f"{name}/{q['id']}",
            set=name,
            article=q["title"],
            document=f"{name}/{q['passage_id']}",
            question=q["question"].strip(),
            answers=tuple(q["answers"]) if q["answerable"] else (),
            starts=tuple(q["answer_starts"]) if q["answerable"] else (),
            answerable=q["answerable"],
        )
        for q in read_rows(data / name / "qa.jsonl.gz")
    ]
    return sources, questions


def tatqa(data: Path) -> tuple[list[Source], list[Question]]:
    """Tables as Markdown above their paragraphs. Only questions whose one answer is a span that stands once."""
    texts = {}
    for d in read_rows(data / "tatqa" / "docs.jsonl.gz"):
        table = "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in d["table"])
        rule = "|" + " --- |" * len(d["table"][0])
        head, _, body = table.partition("\n")
        paragraphs = (p["text"] for p in sorted(d["paragraphs"], key=lambda p: p["order"]))
        texts[d["id"]] = "\n\n".join([f"{head}\n{rule}\n{body}", *paragraphs])
    questions = []
    for q in read_rows(data / "tatqa" / "qa.jsonl.gz"):
        answer = q["answer"][0] if isinstance(q["answer"], list) and len(q["answer"]) == 1 else None
        if q["answer_type"] == "span" and answer and texts[q["doc_id"]].count(answer) == 1:
            where = (texts[q["doc_id"]].index(answer),)
            document = f"tatqa/{q['doc_id']}"
            questions.append(
                Question(f"tatqa/{q['id']}", "tatqa", document, document, q["question"], (answer,), where, True)
            )
    return [source(f"tatqa/{i}", "Annual report", t, "markdown") for i, t in texts.items()], questions


def clapnq(data: Path) -> tuple[list[Source], list[Question]]:
    """Long answers: they say whether a passage answers, and are no spans."""
    sources, questions = {}, []
    for q in read_rows(data / "clapnq" / "qa.jsonl.gz"):
        document = f"clapnq/{hashlib.sha256(q['text'].encode()).hexdigest()[:16]}"
        sources[document] = source(document, q["title"], q["text"])
        questions.append(
            Question(f"clapnq/{q['id']}", "clapnq", q["title"], document, q["question"], (), (), q["answerable"])
        )
    return list(sources.values()), questions


def pubmedqa(data: Path) -> list[Source]:
    """Abstracts, as passages to be told from the right ones."""
    rows = read_rows(data / "pubmedqa" / "qa.jsonl.gz")
    return [source(f"pubmedqa/{q['id']}", f"PubMed {q['id']}", "\n\n".join(q["contexts"])) for q in rows]


# --- splits and rows --------------------------------------------------------------------------


def split_of(questions: Sequence[Question]) -> dict[tuple[str, str], str]:
    """(set, article) -> split, by the article's hash, in each set by itself."""
    split = {}
    for name in sorted({q.set for q in questions}):
        articles = sorted(
            {q.article for q in questions if q.set == name}, key=lambda a: hashlib.sha256(a.encode()).hexdigest()
        )
        at = 0
        for part, share in SHARES.items():
            n = max(1, round(share * len(articles)))
            split.update({(name, a): part for a in articles[at : at + n]})
            at += n
        split.update({(name, a): "train" for a in articles[at:]})
    return split


def spans_in(text: str, question: Question) -> list[tuple[int, int]]:
    """Where the answers stand in the document's text, each at the place nearest to the one the set gives."""
    spans = []
    for answer, start in zip(question.answers, question.starts, strict=True):
        places = []
        at = text.find(answer)
        while at >= 0:
            places.append(at)
            at = text.find(answer, at + 1)
        if places:
            near = min(places, key=lambda p: abs(p - start))
            spans.append((near, near + len(answer)))
    return spans


def passage(chunk: Chunk, rank: int | None, spans: Sequence[tuple[int, int]], about: bool) -> dict[str, Any]:
    """One passage of a row; spans are relative to the chunk's text."""
    inside = [(s - chunk.start, e - chunk.start) for s, e in spans if chunk.start <= s and e <= chunk.end]
    return {"document": chunk.document, "header": chunk.header, "text": chunk.text, "rank": rank, "about": about,
            "spans": inside}  # fmt: skip


def make_row(question: Question, split: str, layer: DataLayer) -> dict[str, Any]:
    # Training sees the first stage's passages, more of which are near misses; the others are asked as users ask.
    served = split != "train"
    hits = layer.search(question.question, k=RETRIEVED, rerank=served, distinct=served).hits
    own = layer.chunks_of(question.document)
    text = layer.text_of(question.document, own[0].version)
    spans = spans_in(text, question)
    passages = [
        passage(h.chunk, h.rank, spans if h.chunk.document == question.document else (), h.chunk in own) for h in hits
    ]
    found = {h.chunk.id for h in hits}
    passages += [passage(c, None, spans, True) for c in own if c.id not in found]
    return {
        "id": question.id, "set": question.set, "article": question.article, "split": split,
        "document": question.document, "question": question.question, "answers": list(question.answers),
        "answerable": question.answerable, "passages": passages,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the public sets")
    parser.add_argument("--out", type=Path, required=True, help="folder for rows.jsonl and the index")
    args = parser.parse_args()
    if not (args.data / "squad_v2").is_dir():
        sys.exit(f"{args.data} holds no squad_v2: name the folder with the public sets")
    parts = [squad(args.data, "squad_v1"), squad(args.data, "squad_v2"), tatqa(args.data), clapnq(args.data)]
    sources = [s for found, _ in parts for s in found] + pubmedqa(args.data)
    questions = [q for _, found in parts for q in found]
    split = split_of(questions)
    # Training rows first: the next steps need no others, and may begin once these are there.
    questions.sort(key=lambda q: SPLITS.index(split[q.set, q.article]))
    torch.set_num_threads(1)  # a question is too short for two
    with DataLayer.open(args.out / "store", Embedder.open(fetch_model(DEFAULT_EMBEDDER).folder)) as layer:
        receipts = layer.add(
            sources, progress=lambda done, total, _: print(f"\r{done}/{total} documents", end="", flush=True)
        )
        bad = [r for r in receipts if r.status == "failed"]
        print(f"\n{len(receipts)} documents, {sum(r.chunks for r in receipts)} chunks, {len(bad)} failed")
        write_rows(questions, split, layer, args.out / "rows.jsonl")


def write_rows(questions: Sequence[Question], split: dict[tuple[str, str], str], layer: DataLayer, path: Path) -> None:
    """A row for each question, in order; a stopped run goes on behind the last whole line."""
    whole = path.read_bytes().rpartition(b"\n")[0] + b"\n" if path.exists() else b""
    path.write_bytes(whole if whole.strip() else b"")
    done = whole.count(b"\n") if whole.strip() else 0
    started = time.monotonic()
    with path.open("a", encoding="utf-8") as out:
        for number, question in enumerate(questions[done:], 1):
            row = make_row(question, split[question.set, question.article], layer)
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            if number % 200 == 0 or done + number == len(questions):
                eta = (time.monotonic() - started) / number * (len(questions) - done - number)
                print(f"\r{done + number}/{len(questions)} questions, {eta:.0f} s left", end="", flush=True)
    print()


if __name__ == "__main__":
    main()
