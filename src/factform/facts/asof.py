"""Searching what a search would have found at a past moment: which versions, and a table that holds just those.

Knows nothing of ranking. The set comes from the ledger, so it is right whatever became of the index since: rebuilt,
compacted or cleaned up. A table for a moment is made once from blobs (chunks that the index in use still holds are
copied with their vectors, only the others are embedded) and kept under `cache/asof`, the least recently used given up.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time
from pathlib import Path

from factform.errors import DocumentError, Pruned, QueryError, StoreError
from factform.facts import blobs
from factform.facts.chunk import chunk
from factform.facts.current import CurrentIndex
from factform.facts.embed import Encoder
from factform.facts.erase import MARK as ERASING
from factform.facts.filters import may_read
from factform.facts.index import Index
from factform.facts.ledger import Ledger, VersionRow
from factform.facts.matching import matches
from factform.facts.parse import parse
from factform.facts.rows import LAYOUT, Row, search_text
from factform.facts.sandbox import Sandbox
from factform.facts.visible import Visible
from factform.facts.where import parse_where
from factform.ids import sha256_json, sha256_text
from factform.records import Chunk, Parsed, Scope, Source

TABLES = 4
"""Tables of past moments that are kept; each is about as large as the index."""

NAME = "chunks"
SLICE = 256
"""Rows written, and chunks embedded, at once."""


def past_folder(folder: Path) -> Path:
    """Where tables of past moments are kept below the data layer's folder. Derived: deleting it costs only time."""
    return folder / "cache" / "asof"


def find_point(ledger: Ledger, as_of: str) -> tuple[int, str]:
    """The point that a number, an ISO date or an ISO time names, and a note on how it was read.

    A date is the end of that day. What has no zone is local time. Raises QueryError for anything else, and for what is
    not in the past.
    """
    said = as_of.strip()
    last = ledger.point()
    if re.fullmatch(r"\d{1,18}", said, re.ASCII):
        if not 1 <= int(said) <= last:
            raise QueryError(f"there is no point {said}: the first is 1, the last {last} (see `factform history`)")
        return int(said), ""
    try:
        moment = datetime.fromisoformat(said)
    except ValueError:
        raise QueryError(
            f"{as_of!r} is no moment: write 2026-11-24, 2026-11-24T09:30+01:00, or a point of `factform history`"
        ) from None
    whole_day = re.fullmatch(r"\d{4}-?\d\d-?\d\d|\d{4}-?W\d\d(-?\d)?", said) is not None
    local = moment.tzinfo is None
    try:
        at = (datetime.combine(moment, time.max) if whole_day else moment).astimezone(UTC)
    except (OverflowError, ValueError, OSError):
        raise QueryError(f"{as_of!r} is too far away for a moment") from None
    now = datetime.now(UTC)
    if at > now and not (whole_day and moment.date() == datetime.now().astimezone().date()):
        raise QueryError(f"{as_of!r} is not over yet: a search as of a moment looks at the past")
    point = ledger.point_at(at.isoformat(timespec="milliseconds"))
    note = f"as of {at.isoformat(timespec='seconds')} ({said} taken as local time)" if local else ""
    return point, note


