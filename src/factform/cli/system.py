"""Verbs about models and versions.

Knows nothing of documents or answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from factform import records
from factform.cli import show
from factform.cli.options import HERE, JsonOption, ProjectOption
from factform.cli.progress import reporter
from factform.cli.run import emit


def list_(project: ProjectOption = HERE, as_json: JsonOption = False) -> None:
    """List the models Factform knows by name and those in the cache.

    Example: factform models list
    """
    from factform.model.fetch import KNOWN, list_models

    cached = [{**records.as_json(model), "folder": str(model.folder), "cached": True} for model in list_models()]
    present = {model["name"] for model in cached}
    missing = [
        {"name": m.name, "folder": None, "size": None, "digest": None, "revision": m.revision, "cached": False}
        for m in KNOWN.values()
        if m.name not in present
    ]
    found = [*cached, *missing]
    emit(found, as_json, lambda console: show.models(console, found))


def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL…]", help="Names, Hugging Face ids or folders.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read every file again and compare digests.")] = False,
    project: ProjectOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Fetch models into the cache; without names, those of the project (or the defaults).

    Example: factform models fetch --verify
    """
    from factform.model.fetch import fetch_model

    found = []
    with reporter(quiet=as_json) as report:
        for name in names or _models_of(project):
            files = fetch_model(name, progress=lambda what, done, of: report("fetch", done, of, what), verify=verify)
            found.append(
                {"name": name, "folder": str(files.folder), "digest": files.digest, "revision": files.revision}
            )
    emit(found, as_json, lambda console: show.fetched(console, found))


def version(project: ProjectOption = HERE, as_json: JsonOption = False) -> None:
    """Print the versions of Factform, Python and the packages that can change an answer.

    Example: factform version --json
    """
    from factform.audit.record import versions

    found: dict[str, Any] = dict(versions())
    emit(found, as_json, lambda console: show.versions(console, found))


def _models_of(project: Path) -> tuple[str, ...]:
    from factform.settings import FILE, Settings, load_settings

    section = (load_settings(project.absolute()) if (project / FILE).is_file() else Settings()).model
    return (section.embedder,) if section.url else (section.language, section.embedder)
