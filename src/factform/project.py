"""Project: the public face. Opens settings, builds the parts, exposes the verbs.

Knows nothing of the command line or HTTP. Parts are opened when first needed: listing adapters loads no model.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from factform import __version__
from factform.care import Care
from factform.errors import BehaviorError, CaseError, ModelError, ProjectError, RegistryError
from factform.ids import folder_state
from factform.opened import Report, silent
from factform.records import OWNER, AdapterInfo, Answer, Behavior, Case, Chunk, Hit, Mode, Passage, SearchResult
from factform.settings import FILE, TEMPLATE, load_settings

if TYPE_CHECKING:
    from factform.fitting import FitReport
    from factform.form.gate import Verdict
    from factform.form.split import Split
    from factform.measure.evaluate import AnswersReport
    from factform.measure.retrieval import RetrievalReport
    from factform.tuning import TuneReport

PROMOTED = "promoted"
"""Adapter of an ask that wants whatever its behavior has promoted."""


class Project(Care):
    """A folder with factform.toml. Use as a context manager, or call `close`.

    >>> with Project.open("demo") as project:                      # doctest: +SKIP
    ...     project.add(["documents"])
    ...     answer = project.ask("What is the notice period?")
    ...     answer.status, answer.citations
    """

    @classmethod
    def init(cls, folder: Path | str = ".") -> Project:
        """Make `folder` a project: factform.toml and behaviors/. ProjectError where there is one already."""
        path = Path(folder).absolute()
        if (path / FILE).exists():
            raise ProjectError(f"{path / FILE} is there already: this folder is a project")
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / "behaviors").mkdir(exist_ok=True)
            (path / FILE).write_text(TEMPLATE, "utf-8")
        except OSError as error:
            raise ProjectError(f"{path} cannot be made a project: {error.strerror or error}") from error
        return cls(path, load_settings(path))

    @classmethod
    def open(cls, folder: Path | str = ".", report: Report = silent) -> Project:
        """The project in `folder`. Raises ProjectError, or SettingsError naming key and value."""
        path = Path(folder).absolute()
        return cls(path, load_settings(path), report)

    def __enter__(self) -> Project:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- answers ------------------------------------------------------------------------------

    def ask(
        self,
        question: str,
        *,
        behavior: str | None = None,
        adapter: str | None = PROMOTED,
        facts: bool = True,
        mode: Mode | None = None,
        principal: str | None = None,
        labels: Sequence[str] | None = None,
        where: str | None = None,
        as_of: str | int | None = None,
        min_confidence: float | None = None,
        cancel: threading.Event | None = None,
    ) -> Answer:
        """Answer a question. `adapter` is "promoted", a registered one, or None for the prompted base.

        Only documents that `principal` (as access.toml says) or who holds `labels` may see are searched, of those that
        meet the filter `where`, as of a past moment or point. An answer less
        likely to be right than `min_confidence` (by default as in the settings) is refused. Set `cancel` from another
        thread and Cancelled is raised here within a step of writing, with nothing recorded.

        `mode` defaults to "reuse" with an adapter (it was trained to read reused blocks), else to "exact".
        """
        from factform.answer import Ask, answer

        if not question.strip():
            raise CaseError("the question is empty: write a question")
        scope = self.scope(principal, labels, where, as_of)
        with self._opening:  # of several callers the first opens the parts and loads the adapter, the others wait
            form = self.behavior(behavior) if behavior else None
            chosen = self._adapter(form, adapter)
            use, parts = self.evidence_use(form, chosen, min_confidence), self.parts()
        ask = Ask(
            question=question,
            behavior=form,
            adapter=chosen,
            facts=facts,
            mode=mode or ("reuse" if chosen and not self.settings.model.url else "exact"),
            passages=form.passages if form else self.settings.facts.passages,
            passage_tokens=self.settings.facts.passage_tokens,
            max_tokens=form.max_tokens if form else self.settings.answer.max_tokens,
            scope=scope,
            evidence=use,
            cancel=cancel,
        )
        return answer(ask, parts)

    def ask_many(
        self,
        questions: Sequence[str],
        *,
        behavior: str | None = None,
        adapter: str | None = PROMOTED,
        facts: bool = True,
        mode: Mode | None = None,
        principal: str | None = None,
        labels: Sequence[str] | None = None,
        where: str | None = None,
        as_of: str | int | None = None,
        min_confidence: float | None = None,
        at_once: int = 8,
    ) -> list[Answer]:
        """Answers to `questions`, in their order, `at_once` of them worked on together; everything else as for `ask`.

        The language model writes them in shared steps. `ask` called from threads of your own does the same. The first
        error is raised, and whatever is still being answered then is cancelled.
        """
        stop = threading.Event()

        def one(question: str) -> Answer:
            return self.ask(
                question,
                behavior=behavior,
                adapter=adapter,
                facts=facts,
                mode=mode,
                principal=principal,
                labels=labels,
                where=where,
                as_of=as_of,
                min_confidence=min_confidence,
                cancel=stop,
            )

        with ThreadPoolExecutor(at_once, thread_name_prefix="factform-ask") as threads:
            asked = [threads.submit(one, question) for question in questions]
            try:
                return [each.result() for each in asked]
            except BaseException:
                stop.set()
                for each in asked:
                    each.cancel()
                raise

    # --- form ---------------------------------------------------------------------------------

    def behavior(self, name: str) -> Behavior:
        """The behavior `behaviors/<name>/`, checked. BehaviorError with every problem at once."""
        from factform.form.behavior import load_behavior

        folder = self.folder / "behaviors" / name
        if not folder.is_dir():
            known = ", ".join(self.behaviors()) or "none"
            raise BehaviorError(name, [f"behaviors/{name}: there is no such folder; there are {known}"])
        state = folder_state(folder)
        held = self._behaviors.get(name)
        if held is None or state is None or held[0] != state:
            held = self._behaviors[name] = state, load_behavior(folder)
        return held[1]

    def behaviors(self) -> list[str]:
        """Names of the folders under behaviors/, whether they can be used or not."""
        return sorted(p.name for p in (self.folder / "behaviors").glob("*/") if not p.name.startswith("."))

    def tune(self, name: str, *, steps: int = 0, epochs: float = 0.0, seed: int | None = None) -> TuneReport:
        """Train an adapter for a behavior on its examples and register it. It is not promoted by that."""
        from factform.form.train import TrainSettings
        from factform.tuning import tune

        behavior, section, evidence = self.behavior(name), self.settings.train, self.evidence
        found = cache(lambda question: self.search_and_weigh(question, OWNER))  # passages stand as in serving
        settings = TrainSettings(
            rank=section.rank,
            alpha=section.alpha,
            learning_rate=section.learning_rate,
            batch=section.batch,
            accumulate=section.accumulate,
            epochs=epochs or section.epochs,
            steps=steps or (0 if epochs else section.steps),
            seed=section.seed if seed is None else seed,
            check_every=section.check_every,
        )
        return tune(
            behavior,
            self.split(behavior),
            self.reader,
            lambda question: self._in_order(behavior, found(question)),
            self.facts.chunks_of,
            settings,
            twins=section.twins,
            unanswerable=section.unanswerable,
            work=self.state / "training",
            adapters=self.adapters_folder,
            lineage={
                "factform": __version__,
                "model": self.settings.model.language,
                "evidence": evidence.digest if evidence else None,
            },
            answerable=(lambda question: found(question).answerable) if evidence else None,
            propose=self._propose if evidence and self.settings.answer.behavior_proposals else None,
            adapter_refuses=self.settings.answer.adapter_refuses == "always",
            report=self.report,
        )

    def _in_order(self, behavior: Behavior, found: SearchResult) -> list[Chunk]:
        """What was found as a prompt would take it: first what fits its passages and their tokens, then the rest."""
        from factform.answer import select

        budget = self.settings.facts.passage_tokens
        hits = select(found.hits, behavior.passages, budget, self.facts.count_tokens)
        return [hit.chunk for hit in sorted(hits, key=lambda hit: not hit.kept)]

    def _propose(self, question: str, passages: Sequence[Passage]) -> tuple[Passage, ...]:
        """The passages with what the evidence proposes to quote of them, as when a behavior is asked."""
        from factform.answer import best_proposals

        assert self.evidence is not None
        hits = tuple(Hit(rank, passage.chunk, 0.0, {}) for rank, passage in enumerate(passages, 1))
        read = self.evidence.weigh(question, SearchResult(hits, {}), depth=len(hits))
        offered = best_proposals(read.hits, self.settings.answer.behavior_proposals)
        return tuple(
            replace(passage, proposals=offered.get(passage.chunk.id, ()) if offered else None) for passage in passages
        )

    def split(self, behavior: Behavior) -> Split:
        """The behavior's examples by use: training, checks while training (`held_out`), and the gate."""
        from factform.form.split import split_examples

        section = self.settings.train
        return split_examples(behavior.examples, check=section.held_out, gate=section.gate_cases, seed=section.seed)

    def gate(self, name: str, adapter: str | None = None) -> tuple[AdapterInfo, Verdict, AnswersReport]:
        """Compare an adapter (the newest one if not named) with the prompted base on held-out examples."""
        from factform.form import registry
        from factform.form.split import gate_cases
        from factform.tuning import judge

        behavior = self.behavior(name)
        info = self._adapter(behavior, adapter or self._newest(name).digest)
        if info is None:
            raise RegistryError(f"behavior {name!r} has no promoted adapter: name one, or leave it out for the newest")
        cases, gone = gate_cases(info, behavior, self.split(behavior))
        report = self._evaluate(cases, behavior, info, ("facts", "both"), check_free=True)
        verdict = judge(report)
        verdict = replace(verdict, reasons=(*verdict.reasons, gone)) if gone else verdict
        registry.record_verdict(self.adapters_folder, info.digest, verdict)
        return info, verdict, report

    def promote(self, name: str, adapter: str | None = None, *, force: bool = False, reason: str = "") -> AdapterInfo:
        """Let a behavior use an adapter (the newest if not named) that its gate passed."""
        from factform.form import registry

        ref = adapter or self._newest(name).digest
        return registry.promote(self.adapters_folder, name, ref, force=force, reason=reason)

    def rollback(self, name: str) -> AdapterInfo:
        """Let a behavior use the adapter it used before."""
        from factform.form import registry

        return registry.rollback(self.adapters_folder, name)

    def adapters(self, name: str | None = None) -> list[AdapterInfo]:
        """All registered adapters, oldest first."""
        from factform.form import registry

        return registry.list_adapters(self.adapters_folder, name)

    # --- numbers ------------------------------------------------------------------------------

    def evaluate_answers(
        self,
        cases: Path | str | Sequence[Case],
        *,
        behavior: str | None = None,
        adapter: str | None = PROMOTED,
        arms: Sequence[str] = ("base", "facts", "form", "both"),
        limit: int = 0,
        check_free: bool = True,
    ) -> AnswersReport:
        """Every case in every arm, with intervals. `limit` takes the first so many cases."""
        from factform.measure.cases import read_cases

        read = read_cases(cases) if isinstance(cases, Path | str) else tuple(cases)
        form = self.behavior(behavior) if behavior else None
        chosen = self._adapter(form, adapter)
        return self._evaluate(read[: limit or None], form, chosen, tuple(arms), check_free=check_free)

    def evaluate_retrieval(self, queries: Path | str, qrels: Path | str, *, k: int = 100) -> RetrievalReport:
        """Ranking quality on BEIR style files; hits are chunks, judged by their documents."""
        from factform.measure.cases import read_qrels, read_queries
        from factform.measure.retrieval import evaluate_retrieval

        def search(question: str, depth: int) -> list[tuple[str, float]]:
            # A document may own several chunks: ask for more than `depth` so that as many documents come back.
            hits = self.facts.search(question, k=2 * depth).hits
            return [(hit.chunk.document, hit.score) for hit in hits]

        return evaluate_retrieval(
            read_queries(Path(queries)),
            read_qrels(Path(qrels)),
            search,
            k=k,
            progress=lambda done, of: self.report("evaluate", done, of, ""),
        )

    def tune_retrieval(self, cases: Path | str | Sequence[Case], *, apply: bool = False, seed: int = 0) -> FitReport:
        """Fit the words' weight and the depth of reranking on cases that name their documents, cross-validated.

        With `apply` the fitted values go into factform.toml, if they are better on held-out cases and only then.
        """
        from factform.fitting import fit_ranking, with_values
        from factform.measure.cases import read_cases

        read = read_cases(cases) if isinstance(cases, Path | str) else tuple(cases)
        found = fit_ranking(
            read,
            self.facts.rankings,
            default=self.facts.ranking,
            seed=seed,
            progress=lambda done, of: self.report("tune", done, of, ""),
        )
        if apply and found.better:
            path = self.folder / FILE
            values = {"word_weight": found.fitted.word_weight, "rerank_depth": found.fitted.depth}
            text = with_values(path.read_text("utf-8"), "facts", values)
            fresh = path.with_name(f".{FILE}.new")
            fresh.write_text(text, "utf-8")
            fresh.replace(path)
        return found

    # --- inside -------------------------------------------------------------------------------

    def _evaluate(
        self,
        cases: Sequence[Case],
        behavior: Behavior | None,
        adapter: AdapterInfo | None,
        arms: Sequence[str],
        *,
        check_free: bool,
    ) -> AnswersReport:
        from factform.evaluation import ArmSettings, make_arms
        from factform.measure.evaluate import evaluate_answers
        from factform.model.prompt import PLAIN

        settings = ArmSettings(
            behavior=behavior,
            adapter=adapter,
            passages=behavior.passages if behavior else self.settings.facts.passages,
            passage_tokens=self.settings.facts.passage_tokens,
            max_tokens=behavior.max_tokens if behavior else self.settings.answer.max_tokens,
            tuned_mode="exact" if self.settings.model.url else "reuse",
            check_free=check_free,
            evidence=self.evidence_use(behavior, adapter),
            prompted=self.evidence_use(behavior, None),
        )
        if adapter:
            self._load_adapter(adapter)
        return evaluate_answers(
            cases,
            make_arms(arms, settings, self.parts()),
            contract=behavior.contract if behavior else PLAIN,
            progress=lambda arm, done, of: self.report(f"evaluate {arm}", done, of, ""),
        )

    def _adapter(self, behavior: Behavior | None, adapter: str | None) -> AdapterInfo | None:
        """The adapter meant, checked and loaded; None where the behavior has none or none is wanted."""
        from factform.form import registry

        if adapter is None:
            return None
        if adapter == PROMOTED:
            digest = registry.promoted(self.adapters_folder, behavior.name) if behavior else None
            if digest is None:
                return None
            adapter = digest
        if behavior is None:
            raise CaseError(f"adapter {adapter!r} belongs to a behavior: say which with --behavior")
        info = registry.get(self.adapters_folder, adapter)
        if info.behavior != behavior.name:
            raise CaseError(f"adapter {info.name} belongs to behavior {info.behavior!r}, not to {behavior.name!r}")
        self._load_adapter(info)
        return replace(info, promoted=registry.promoted(self.adapters_folder, behavior.name) == info.digest)

    def _load_adapter(self, info: AdapterInfo) -> None:
        from factform.form import registry

        if self.settings.model.url:
            return  # a server knows its adapters by their immutable names
        if info.base != self.reader.digest:
            raise ModelError(
                f"adapter {info.name} was made for base {info.base[:12]}, this project's model is "
                f"{self.reader.digest[:12]}: tune it again for this model"
            )
        self.reader.load_adapter(info.name, registry.adapter_folder(self.adapters_folder, info))

    def _newest(self, name: str) -> AdapterInfo:
        found = self.adapters(name)
        if not found:
            raise RegistryError(f"behavior {name!r} has no adapter yet: run `factform tune {name}`")
        return max(found, key=lambda info: (info.created, info.digest))
