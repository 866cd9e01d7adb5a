"""Why a search found what it found, and what fitting it brought, as people read it.

Knows nothing of how candidates are scored: the stages are whatever the hits name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from factform.cli.show import _row, _table, place, plain
from factform.records import Hit, SearchResult

if TYPE_CHECKING:
    from rich.console import Console

    from factform.fitting import FitReport
    from factform.measure.intervals import Interval


def show_explained(console: Console, result: SearchResult) -> None:
    """Hits, then the candidates that are none; behind each score its place among all candidates."""
    every = [*result.hits, *result.dropped]
    stages = list(dict.fromkeys(stage for hit in every for stage in hit.scores))
    table = _table("#place", "passage", *[f"#{stage}" for stage in stages], "kept", "why")
    for hit in every:
        c = hit.chunk
        where = place(c.document, c.page, c.start, c.end)
        cells = [_cell(hit, stage) for stage in stages]
        _row(table, str(hit.rank), where, *cells, "kept" if hit.kept else "dropped", hit.reason)
    console.print(table)
    told = ", ".join(f"{name} {value}" for name, value in result.ranking.items())
    console.print(f"{len(result.hits)} of {len(every)} candidates in {result.ms['total']:,.0f} ms; {plain(told)}")
    for note in result.notes:
        console.print(plain(note))


def _cell(hit: Hit, stage: str) -> str:
    if stage not in hit.scores:
        return ""
    rank = hit.ranks.get(stage)
    return f"{hit.scores[stage]:.3f}" + (f" ({rank})" if rank else "")


def show_fit(console: Console, found: FitReport, applied: bool) -> None:
    """What is set beside what was fitted, on cases held out, and what follows from it."""
    told = f"word_weight {found.fitted.word_weight:g}, rerank_depth {found.fitted.depth}"
    console.print(f"fitted on {found.n} cases ({found.skipped} skipped), {found.folds} folds: {told}")
    console.print(f"nDCG@10 as set {_interval(found.default)}, fitted and held out {_interval(found.held_out)}")
    console.print(f"difference {_interval(found.difference)}")
    if not found.better:
        console.print("The default is as good: nothing to change.")
    elif applied:
        console.print("Written to factform.toml, section facts.")
    else:
        console.print("Better: repeat with --apply to write it to factform.toml.")


def _interval(found: Interval) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
