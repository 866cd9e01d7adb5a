"""What a source must be to be noted in the ledger, and how the ledger gives it back.

Knows nothing of how a document is taken in.
"""

from __future__ import annotations

import json

from factform.ids import canonical_json
from factform.records import Source


def normal(source: Source) -> Source:
    """A source as the ledger gives it back: no bytes, metadata as JSON has it, access labels in a tuple."""
    metadata = json.loads(canonical_json(dict(source.metadata)))
    return Source(source.document, b"", source.name, source.media_type, source.title, metadata, tuple(source.access))


def unstorable(source: Source) -> str | None:
    """Why a source cannot even be noted in the ledger, or None."""
    if not source.document:
        return "its document id is empty; give it one"
    words = (source.document, source.name, source.title or "", source.media_type or "", *source.access)
    try:
        if not all(valid_unicode(word) for word in (*words, canonical_json(dict(source.metadata)))):
            return "its id, name, title, access labels or metadata are not valid Unicode; rename it"
    except (TypeError, ValueError) as error:
        return f"its metadata cannot be written as JSON: {error}"
    return None


def valid_unicode(text: str) -> bool:
    """Whether SQLite and Arrow can hold a text: no lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
