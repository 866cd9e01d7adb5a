"""Results as people read them: tables and a few plain lines.

Knows nothing of verbs. rich is imported when something is printed, so that `--help` does not wait for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from factform.records import AdapterInfo, Answer, Change, Citation, Receipt, SearchResult

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from factform.facts.store import DocumentInfo
    from factform.form.gate import Verdict
    from factform.measure.evaluate import AnswersReport
    from factform.tuning import TuneReport

SHOWN_TEXT = 400
"""Characters of a passage in a list of hits."""

PLACES = ("page", "slide", "sheet", "row", "line", "cell", "chapter", "attachment", "pointer")
NOWHERE: Mapping[str, Any] = MappingProxyType({})

_CONTROL = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def plain(text: object) -> str:
    """`text` without control characters: a document must not be able to steer the reader's terminal."""
    return str(text).translate(_CONTROL)


# --- facts ----------------------------------------------------------------------------------


def made_project(console: Console, folder: str) -> None:
    console.print(f"Made a project in {plain(folder)}. Next: factform add DOCUMENTS --project {plain(folder)}")


def receipts(console: Console, found: Sequence[Receipt], seconds: float) -> None:
    """A row for each document, then totals."""
    if found:
        table = _table("status", "document", "version", "#chunks", "#ms to visible", "error or note")
        for r in found:
            ms = "" if r.visible_ms is None else f"{r.visible_ms:,.0f}"
            _row(table, r.status, r.document, r.version or "", r.chunks, ms, r.error or r.note or "")
        console.print(table)
    counts = {status: sum(r.status == status for r in found) for status in dict.fromkeys(r.status for r in found)}
    parts = ", ".join(f"{number} {status}" for status, number in counts.items()) or "nothing"
    console.print(f"{len(found)} documents: {parts}; {sum(r.chunks for r in found)} chunks; {seconds:.1f} s")


def changes(console: Console, found: Sequence[Change], seconds: float, *, dry_run: bool) -> None:
    """A row for each document that is not as it was, then totals."""
    table = _table("action", "document", "version", "#chunks", "#ms to visible", "error")
    shown = [c for c in found if c.action != "unchanged"]
    for c in shown:
        ms = "" if c.visible_ms is None else f"{c.visible_ms:,.0f}"
        _row(table, c.action, _renamed(c), c.version or "", c.chunks or "", ms, c.error or "")
    if shown:
        console.print(table)
    counts = {action: sum(c.action == action for c in found) for action in dict.fromkeys(c.action for c in found)}
    parts = ", ".join(f"{number} {action}" for action, number in counts.items()) or "nothing"
    nothing = "; a dry run: nothing was changed" if dry_run else ""
    console.print(f"{len(found)} documents: {parts}; {seconds:.1f} s{nothing}")


def change(console: Console, c: Change, at: str) -> None:
    """One line."""
    ms = "" if c.visible_ms is None else f"  {c.chunks} chunks, visible after {c.visible_ms:,.0f} ms"
    console.print(f"{at} {c.action:<9} {plain(_renamed(c))}{ms}{f'  {plain(c.error)}' if c.error else ''}")


def _renamed(c: Change) -> str:
    return f"{c.renamed_from} -> {c.document}" if c.renamed_from else c.document


def documents(console: Console, found: Sequence[DocumentInfo]) -> None:
    table = _table("document", "title", "version", "#chunks", "since")
    for d in found:
        _row(table, d.document, d.title or "", d.version, d.chunks, d.indexed_at or "")
    if found:
        console.print(table)
    console.print(f"{len(found)} documents")


def hits(console: Console, result: SearchResult) -> None:
    """Each hit with its place, score and text."""
    for hit in result.hits:
        c = hit.chunk
        console.print(f"{hit.rank}. {plain(place(c.document, c.page, c.start, c.end))}  score {hit.score:.3f}")
        if c.header:
            console.print(f"   {plain(c.header)}")
        text = c.text if len(c.text) <= SHOWN_TEXT else f"{c.text[:SHOWN_TEXT]}…"
        console.print("   " + plain(text).replace("\n", "\n   ") + "\n")
    notes(console, result.notes)
    past = f" as of point {result.point}" if result.point is not None else ""
    console.print(f"{len(result.hits)} passages{past} in {_ms(result.ms, 'total')}")


def notes(console: Console, found: Sequence[str]) -> None:
    for note in found:
        console.print(f"note: {plain(note)}")


