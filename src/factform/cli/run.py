"""Run one verb from end to end: its errors become exit codes and messages, its result JSON or text.

Knows nothing of any verb. In JSON mode stdout holds exactly one JSON value; all else goes to stderr.

    0  done                                 70  a fault in Factform itself
    1  an error, or documents that failed   130 interrupted
    2  wrong usage                          141 whoever read the output went away
    3  the gate's verdict is not "promote"
"""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from factform.errors import BehaviorError, FactformError

if TYPE_CHECKING:
    from rich.console import Console

    from factform.project import Project

FAILED, USAGE, NOT_PROMOTED, FAULT, INTERRUPTED, BROKEN_PIPE = 1, 2, 3, 70, 130, 141

PIPED_WIDTH = 140
"""Columns of tables where stdout is not a terminal."""

RESUME = {
    "add": "documents already acknowledged are kept; run the same command again, it skips what is unchanged",
    "sync": "what was done is kept; run the same command again, it does the rest",
    "prune": "what was begun is finished when the documents are next opened",
    "tune": "the last checkpoint is kept; run the same command again, it goes on from there",
    "index": "the index in use is untouched; run the same command again (with --background it goes on from there)",
    "models": "what was fetched completely is kept; run the same command again",
}


def run(arguments: Sequence[str]) -> int:
    """The exit code of `factform` with these arguments."""
    from factform.cli.app import build

    _make_streams_lenient()
    words = list(arguments)
    as_json = "--json" in words[: words.index("--") if "--" in words else None]
    try:
        code = build()(words, prog_name="factform", standalone_mode=False)
        if code == INTERRUPTED:  # what typer makes of Ctrl-C inside a verb
            raise KeyboardInterrupt
        sys.stdout.flush()
        return int(code or 0)
    except KeyboardInterrupt:
        verb = next((word for word in words if not word.startswith("-")), "")
        what = RESUME.get(verb, "nothing was left half done; run the same command again")
        return _fail(INTERRUPTED, "Interrupted", f"interrupted: {what}", as_json)
    except FactformError as error:
        problems = {"problems": list(error.problems)} if isinstance(error, BehaviorError) else {}
        return _fail(FAILED, type(error).__name__, str(error), as_json, problems)
    except BrokenPipeError:
        # Python flushes stdout once more at exit and would complain: give it a place that takes everything.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if hasattr(error, "format_message"):  # typer's usage errors, whichever package it takes them from
            return _misused(error, as_json)
        return _fail(FAULT, type(error).__name__, _fault(error), as_json)


@contextmanager
def opened(folder: Path, as_json: bool) -> Iterator[Project]:
    """The project in `folder`, reporting progress on stderr, closed at the end of the block."""
    from factform.cli.progress import reporter
    from factform.project import Project

    with reporter(quiet=as_json) as report, Project.open(folder, report) as project:
        yield project
        if project.resumed:
            said = project.resumed
            sys.stderr.write(f"an erasure that was interrupted is finished now: {said.files} stored files deleted\n")
        if project.not_erased:
            sys.stderr.write(f"an erasure is not finished: {project.not_erased}\n")
        if project.not_pruned:
            sys.stderr.write(f"a pruning is not finished: {project.not_pruned}\n")


def emit(value: Any, as_json: bool, show: Callable[[Console], None]) -> None:
    """Print the result: `value` as JSON, or whatever `show` writes for people."""
    if as_json:
        print_json(value)
    else:
        show(console())


def print_json(value: Any) -> None:
    """One JSON value on stdout. ASCII only, so that no locale and no odd character can break it."""
    from factform.records import as_json

    sys.stdout.write(json.dumps(as_json(value), indent=2, allow_nan=False) + "\n")


def console() -> Console:
    """stdout for people. Markup is off: a document that says "[red]" is shown as it is."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else PIPED_WIDTH
    return Console(file=sys.stdout, markup=False, highlight=False, emoji=False, width=width)


def _fail(code: int, kind: str, message: str, as_json: bool, more: dict[str, Any] | None = None) -> int:
    with suppress(OSError):
        sys.stderr.write(f"error: {message}\n" if code != INTERRUPTED else f"{message}\n")
        if as_json:
            print_json({"error": {"type": kind, "message": message, **(more or {})}})
        sys.stdout.flush()
    return code


def _misused(error: Any, as_json: bool) -> int:
    error.show()
    if as_json:
        print_json({"error": {"type": "UsageError", "message": error.format_message()}})
    return USAGE


def _fault(error: Exception) -> str:
    """A fault by its type and place. Its message stays away: it may hold text of a document."""
    if os.environ.get("FACTFORM_DEBUG") == "1":
        sys.stderr.write("".join(traceback.format_exception(error)))
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "factform" in Path(frame.filename).parts]
    place = f" at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
    return f"{type(error).__name__}{place}: a fault in factform; run with FACTFORM_DEBUG=1 for the traceback"


def _make_streams_lenient() -> None:
    """A file name that is not UTF-8, or a terminal that is not, must not turn a message into a fault."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
