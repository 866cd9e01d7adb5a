"""Options that every verb has, and the types of those that several share.

Knows nothing of what is done with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

HERE = Path()

ProjectOption = Annotated[
    Path, typer.Option("--project", envvar="FACTFORM_PROJECT", metavar="DIR", help="Folder of the project.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text for people.")]
AdapterOption = Annotated[
    str, typer.Option("--adapter", metavar="ADAPTER", help="Name or digest of an adapter (default: the newest).")
]
BehaviorOption = Annotated[str, typer.Option("--behavior", metavar="NAME", help="Answer as this behavior does.")]
BehaviorArgument = Annotated[str, typer.Argument(metavar="NAME", help="A folder under behaviors/.", show_default=False)]
WhoOption = Annotated[
    str, typer.Option("--as", metavar="WHO", help="Who asks: sees what access.toml gives them, and is in the record.")
]
LabelOption = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="LABEL", help="A label the reader holds, instead of access.toml's."),
]
WhereOption = Annotated[
    str, typer.Option("--where", metavar="FILTER", help='Only documents whose metadata meet it: "year >= 2025".')
]
AsOfOption = Annotated[
    str, typer.Option("--as-of", metavar="MOMENT", help="The documents of a past date, time, or point of `history`.")
]
ReadingMode = Literal["exact", "reuse"]
