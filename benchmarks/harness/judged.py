"""Judged search sets, read from the shared data folder: documents, questions, which documents are right.

Knows nothing of searching. Sets are of two kinds: those reported, and those on which anything may be chosen.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factform.measure.cases import read_qrels
from factform.records import Source

Grades = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class JudgedSet:
    """Documents, questions by id, and by question id the grade of each right document."""

    name: str
    sources: tuple[Source, ...]
    queries: Mapping[str, str]
    qrels: Grades


def rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def source(document: str, title: str, text: str, kind: str = "text") -> Source:
    return Source(document, text.encode("utf-8"), document, kind, title or None)


def beir(name: str, folder: Path, split: str | None = None) -> JudgedSet:
    """A folder in BEIR's form. A document without any text cannot be taken in and is left out."""
    found = rows(folder / "corpus.jsonl.gz")
    queries = {q["id"]: q["text"] for q in rows(folder / "queries.jsonl.gz") if split in (None, q.get("split"))}
    judged = read_qrels(folder / "qrels.tsv")
    qrels = {q: grades for q, grades in judged.items() if q in queries and any(g > 0 for g in grades.values())}
    sources = tuple(source(d["id"], d["title"], d["text"]) for d in found if d["text"].strip())
    return JudgedSet(name, sources, {q: queries[q] for q in qrels}, qrels)


def claude_docs(name: str, folder: Path) -> JudgedSet:
    """`docs` or `code`: its chunks are the documents."""
    kind = name.rsplit("_", 1)[1]
    found = rows(folder / f"{kind}_corpus.jsonl.gz")
    asked = rows(folder / f"{kind}_qa.jsonl.gz")
    sources = tuple(source(d["id"], d.get("title", ""), d["text"]) for d in found)
    return JudgedSet(
        name,
        sources,
        {q["id"]: q["question"] for q in asked},
        {q["id"]: dict.fromkeys(q["gold_ids"], 1) for q in asked},
    )


def squad(name: str, folder: Path, n: int) -> JudgedSet:
    """`n` answerable questions; the paragraph each was written for is right."""
    sources = tuple(source(p["id"], p["title"], p["text"]) for p in rows(folder / "passages.jsonl.gz"))
    asked = random.Random(0).sample([q for q in rows(folder / "qa.jsonl.gz") if q["answerable"]], n)
    return JudgedSet(
        name, sources, {q["id"]: q["question"] for q in asked}, {q["id"]: {q["passage_id"]: 1} for q in asked}
    )


def clapnq(name: str, folder: Path) -> JudgedSet:
    found, queries, qrels = {}, {}, {}
    for q in rows(folder / "qa.jsonl.gz"):
        document = hashlib.sha256(q["text"].encode()).hexdigest()[:16]
        found[document] = source(document, q["title"], q["text"])
        queries[q["id"]], qrels[q["id"]] = q["question"], {document: 1}
    return JudgedSet(name, tuple(found.values()), queries, qrels)


def tatqa(name: str, folder: Path, n: int) -> JudgedSet:
    """Reports as Markdown, table first; questions name no company, so several reports look right and one is."""
    found = []
    for d in rows(folder / "docs.jsonl.gz"):
        first, *rest = [[cell.replace("|", "/") for cell in row] for row in d["table"]]
        lines = [first, ["---"] * len(first), *rest]
        table = "\n".join(f"| {' | '.join(row)} |" for row in lines)
        text = "\n\n".join([table, *(p["text"] for p in sorted(d["paragraphs"], key=lambda p: p["order"]))])
        found.append(source(d["id"], "", text, "markdown"))
    asked = random.Random(0).sample(rows(folder / "qa.jsonl.gz"), n)
    return JudgedSet(
        name, tuple(found), {q["id"]: q["question"] for q in asked}, {q["id"]: {q["doc_id"]: 1} for q in asked}
    )


def covid_faq(name: str, folder: Path) -> JudgedSet:
    """Answers as documents, the questions they were given to as questions."""
    faq = rows(folder / "faq.jsonl.gz")
    return JudgedSet(
        name,
        tuple(source(f["id"], "", f["answer"]) for f in faq),
        {f["id"] + "?": f["question"] for f in faq},
        {f["id"] + "?": {f["id"]: 1} for f in faq},
    )


def pubmedqa(name: str, folder: Path) -> JudgedSet:
    """Abstracts without their conclusions, and the question each asks."""
    found = rows(folder / "qa.jsonl.gz")
    return JudgedSet(
        name,
        tuple(source(q["id"], "", "\n\n".join(q["contexts"])) for q in found),
        {q["id"] + "?": q["question"] for q in found},
        {q["id"] + "?": {q["id"]: 1} for q in found},
    )


def torchhub(name: str, folder: Path, n: int) -> JudgedSet:
    """Descriptions of programming interfaces, and instructions of the training split."""
    docs, texts = rows(folder / "api_docs.jsonl.gz"), {}
    for d in docs:
        texts[d["id"]] = f"{d['domain']}. {d['functionality']}. {d['api_name']}\n{d['api_call']}\n{d['description']}"
    asked = random.Random(0).sample([q for q in rows(folder / "train.jsonl.gz") if q["instruction"]], n)
    return JudgedSet(
        name,
        tuple(source(i, "", t) for i, t in texts.items()),
        {q["id"]: q["instruction"] for q in asked},
        {q["id"]: {q["api_doc_id"]: 1} for q in asked},
    )


REPORTED: Mapping[str, Callable[[Path], JudgedSet]] = {
    "scifact": lambda data: beir("scifact", data / "scifact", "validation"),
    "cranfield": lambda data: beir("cranfield", data / "cranfield"),
    "claude_docs": lambda data: claude_docs("claude_docs", data / "claude_docs_rag"),
    "claude_code": lambda data: claude_docs("claude_code", data / "claude_docs_rag"),
    "covid_faq": lambda data: covid_faq("covid_faq", data / "covid_faq"),
}
"""What is measured. Nothing is chosen by looking at these (covid_faq took part in the first choice of the shares)."""

ABLATED = ("scifact", "cranfield", "claude_docs", "covid_faq")

CHOOSING: Mapping[str, Callable[[Path], JudgedSet]] = {
    "scifact_train": lambda data: beir("scifact_train", data / "scifact", "train"),
    "squad_v2": lambda data: squad("squad_v2", data / "squad_v2", 500),
    "clapnq": lambda data: clapnq("clapnq", data / "clapnq"),
    "tatqa": lambda data: tatqa("tatqa", data / "tatqa", 400),
    "pubmedqa": lambda data: pubmedqa("pubmedqa", data / "pubmedqa"),
    "torchhub": lambda data: torchhub("torchhub", data / "torchhub_api", 400),
}
"""On which weights, depths and parts of the ranking were chosen."""
