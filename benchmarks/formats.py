"""How much of real files the readers keep: token recall and precision against references, format by format.

Knows nothing of how files are read. Run: `python benchmarks/formats.py --data FOLDER`, the folder with the files and
their `NAME.gt.md`; `--render` writes the table of docs/design/formats.md again. The result stands in
benchmarks/results/formats.json.

Tokens are runs of letters and digits (`\\w+`), lower-cased, after taking out the reference's markup. Recall is the
share of the reference's tokens, as a multiset, that the canonical text has; precision the share of the text's tokens
that the reference has. A reference that is byte for byte that of another file is no reference of this one: such files,
and those without any, are measured against their own text nodes, taken from the package by other means (see `_nodes`).
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from lxml import etree

from factform.errors import DocumentError
from factform.facts.parse import media_type, parse
from factform.measure.report import environment
from factform.records import Source

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "formats.json"
PAGE = ROOT / "docs" / "design" / "formats.md"
START, END = "<!-- table: benchmarks/formats.py --render -->", "<!-- /table -->"
GOAL = 0.95

_TOKEN = re.compile(r"\w+")
_TAG = re.compile(r"<[^>\n]*>")
_RULE = re.compile(r"^\s*\|?(?:\s*:?-{2,}:?\s*\|?)+\s*$", re.MULTILINE)


@dataclass(frozen=True)
class File:
    """One file. `reference` is "gt.md" or "text nodes"; `error` why it was not read."""

    name: str
    format: str
    reference: str | None
    tokens: int
    recall: float | None
    precision: float | None
    missing: tuple[str, ...]
    error: str | None
    note: str


def tokens(text: str) -> Counter[str]:
    return Counter(_TOKEN.findall(text.lower()))


def stripped(markdown: str) -> str:
    """A reference without its markup: tags, lines of dashes."""
    return _RULE.sub(" ", _TAG.sub(" ", markdown))


def measure(path: Path, reference: str | None, kind: str | None, note: str) -> File:
    source = Source(path.name, path.read_bytes(), path.name)
    form = media_type(source)
    try:
        found = tokens(parse(source).text)
    except DocumentError as error:
        return File(path.name, form, kind, 0, None, None, (), str(error), note)
    if reference is None:
        return File(path.name, form, None, 0, None, None, (), None, note)
    wanted = tokens(reference)
    shared = (wanted & found).total()
    missing = tuple(token for token, _ in (wanted - found).most_common(12))
    recall, precision = shared / max(1, wanted.total()), shared / max(1, found.total())
    return File(path.name, form, kind, wanted.total(), recall, precision, missing, None, note)


def references(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """References by file name, and for files whose reference is another file's copy, which that is.

    Of files that share one, it belongs to the one whose own text it is most like.
    """
    texts = {p.name.removesuffix(".gt.md"): p.read_text("utf-8") for p in sorted(folder.glob("*.gt.md"))}
    groups = defaultdict(list)
    for name, text in texts.items():
        groups[text].append(name)
    copies: dict[str, str] = {}
    for text, names in groups.items():
        if len(names) > 1:
            owner = max(names, key=lambda name: _likeness(folder / name, text))
            copies |= {name: owner for name in names if name != owner}
    return {name: stripped(text) for name, text in texts.items() if name not in copies}, copies


def _likeness(path: Path, text: str) -> float:
    try:
        return (tokens(parse(Source("d", path.read_bytes(), path.name)).text) & tokens(text)).total()
    except DocumentError:
        return 0.0


# --- text nodes -----------------------------------------------------------------------------


def _xml_texts(data: bytes, tags: tuple[str, ...]) -> str:
    root = etree.fromstring(data, etree.XMLParser(resolve_entities=False))
    return " ".join("".join(e.itertext()) for e in root.iter(*(f"{{*}}{tag}" for tag in tags)))


def _parts(data: bytes, pattern: str, read: Callable[[bytes], str]) -> str:
    with zipfile.ZipFile(io.BytesIO(data)) as package:
        return "\n".join(read(package.read(n)) for n in sorted(package.namelist()) if re.fullmatch(pattern, n))


def _docx(data: bytes) -> str:
    paragraphs = r"word/(?:document|footnotes|endnotes)\.xml"
    return _parts(data, paragraphs, lambda part: _xml_texts(part, ("p",)))


def _pptx(data: bytes) -> str:
    slides = _parts(data, r"ppt/(?:slides|notesSlides)/[^/]*\.xml", lambda part: _xml_texts(part, ("p",)))
    return slides + _parts(data, r"ppt/charts/chart[^/]*\.xml", lambda part: _xml_texts(part, ("v",)))


def _xlsx(data: bytes) -> str:
    """The cells' own values; a shared string as often as it is used."""
    with zipfile.ZipFile(io.BytesIO(data)) as package:
        names = package.namelist()
        shared: list[str] = []
        if "xl/sharedStrings.xml" in names:
            root = etree.fromstring(package.read("xl/sharedStrings.xml"))
            shared = ["".join(t.text or "" for t in si.iter("{*}t")) for si in root.iter("{*}si")]
        found = []
        for name in names:
            if re.fullmatch(r"xl/worksheets/sheet\d+\.xml", name):
                for cell in etree.fromstring(package.read(name)).iter("{*}c"):
                    value = "".join(v.text or "" for v in cell.iter("{*}v", "{*}t"))
                    found.append(shared[int(value)] if cell.get("t") == "s" and value else value)
        return " ".join(found)


