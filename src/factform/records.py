"""What travels between rooms: frozen records in one vocabulary.

Knows nothing of how any of them is made. Spans are half-open `[start, end)` offsets in characters
(Python code points) of a version's canonical text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

ReceiptStatus = Literal["created", "updated", "unchanged", "removed", "failed"]
Action = Literal["add", "update", "rename", "remove", "unchanged", "failed"]
AnswerStatus = Literal["answered", "not_in_documents", "refused"]
Mode = Literal["exact", "reuse"]


# --- documents ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """Bytes offered to the data layer, before anything is known about them.

    `media_type` is one of the parsers' names (`facts/parse.py`: "markdown", "pdf", "xlsx", …), or None to go by `name`.
    `access` are the labels of which a reader must hold at least one; empty means everybody.
    """

    document: str
    data: bytes
    name: str
    media_type: str | None = None
    title: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    access: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """A piece of a parsed document that reads as one: `kind` is heading, paragraph, list, table or code.

    `level` is the heading level (1 is the title), 0 otherwise. `rows` are the spans of a table's rows.
    """

    start: int
    end: int
    kind: Literal["heading", "paragraph", "list", "table", "code"]
    level: int = 0
    rows: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class PageSpan:
    """Page `number` (from 1, as printed by a viewer) covers `[start, end)` of the canonical text."""

    number: int
    start: int
    end: int


PlaceKind = Literal[
    "page", "slide", "sheet", "row", "line", "cell", "chapter", "attachment", "pointer", "glyphs", "box"
]


@dataclass(frozen=True, slots=True)
class Place:
    """Where `[start, end)` of the canonical text stands in the original, beside its page.

    `value` is what the original calls it: the number (from 1) of a "slide", of a "row" of a sheet or a CSV file, of a
    "line" of a JSONL file, of a "cell" of a notebook or of a "page" of an attachment; the name of a "sheet", "chapter"
    or "attachment"; the JSON "pointer" of a value. Two kinds belong to pages: "glyphs" says that the text is the PDF
    page's glyphs from index `value` on, one for each character; "box" is the box `(x0, y0, x1, y1)` in points around
    text read from a picture.
    """

    start: int
    end: int
    kind: PlaceKind
    value: int | str | tuple[float, ...]


@dataclass(frozen=True)
class Parsed:
    """Canonical text of one version, with the structure the format gave.

    `places` are sorted by start within each kind. `note` says what a reader of the document should know about how it
    was read (pages that are pictures, text that was recognized in them); None for nothing.
    """

    text: str
    title: str
    blocks: tuple[Block, ...]
    pages: tuple[PageSpan, ...] = ()
    places: tuple[Place, ...] = ()
    note: str | None = None


@dataclass(frozen=True)
class Chunk:
    """An exact span of one version: `parsed.text[start:end] == text`. `sha256` is that of `text`.

    `page` is the page it starts on. `pages` are all it touches, as (number, offset in the canonical text at which the
    page begins), in order; the first may begin before the chunk. None and empty where the format has no pages.
    `table` is the header of the table whose rows it begins with, where it does not hold that header itself.
    """

    id: str
    document: str
    version: str
    start: int
    end: int
    text: str
    sha256: str
    title: str
    heading: tuple[str, ...] = ()
    page: int | None = None
    pages: tuple[tuple[int, int], ...] = ()
    table: str = ""

    def page_of(self, at: int) -> int | None:
        """The page of the character at offset `at` of the canonical text, `start <= at < end`."""
        begun = [number for number, start in self.pages if start <= at]
        return begun[-1] if begun else self.page

    @property
    def header(self) -> str:
        """Context put before the text when it is embedded, indexed and read: never part of the span."""
        parts = [self.title, *[h for h in self.heading if h != self.title]]
        parts += [f"Table header: {self.table}"] if self.table else []
        return " > ".join(p for p in parts if p)


@dataclass(frozen=True)
class Receipt:
    """What became of one document. `visible_ms` is from the call's start for it until a search can find it.

    `note` is what its reader should know: pages that are pictures and were not read, text that was recognized.
    `point` numbers the change among all changes of what a search finds: `--as-of` takes it.
    """

    document: str
    version: str | None
    sha256: str | None
    chunks: int
    status: ReceiptStatus
    visible_ms: float | None = None
    error: str | None = None
    note: str | None = None
    point: int | None = None


@dataclass(frozen=True)
class Change:
    """What a sync did, or would do, about one document.

    `document` is its id; of a folder that could not be listed, or one that could not be synced, its path.
    `renamed_from` is the id it had before. `visible_ms` and `note` are as in a Receipt.
    """

    action: Action
    document: str
    renamed_from: str | None = None
    version: str | None = None
    sha256: str | None = None
    chunks: int = 0
    visible_ms: float | None = None
    error: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Proposal:
    """A span that may answer a question and the sentence or table row it stands in, as a quote that supports it.

    All places are characters of the passage's text. `score` is on one scale for all proposals of one question,
    `right` the probability that the span is the answer, where the model that read it tells.
    """

    start: int
    end: int
    quote_start: int
    quote_end: int
    score: float
    right: float | None = None


@dataclass(frozen=True)
class Evidence:
    """What an evidence model reads in one passage: the probabilities that it answers the question and that it is about
    it, and the likeliest answers in it, best first."""

    answers: float
    relevant: float
    proposals: tuple[Proposal, ...]


@dataclass(frozen=True)
class Hit:
    """A chunk found for a question. `scores` holds each stage's score by name; `score` is the deciding one.

    `kept` says whether it was given to the model, `reason` why or why not. `evidence` is what an evidence model read in
    it, where one did. `ranks` holds its place among all candidates by each stage's score (1 is the best); a stage that
    did not score it is not there.
    """

    rank: int
    chunk: Chunk
    score: float
    scores: Mapping[str, float]
    kept: bool = True
    reason: str = ""
    evidence: Evidence | None = None
    ranks: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Scope:
    """What of the documents a question may see, applied before anything is ranked.

    `labels` are those the reader holds: a document with access labels is seen by who holds one of them; None is the
    owner, who sees everything. `where` is a filter over metadata (`facts/where.py`), "" for none. `as_of` is a past
    moment, an ISO date or time or a point's number, "" for now. `principal` is who asks, for the record.
    """

    labels: tuple[str, ...] | None = None
    where: str = ""
    as_of: str = ""
    principal: str | None = None


OWNER = Scope()
"""Sees everything there is now."""


@dataclass(frozen=True)
class SearchResult:
    """Hits best first. `ms` are milliseconds by stage: embed, search, rerank, evidence (where it was read), total.

    `answerable` is the probability that the hits hold the answer, where an evidence model read them. `dropped` are the
    candidates that are no hits, each with its reason. `ranking` says how they were scored, `notes` what was left out,
    and what of the scope asked for can hardly have been meant: a key no document has, a value of a type it never has.
    `point` is the past moment searched, None for now.
    """

    hits: tuple[Hit, ...]
    ms: Mapping[str, float]
    answerable: float | None = None
    dropped: tuple[Hit, ...] = ()
    ranking: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    point: int | None = None


@dataclass(frozen=True)
class Passage:
    """A chunk given to the model under a label ("1", "2", …) that is unique in one prompt.

    With `proposals` only their quotes may be quoted from it (none: nothing may); None leaves any run of its words.
    """

    label: str
    chunk: Chunk
    proposals: tuple[Proposal, ...] | None = None


# --- model ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt in blocks, so that each can be encoded once and reused (see `model/prompt.py`).

    The text the model reads is `header + "".join(blocks) + tail`. Blocks alternate: a label ("[1] "), then the
    passage; they are tokenised one by one in every mode, so that both modes see the same tokens. `messages` are the
    same words as (role, content) pairs, for models behind HTTP that render their own template.
    """

    header: str
    blocks: tuple[str, ...]
    tail: str
    messages: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        return self.header + "".join(self.blocks) + self.tail


