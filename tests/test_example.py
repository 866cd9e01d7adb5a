"""The Tarnholm sample project is what its generator writes, and its rows keep their promises.

Knows nothing of training or answering: documents are read with the project's own parser, rows as plain JSON.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from factform.facts.parse import parse
from factform.records import Parsed, Source

EXAMPLE = Path(__file__).parents[1] / "examples" / "tarnholm"
DESK = EXAMPLE / "behaviors" / "desk"
SPLITS = {"examples": (320, 64), "cases": (150, 30)}
TOPIC = {"results": "results", "prices": "price", "policies": "policy", "contracts": "contract", "products": "product"}
HANDLING = {"results": "public", "price": "public", "product": "public", "policy": "internal", "contract": "restricted"}


def rows(split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DESK / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def answerable(split: str) -> list[dict[str, Any]]:
    return [row for row in rows(split) if row["answerable"]]


def schema() -> dict[str, Any]:
    return dict(json.loads((DESK / "schema.json").read_text(encoding="utf-8")))


def squeeze(text: str) -> str:
    return " ".join(text.split())


def parsed(folder: Path, document: str) -> Parsed:
    path = folder / document
    return parse(Source(document, path.read_bytes(), path.name))


@cache
def text(document: str) -> str:
    return squeeze(parsed(EXAMPLE / "documents", document).text)


def documents(folder: Path = EXAMPLE / "documents") -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def numbers(quote: str) -> list[str]:
    """The numbers of a text without thousands separators."""
    return [n.replace(",", "") for n in re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", quote)]


def test_generator_writes_what_is_committed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(EXAMPLE / "generate.py"), "--out", str(tmp_path)], check=True)
    written = documents(tmp_path)
    handmade = {f"behaviors/desk/{name}" for name in ("behavior.toml", "instructions.md", "schema.json")}
    kept = [n for n in documents(EXAMPLE) if n.startswith(("documents", "behaviors/desk/")) and n not in handmade]
    assert written == kept
    for name in written:
        if name.endswith((".pdf", ".docx")):
            assert parsed(tmp_path, name) == parsed(EXAMPLE, name), name
        else:
            assert (tmp_path / name).read_bytes() == (EXAMPLE / name).read_bytes(), name


def test_documents_of_every_kind_and_format() -> None:
    names = documents()
    assert 44 <= len(names) <= 56
    formats = {f: sum(n.endswith("." + f) for n in names) for f in ("md", "html", "pdf", "docx")}
    assert formats == {"md": 20, "html": 11, "pdf": 11, "docx": 11}
    assert {n.split("/")[0] for n in names} == set(TOPIC)
    for name in names:
        document = parsed(EXAMPLE / "documents", name)
        assert 250 <= len(document.text.split()) <= 720, name
        assert len(document.title) > 10, name
        if name.endswith(".pdf"):
            assert 2 <= len(document.pages) <= 4, name


@pytest.mark.parametrize("split", SPLITS)
def test_counts_kinds_formats_units(split: str) -> None:
    size, unanswerable = SPLITS[split]
    all_rows, some = rows(split), answerable(split)
    assert (len(all_rows), len(all_rows) - len(some)) == (size, unanswerable)
    assert len({r["id"] for r in all_rows}) == len({r["question"] for r in all_rows}) == size
    assert {r["expected"]["topic"] for r in some} == set(TOPIC.values())
    units = schema()["properties"]["figure"]["properties"]["unit"]["enum"]
    assert {r["expected"]["figure"]["unit"] for r in some} == set(units)
    assert {r["documents"][0].rsplit(".", 1)[1] for r in some} == {"md", "html", "pdf", "docx"}
    assert sum(r["expected"]["evidence"]["quote"].startswith("|") for r in some) <= len(some) / 4


def test_splits_share_no_document_quote_or_question() -> None:
    examples, cases = answerable("examples"), answerable("cases")
    assert not {r["documents"][0] for r in examples} & {r["documents"][0] for r in cases}
    assert not {r["question"] for r in rows("examples")} & {r["question"] for r in rows("cases")}
    used = {r["documents"][0] for r in examples + cases}
    assert used == set(documents()) - {"results/latest.md"}
    share = len({r["documents"][0] for r in cases}) / len(used)
    assert 0.35 <= share <= 0.45


@pytest.mark.parametrize("split", SPLITS)
def test_expected_answers_follow_the_contract(split: str) -> None:
    validator = jsonschema_rs.validator_for(schema())
    for row in rows(split):
        if not row["answerable"]:
            assert (row["expected"], row["documents"]) == (None, []), row["id"]
            continue
        answer = row["expected"]
        validator.validate(answer)
        quote, figure, source = answer["evidence"]["quote"], answer["figure"], answer["evidence"]["source"]
        assert row["documents"] == [source], row["id"]
        assert figure["value"] in numbers(quote), row["id"]
        assert text(source).count(quote) == 1, row["id"]
        assert 3 <= len(quote.split()) <= 25, row["id"]
        assert answer["topic"] == TOPIC[source.split("/")[0]], row["id"]
        assert answer["handling"] == HANDLING[answer["topic"]], row["id"]
        assert bool(figure["period"]) == (answer["topic"] in ("results", "price")), row["id"]


def test_each_quote_stands_in_one_document_only() -> None:
    """Otherwise a figure of a case could be read off an example, and a right source would be a matter of luck."""
    for row in answerable("examples") + answerable("cases"):
        quote = row["expected"]["evidence"]["quote"]
        assert [d for d in documents() if quote in text(d)] == row["documents"], row["id"]


def test_unanswerable_questions_name_nothing_that_was_reported() -> None:
    everything = " ".join(text(d) for d in documents())
    for split in SPLITS:
        for row in rows(split):
            for period in re.findall(r"Q[1-4] (?:2023|2027)|\w+ quarter of (?:2023|2027)", row["question"]):
                assert not row["answerable"], row["id"]
                assert period not in everything
            assert "2026-Q4" not in json.dumps(row), "the demo's update would make this row answerable"
            assert not re.search(r"(?:Q[34]|third quarter of|fourth quarter of) 2026", row["question"]), row["id"]


def test_update_changes_the_answer() -> None:
    update = json.loads((EXAMPLE / "documents_update" / "update.json").read_text(encoding="utf-8"))
    validator = jsonschema_rs.validator_for(schema())
    folders = {"before": EXAMPLE / "documents", "after": EXAMPLE / "documents_update"}
    texts = {when: squeeze(parsed(folder, update["document"]).text) for when, folder in folders.items()}
    for when, other in (("before", "after"), ("after", "before")):
        answer = update[when]["expected"]
        validator.validate(answer)
        assert answer["evidence"]["quote"] in texts[when]
        assert answer["evidence"]["quote"] not in texts[other]
        assert answer["figure"]["value"] in numbers(answer["evidence"]["quote"])
    assert [update[w]["expected"]["figure"]["period"] for w in ("before", "after")] == ["2026-Q3", "2026-Q4"]
