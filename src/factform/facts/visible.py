"""What of the index one search may see.

Knows nothing of how rows are stored or where the labels and documents come from.
"""

from __future__ import annotations

from dataclasses import dataclass

from factform.ids import sha256_text


@dataclass(frozen=True)
class Visible:
    """A row is seen if it passes both. What is not seen changes neither the ids nor the scores of what is.

    `labels` are the reader's: a row without labels is everybody's, any other needs one of them; None sees every row.
    `documents` are ids of the documents to look in; None looks in all.
    """

    labels: frozenset[str] | None = None
    documents: frozenset[str] | None = None


EVERYTHING = Visible()


def document_key(document: str) -> str:
    """What predicates say instead of a document id: hexadecimal, so nothing to escape and nothing to read.

    The predicate of a delete stays in Lance's transaction files, where a name or an address must not be left behind.
    """
    return sha256_text(document)[:32]