@dataclass(frozen=True)
class Generation:
    """What a model wrote. `stop` is "end" when it ended by itself, "length" at the token limit, "invalid" where an
    unmasked run was broken off at the first token after which no answer in contract was possible.

    `interventions` counts tokens where the grammar forbade the model's own first choice (0: it would have
    written the same without the mask); None where the model does not tell. `logprob` is the sum over the
    tokens it chose freely. `ms` holds first_token and total. `forced` counts tokens the grammar left no choice in.
    `violations` counts those interventions where the model's own choice could not have become any answer in contract:
    the rest only kept a quote to the passages' words. `drafted` counts tokens read ahead from a passage that stood.
    `precision` is what it was computed in, where the model tells ("float32+int8": read in full, written in 8 bit;
    ", passages int8" behind it: they were encoded blocks kept in 8 bit).
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    stop: Literal["end", "length", "invalid"]
    interventions: int | None
    ms: Mapping[str, float]
    logprob: float | None = None
    forced: int = 0
    reused_tokens: int = 0
    violations: int | None = None
    drafted: int = 0
    precision: str = ""


# --- behaviour ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A question with what a right answer is. Examples train, cases measure; both have this shape.

    `answers` are accepted short answers (as in SQuAD); `expected` is the whole contract object, its source field
    holding a document id. `documents` are the ids that hold the evidence. Not answerable: no document does.
    """

    id: str
    question: str
    answers: tuple[str, ...] = ()
    expected: Mapping[str, Any] | None = None
    answerable: bool = True
    documents: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contract:
    """The form of an answer: a JSON Schema and where in it quotes and sources stand.

    `quote_paths` and `source_paths` are tuples of property names, marked in the schema by `"x-factform": "quote"`
    and `"x-factform": "source"`; the n-th quote belongs to the n-th source. So does the n-th of `span_paths`, marked
    `"span"`: words of the passage its quote is from. With `refusal`, the one other thing an answer may be is
    `{"status": "not_in_documents"}`.
    """

    schema: Mapping[str, Any]
    quote_paths: tuple[tuple[str, ...], ...] = ()
    source_paths: tuple[tuple[str, ...], ...] = ()
    refusal: bool = True
    span_paths: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Behavior:
    """A behaviour folder, checked and read. `digest` is over everything that shapes training and answers."""

    name: str
    description: str
    instructions: str
    contract: Contract
    examples: tuple[Case, ...]
    cases: tuple[Case, ...]
    passages: int
    max_tokens: int
    digest: str