class Past:
    """Past moments of the data layer in `folder`."""

    def __init__(
        self,
        folder: Path,
        encoder: Encoder,
        chunk_tokens: int,
        ledger: Ledger,
        current: CurrentIndex,
        sandbox: Sandbox,
    ):
        self.folder = folder
        self._blobs = folder / "blobs"
        self._encoder, self._chunk_tokens = encoder, chunk_tokens
        self._ledger, self._current, self._sandbox = ledger, current, sandbox
        self._open: dict[str, Index] = {}

    def view(self, scope: Scope, point: int) -> tuple[Index, Visible]:
        """A table of what was found at a point, what of it the scope may see.

        A version is seen by who may read the document now and might read that version then: who has lost access since
        must not read the past, and a document opened to all does not open its earlier, closed versions. Raises Pruned
        where one that the scope sees is not there any more.
        """
        erasing = set(
            json.loads(self._ledger.get_meta(ERASING) or "[]")
        )  # begun and not finished: nothing shows them any more
        rows = [row for row in self._ledger.found_at(point) if row.document not in erasing]
        condition = parse_where(scope.where) if scope.where else None
        latest = self._ledger.latest() if scope.labels is not None else {}

        def sees(row: VersionRow) -> bool:
            """Only what the reader may see decides, or an error would tell of documents that are none of theirs."""
            labels = scope.labels
            allowed = labels is None or (may_read(row, labels) and may_read(latest[row.document], labels))
            return allowed and (condition is None or matches(condition, row))

        seen = [row for row in rows if sees(row)]
        if gone := [row for row in seen if row.pruned_at is not None]:
            whole = max(row.ended or 0 for row in self._ledger.pruned() if row.document not in erasing and sees(row))
            raise Pruned(
                f"{len(gone)} of the versions found at point {point} were pruned since, such as {gone[0].version} of "
                f"{gone[0].document!r}: a search as of then would not find what was found. From point {whole} on "
                "nothing is missing"
            )
        kept = [row for row in rows if row.pruned_at is None]
        table = self._table(kept)
        documents = None if len(seen) == len(kept) else frozenset(row.document for row in seen)
        labels = None if scope.labels is None else frozenset(scope.labels)
        return table, Visible(labels, documents)

    def _table(self, rows: Sequence[VersionRow]) -> Index:
        key = self._key(rows)
        place = past_folder(self.folder) / key
        if key in self._open and place.is_dir():
            place.touch()
            return self._open[key]
        if not place.is_dir():
            self._make(place, rows)
        self._open = {key: Index.open(place, NAME, self._encoder.dim)}
        place.touch()
        self._give_up_oldest()
        return self._open[key]

    def _key(self, rows: Sequence[VersionRow]) -> str:
        told = [[r.document, r.version, r.title, r.name, r.media_type, list(r.access)] for r in rows]
        return sha256_json([LAYOUT, self._encoder.identity, self._chunk_tokens, told])[:32]

    def _make(self, place: Path, rows: Sequence[VersionRow]) -> None:
        """Written beside its place and renamed: another process sees all of it or nothing."""
        scratch = place.parent / f"new-{secrets.token_hex(6)}"
        try:
            scratch.mkdir(parents=True)
            index = Index.create(scratch, NAME, self._encoder.dim)
            self._fill(index, rows)
            index.optimize()
            if not place.is_dir():
                scratch.rename(place)
            if not {row.seq for row in rows} <= self._ledger.unpruned():
                shutil.rmtree(place)  # pruned or erased while it was made, maybe after such tables were deleted
                raise StoreError("versions were pruned or erased while they were being looked for; search again")
        except OSError as error:
            if not place.is_dir():
                raise StoreError(f"a table of the past cannot be made in {place.parent}: {error.strerror}") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _fill(self, index: Index, rows: Sequence[VersionRow]) -> None:
        same: dict[str, VersionRow] = {}
        for row in rows:
            now = self._ledger.current(row.document)
            if now is not None and _told(now) == _told(row):
                same[row.document] = row
        for held, vectors in self._current.get().batches():
            places = [place for place, each in enumerate(held) if _is_of(each.chunk, same)]
            if places:
                copied = [_as_told(held[p].chunk, same[held[p].chunk.document]) for p in places]
                index.append(copied, vectors[places])
        others = (_as_told(piece, row) for row in rows if row.document not in same for piece in self._chunks(row))
        for some in _slices(others, SLICE):
            index.append(some, self._encoder.encode([search_text(row.chunk) for row in some]))

    def _chunks(self, row: VersionRow) -> tuple[Chunk, ...]:
        """Chunks of a version, cut from the canonical text that its citations were checked against.

        They are parsed in the sandbox, as they were when they came. A newer parser may read them differently, or not
        within its limits: then the stored text is cut as plain text, which has fewer headings but the right places.
        """
        stored = self._ledger.version(row.document, row.version)
        digest = stored.text_sha256 if stored and stored.text_sha256 else row.text_sha256
        if digest is None:
            return ()
        text = blobs.get(self._blobs, digest)
        try:
            parsed = self._sandbox.parse(row.source(blobs.get(self._blobs, row.sha256)))
        except DocumentError:
            parsed = None
        if parsed is None or sha256_text(parsed.text) != digest:
            parsed = _plain(row, text)
        return chunk(
            parsed,
            document=row.document,
            version=row.version,
            count_tokens=self._encoder.count_tokens,
            budget=self._chunk_tokens,
        )

    def _give_up_oldest(self) -> None:
        places = [place for place in past_folder(self.folder).iterdir() if not place.name.startswith("new-")]
        for place in sorted(places, key=lambda each: each.stat().st_mtime, reverse=True)[TABLES:]:
            shutil.rmtree(place, ignore_errors=True)


def _as_told(piece: Chunk, row: VersionRow) -> Row:
    return Row(piece, row.access, row.seq)


def _told(row: VersionRow) -> tuple[str | None, ...]:
    """What chunks and their headers depend on."""
    return row.version, row.title, row.name, row.media_type


def _is_of(piece: Chunk, rows: dict[str, VersionRow]) -> bool:
    return piece.document in rows and rows[piece.document].version == piece.version


def _plain(row: VersionRow, text: bytes) -> Parsed:
    """A canonical text read as it stands. It parses to itself: canonical text has no markup of plain text.

    Not in the sandbox: the reader of plain text is ours and linear, and its size was accepted when the version came.
    """
    return parse(Source(row.document, text, row.name, "text", row.title))


def _slices(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    some: list[Row] = []
    for row in rows:
        some.append(row)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some
