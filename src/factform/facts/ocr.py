"""Words in the picture of a page, by the program tesseract where it is installed.

Knows nothing of PDF files or layout. The picture goes in through a pipe and the words come out of one: nothing is
written to disk.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from factform.errors import DocumentError

PROGRAM = "tesseract"
DPI = 300
SECONDS = 120.0
"""For one page; a document has the parser's own limit beside."""
LEAST_CONFIDENCE = 30.0
"""Percent. Below it what tesseract reads is mostly the picture's dirt."""
LANGUAGE = re.compile(r"[A-Za-z0-9_]+(?:\+[A-Za-z0-9_]+)*")


@dataclass(frozen=True)
class Word:
    """A word and its box in pixels from the upper left corner of the picture. Words of a `line` are on one line, those
    of a `paragraph` in one."""

    text: str
    left: int
    top: int
    right: int
    bottom: int
    paragraph: tuple[int, int]
    line: int


def version() -> str | None:
    """The program's version; None where it is not installed or cannot be run."""
    path = shutil.which(PROGRAM)
    if path is None:
        return None
    try:
        done = subprocess.run([path, "--version"], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(rb"tesseract\s+v?(\S+)", done.stdout + done.stderr)
    return found[1].decode("ascii", "replace") if found else None


def recognize(picture: bytes, language: str) -> list[Word]:
    """Words of a PNG or PNM picture in reading order. Raises DocumentError where the program fails."""
    path = shutil.which(PROGRAM)
    if path is None or not LANGUAGE.fullmatch(language):
        raise DocumentError(f"text recognition failed: no program {PROGRAM!r}, or {language!r} is no language of its")
    command = [path, "stdin", "stdout", "-l", language, "--dpi", str(DPI), "tsv"]
    try:
        done = subprocess.run(command, input=picture, capture_output=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise DocumentError(f"text recognition failed: {type(error).__name__}") from error
    if done.returncode:
        reason = done.stderr.decode("utf-8", "replace").strip().split("\n")[0]
        raise DocumentError(f"text recognition failed: {reason[:200] or f'exit code {done.returncode}'}")
    return _words(done.stdout.decode("utf-8", "replace"))


def _words(table: str) -> list[Word]:
    words = []
    for row in table.split("\n")[1:]:
        cells = row.split("\t")
        if len(cells) < 12 or cells[0] != "5" or not cells[11].strip() or float(cells[10]) < LEAST_CONFIDENCE:
            continue
        _, _, block, paragraph, line, _, left, top, width, height = map(int, cells[:10])
        text = "".join(cells[11].split())
        words.append(Word(text, left, top, left + width, top + height, (block, paragraph), line))
    return words


def paragraphs(words: Sequence[Word]) -> list[list[list[Word]]]:
    """Words by paragraph and line."""
    found = []
    for _, of_paragraph in groupby(words, lambda word: word.paragraph):
        found.append([list(of_line) for _, of_line in groupby(of_paragraph, lambda word: word.line)])
    return found
