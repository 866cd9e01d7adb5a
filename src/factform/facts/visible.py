"""What of the index one search may see.

Knows nothing of how rows are stored or where the labels and documents come from.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Visible:
    """A row is seen if it passes both. What is not seen changes neither the ids nor the scores of what is.

    `labels` are the reader's: a row without labels is everybody's, any other needs one of them; None sees every row.
    `documents` are ids of the documents to look in; None looks in all.
    """

    labels: frozenset[str] | None = None
    documents: frozenset[str] | None = None


EVERYTHING = Visible()
