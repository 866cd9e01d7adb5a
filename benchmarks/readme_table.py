"""The tables of README.md, written from committed reports: `python benchmarks/readme_table.py`.

Knows nothing of how the numbers were measured. `make demo` writes demo/report.json; copied to
benchmarks/results/demo-report.json it becomes the 2x2. speed.py and the benchmarks of the data layer write their
reports themselves; of the latter those that are there are told. `--check` only says whether README.md is up to date.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import facts_table
from harness.table import goals, notes

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"

Cell = Mapping[str, float]


def percent(cell: Cell) -> str:
    """A rate with its interval in percent and its n: `87.5 % [74, 95] n=40`."""
    value, low, high = (100 * cell[key] for key in ("value", "low", "high"))
    return f"{value:.1f} % [{low:.0f}, {high:.0f}] n={cell['n']:.0f}"


def number(cell: Cell) -> str:
    """A mean or median with its interval and its n: `812 [798, 826] n=40`."""
    return f"{cell['value']:,.0f} [{cell['low']:,.0f}, {cell['high']:,.0f}] n={cell['n']:.0f}"


ROWS: tuple[tuple[str, str, Callable[[Cell], str]], ...] = (
    ("valid", "in contract without the mask", percent),
    ("field_accuracy", "fields right", percent),
    ("grounded", "answers fully grounded", percent),
    ("quote_precision", "quotes verbatim and supporting", percent),
    ("refusal", "unanswerable refused", percent),
    ("false_refusal", "answerable refused", percent),
    ("prompt_tokens", "prompt tokens, mean", number),
    ("ms", "ms an answer, median", number),
)
"""Metric in the report, its name for people, and how it is written."""


def block(report: Mapping[str, Any]) -> str:
    """The Markdown between the two marks: arms across, metrics down, then what it was measured on."""
    arms = report["arms"]
    lines = [f"| | {' | '.join(f'`{arm}`' for arm in arms)} |", f"|---|{'---:|' * len(arms)}"]
    for metric, label, write in ROWS:
        cells = [write(arm[metric]) if arm.get(metric) else "–" for arm in arms.values()]
        if any(cell != "–" for cell in cells):
            lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_notes(report)])


def speed_block(report: Mapping[str, Any]) -> str:
    """The Markdown of what the speed benchmark asks and what was reached."""
    return f"{goals(report['goals'])}\n\n{notes(report)}"


TABLES: tuple[tuple[str, str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("demo", "demo-report.json", block),
    ("speed", "speed.json", speed_block),
)
"""Name of a table's marks, its report, and what makes the one of the other."""

FACTS = "facts"
"""Name of the marks of the tables of the data layer."""


def marks(name: str) -> tuple[str, str]:
    """What stands before and behind the table called `name`."""
    return f"<!-- {name} table: begin -->", f"<!-- {name} table: end -->"


def replaced(text: str, table: str, name: str = "demo") -> str:
    """`text` with everything between the marks of `name` replaced. ValueError where they do not stand there once."""
    begin, end = marks(name)
    if (text.count(begin), text.count(end)) != (1, 1) or text.index(begin) > text.index(end):
        raise ValueError(f"{begin!r} and {end!r} must stand once each, in this order")
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{table}\n\n{end}{rest.split(end)[1]}"


def written(text: str) -> str:
    """`text` with every table made from its report."""
    for name, report, make in TABLES:
        text = replaced(text, make(json.loads((RESULTS / report).read_text("utf-8"))), name)
    return replaced(text, facts_table.block(facts()), FACTS)


def facts() -> dict[str, Any]:
    """Those reports of the data layer that there are, by file."""
    files = [file for file, _ in facts_table.ROWS if (RESULTS / file).is_file()]
    return {file: json.loads((RESULTS / file).read_text("utf-8")) for file in files}


def _notes(report: Mapping[str, Any]) -> list[str]:
    """Where the numbers come from; what the report does not say is left out."""
    place, update, tuning = report.get("environment", {}), report.get("update", {}), report.get("tuning", {})
    sentences = [f"{report['n']} held-out cases, 95 % intervals in brackets, seed {report['seed']}."]
    if place:
        commit = f", commit {place['commit'][:12]}" if place.get("commit") else ""
        machine = report.get("machine", {})
        dtype = ", weights in 8 bit" if machine.get("native") else f", {machine['dtype']}" if machine else ""
        sentences.append(f"Measured {place['time'][:10]} on {place['cores']} cores of {place['cpu']}{dtype}{commit}.")
    if "seconds" in report:
        trained = f", {tuning['seconds']['train']:,.0f} s of it training {tuning['rows']} rows" if tuning else ""
        sentences.append(f"The whole demo took {sum(report['seconds'].values()):,.0f} s{trained}.")
    if update:
        sentences.append(
            f"A changed document was searchable {update['save_to_searchable_ms']:,.0f} ms after saving and answered "
            f"from after {update['save_to_answered_ms']:,.0f} ms (right: {'yes' if update['after_right'] else 'no'})."
        )
    return sentences


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the README is out of date")
    options = parser.parse_args(arguments)
    if missing := [report for _, report, _ in TABLES if not (RESULTS / report).is_file()]:
        print(f"not in {RESULTS.relative_to(ROOT)}: {', '.join(missing)}", file=sys.stderr)
        return 1
    present = README.read_text("utf-8")
    wanted = written(present)
    if options.check:
        print("up to date" if wanted == present else "README.md is out of date: run benchmarks/readme_table.py")
        return int(wanted != present)
    README.write_text(wanted, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
