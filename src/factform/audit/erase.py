"""What records of answers hold of a document, taken out without breaking their chain.

Knows nothing of the log's file. A record whose passages or citations are the document's loses its content; one that
only weighed it among others loses those entries. What is left says that it was erased; a further record, chained as all
are, names each and the SHA-256 of what stands there now: an erasure cannot be feigned, nor what it left be changed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from factform.audit.record import AnswerRecord
from factform.records import as_json

LEAST = 4
"""Letters of a name or title from which on its being found in what is left means that all of it must go."""


def without(
    body: Mapping[str, Any], documents: Collection[str], words: Collection[str], at: str
) -> dict[str, Any] | None:
    """What is to stand in place of a record; None where it has nothing of `documents`. `words` are their names."""
    if not _names(body, documents):
        return None
    kept = {name: _without_entries(value, documents) for name, value in body.items()}
    if not _about(body, documents):
        left = _plain("\0".join(_texts(kept)))
        if not any(_plain(word) in left for word in {*words, *documents} if len(word) >= LEAST):
            return {**kept, "erased": {"at": at, "whole": False}}
    return nothing(body, at)


def nothing(body: Mapping[str, Any], at: str) -> dict[str, Any]:
    """A record without its content; of `body` what says nothing of a document is kept."""
    empty = _empty("erased", "the documents it was made from were erased")
    return {**empty, **_told(body), "erased": {"at": at, "whole": True}}


def erasure(replaced: Mapping[str, str], at: str) -> dict[str, Any]:
    """The record of an erasure: `replaced` maps the ids of records to the SHA-256 of what stands there now."""
    reason = f"documents were erased; {len(replaced)} records were changed"
    return {**_empty("erasure", reason), "erased": {"at": at, "records": dict(replaced)}}


def _empty(status: str, reason: str) -> dict[str, Any]:
    empty = AnswerRecord("", "refused", reason, None, "", None, None, "exact", "", {}, "", {}, {}, versions={})
    return {**as_json(empty), "status": status}


def _told(body: Mapping[str, Any]) -> dict[str, Any]:
    """What says nothing of a document: the record's name and time, and what answered."""
    return {
        name: body[name] for name in ("id", "time", "model", "adapter", "behavior", "mode", "versions") if name in body
    }


def _about(body: Mapping[str, Any], documents: Collection[str]) -> bool:
    """Whether the answer was made from one of the documents: it was quoted, read or the best passage found."""
    if any(_names(citation, documents) for citation in body.get("citations", ())):
        return True
    found = [entry for entry in body.get("candidates", ()) if _names(entry, documents)]
    return any(entry.get("kept") or entry.get("rank") == 1 for entry in found)


def _names(value: Any, documents: Collection[str]) -> bool:
    """Whether one of the documents is named anywhere in a JSON value."""
    if isinstance(value, Mapping):
        return any(_names(inner, documents) for pair in value.items() for inner in pair)
    if isinstance(value, list | tuple):
        return any(_names(inner, documents) for inner in value)
    return isinstance(value, str) and value in documents


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value, names of fields too."""
    if isinstance(value, Mapping):
        for pair in value.items():
            for inner in pair:
                yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value


def _plain(text: str) -> str:
    """In one case, one form of Unicode, and with single spaces: a question is seldom written as a title is."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _without_entries(value: Any, documents: Collection[str]) -> Any:
    """A JSON value without the entries of lists, however deep, that name one of the documents."""
    if isinstance(value, Mapping):
        return {name: _without_entries(inner, documents) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_entries(entry, documents) for entry in value if not _names(entry, documents)]
    return value
