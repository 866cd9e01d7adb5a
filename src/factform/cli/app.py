"""The verbs, put together in the order in which help lists them.

Knows nothing of what they do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from factform.cli import answers, audit, care, facts, form, numbers, sources, system, versions


def build() -> Callable[..., Any]:
    """The command line as a callable of arguments."""
    return typer.main.get_command(assemble())


def assemble() -> typer.Typer:
    """The typer application."""
    app = _group("Facts from documents, form from the model: retrieval and fine-tuning as one measured system.")
    _verbs(app, facts.init, sources.add, sources.sync, sources.watch, facts.remove, facts.documents)
    _verbs(app, facts.search, answers.ask, versions.history, versions.diff, versions.restore)
    _verbs(app, care.erase, care.prune)
    _verbs(app, form.tune, form.gate, form.promote, form.rollback, form.adapters, care.doctor, system.version)
    _nouns(app, "behaviors", "Behavior folders: list, check, make one.", form.list_, form.check, form.new)
    _nouns(app, "evaluate", "Numbers on your own cases and queries.", numbers.answers, numbers.retrieval)
    _nouns(app, "audit", "The record of every answer.", audit.list_, audit.show, audit.verify)
    _nouns(app, "backup", "The whole project in one checked file, and back.", care.make, care.verify, care.restore)
    _nouns(app, "index", "The search index: rebuild it, or see what it holds.", facts.rebuild, facts.status)
    _nouns(app, "models", "Models on this machine: list, fetch.", system.list_, system.fetch)
    return app


def _nouns(app: typer.Typer, name: str, text: str, *verbs: Callable[..., Any]) -> None:
    group = _group(text)
    _verbs(group, *verbs)
    app.add_typer(group, name=name)


def _verbs(group: typer.Typer, *verbs: Callable[..., Any]) -> None:
    for verb in verbs:
        group.command(verb.__name__.rstrip("_"))(verb)


def _group(text: str) -> typer.Typer:
    return typer.Typer(
        help=text, add_completion=False, rich_markup_mode=None, no_args_is_help=True, pretty_exceptions_enable=False
    )
