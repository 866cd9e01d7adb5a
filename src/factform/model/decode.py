"""Choosing tokens: greedily under a grammar, with forced and drafted tokens read in one step, or freely.

Knows nothing of weights or caches: a model is a function from tokens to logits that can forget its last tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from factform.model.matcher import Matcher

DRAFT = 6
"""Tokens drafted at most: reading seven tokens costs about twice as much as reading one on a CPU."""

MATCH = 2
"""Tokens at the end of what is written that must stand in a passage before its continuation is drafted."""

Read = Callable[[Sequence[int]], Tensor]
"""Reads tokens behind all that was read; logits [T, V] after each of them."""

Forget = Callable[[int], None]
"""Takes back the last so many tokens read."""


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


def write_masked(run: Run, first: Tensor, read: Read, forget: Forget, rules: Rules) -> None:
    """Write the likeliest allowed token, again and again, starting from the logits `first` [V].

    Tokens the grammar forces are read together with the chosen one, and so is a draft: the passage's continuation
    of what was just written (prompt lookup). A drafted token stands only if it is what would have been chosen, so
    drafts change the speed and never the text.
    """
    token = _choose(run, first, rules)
    while token != rules.end and len(run.tokens) < rules.limit:
        forced = _force(run, rules)
        if forced and (forced[-1] == rules.end or len(run.tokens) >= rules.limit):
            rows = read([token, *forced])
            _check_forced(run, rows, forced, rules)
            run.stop = "end" if forced[-1] == rules.end else "length"
            return
        draft = [] if forced else draft_from(rules.sources, run.tokens, DRAFT)
        rows = read([token, *forced, *draft])
        _check_forced(run, rows, forced, rules)
        place, token = len(forced), _choose(run, rows[len(forced)], rules)
        for drafted in draft:
            if token != drafted or len(run.tokens) >= rules.limit:
                break
            place += 1
            run.drafted += 1
            token = _choose(run, rows[place], rules)
        forget(len(forced) + len(draft) - place)
    run.stop = "end" if token == rules.end else "length"


def write_free(run: Run, first: Tensor, read: Read, end: int, limit: int, watcher: Matcher | None) -> None:
    """Write without a mask; with a `watcher`, stop where the contract can no longer be met."""
    scores = first
    while True:
        token = int(scores.argmax())
        run.logprob += float(scores[token] - scores.logsumexp(-1))
        run.tokens.append(token)
        if token == end:
            run.stop = "end" if watcher is None or watcher.is_accepting() else "invalid"
            return
        if watcher is not None and not watcher.try_consume(token):
            run.stop = "invalid"
            return
        if len(run.tokens) >= limit:
            return
        scores = read([token])[-1]


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


def _choose(run: Run, scores: Tensor, rules: Rules) -> int:
    """Choose, write and consume the likeliest allowed token."""
    own = int(scores.argmax())
    token = int(rules.matcher.apply(scores.clone()).argmax())
    run.logprob += float(scores[token] - scores.logsumexp(-1))
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


def _check_forced(run: Run, rows: Tensor, forced: Sequence[int], rules: Rules) -> None:
    """Look at the model's own choice at forced tokens too: `interventions` is 0 only where it agrees throughout."""
    for own, token in zip(rows[: len(forced)].argmax(-1).tolist(), forced, strict=True):
        _compare(run, own, token, rules)


def _compare(run: Run, own: int, written: int, rules: Rules) -> None:
    """Count where the model's `own` choice was not `written`, and move the watcher on."""
    if own != written:
        run.interventions += 1
        run.violations += not (rules.watcher.is_accepting() if own == rules.end else rules.watcher.allows(own))
    if written != rules.end:
        rules.watcher.try_consume(written)
