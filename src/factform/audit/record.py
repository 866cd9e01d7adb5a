"""What is written down about one answer, in plain JSON values.

Knows nothing of how an answer is made, nor of where the record is kept (that is `audit/log.py`).
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import metadata
from typing import Any

from factform.ids import sha256_text
from factform.records import AnswerStatus, Citation, Generation, Hit, Mode, Passage, Prompt, SearchResult

PACKAGES = ("lancedb", "llguidance", "numpy", "pyarrow", "tokenizers", "torch")
"""Packages whose version can change an answer, and so is part of its record."""


@cache
def versions() -> Mapping[str, Any]:
    """`{"factform", "python", "packages": {name: version}}` of this process; what is not installed is left out."""
    return {
        "factform": _version("factform"),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True)
class AnswerRecord:
    """Everything needed to see afterwards why this was answered. The log adds `id` and `time`.

    `candidates`, `search`, `prompt` and `generation` are made below. `documents` are the versions that were
    candidates, as `{"document", "version", "sha256"}`, the digest being that of the version's bytes. `model` and
    `adapter` are digests. `output` is the model's text as it came, `answer` what was released of it.
    `principal` is who asked, `access` the labels they held (None: no access rules were in force). `where` is the filter
    and `as_of` the past point that was searched (None: the documents of that time).
    """

    question: str
    status: AnswerStatus
    reason: str
    answer: Mapping[str, Any] | None
    model: str
    adapter: str | None
    behavior: str | None
    mode: Mode
    prompt_sha256: str
    prompt: Mapping[str, Any]
    output: str
    generation: Mapping[str, Any]
    ms: Mapping[str, float]
    candidates: tuple[Mapping[str, Any], ...] = ()
    documents: tuple[Mapping[str, str], ...] = ()
    citations: tuple[Citation, ...] = ()
    search: Mapping[str, Any] = field(default_factory=dict)
    principal: str | None = None
    access: tuple[str, ...] | None = None
    where: str | None = None
    as_of: int | None = None
    versions: Mapping[str, Any] = field(default_factory=versions)


def candidates(hits: Sequence[Hit]) -> tuple[dict[str, Any], ...]:
    """Every hit, kept or not, with its place, its scores and the reason; the text stays in the data layer."""
    return tuple(
        {
            "chunk": hit.chunk.id,
            "document": hit.chunk.document,
            "version": hit.chunk.version,
            "start": hit.chunk.start,
            "end": hit.chunk.end,
            "page": hit.chunk.page,
            "sha256": hit.chunk.sha256,
            "scores": dict(hit.scores),
            "score": hit.score,
            "rank": hit.rank,
            "ranks": dict(hit.ranks),
            "kept": hit.kept,
            "reason": hit.reason,
        }
        for hit in hits
    )


DROPPED = 100
"""Candidates without a place among the hits that a record tells of: what both searches give by default."""


def search_facts(found: SearchResult) -> dict[str, Any]:
    """How candidates were scored, and those that were no hits, briefly, the first of them: a record stays small."""
    if not found.ranking:
        return {}
    dropped = [
        {
            "chunk": hit.chunk.id,
            "document": hit.chunk.document,
            "rank": hit.rank,
            "scores": {name: round(score, 5) for name, score in hit.scores.items()},
            "ranks": dict(hit.ranks),
            "reason": hit.reason,
        }
        for hit in found.dropped[:DROPPED]
    ]
    return {"ranking": dict(found.ranking), "notes": list(found.notes), "dropped": dropped}


def prompt_digest(prompt: Prompt) -> str:
    """SHA-256 of the text the model read."""
    return sha256_text(prompt.text)


def prompt_parts(prompt: Prompt, passages: Sequence[Passage], keep_text: bool) -> dict[str, Any]:
    """The prompt as its ordered parts: header and tail by digest, passages by label and chunk id.

    With the data layer's versions this is enough to render it again and compare digests. `keep_text` stores the
    rendered text as well: it makes records independent of the data layer, and repeats private text in them.
    """
    parts: dict[str, Any] = {
        "header_sha256": sha256_text(prompt.header),
        "passages": [_passage(passage) for passage in passages],
        "blocks_sha256": [sha256_text(block) for block in prompt.blocks],
        "tail_sha256": sha256_text(prompt.tail),
    }
    return {**parts, "text": prompt.text} if keep_text else parts


def _passage(passage: Passage) -> dict[str, Any]:
    """Label and chunk, and what was proposed of it where an evidence model left nothing else to be quoted."""
    told: dict[str, Any] = {"label": passage.label, "chunk": passage.chunk.id}
    if passage.proposals is None:
        return told
    return {**told, "proposals": [asdict(proposal) for proposal in passage.proposals]}


def generation_facts(generation: Generation) -> dict[str, Any]:
    """How the output came about: token counts, why it stopped, how often the grammar stepped in."""
    return {
        "prompt_tokens": generation.prompt_tokens,
        "completion_tokens": generation.completion_tokens,
        "reused_tokens": generation.reused_tokens,
        "forced": generation.forced,
        "drafted": generation.drafted,
        "stop": generation.stop,
        "interventions": generation.interventions,
        "logprob": generation.logprob,
        "precision": generation.precision,
    }
