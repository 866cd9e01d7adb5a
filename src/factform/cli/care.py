"""Verbs of whoever looks after a project.

Knows nothing of how damage is found or mended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from factform.cli import show
from factform.cli.options import HERE, JsonOption, ProjectOption
from factform.cli.run import FAILED, emit, opened

if TYPE_CHECKING:
    from rich.console import Console


def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Leave out what reads every byte.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended first.")] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> int:
    """Check store, index, records, adapters and behaviors. The exit code is 1 if problems are left.

    Example: factform doctor --repair
    """
    with opened(project, as_json) as p:
        found = p.doctor(quick=quick, repair=repair)
    emit(found, as_json, lambda console: health(console, found))
    return FAILED if found["problems"] else 0


def health(console: Console, found: Mapping[str, Any]) -> None:
    apart = ("problems", "checks", "repaired", "kv")
    show.mapping(console, {name: value for name, value in found.items() if name not in apart and value is not None})
    if found["kv"]:
        show.encoded(console, found["kv"])
    for check in found["checks"]:
        number = f" ({check['count']:,})" if check["count"] else ""
        console.print(f"{check['status']:8} {check['name']}{number}: {show.plain(check['message'])}")
    for action in found["repaired"]:
        where = f"{action['document']}: " if action["document"] else ""
        console.print(f"repaired {show.plain(where + action['what'])}")
    for problem in found["problems"]:
        console.print(f"problem: {show.plain(problem)}")
    console.print("no problems" if not found["problems"] else f"{len(found['problems'])} problem(s)")
