"""More rows to train on, made from the train articles and from texts written by rule.

    python recipes/reader/generate.py --data DATA --rows build/reader/rows.jsonl --out build/reader/generated.jsonl

Three kinds. "twins": a question of a train article with one name, year or comparison changed, so that its passage no
longer answers it. "tables": a cell of a train report's table asked for by its row and column, and the same question
for a column that is not there. "written": short texts and tables on invented things (see written.py) that differ in
one name, period, property or version, with their units.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import tatqa
from written import written_rows

YEAR = re.compile(r"\b(1[0-9]{3}|20[0-2][0-9])\b")
NAME = re.compile(r"\b[A-Z][\w'’-]+(?: (?:of |the )?[A-Z][\w'’-]+)*")
OPENERS = {
    "What", "Who", "Whom", "Whose", "Which", "When", "Where", "Why", "How", "In", "On", "At", "For", "Of", "The", "Is",
    "Are", "Was", "Were", "Did", "Does", "Do", "Along", "After", "Before", "During", "By", "From", "To", "With", "If",
}  # fmt: skip
OPPOSITES = {
    "first": "last", "last": "first", "largest": "smallest", "smallest": "largest", "highest": "lowest",
    "lowest": "highest", "most": "least", "least": "most", "more": "fewer", "before": "after", "after": "before",
    "begin": "end", "start": "stop", "began": "ended", "started": "stopped", "increase": "decrease",
    "decrease": "increase", "north": "south", "south": "north", "east": "west", "west": "east", "oldest": "youngest",
    "longest": "shortest", "best": "worst", "minimum": "maximum", "maximum": "minimum", "early": "late",
    "positive": "negative", "won": "lost", "lost": "won", "inside": "outside", "western": "eastern",
    "eastern": "western", "northern": "southern", "southern": "northern", "allowed": "forbidden",
}  # fmt: skip


# --- questions that a passage no longer answers -----------------------------------------------


def twin(row: dict[str, Any], rng: random.Random) -> dict[str, Any] | None:
    """`row` with a question that differs in one place and has no answer in its passages; None where none is found."""
    question = row["question"]
    changes = [c for c in (change_year, change_name, change_name, change_word) if (c(row, random.Random(0)))]
    if not changes:
        return None
    changed = rng.choice(changes)(row, rng)
    if changed is None or changed == question:
        return None
    passages = [{**p, "spans": []} for p in row["passages"]]
    return {**row, "id": f"{row['id']}/twin", "set": "twins", "question": changed, "answers": [], "answerable": False,
            "passages": passages}  # fmt: skip


def change_year(row: dict[str, Any], rng: random.Random) -> str | None:
    found = list(YEAR.finditer(row["question"]))
    if not found:
        return None
    at, texts = rng.choice(found), " ".join(p["text"] for p in row["passages"])
    others = [y for d in range(1, 40) for y in (int(at[0]) - d, int(at[0]) + d) if str(y) not in texts and y < 2027]
    return replaced(row["question"], at.span(), str(rng.choice(others[:10]))) if others else None


def change_name(row: dict[str, Any], rng: random.Random) -> str | None:
    """Another name: one of the passage itself that is not the answer, or one that stands in none of the passages."""
    found = [m for m in NAME.finditer(row["question"]) if m[0].split()[0] not in OPENERS]
    own = next((p for p in row["passages"] if p["spans"]), None)
    if not found or own is None:
        return None
    at = rng.choice(found)
    taken = {w.lower() for w in re.findall(r"\w+", row["question"] + " " + " ".join(row["answers"]))}
    inside = names_in(own["text"], taken)
    everywhere = " ".join(p["text"] for p in row["passages"]).lower()
    outside = [n for n in row["names"] if n.lower() not in everywhere and not words(n) & taken]
    pool = inside if inside and (not outside or rng.random() < 0.4) else outside
    return replaced(row["question"], at.span(), rng.choice(pool)) if pool else None


def change_word(row: dict[str, Any], rng: random.Random) -> str | None:
    found = [m for m in re.finditer(r"[a-z]+", row["question"]) if m[0] in OPPOSITES]
    if not found:
        return None
    at = rng.choice(found)
    return replaced(row["question"], at.span(), OPPOSITES[at[0]])


def names_in(text: str, taken: set[str]) -> list[str]:
    """Names in the middle of sentences of `text` that share no word with `taken`."""
    found = (m for m in NAME.finditer(text) if text[max(0, m.start() - 2) : m.start()].strip(" \n") not in {"", "."})
    return sorted({m[0] for m in found if not words(m[0]) & taken and m[0].split()[0] not in OPENERS})


def words(text: str) -> set[str]:
    return {w.lower() for w in re.findall(r"\w+", text)}


def replaced(text: str, span: tuple[int, int], new: str) -> str:
    return text[: span[0]] + new + text[span[1] :]


def twins(rows: Sequence[dict[str, Any]], n: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    by_article: dict[str, set[str]] = {}
    for row in rows:
        for p in row["passages"][:4]:
            by_article.setdefault(row["article"], set()).update(names_in(p["text"], set()))
    asked = [r for r in rows if r["answerable"] and r["answers"] and r["set"].startswith("squad")]
    rng.shuffle(asked)
    made = 0
    for row in asked:
        new = twin({**row, "names": sorted(by_article[row["article"]])}, rng)
        if new is not None:
            del new["names"]
            made += 1
            yield new
        if made == n:
            return


# --- cells of tables --------------------------------------------------------------------------

CELL_QUESTIONS = (
    "What was {row} in {column}?", "What is the {row} for {column}?", "How much was {row} in {column}?",
    "{row}, {column}?", "What amount of {row} was reported for {column}?", "{column}: what is {row}?",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A cell of a Markdown table and the place of its words in the document."""

    row: str
    column: str
    start: int
    end: int


