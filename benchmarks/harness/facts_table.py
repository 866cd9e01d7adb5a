"""The README's tables of the data layer, from whichever reports there are.

Knows nothing of how a figure came about: everything it writes stands in the reports.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.quality import LABELS, cell
from harness.table import number

Report = Mapping[str, Any]
Row = tuple[str, str, str, bool | None]
"""What, what was asked, what was measured, whether that reached it (None: nothing was asked)."""

SHOWN = ("bm25", "dense", "rrf", "convex", "default")
SIZES = (1_000, 10_000, 100_000, 1_000_000)
HYBRID_MS, RERANKED_MS, AT = 12, 80, 100_000
FLAT = 1.2
ASKED_NDCG, ASKED_SET = 0.75, "scifact"


def block(reports: Mapping[str, Report]) -> str:
    """Everything for which there is a report, by the name of its file."""
    parts = [ranking(reports["retrieval_quality.json"])] if "retrieval_quality.json" in reports else []
    rows = [row for file, make in ROWS for row in (make(reports[file]) if file in reports else ())]
    if rows:
        lines = ["| | asked | measured | reached |", "|---|---:|---:|---|"]
        lines += [f"| {what} | {asked} | {got} | {_met(met)} |" for what, asked, got, met in rows]
        parts.append("\n".join(lines))
    notes = [sentence for file, make in NOTES if file in reports for sentence in make(reports[file])]
    return "\n\n".join([*parts, *([" ".join(notes)] if notes else [])])


def ranking(report: Report) -> str:
    """nDCG@10 of the default beside its parts."""
    sets = report["sets"]
    names = [f"{name} (n={one['n']})" for name, one in sets.items()]
    lines = [f"| nDCG@10 | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for arm in SHOWN:
        cells = [cell(one["arms"][arm]["ndcg@10"]) for one in sets.values()]
        lines.append(f"| {LABELS[arm]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def quality(report: Report) -> list[Row]:
    one = report["sets"].get(ASKED_SET)
    if one is None:
        return []
    value = one["arms"]["default"]["ndcg@10"]
    what = f"nDCG@10 on {ASKED_SET}, the default configuration"
    return [(what, f">= {ASKED_NDCG}", cell(value), value["value"] >= ASKED_NDCG)]


def ingest(report: Report) -> list[Row]:
    """Documents a second beside the peers, each in the setting in which it is fastest, and the same chunks."""
    rows: list[Row] = []
    names = {"own": "a peer's documented settings", "best": "a peer's best settings", "same": "the same chunks"}
    for setting, one in report["ratio_to_best_peer"].items():
        asked = f">= {one['asked']:g}x"
        spread = f"{number(one['median'])}x [{number(one['low'])}, {number(one['high'])}]"
        rows.append((f"documents a second: of the best peer's, {names[setting]}", asked, spread, one["met"]))
    share = report["forward_share"]
    measured = f"{share['median']:.0%} [{share['low']:.0%}, {share['high']:.0%}]".replace("%", " %")
    rows.append(
        (
            "bulk load: inside the encoder's forward pass",
            f">= {share['asked']:.0%}".replace("%", " %"),
            measured,
            share["met"],
        )
    )
    return rows


def scale(report: Report) -> list[Row]:
    """Latency by the number of chunks, and how soon another process sees a document saved or removed."""
    rows: list[Row] = []
    for key, what, limit in (
        ("hybrid_ms", "hybrid search", HYBRID_MS),
        ("reranked_ms", "the same reranked", RERANKED_MS),
    ):
        for size in SIZES:
            if (one := report.get(str(size), {}).get(key)) is not None:
                goal = size == AT
                rows.append(
                    (
                        f"{what}, {size:,} chunks, ms p50",
                        f"<= {limit}" if goal else "–",
                        number(one["p50"]),
                        one["p50"] <= limit if goal else None,
                    )
                )
    if fresh := report.get("fresh"):
        saved, gone = fresh["saved_to_seen_by_another_process_ms"], fresh["removed_to_gone_for_another_process_ms"]
        rows += [
            _latency("saved to found by another process", saved, 40, 150),
            _latency("removed to gone for another process", gone, None, 50),
        ]
    return [*rows, *_stream(report["stream"])] if "stream" in report else rows


def _stream(report: Report) -> list[Row]:
    """Searches between updates, of the first and of the last quarter of the looks; without the look before any."""
    looks = [look["search_ms"]["p50"] for look in report["looks"][1:]]
    quarter = max(1, len(looks) // 4)
    first, last = statistics.median(looks[:quarter]), statistics.median(looks[-quarter:])
    what = f"hybrid search, ms p50, at the beginning and at the end of {report['updates']:,} single updates"
    return [(what, f"flat (<= {FLAT:g}x)", f"{number(first)} and {number(last)}", last <= FLAT * first)]


def _latency(what: str, one: Mapping[str, float], p50: float | None, p99: float) -> Row:
    asked = f"<= {p50:g} and <= {p99:g}" if p50 is not None else f"p99 <= {p99:g}"
    met = one["p99"] <= p99 and (p50 is None or one["p50"] <= p50)
    return (f"{what}, ms p50 and p99 (n={one['n']})", asked, f"{number(one['p50'])} and {number(one['p99'])}", met)


def faults(report: Report) -> list[Row]:
    """How often what was broken on purpose, and what the judge found wrong after it."""
    told = {
        "kills": ("kill -9 at random moments", lambda part: part["kills"]),
        "steps": ("kill -9 at named steps", lambda part: part["kills"]),
        "power": ("images after a power cut", lambda part: part["images"]),
        "fsyncs": ("fsyncs that fail and lose their bytes", lambda part: part["fsyncs_failed"]),
        "writers": ("updates by four processes at once", lambda part: part["receipts"]),
    }
    return [
        (
            f"{label}: lost, twice or partly visible",
            "0",
            f"{len(part['violations'])} of {count(part):,}",
            not part["violations"],
        )
        for name, (label, count) in told.items()
        if (part := report.get(name))
    ]


def flips(report: Report) -> list[Row]:
    every = report["all"]
    wrong, named, mattered = every["wrong_citations_verified"], every["mattered_and_named_by_doctor"], every["mattered"]
    broken = every["killed_the_process"] + every["reads_that_crashed"]
    return [
        ("one byte flipped: process ended or read crashed", "0", f"{broken} of {every['flips']:,}", broken == 0),
        ("one byte flipped: wrong citations verified", "0", f"{wrong} of {every['flips']:,}", wrong == 0),
        ("one byte flipped: what mattered and `doctor` named", "all", f"{named} of {mattered}", named == mattered),
    ]


def replay(report: Report) -> list[Row]:
    failed, checks = len(report["failures"]), sum(report["checks"].values())
    what = f"a folder's history of {report['n']:,} events replayed: checks that failed"
    return [(what, "0", f"{failed} of {checks:,}", failed == 0 and report["final_equal"])]


ROWS: Sequence[tuple[str, Callable[[Report], list[Row]]]] = (
    ("retrieval_quality.json", quality),
    ("ingest.json", ingest),
    ("search_scale.json", scale),
    ("faults.json", faults),
    ("flips.json", flips),
    ("replay.json", replay),
)


def _quality_note(report: Report) -> list[str]:
    engines: dict[str, list[str]] = {}
    for name, one in report["sets"].items():
        engines.setdefault(one.get("engine", ""), []).append(name)
    told = [f"{engine} on {', '.join(names)}" for engine, names in engines.items() if engine]
    computed = f", vectors computed in {'; '.join(told)}" if told else ""
    return [f"Ranking: {_place(report['environment'])}{computed}, 95 % intervals in brackets."]


def _ingest_note(report: Report) -> list[str]:
    rates = report["documents_per_second"]
    shown = "; ".join(f"{peer} {number(max(one['median'] for one in by.values()))}" for peer, by in rates.items() if by)
    how = f"Factform computes in {report['engine']} and fsyncs before it acknowledges"
    return [
        f"Documents a second, each at its best, over {report['documents']} abstracts: {shown} "
        f"({_place(report['environment'])}; {how}, the peers compute in fp32 and hold theirs in memory)."
    ]


def _scale_note(report: Report) -> list[str]:
    return [f"Latency: {_place(report['environment'])}."] if any(str(size) in report for size in SIZES) else []


NOTES: Sequence[tuple[str, Callable[[Report], list[str]]]] = (
    ("retrieval_quality.json", _quality_note),
    ("ingest.json", _ingest_note),
    ("search_scale.json", _scale_note),
)


def _place(environment: Report) -> str:
    when = str(environment.get("time") or environment.get("date", ""))[:10]
    commit = f", commit {environment['commit'][:12]}" if environment.get("commit") else ""
    told = environment.get("cpu") or environment.get("processor")
    name = told["processor"] if isinstance(told, Mapping) else told
    return f"{when}, {environment['cores']} cores of {name}{commit}"


def _met(met: bool | None) -> str:
    return {True: "yes", False: "no", None: "–"}[met]
