"""Why a search found what it found, as people read it: a row for each candidate.

Knows nothing of how candidates are scored: the stages are whatever the hits name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from factform.cli.show import _row, _table, place, plain
from factform.records import Hit, SearchResult

if TYPE_CHECKING:
    from rich.console import Console


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
