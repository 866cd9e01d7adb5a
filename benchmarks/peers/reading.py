"""What both pipelines are told when a few words are wanted, and questions put to one of them.

Knows nothing of how either builds a prompt.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

SHORT = (
    "Answer the question with as few words as possible, copied from the passages. "
    "If the passages do not hold the answer, reply: unanswerable"
)


def replies(questions: Sequence[dict[str, Any]], ask: Callable[[str, list[str]], str]) -> list[str]:
    """The reply to every question, given its passages."""
    found = []
    for number, each in enumerate(questions, 1):
        found.append(ask(each["question"], each["passages"]))
        if number % 10 == 0:
            print(f"{number}/{len(questions)}", file=sys.stderr, flush=True)
    return found
