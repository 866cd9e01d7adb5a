"""What a project works with: its data layer, models and records, each opened when first needed.

Knows nothing of the verbs. Whoever lists adapters loads no model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from factform.errors import FactformError, ModelError, SettingsError
from factform.ids import FolderState, canonical_json
from factform.records import AdapterInfo, Behavior, Scope, SearchResult
from factform.settings import STATE, ModelSettings, Settings

if TYPE_CHECKING:
    from factform.answer import EvidenceUse, LanguageModel, Parts
    from factform.audit.log import AuditLog
    from factform.encoded import EncodedPassages
    from factform.facts.crossencoder import CrossEncoder
    from factform.facts.embed import Encoder
    from factform.facts.evidence import EvidenceModel
    from factform.facts.sandbox import Limits
    from factform.facts.store import DataLayer
    from factform.model.reader import Reader

Report = Callable[[str, int, int, str], None]
"""Progress for people: stage, done, of how many (0: not known), a note."""

CANDIDATES = 12
"""Hits an answer's record keeps and training takes distractors from: thrice what a prompt holds."""


def silent(stage: str, done: int, total: int, note: str) -> None:
    return None


EMBEDDER_SETTINGS = ("embedder", "embedder_url", "embedder_key_env")
"""Of the model's settings those that name the embedder: noted beside an index, to open it again after they changed."""


@dataclass(frozen=True)
class EmbedderUse:
    """An embedder, the longest passages cut for it, and how its settings name it."""

    encoder: Encoder
    chunk_tokens: int
    made_by: str


