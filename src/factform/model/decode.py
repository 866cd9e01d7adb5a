"""Choosing tokens: greedily under a grammar, with forced and drafted tokens read in one step, or freely.

Knows nothing of weights or caches, nor of what is written beside it: it asks for steps and is sent scores.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from factform.model.choose import Scores
from factform.model.matcher import Matcher

DRAFT = 6
"""Tokens drafted at most: reading seven tokens costs about twice as much as reading one on a CPU."""

MATCH = 2
"""Tokens at the end of what is written that must stand in a passage before its continuation is drafted."""


@dataclass(frozen=True)
class Step:
    """Tokens to be read next, after the last `forget` tokens read have been taken back."""

    tokens: Sequence[int]
    forget: int = 0


Writing = Generator[Step, Scores, None]
"""A text being written: it asks for steps and is sent the scores after each of a step's tokens."""


@dataclass
class Run:
    """What one generation has written so far."""

    tokens: list[int] = field(default_factory=list)
    interventions: int = 0
    violations: int = 0
    forced: int = 0
    drafted: int = 0
    logprob: float = 0.0
    stop: Literal["end", "length", "invalid"] = "length"


@dataclass(frozen=True)
class Rules:
    """What a masked run keeps to. The `watcher` knows the contract without the passages: it tells a choice that breaks
    the form from one that only leaves a quote's words. `sources` are the passages' tokens, for drafts.
    """

    matcher: Matcher
    watcher: Matcher
    end: int
    limit: int
    sources: Sequence[Sequence[int]] = ()


def write_masked(run: Run, first: Scores, rules: Rules) -> Writing:
    """Write the likeliest allowed token, again and again, starting from the scores `first` of one place.

    Tokens the grammar forces are read together with the chosen one, and so is a draft: the passage's continuation
    of what was just written (prompt lookup). A drafted token stands only if it is what would have been chosen, so
    drafts change the speed and never the text.
    """
    token, forget = _choose(run, first, 0, rules), 0
    while token != rules.end and len(run.tokens) < rules.limit:
        forced = _force(run, rules)
        ends = bool(forced) and (forced[-1] == rules.end or len(run.tokens) >= rules.limit)
        draft = [] if forced else draft_from(rules.sources, run.tokens, DRAFT)
        scores = yield Step([token, *forced, *draft], forget)
        _check_forced(run, scores, forced, rules)
        if ends:
            run.stop = "end" if forced[-1] == rules.end else "length"
            return
        place, token = len(forced), _choose(run, scores, len(forced), rules)
        for drafted in draft:
            if token != drafted or len(run.tokens) >= rules.limit:
                break
            place += 1
            run.drafted += 1
            token = _choose(run, scores, place, rules)
        forget = len(forced) + len(draft) - place
    run.stop = "end" if token == rules.end else "length"


def write_free(run: Run, first: Scores, end: int, limit: int, watcher: Matcher | None) -> Writing:
    """Write without a mask; with a `watcher`, stop where the contract can no longer be met."""
    scores = first
    while True:
        _, token, logprob = scores.choose(0, None)
        run.logprob += logprob
        run.tokens.append(token)
        if token == end:
            run.stop = "end" if watcher is None or watcher.is_accepting() else "invalid"
            return
        if watcher is not None and not watcher.try_consume(token):
            run.stop = "invalid"
            return
        if len(run.tokens) >= limit:
            return
        scores = yield Step([token])


def draft_from(sources: Sequence[Sequence[int]], written: Sequence[int], most: int) -> list[int]:
    """What follows the last MATCH written tokens in a source, at its first place there; nothing if in none."""
    tail = tuple(written[-MATCH:])
    if len(tail) < MATCH:
        return []
    for source in sources:
        for at in range(len(source) - MATCH):
            if tuple(source[at : at + MATCH]) == tail:
                return list(source[at + MATCH : at + MATCH + most])
    return []


def _choose(run: Run, scores: Scores, place: int, rules: Rules) -> int:
    """Choose, write and consume the likeliest allowed token."""
    own, token, logprob = scores.choose(place, rules.matcher.allowed())
    run.logprob += logprob
    _compare(run, own, token, rules)
    run.tokens.append(token)
    if token != rules.end:
        rules.matcher.consume(token)
    return token


def _force(run: Run, rules: Rules) -> list[int]:
    """Write and consume all tokens that must follow."""
    forced = rules.matcher.forced()[: max(0, rules.limit - len(run.tokens))]
    for token in forced:
        if token != rules.end:
            rules.matcher.consume(token)
    run.forced += len(forced)
    run.tokens.extend(forced)
    return forced


def _check_forced(run: Run, scores: Scores, forced: Sequence[int], rules: Rules) -> None:
    """Look at the model's own choice at forced tokens too: `interventions` is 0 only where it agrees throughout."""
    for place, token in enumerate(forced):
        _compare(run, scores.best(place), token, rules)


def _compare(run: Run, own: int, written: int, rules: Rules) -> None:
    """Count where the model's `own` choice was not `written`, and move the watcher on."""
    if own != written:
        run.interventions += 1
        run.violations += not (rules.watcher.is_accepting() if own == rules.end else rules.watcher.allows(own))
    if written != rules.end:
        rules.watcher.try_consume(written)
