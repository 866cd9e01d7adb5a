"""Verbs about behaviors and their adapters.

Knows nothing of training or of what a verdict rests on.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from factform import records
from factform.cli import show
from factform.cli.explain import show_fit
from factform.cli.options import HERE, AdapterOption, BehaviorArgument, JsonOption, ProjectOption
from factform.cli.run import FAILED, NOT_PROMOTED, emit, opened
from factform.errors import BehaviorError
from factform.records import AdapterInfo, Behavior

if TYPE_CHECKING:
    from factform.project import Project


def tune(
    name: BehaviorArgument,
    steps: Annotated[int, typer.Option("--steps", metavar="N", min=0, help="Steps (0: as --epochs says).")] = 0,
    epochs: Annotated[float, typer.Option("--epochs", metavar="X", min=0, help="Passes (0: as in factform.toml).")] = 0,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Seed (default: as in factform.toml).")
    ] = None,
    cases: Annotated[
        Path | None,
        typer.Option("--cases", metavar="FILE", help="With the name retrieval: cases to fit the search on."),
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Write fitted values to factform.toml if better.")] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Train an adapter on a behavior's examples and register it. Promoting it is another step.

    Interrupted, the same command goes on from the last checkpoint. `tune retrieval --cases FILE` fits the words' weight
    and the depth of reranking instead, and says on held-out cases whether that is better than what is set.

    Example: factform tune desk --epochs 2
    """
    if cases is not None:
        _tune_retrieval(name, cases, apply, seed or 0, project, as_json)
        return
    if apply:
        raise typer.BadParameter("it belongs to `factform tune retrieval --cases FILE`", param_hint="--apply")
    with opened(project, as_json) as p:
        report = p.tune(name, steps=steps, epochs=epochs, seed=seed)
    value = {**records.as_json(report), "adapter": adapter_json(report.adapter)}
    emit(value, as_json, lambda console: show.tuned(console, report))


def _tune_retrieval(name: str, cases: Path, apply: bool, seed: int, project: Path, as_json: bool) -> None:
    if name != "retrieval":
        raise typer.BadParameter("it belongs to `factform tune retrieval`", param_hint="--cases")
    with opened(project, as_json) as p:
        report = p.tune_retrieval(cases, apply=apply, seed=seed)
    applied = apply and report.better
    emit({**report.as_json(), "applied": applied}, as_json, lambda console: show_fit(console, report, applied))


def gate(
    name: BehaviorArgument, adapter: AdapterOption = "", project: ProjectOption = HERE, as_json: JsonOption = False
) -> int:
    """Compare an adapter with the prompted base on held-out examples; the verdict is kept.

    The exit code is 0 for the verdict "promote" and 3 for any other.

    Example: factform gate desk
    """
    with opened(project, as_json) as p:
        info, verdict, report = p.gate(name, adapter or None)
    numbers = report.as_json()
    value = {"adapter": adapter_json(info), **records.as_json(verdict), "n": numbers["n"], "arms": numbers["arms"]}
    emit(value, as_json, lambda console: show.verdict(console, info, verdict, report))
    return 0 if verdict.passed else NOT_PROMOTED


def promote(
    name: BehaviorArgument,
    adapter: AdapterOption = "",
    force: Annotated[bool, typer.Option("--force", help="Overrule the gate; needs --reason.")] = False,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why the gate is overruled; kept.")] = "",
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Let a behavior use an adapter that its gate passed.

    Example: factform promote desk
    """
    with opened(project, as_json) as p:
        info = p.promote(name, adapter or None, force=force, reason=reason)
    emit(adapter_json(info), as_json, lambda console: show.in_use(console, info))


def rollback(name: BehaviorArgument, project: ProjectOption = HERE, as_json: JsonOption = False) -> None:
    """Let a behavior use the adapter it used before.

    Example: factform rollback desk
    """
    with opened(project, as_json) as p:
        info = p.rollback(name)
    emit(adapter_json(info), as_json, lambda console: show.in_use(console, info))


def adapters(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Only those of this behavior.")] = "",
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """List registered adapters.

    Example: factform adapters desk
    """
    with opened(project, as_json) as p:
        found = p.adapters(name or None)
    emit([adapter_json(info) for info in found], as_json, lambda console: show.adapters(console, found))


def list_(project: ProjectOption = HERE, as_json: JsonOption = False) -> None:
    """List the behaviors, those with problems too.

    Example: factform behaviors list
    """
    with opened(project, as_json) as p:
        found = [_outline(p, name) for name in p.behaviors()]
    emit(found, as_json, lambda console: show.behaviors(console, found))


def check(name: BehaviorArgument, project: ProjectOption = HERE, as_json: JsonOption = False) -> int:
    """Check a behavior folder: every problem with file, line and field. The exit code is 1 if there is one.

    Example: factform behaviors check desk
    """
    with opened(project, as_json) as p:
        found = _outline(p, name)
    emit(found, as_json, lambda console: show.behavior(console, found))
    return FAILED if found["problems"] else 0


def new(name: BehaviorArgument, project: ProjectOption = HERE, as_json: JsonOption = False) -> None:
    """Write a small valid behavior as a place to start from.

    Example: factform behaviors new desk
    """
    from factform.form.behavior import init_behavior

    with opened(project, as_json) as p:
        init_behavior(p.folder / "behaviors", name)
        found = _outline(p, name)
    emit(found, as_json, lambda console: show.behavior(console, found))


def adapter_json(info: AdapterInfo) -> dict[str, Any]:
    """An adapter with its name."""
    return {"name": info.name, **records.as_json(info)}


def _outline(project: Project, name: str) -> dict[str, Any]:
    """A behavior in a few values; what is wrong with it under "problems"."""
    read: Behavior | None = None
    try:
        read, problems = project.behavior(name), []
    except BehaviorError as error:
        problems = list(error.problems)
    used = next((info.name for info in project.adapters() if info.behavior == name and info.promoted), None)
    return {
        "name": name,
        "description": read.description if read else None,
        "examples": len(read.examples) if read else None,
        "cases": len(read.cases) if read else None,
        "passages": read.passages if read else None,
        "max_tokens": read.max_tokens if read else None,
        "digest": read.digest if read else None,
        "promoted": used,
        "problems": problems,
    }
