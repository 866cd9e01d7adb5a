"""Drafts and forced tokens change how many steps are taken and never what is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from factform.ids import sha256_text
from factform.model import schedule
from factform.model.choose import FullScores
from factform.model.decode import Rules, Run, Writing, draft_from, write_free, write_masked
from factform.model.grammar import Constraint, compile_constraint, compile_watch
from factform.model.llama import logits, with_small
from factform.model.matcher import GrammarTokenizer, Matcher
from factform.model.prompt import PLAIN, PLAIN_INSTRUCTIONS, render
from factform.model.reader import Reader
from factform.records import Chunk, Generation, Passage

TEXTS = (
    "The monthly rent for unit 7 is 1,480 euros. The notice period is three months.",
    "The boiler must be serviced every 18 months by a certified technician.",
)


class Copier:
    """A model that goes on with the text it last read two tokens of, and otherwise prefers a token by seed.

    Its logits depend on all it has read and nothing else, as a language model's do; `steps` counts calls.
    """

    def __init__(self, sources: Sequence[Sequence[int]], vocabulary: int, end: int, seed: int):
        self.sources, self.vocabulary, self.end, self.seed = sources, vocabulary, end, seed
        self.seen: list[int] = []
        self.steps = 0

    def read(self, tokens: Sequence[int]) -> torch.Tensor:
        self.steps += 1
        rows = []
        for token in tokens:
            self.seen.append(token)
            rows.append(self.scores())
        return torch.stack(rows)

    def forget(self, count: int) -> None:
        if count:
            del self.seen[-count:]

    def scores(self) -> torch.Tensor:
        g = torch.Generator().manual_seed(hash((self.seed, len(self.seen), *self.seen[-3:])) % (1 << 31))
        scores = torch.randn(self.vocabulary, generator=g)
        following = draft_from(self.sources, self.seen, 1)
        if following and len(self.seen) % 11:  # now and then it turns away in the middle of a copy
            scores[following[0]] += 20
        scores[self.end] += 3
        return scores


def finish(writing: Writing, read: Callable[[Sequence[int]], torch.Tensor], forget: Callable[[int], None]) -> None:
    """Take the steps a text asks for, by itself."""
    step = next(writing, None)
    while step is not None:
        forget(step.forget)
        try:
            step = writing.send(FullScores(read(step.tokens)))
        except StopIteration:
            return


def passages() -> tuple[Passage, ...]:
    return tuple(
        Passage(str(i), Chunk(f"c{i}", "d", "v", 0, len(t), t, sha256_text(t), "")) for i, t in enumerate(TEXTS, 1)
    )


def written(
    grammar: GrammarTokenizer, tokenizer: Tokenizer, end: int, seed: int, limit: int, *, drafts: bool
) -> tuple[Run, int]:
    sources = [tokenizer.encode(t, add_special_tokens=False).ids for t in TEXTS]
    model = Copier(sources, grammar.vocabulary, end, seed)
    run = Run()
    constraint = Constraint(PLAIN, passages())
    matcher = compile_constraint(constraint, grammar).matcher()
    watcher = compile_watch(PLAIN, grammar).matcher()
    rules = Rules(matcher, watcher, end, limit, sources if drafts else ())
    finish(write_masked(run, FullScores(model.scores()[None]), rules), model.read, model.forget)
    return run, model.steps


def test_drafts_save_steps_and_change_no_token(tiny: Reader) -> None:
    taken = saved = 0
    for seed in range(25):
        for limit in (9, 40, 300):
            given_to = (tiny.grammar_tokenizer, tiny.tokenizer, tiny.end_token, seed, limit)
            fast, few = written(*given_to, drafts=True)
            slow, many = written(*given_to, drafts=False)
            assert fast.tokens == slow.tokens
            assert (fast.stop, fast.interventions, fast.violations) == (slow.stop, slow.interventions, slow.violations)
            assert len(fast.tokens) <= limit
            taken += fast.drafted
            saved += many - few
    assert taken > 20
    assert saved > 5


@given(st.lists(st.lists(st.integers(0, 5), max_size=20), max_size=3), st.lists(st.integers(0, 5), max_size=6))
def test_a_draft_is_what_follows_in_a_source(sources: list[list[int]], tail: list[int]) -> None:
    draft = draft_from(sources, tail, 4)
    assert len(draft) <= 4
    if draft:
        whole = [*tail[-2:], *draft]
        assert any(whole == s[i : i + len(whole)] for s in sources for i in range(len(s)))


def test_free_writing_ends_at_the_end_token_or_the_limit() -> None:
    def always(token: int) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor([token]), 8).float()

    run = Run()
    finish(write_free(run, FullScores(always(3)), 7, 5, None), lambda tokens: always(3), lambda count: None)
    assert (run.tokens, run.stop) == ([3] * 5, "length")
    run = Run()
    finish(write_free(run, FullScores(always(3)), 7, 5, None), lambda tokens: always(7), lambda count: None)
    assert (run.tokens, run.stop) == ([3, 7], "end")


QUESTIONS = ("What is the monthly rent?", "How long is the notice period?", "How often must the boiler be serviced?")


@pytest.mark.slow
def test_the_default_model_writes_what_plain_greedy_writes_in_fewer_steps(
    default_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forced tokens, drafts, the 8-bit head and shared steps against one token a step and the full head."""
    reader = Reader.open(default_dir, model="m", digest="m", dtype=torch.float32, device=torch.device("cpu"))
    reader.weights = with_small(reader.weights)
    found = passages()

    def write(question: str) -> Generation:
        prompt = render(question, found, reader.chat, instructions=PLAIN_INSTRUCTIONS)
        return reader.generate(prompt, constraint=Constraint(PLAIN, found), max_tokens=90)

    before = reader.schedule.steps
    quick = [write(question) for question in QUESTIONS]
    quick_steps = reader.schedule.steps - before
    monkeypatch.setattr(Matcher, "forced", lambda self: [])
    monkeypatch.setattr(schedule, "score", lambda weights, hidden, *, int8: FullScores(logits(weights, hidden)))
    reader.drafts = False
    plain = [write(question) for question in QUESTIONS]
    assert [g.text for g in quick] == [g.text for g in plain]
    assert sum(g.drafted + g.forced for g in plain) == 0
    written = sum(g.completion_tokens for g in quick)
    assert written / quick_steps >= 2  # the steps that read the prompts among them