def place(document: str, page: int | None, start: int, end: int, within: Mapping[str, Any] = NOWHERE) -> str:
    """Where a span stands, in one line."""
    names = {"page": page} if page is not None else {}
    names |= {kind: within[kind] for kind in PLACES if kind in within}
    where = "".join(f" · {kind} {value}" for kind, value in names.items())
    return f"{document}{where} · [{start}, {end})"


def rebuilt(console: Console, report: Mapping[str, Any]) -> None:
    for item in report["failed"]:
        console.print(f"failed: {plain(item['document'])}: {plain(item['error'])}")
    if report["changed"]:
        console.print(f"{len(report['changed'])} documents read differently from before")
    console.print(f"{report['documents']} documents, {report['chunks']} chunks in {report['seconds']:.1f} s")


# --- answers --------------------------------------------------------------------------------


def answer(console: Console, found: Answer) -> None:
    """The answer, where each quote stands, the record, and what it cost."""
    if found.status == "answered":
        console.print(plain(json.dumps(found.answer, indent=2, ensure_ascii=False)))
    else:
        console.print(f"{'not in the documents' if found.status == 'not_in_documents' else 'refused'}: ", end="")
        console.print(plain(found.reason))
    for number, citation in enumerate(found.citations, 1):
        _citation(console, number, citation)
    notes(console, found.notes)
    form = f" · {found.behavior}" if found.behavior else ""
    if found.confidence is not None:
        console.print(f"right with a probability of {found.confidence:.0%}")
    console.print(f"record {found.record} · {found.model}{form} · {found.adapter or 'no adapter'} · {found.mode}")
    times = " · ".join(f"{name.replace('_', ' ')} {_ms(found.ms, name)}" for name in found.ms)
    console.print(f"{found.prompt_tokens} prompt tokens · {found.completion_tokens} written · {times}")


def _citation(console: Console, number: int, c: Citation) -> None:
    checked = "verified" if c.verified else "NOT VERIFIED"
    where = place(c.document, c.page, c.start, c.end, c.place)
    console.print(f"{number}. {plain(where)} · version {c.version} · {checked}")
    console.print(f"   “{plain(c.quote)}”")


# --- form -----------------------------------------------------------------------------------


def tuned(console: Console, report: TuneReport) -> None:
    rows = ", ".join(f"{number} {origin}" for origin, number in report.rows_by_origin.items() if number)
    console.print(f"{report.adapter.name}: {report.rows} rows ({rows}), {len(report.refused)} refused")
    for item in report.refused[:5]:
        console.print(f"  refused {plain(item['row'])}: {plain(item['kind'])}: {plain(item['detail'])}")
    begun = f" (gone on from step {report.begun})" if report.begun else ""
    console.print(
        f"{report.steps} steps{begun}, the best {report.best_step}; "
        f"loss {report.first_loss:.3f} to {report.last_loss:.3f}; "
        f"{report.seconds['total']:.0f} s, {report.tokens_per_s:,.0f} tokens/s"
    )
    for check in report.checks:
        console.print(f"  step {check.step}: held-out valid {check.valid:.0%}, right {check.score:.0%} (n={check.n})")
    limit = report.refusal
    if limit.below:
        console.print(
            f"refuses where the passages hold the answer with a probability below {limit.below:.2f}: "
            f"{limit.refused:.0%} of {limit.unanswerable} unanswerable examples, "
            f"{limit.false_refused:.0%} of {limit.answerable} others"
        )
    console.print(f"Next: factform gate {report.adapter.behavior}")


def verdict(console: Console, info: AdapterInfo, found: Verdict, report: AnswersReport) -> None:
    from factform.measure.report import print_answers

    print_answers(console, report)
    for reason in found.reasons:
        console.print(f"- {reason}")
    console.print(f"{info.name}: {found.decision.replace('_', ' ')}")
    if found.passed:
        console.print(f"Next: factform promote {info.behavior}")


def in_use(console: Console, info: AdapterInfo) -> None:
    console.print(f"behavior {info.behavior} now uses {info.name}")


def adapters(console: Console, found: Sequence[AdapterInfo]) -> None:
    table = _table("adapter", "behavior", "base", "created", "promoted")
    for info in found:
        _row(table, info.name, info.behavior, info.base[:12], info.created, "yes" if info.promoted else "")
    console.print(table if found else "no adapters yet: factform tune NAME")