class Opened:
    """The parts of the project in `folder`, as its settings want them."""

    def __init__(self, folder: Path, settings: Settings, report: Report = silent):
        self.folder, self.settings, self.report = folder, settings, report
        self.state = folder / STATE
        self._opening = threading.RLock()
        self._behaviors: dict[str, tuple[FolderState | None, Behavior]] = {}
        self._outdated: list[DataLayer] = []

    def close(self) -> None:
        """Give back what was opened."""
        if "reader" in self.__dict__:
            self.reader.store.note_counts()
        if "facts" in self.__dict__:
            self.facts.close()
            del self.__dict__["facts"]
        for layer in self._outdated:
            layer.close()
        self._outdated.clear()

    @cached_property
    def facts(self) -> DataLayer:
        """The data layer."""
        return self.open_facts(for_rebuild=False)

    @cached_property
    def model(self) -> LanguageModel:
        """The language model: a server if `model.url` is set, else the local reader."""
        if not self.settings.model.url:
            return self.reader
        from factform.model.remote import RemoteModel

        settings = self.settings.model
        return RemoteModel(
            url=settings.url,
            model=settings.language,
            api_key_env=settings.api_key_env or None,
            timeout_s=settings.timeout_s,
        )

    @cached_property
    def reader(self) -> Reader:
        """The local language model. ModelError where the project uses a server."""
        if self.settings.model.url:
            raise ModelError(f"this needs local weights, but model.url is {self.settings.model.url!r}: unset it")
        import torch

        from factform.model.fetch import fetch_model
        from factform.model.probe import choose, set_threads, use_threads
        from factform.model.reader import Reader

        if self.settings.model.threads:
            set_threads(self.settings.model.threads)
        else:
            use_threads(choose().threads)
        name, dtype = self.settings.model.language, self.settings.model.dtype
        files = fetch_model(name, progress=self.fetching)
        return Reader.open(
            files.folder,
            model=name,
            digest=files.digest,
            dtype=None if dtype == "auto" else getattr(torch, dtype),
            int8_decode=self.settings.model.decode == "int8",
            native=self.settings.model.native == "auto",
            keep=self.encoded.keep,
        )

    @cached_property
    def evidence(self) -> EvidenceModel | None:
        """The model that reads passages before one that writes does.

        None where `answer.evidence` is "off", or "auto" and the shipped model is not grown from the project's embedder.
        """
        from factform.facts.evidence import SHIPPED, EvidenceModel, belongs_to
        from factform.model.fetch import fetch_model

        name = self.settings.answer.evidence
        if name == "off":
            return None
        if name == "auto" and self.settings.model.embedder_url:
            return None  # it shares word embeddings with an embedder in this process
        folder = SHIPPED if name == "auto" else self.folder / name
        embedder = fetch_model(self.settings.model.embedder, progress=self.fetching).folder
        if name == "auto" and not belongs_to(folder, embedder):
            return None
        native = self.settings.model.native == "auto"
        return EvidenceModel.open(folder, embedder, native=native)

    @cached_property
    def encoded(self) -> EncodedPassages:
        """What is kept of passages that the local language model encoded."""
        from factform.encoded import EncodedPassages, keep_of

        folder = self.state / "kv"
        return EncodedPassages(
            folder,
            keep_of(self.settings.model, folder),
            chunks_of=lambda document: self.facts.chunks_of(document),
            chunks_with=lambda texts: self.facts.chunks_with(texts),
            store=lambda: self.reader.store if "reader" in self.__dict__ else None,
        )

    @cached_property
    def audit(self) -> AuditLog:
        """The record of every answer."""
        from factform.audit.log import AuditLog

        return AuditLog.open(self.state / "audit.db")

    @property
    def adapters_folder(self) -> Path:
        return self.state / "adapters"

    def parts(self) -> Parts:
        """What the answer flow works with."""
        from factform.answer import Parts

        return Parts(
            search=self.search_and_weigh,
            verify=lambda hit, start, end, quote: self.facts.verify_span(
                hit.chunk.document,
                hit.chunk.version,
                start,
                end,
                quote,
                hit.chunk.sha256,
                hit.chunk.start,
                hit.chunk.end,
            ),
            digest_of=self.facts.digest_of,
            model=self.model,
            write=self.audit.write,
            keep_prompt=self.settings.answer.keep_prompt,
            count_tokens=self.facts.count_tokens,
            place_of=lambda hit, start, end: self.facts.place_of(hit.chunk.document, hit.chunk.version, start, end),
        )

    def scope(
        self,
        principal: str | None = None,
        labels: Sequence[str] | None = None,
        where: str | None = None,
        as_of: str | int | None = None,
    ) -> Scope:
        """What somebody may see. `labels` are believed; without them those count that access.toml gives `principal`.

        Neither of both is the owner, who sees everything, unless `facts.access` is "required". Raises AccessError.
        """
        from factform.access import labels_of

        required = self.settings.facts.access == "required"
        held = labels_of(self.folder, principal, labels, required=required, labelled=lambda: self.facts.labelled())
        return Scope(held, where or "", "" if as_of is None else str(as_of), principal)

    def search_and_weigh(self, question: str, scope: Scope) -> SearchResult:
        """What the answer flow chooses passages from: the retriever's hits, in the order of their evidence if read."""
        found = self.facts.search(question, k=CANDIDATES, scope=scope, distinct=True)
        return self.evidence.weigh(question, found) if self.evidence else found

    def evidence_use(
        self, behavior: Behavior | None, adapter: AdapterInfo | None, min_confidence: float | None = None
    ) -> EvidenceUse:
        from factform.answer import NO_EVIDENCE, EvidenceUse
        from factform.model.prompt import PLAIN, PLAIN_SPAN

        if self.evidence is None:
            return NO_EVIDENCE
        section = self.settings.answer
        fitted = refusal_limit(adapter, self.evidence.digest) if behavior else 0.0
        limit = section.refuse_below
        if limit < 0:
            limit = fitted if behavior else self.evidence.calibration.refuse_below
        return EvidenceUse(
            model=self.evidence.digest,
            # A server keeps to a JSON Schema, which cannot say that an answer is words of its quote.
            plain=PLAIN if self.settings.model.url or not section.proposals else PLAIN_SPAN,
            proposals=section.behavior_proposals if behavior else section.proposals,
            refuse_below=limit,
            min_confidence=section.min_confidence if min_confidence is None else min_confidence,
            alone=min(fitted, limit) > 0 and section.adapter_refuses == "auto" and not self.settings.model.url,
        )

    def open_facts(self, *, for_rebuild: bool) -> DataLayer:
        """The data layer, with the embedder that its index was made with; `for_rebuild` with the settings' own."""
        from factform.facts.search import Ranking
        from factform.facts.store import DataLayer

        facts = self.settings.facts
        use = self.wanted_embedder() if for_rebuild else self.embedder_in_use()
        return DataLayer.open(
            self.state,
            use.encoder,
            chunk_tokens=use.chunk_tokens,
            wait_s=facts.writer_wait_s,
            for_rebuild=for_rebuild,
            parsing=self.parsing(),
            ranking=Ranking(facts.word_weight, facts.candidates, facts.rerank, facts.rerank_depth),
            cross_encoder=self.open_cross_encoder() if facts.rerank == "cross-encoder" else None,
            made_by=use.made_by,
            keep_tokens=facts.token_vectors == "disk",
        )

    def parsing(self) -> Limits:
        """What parsing one document may take."""
        from factform.facts.sandbox import Limits

        facts = self.settings.facts
        return Limits(
            seconds=facts.parse_seconds,
            memory_mb=facts.parse_memory_mb,
            max_bytes=facts.max_file_mb << 20,
            ocr=facts.ocr_language if facts.ocr == "auto" else "",
        )

    def wanted_embedder(self) -> EmbedderUse:
        """What the settings name."""
        model = self.settings.model
        made_by = canonical_json({name: getattr(model, name) for name in EMBEDDER_SETTINGS})
        return EmbedderUse(self.encoder(), self.settings.facts.chunk_tokens, made_by)

    def embedder_in_use(self) -> EmbedderUse:
        """What to search and write with: what the settings name or, while the index is being made anew with that, what
        the index in use was made with."""
        from factform.facts.rebuild import replaced

        wanted = self.wanted_embedder()
        old = replaced(self.state, wanted.encoder.identity, wanted.chunk_tokens)
        if old is None:
            return wanted
        if dict(old.embedder) == dict(wanted.encoder.identity):
            return replace(wanted, chunk_tokens=old.chunk_tokens)
        try:
            earlier = self.encoder_of(
                ModelSettings.model_validate({**self.settings.model.model_dump(), **old.opened()})
            )
        except (FactformError, ValidationError):
            return wanted  # and be told that the index was made with another one
        use = EmbedderUse(earlier, old.chunk_tokens, old.made_by)
        return use if dict(earlier.identity) == dict(old.embedder) else wanted

    def encoder(self) -> Encoder:
        """The embedder that the settings name."""
        return self.encoder_of(self.settings.model)

    def encoder_of(self, model: ModelSettings) -> Encoder:
        """The embedder that such settings name: a server if `embedder_url` is set, else a model in this process."""
        from factform.facts.embed import Embedder
        from factform.facts.remote import RemoteEmbedder
        from factform.model.fetch import fetch_model

        if model.embedder_url:
            key = model.embedder_key_env or None
            return RemoteEmbedder(model.embedder_url, model.embedder, api_key_env=key, timeout_s=model.timeout_s)
        folder = fetch_model(model.embedder, progress=self.fetching).folder
        return Embedder.open(folder, native=model.native == "auto")

    def open_cross_encoder(self) -> CrossEncoder:
        """The cross-encoder that `facts.rerank_model` names."""
        from factform.facts.crossencoder import CrossEncoder
        from factform.model.fetch import fetch_model

        name = self.settings.facts.rerank_model
        if not name:
            raise SettingsError('facts.rerank = "cross-encoder" needs facts.rerank_model: a folder or a hub id')
        folder = fetch_model(name, progress=self.fetching).folder
        return CrossEncoder.open(folder, native=self.settings.model.native == "auto")

    def fetching(self, name: str, done: int, total: int) -> None:
        self.report("fetch", done, total, name)


def refusal_limit(adapter: AdapterInfo | None, evidence: str) -> float:
    """The limit that tuning fitted with the evidence model of this digest, 0 where it fitted none.

    A limit from one model says nothing of another's probabilities, and one from other documents nothing of these.
    """
    if adapter is None or adapter.lineage.get("evidence") != evidence:
        return 0.0
    return float(adapter.lineage.get("refusal", {}).get("below", 0.0))