def cells_of(text: str) -> list[Cell]:
    """Cells with a number under a column that has a year in its head: every line above the first number."""
    table = text.partition("\n\n")[0].split("\n")
    head: list[str] = []
    cells, at, data = [], 0, False
    for number, line in enumerate(table):
        parts = line.strip().strip("|").split("|")
        values = [re.search(r"\d", p) is not None and YEAR.fullmatch(p.strip()) is None for p in parts[1:]]
        data = data or (number > 1 and any(values) and bool(parts[0].strip()))
        if not data and number != 1:
            head = [f"{a} {b}".strip() for a, b in zip(head or [""] * len(parts), map(str.strip, parts), strict=False)]
        elif data and parts[0].strip():
            place = at + line.index("|") + 1 + len(parts[0]) + 1
            for column, part in enumerate(parts[1:], 1):
                value = part.strip().strip("$€£ ")
                label = head[column] if column < len(head) else ""
                if re.search(r"\d", value) and YEAR.search(label):
                    start = text.index(value, place)
                    cells.append(Cell(parts[0].strip(), label, start, start + len(value)))
                place += len(part) + 1
        at += len(line) + 1
    labels = [line.strip().strip("|").split("|")[0].strip() for line in table]
    return [cell for cell in cells if labels.count(cell.row) == 1]


def tables(data: Path, rows: Sequence[dict[str, Any]], n: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Cells asked for by row and column; a third of them for a year the table does not have."""
    chunks: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
    for row in rows:
        for p in row["passages"]:
            if p["document"].startswith("tatqa/"):
                chunks.setdefault(p["document"], {})[p["header"], p["text"]] = p
    train = {row["document"] for row in rows if row["set"] == "tatqa"}
    texts = {s.document: s.data.decode() for s in tatqa(data)[0] if s.document in train}
    asked = [(document, cell) for document, text in texts.items() for cell in cells_of(text)]
    rng.shuffle(asked)
    for number, (document, cell) in enumerate(asked[:n]):
        yield table_row(number, document, cell, texts[document], chunks, rng)


def table_row(
    number: int, document: str, cell: Cell, text: str, chunks: dict[str, dict[Any, dict[str, Any]]], rng: random.Random
) -> dict[str, Any]:
    missing = rng.random() < 1 / 3
    column = YEAR.sub(lambda y: str(int(y[0]) - rng.choice((3, 4, 5, 6))), cell.column) if missing else cell.column
    year = YEAR.search(column)
    label = column if rng.random() < 0.4 or year is None else year[0]
    question = rng.choice(CELL_QUESTIONS).format(row=cell.row, column=label)
    own = [about(p, cell, text, missing) for p in chunks[document].values()]
    own.sort(key=lambda p: not p["spans"] if not missing else text.find(p["text"]) > 0)
    others = [
        {**p, "spans": [], "about": False, "rank": rng.randint(1, 10)}
        for other in rng.sample(sorted(chunks), 12)
        for p in chunks[other].values()
        if other != document and cell.row.lower() not in p["text"].lower()
    ]
    return {
        "id": f"tables/{number}", "set": "tables", "article": document, "split": "train", "document": document,
        "question": question, "answers": [] if missing else [text[cell.start : cell.end]], "answerable": not missing,
        "passages": [*own, *others[:8]],
    }  # fmt: skip


def about(passage: dict[str, Any], cell: Cell, text: str, missing: bool) -> dict[str, Any]:
    """A passage of the cell's own document, with the cell's place in it if it is there."""
    start = text.find(passage["text"])
    inside = not missing and 0 <= start <= cell.start and cell.end <= start + len(passage["text"])
    spans = [[cell.start - start, cell.end - start]] if inside else []
    return {**passage, "about": True, "spans": spans, "rank": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the public sets")
    parser.add_argument("--rows", type=Path, required=True, help="what data.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--twins", type=int, default=2000)
    parser.add_argument("--tables", type=int, default=1200)
    parser.add_argument("--written", type=int, default=2400)
    args = parser.parse_args()
    with args.rows.open(encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["split"] == "train"]
    rng = random.Random(0)
    made = [
        *twins(rows, args.twins, rng),
        *tables(args.data, rows, args.tables, rng),
        *written_rows(args.written, rng),
    ]
    with args.out.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
    for name in ("twins", "tables", "written"):
        part = [row for row in made if row["set"] == name]
        print(f"{name}: {len(part)} rows, {sum(not r['answerable'] for r in part)} without an answer")


if __name__ == "__main__":
    main()