def _html(data: bytes) -> str:
    root = etree.fromstring(data, etree.HTMLParser(encoding="utf-8"))
    for element in list(root.iter("script", "style", "noscript", "template", "head")):
        element.getparent().remove(element)
    return " ".join(t for e in root.iter() if isinstance(e.tag, str) for t in (e.text or "", e.tail or ""))


def _epub(data: bytes) -> str:
    return _parts(data, r".*(?<!nav)\.x?html", _html)


def _json(data: bytes) -> str:
    def walk(value: Any) -> str:
        if isinstance(value, dict):
            return " ".join(f"{key} {walk(item)}" for key, item in value.items())
        return " ".join(map(walk, value)) if isinstance(value, list) else json.dumps(value, ensure_ascii=False)

    return walk(json.loads(data))


def _ipynb(data: bytes) -> str:
    found = []
    for cell in json.loads(data)["cells"]:
        found.append("".join(cell["source"]))
        for output in cell.get("outputs", []):
            found.append("".join(output.get("text", [])) + "".join(output.get("data", {}).get("text/plain", [])))
    return " ".join(found)


def _csv(data: bytes) -> str:
    return " ".join(" ".join(row) for row in csv.reader(io.StringIO(data.decode("utf-8"))))


_NODES: Mapping[str, Callable[[bytes], str]] = {
    "docx": _docx,
    "pptx": _pptx,
    "xlsx": _xlsx,
    "html": _html,
    "epub": _epub,
    "json": _json,
    "ipynb": _ipynb,
    "csv": _csv,
}
"""Text of a file by a few lines of its own, which share no code with the readers. None for PDF, XLS and MSG."""


def _nodes(path: Path) -> str | None:
    data = path.read_bytes()
    read = _NODES.get(media_type(Source("d", data, path.name)))
    try:
        return None if read is None else read(data)
    except UnicodeDecodeError:
        return None


# --- report ---------------------------------------------------------------------------------


def run(folder: Path) -> dict[str, Any]:
    known, copies = references(folder)
    files = []
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.endswith(".gt.md")):
        note = f"its gt.md is a copy of that of {copies[path.name]}" if path.name in copies else ""
        if path.name in known:
            files.append(measure(path, known[path.name], "gt.md", note))
        else:
            nodes = _nodes(path)
            files.append(measure(path, nodes, "text nodes" if nodes is not None else None, note))
    return {
        "metric": "multiset token recall and precision over lower-cased \\w+ tokens, markup of the reference stripped",
        "goal": GOAL,
        "formats": _by_format(files),
        "references": {kind: _summary([f for f in files if f.reference == kind]) for kind in ("gt.md", "text nodes")},
        "files": [asdict(f) for f in files],
        "environment": environment(),
    }


def _summary(files: list[File]) -> dict[str, Any]:
    read = [f for f in files if f.recall is not None and f.precision is not None]
    if not read:
        return {"n": 0, "recall": None, "lowest": None, "precision": None}
    recalls = [f.recall for f in read if f.recall is not None]
    precision = median(f.precision for f in read if f.precision is not None)
    return {"n": len(read), "recall": median(recalls), "lowest": min(recalls), "precision": precision}


def _by_format(files: list[File]) -> dict[str, dict[str, Any]]:
    forms = sorted({f.format for f in files})
    found = {}
    for form in forms:
        of = [f for f in files if f.format == form]
        refused = sum(f.error is not None for f in of)
        kinds = sorted({f.reference for f in of if f.recall is not None and f.reference})
        found[form] = {"files": len(of), "refused": refused, "references": kinds, **_summary(of)}
    return found


def table(report: Mapping[str, Any]) -> str:
    """The Markdown between the marks of the page."""
    lines = ["| format | files | compared with | n | median recall | lowest | median precision | refused |"]
    lines.append("|---|---:|---|---:|---:|---:|---:|---:|")
    for form, f in report["formats"].items():
        figures = " | ".join("–" if f[k] is None else f"{f[k]:.3f}" for k in ("recall", "lowest", "precision"))
        compared = ", ".join(f"`{k}`" if k == "gt.md" else k for k in f["references"]) or "–"
        lines.append(f"| {form} | {f['files']} | {compared} | {f['n']} | {figures} | {f['refused']} |")
    lines.append("")
    for kind, f in report["references"].items():
        if f["n"]:
            lines.append(f"Against {kind}: median recall {f['recall']:.3f}, lowest {f['lowest']:.3f}, n={f['n']}.")
    lines.append("")
    lines += [f"- `{f['name']}` is refused: {f['error']}" for f in report["files"] if f["error"]]
    copies = [f"`{f['name']}`" for f in report["files"] if f["note"]]
    if copies:
        lines.append(f"- Left out as references, being copies of another file's: those of {', '.join(copies)}.")
    return "\n".join(lines)


def render(report: Mapping[str, Any]) -> None:
    page = PAGE.read_text("utf-8")
    before, rest = page.split(START)
    PAGE.write_text(f"{before}{START}\n{table(report)}\n{END}{rest.split(END)[1]}", "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of files and their NAME.gt.md")
    parser.add_argument("--render", action="store_true", help="only write the table of the page again")
    arguments = parser.parse_args()
    if not arguments.render:
        if arguments.data is None or not arguments.data.is_dir():
            print("no data: give the folder of files with --data; nothing was measured")
            return 0
        RESULT.write_text(json.dumps(run(arguments.data), indent=1, ensure_ascii=False) + "\n", "utf-8")
    report = json.loads(RESULT.read_text("utf-8"))
    render(report)
    print(table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
