"""The verb that answers a question.

Knows nothing of how an answer is made.
"""

from __future__ import annotations

from typing import Annotated

import typer

from factform.cli import show
from factform.cli.options import (
    HERE,
    AsOfOption,
    BehaviorOption,
    JsonOption,
    LabelOption,
    ProjectOption,
    ReadingMode,
    WhereOption,
    WhoOption,
)
from factform.cli.run import emit, opened


def ask(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to answer.", show_default=False)],
    behavior: BehaviorOption = "",
    adapter: Annotated[
        str, typer.Option("--adapter", metavar="ADAPTER", help="An adapter, `promoted`, or `none`: the prompted base.")
    ] = "promoted",
    no_facts: Annotated[bool, typer.Option("--no-facts", help="Ask the model alone, without passages.")] = False,
    mode: Annotated[
        ReadingMode | None, typer.Option("--mode", help="How passages are read (default: reuse with an adapter).")
    ] = None,
    principal: WhoOption = "",
    label: LabelOption = None,
    where: WhereOption = "",
    as_of: AsOfOption = "",
    min_confidence: Annotated[
        float | None,
        typer.Option("--min-confidence", metavar="P", min=0, max=1, help="Refuse what is less likely to be right."),
    ] = None,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Answer a question from the documents, with verbatim quotes and a record.

    Example: factform ask "What is the notice period?" --behavior desk
    """
    with opened(project, as_json) as p:
        answer = p.ask(
            question,
            behavior=behavior or None,
            adapter=None if adapter == "none" else adapter,
            facts=not no_facts,
            mode=mode,
            principal=principal or None,
            labels=label or None,
            where=where,
            as_of=as_of or None,
            min_confidence=min_confidence,
        )
    emit(answer, as_json, lambda console: show.answer(console, answer))