def behaviors(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    table = _table("behavior", "#examples", "#cases", "promoted", "problems")
    for b in found:
        problems = f"{len(b['problems'])}: factform behaviors check {b['name']}" if b["problems"] else ""
        _row(table, b["name"], b["examples"], b["cases"], b["promoted"] or "", problems)
    console.print(table if found else "no behaviors yet: factform behaviors new NAME")


def behavior(console: Console, found: Mapping[str, Any]) -> None:
    if not found["problems"]:
        console.print(f"{found['name']}: {found['examples']} examples, {found['cases']} cases, no problems")
    for problem in found["problems"]:
        console.print(plain(problem))


# --- records, models, health ----------------------------------------------------------------


def records(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    table = _table("record", "time", "status", "who", "question")
    for r in found:
        _row(table, r["id"], r["time"], r["status"], r["principal"] or "", r["question"] or "")
    console.print(table if found else "no records yet: factform ask QUESTION")


def record(console: Console, found: Mapping[str, Any]) -> None:
    """Everything but the candidates as readable JSON, the candidates as a table."""
    rest = {name: value for name, value in found.items() if name != "candidates"}
    console.print(plain(json.dumps(rest, indent=2, ensure_ascii=False)))
    table = _table("#rank", "document", "span", "#score", "kept", "why")
    for c in found["candidates"]:
        kept = "kept" if c["kept"] else "dropped"
        _row(table, c["rank"], c["document"], f"[{c['start']}, {c['end']})", f"{c['score']:.3f}", kept, c["reason"])
    console.print(table)


def verified(console: Console, found: Mapping[str, Any]) -> None:
    for problem in found["problems"]:
        console.print(plain(problem))
    if not found["problems"]:
        console.print(f"{found['records']} records, no problem; head {found['head']}")


def models(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    table = _table("model", "origin", "#MB", "folder")
    for m in found:
        size = f"{m['size'] / 1e6:,.0f}" if m["cached"] else ""
        _row(table, m["name"], m["revision"], size, m["folder"] or "not fetched yet")
    console.print(table)


def fetched(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    for m in found:
        console.print(f"{plain(m['name'])}: {plain(m['folder'])}, digest {m['digest'][:16]}, from {m['revision']}")


def encoded(console: Console, found: Mapping[str, Any]) -> None:
    """What the cache of encoded passages holds, how often it helped and what that saved."""
    console.print(f"encoded passages, in {found['stored']}:")
    for tier in ("memory", "disk"):
        held = found[tier]
        blocks = "no model is open here" if held["entries"] is None else f"{held['entries']} blocks"
        console.print(f"  {tier}: {blocks}, {(held['bytes'] or 0) / 1e6:,.1f} of {held['budget'] / 1e6:,.0f} MB")
    counts = found["counts"]
    if counts["hit_rate"] is not None:
        tokens = counts["reused_tokens"] + counts["encoded_tokens"]
        saved = "" if counts["saved_s"] is None else f", about {counts['saved_s']:,.1f} s saved"
        console.print(f"  so far: {counts['hit_rate']:.0%} of {tokens:,} tokens needed no encoding{saved}")
    if counts["damaged"]:
        console.print(f"  {counts['damaged']} files were damaged and made anew")


def versions(console: Console, found: Mapping[str, Any]) -> None:
    packages = ", ".join(f"{name} {number}" for name, number in found["packages"].items())
    console.print(f"factform {found['factform']}, Python {found['python']}; {packages}")


def mapping(console: Console, found: Mapping[str, Any], indent: str = "") -> None:
    """Names and values, one a line; a value that is itself a mapping below its name."""
    for name, value in found.items():
        if isinstance(value, Mapping):
            console.print(f"{indent}{name}:")
            mapping(console, value, indent + "  ")
        else:
            shown = ", ".join(map(str, value)) or "none" if isinstance(value, list | tuple) else value
            console.print(f"{indent}{name}: {plain(shown)}")


# --- inside ---------------------------------------------------------------------------------


def _table(*columns: str) -> Table:
    """A table; columns whose name begins with # hold numbers. Cells wrap and are never cut off."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name.removeprefix("#"), justify="right" if name.startswith("#") else "left", overflow="fold")
    return table


def _row(table: Table, *cells: object) -> None:
    table.add_row(*("" if cell is None else plain(cell) for cell in cells))


def _ms(ms: Mapping[str, float], name: str) -> str:
    return f"{ms.get(name, 0.0):,.0f} ms"