@dataclass(frozen=True)
class AdapterInfo:
    """A registered adapter. `digest` names it for ever; `lineage` says how it was made."""

    digest: str
    behavior: str
    base: str
    created: str
    promoted: bool
    lineage: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.behavior}@{self.digest[:12]}"


# --- answers --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Citation:
    """A quote and the exact place it stands in. `verified`: the stored bytes were read again and are equal.

    `place` says where that is in the original, in its own terms (see `DataLayer.place_of`).
    """

    document: str
    version: str
    page: int | None
    start: int
    end: int
    quote: str
    verified: bool
    chunk: str = ""
    title: str = ""
    place: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """The outcome of one question: in contract, quoted and recorded, or a refusal with its reason.

    `confidence` is the probability that it is right, where an evidence model read the passages: that the answer is the
    one they hold, of a refusal that they hold none. `held_back`: what was written is in contract and its quotes are
    verbatim, but it was not sure enough to be released. `notes` are those of the search.
    """

    question: str
    answer: Mapping[str, Any] | None
    status: AnswerStatus
    reason: str
    citations: tuple[Citation, ...]
    record: str
    behavior: str | None
    adapter: str | None
    model: str
    mode: Mode
    prompt_tokens: int
    completion_tokens: int
    ms: Mapping[str, float]
    interventions: int | None = None
    confidence: float | None = None
    held_back: bool = False
    notes: tuple[str, ...] = ()


def as_json(record: Any) -> Any:
    """A record (or a list or mapping of records) as plain JSON values; tuples become lists."""
    if hasattr(record, "__dataclass_fields__"):
        return {k: as_json(v) for k, v in asdict(record).items()}
    if isinstance(record, Mapping):
        return {str(k): as_json(v) for k, v in record.items()}
    if isinstance(record, Sequence) and not isinstance(record, str | bytes):
        return [as_json(v) for v in record]
    return record
