"""The local language model: reads a prompt in blocks and writes an answer, token by token, under a grammar.

Knows nothing of stores, behaviors or why a passage was chosen. Two ways to read the same tokens: "exact" (header,
passages and tail attend causally to all before) and "reuse" (header and passages are blocks encoded alone, cached by
content, rotated to their place). In both, an adapter is active on the tail only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer
from torch import Tensor

from factform.errors import ContextTooLong, ModelError
from factform.model.grammar import Constraint, Matcher, compile_constraint, compile_watch, grammar_tokenizer
from factform.model.kv import BlockStore, place
from factform.model.llama import StaticCache, Weights, forward, load_weights, logits
from factform.model.lora import Adapter, cast, load_adapter
from factform.model.prompt import ChatFormat, load_chat_format
from factform.records import Generation, Mode, Prompt

KV_BUDGET = 1 << 30
"""Bytes of encoded blocks kept in memory unless told otherwise."""


@dataclass(frozen=True)
class Tokens:
    """A prompt in tokens, block by block."""

    header: tuple[int, ...]
    blocks: tuple[tuple[int, ...], ...]
    tail: tuple[int, ...]

    @property
    def context(self) -> int:
        """Tokens before the tail."""
        return len(self.header) + sum(len(block) for block in self.blocks)

    @property
    def total(self) -> int:
        return self.context + len(self.tail)


@dataclass
class _Run:
    """What one generation has written so far."""

    tokens: list[int] = field(default_factory=list)
    interventions: int = 0
    violations: int = 0
    forced: int = 0
    logprob: float = 0.0
    stop: Literal["end", "length", "invalid"] = "length"


class Reader:
    """A model in memory with its tokenizer, its encoded blocks and the adapters it can put on."""

    def __init__(
        self,
        weights: Weights,
        tokenizer: Tokenizer,
        chat: ChatFormat,
        *,
        model: str,
        digest: str,
        kv_budget: int = KV_BUDGET,
        kv_dtype: torch.dtype | None = None,
    ):
        self.weights, self.tokenizer, self.chat = weights, tokenizer, chat
        self.model, self.digest = model, digest
        self.end_token = _end_token(tokenizer, chat)
        self.grammar_tokenizer = grammar_tokenizer(tokenizer, self.end_token)
        store_dtype = kv_dtype or (torch.float16 if weights.dtype == torch.float32 else weights.dtype)
        self.store = BlockStore(weights, digest, budget=kv_budget, dtype=store_dtype)
        self.adapters: dict[str, Adapter] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls, folder: Path, *, model: str, digest: str, dtype: torch.dtype | None = None, kv_budget: int = KV_BUDGET
    ) -> Reader:
        """The reader of the model in `folder`; `dtype` defaults to what this machine computes fastest."""
        weights = load_weights(folder, dtype=dtype or fast_dtype())
        tokenizer = load_tokenizer(folder)
        return cls(weights, tokenizer, load_chat_format(folder), model=model, digest=digest, kv_budget=kv_budget)

    # --- adapters ---------------------------------------------------------------------------

    def put_on(self, name: str, folder: Path) -> None:
        """Load the adapter in `folder` under `name`; a name already loaded is left as it is (adapters never change)."""
        if name not in self.adapters:
            self.set_adapter(name, load_adapter(folder, self.weights.config.layers))

    def set_adapter(self, name: str, adapter: Adapter) -> None:
        """Hold `adapter` under `name`, replacing what was there."""
        self.adapters[name] = cast(adapter, self.weights.dtype, self.weights.device)

    # --- tokens -----------------------------------------------------------------------------

    def encode(self, text: str) -> tuple[int, ...]:
        """Tokens of `text`, nothing added."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def tokenize(self, prompt: Prompt) -> Tokens:
        """The prompt's tokens, each block by itself so that both modes see the same."""
        return Tokens(self.encode(prompt.header), tuple(map(self.encode, prompt.blocks)), self.encode(prompt.tail))

    def count_tokens(self, text: str) -> int:
        """Number of tokens of `text`."""
        return len(self.encode(text))

    # --- generation -------------------------------------------------------------------------

    def generate(
        self,
        prompt: Prompt,
        *,
        adapter: str | None = None,
        mode: Mode = "exact",
        constraint: Constraint | None = None,
        masked: bool = True,
        max_tokens: int = 256,
    ) -> Generation:
        """Greedy continuation of `prompt`.

        With a `constraint` and `masked`, every token is one the contract's grammar allows. With a constraint and not
        `masked`, the model writes freely and is stopped at the first token after which no answer in contract is
        possible (stop "invalid"). Raises ContextTooLong with the numbers, ModelError for an unknown adapter.
        """
        started = time.perf_counter()
        worn = self._adapter(adapter)
        tokens = self.tokenize(prompt)
        window = self.weights.config.window
        if tokens.total + max_tokens > window:
            raise ContextTooLong(
                f"the prompt has {tokens.total} tokens and up to {max_tokens} may be written, but the window of "
                f"{self.model} is {window}: ask a shorter question or give fewer passages"
            )
        matcher = self._matcher(constraint, masked)
        watcher = self._matcher(constraint, False) if masked else matcher
        with self._lock, torch.inference_mode():
            cache = self._cache(tokens.total + max_tokens)
            reused = self._read_context(tokens, mode, cache)
            hidden = self._step(tokens.tail, cache, worn)
            first = time.perf_counter()
            run = _Run()
            if masked and matcher is not None and watcher is not None:
                self._write_masked(run, hidden, cache, worn, matcher, watcher, max_tokens)
            else:
                self._write_free(run, hidden, cache, worn, watcher, max_tokens)
        return Generation(
            text=self.tokenizer.decode([t for t in run.tokens if t != self.end_token], skip_special_tokens=False),
            prompt_tokens=tokens.total,
            completion_tokens=len(run.tokens),
            stop=run.stop,
            interventions=run.interventions if masked and matcher is not None else 0,
            ms={"first_token": (first - started) * 1e3, "total": (time.perf_counter() - started) * 1e3},
            logprob=run.logprob,
            forced=run.forced,
            reused_tokens=reused,
            violations=run.violations if masked and matcher is not None else None,
        )

    def warm(self, prompts: Iterable[Prompt]) -> None:
        """Encode the blocks of `prompts` ahead of their use in reuse mode."""
        blocks = [block for prompt in prompts for block in self._blocks(self.tokenize(prompt))]
        if blocks:
            self.store.get(blocks)

    def _adapter(self, name: str | None) -> Adapter | None:
        if name is None:
            return None
        if name not in self.adapters:
            raise ModelError(f"adapter {name!r} is not loaded; loaded are {sorted(self.adapters) or 'none'}")
        return self.adapters[name]

    def _matcher(self, constraint: Constraint | None, masked: bool) -> Matcher | None:
        if constraint is None:
            return None
        if not masked:
            return compile_watch(constraint.contract, self.grammar_tokenizer).matcher()
        return compile_constraint(constraint, self.grammar_tokenizer).matcher()

    def _cache(self, capacity: int) -> StaticCache:
        return StaticCache(self.weights.config, capacity, self.weights.dtype, self.weights.device)

    @staticmethod
    def _blocks(tokens: Tokens) -> list[tuple[int, ...]]:
        return [block for block in (tokens.header, *tokens.blocks) if block]

    def _read_context(self, tokens: Tokens, mode: Mode, cache: StaticCache) -> int:
        """Fill `cache` with everything before the tail; returns how many tokens came from encoded blocks.

        The header stands first, so its block is the same in both modes: a cached prefix, exact by construction.
        """
        hits = self.store.hits
        blocks = self._blocks(tokens) if mode == "reuse" else [b for b in (tokens.header,) if b]
        if blocks:
            place(self.weights, self.store.get(blocks), cache)
        reused = cache.length if self.store.hits > hits else 0
        if mode == "exact":
            rest = [t for block in tokens.blocks for t in block]
            if rest:
                self._step(rest, cache, None)
        return reused

    def _step(self, tokens: Sequence[int], cache: StaticCache, adapter: Adapter | None) -> Tensor:
        """Read `tokens` behind the cache; hidden states [T, N]."""
        ids = torch.tensor([list(tokens)], device=self.weights.device)
        positions = torch.arange(cache.length, cache.length + len(tokens), device=self.weights.device)
        hidden = forward(self.weights, ids, positions, cache, adapter=adapter)
        cache.length += len(tokens)
        return hidden[0]

    def _write_masked(
        self,
        run: _Run,
        hidden: Tensor,
        cache: StaticCache,
        adapter: Adapter | None,
        matcher: Matcher,
        watcher: Matcher,
        limit: int,
    ) -> None:
        """Choose the likeliest allowed token, add all tokens it forces, read them in one step, go on.

        At the forced tokens the model's own choice is looked at too, so that `interventions` is 0 only where it
        would have written every token by itself. The `watcher` knows the contract without the passages: it tells a
        choice that breaks the form from one that only leaves a quote's words.
        """
        scores = logits(self.weights, hidden[-1])
        while True:
            own = int(scores.argmax())
            token = int(matcher.apply(scores.clone()).argmax())
            run.logprob += float(scores[token] - scores.logsumexp(-1))
            self._compare(run, own, token, watcher)
            run.tokens.append(token)
            if token == self.end_token:
                run.stop = "end"
                return
            matcher.consume(token)
            forced = matcher.forced()[: max(0, limit - len(run.tokens))]
            for following in forced:
                matcher.consume(following)
            run.forced += len(forced)
            run.tokens.extend(forced)
            if len(run.tokens) >= limit:
                return
            states = self._step([token, *forced], cache, adapter)
            rows = logits(self.weights, states)
            for chosen, following in zip(rows[:-1].argmax(-1).tolist(), forced, strict=True):
                self._compare(run, chosen, following, watcher)
            if forced and forced[-1] == self.end_token:
                run.stop = "end"
                return
            scores = rows[-1]

    def _compare(self, run: _Run, own: int, written: int, watcher: Matcher) -> None:
        """Count where the model's `own` choice was not `written`, and move the watcher on."""
        if own != written:
            run.interventions += 1
            run.violations += not (watcher.is_accepting() if own == self.end_token else watcher.allows(own))
        if written != self.end_token:
            watcher.try_consume(written)

    def _write_free(
        self,
        run: _Run,
        hidden: Tensor,
        cache: StaticCache,
        adapter: Adapter | None,
        watcher: Matcher | None,
        limit: int,
    ) -> None:
        """Write without a mask; with a `watcher`, stop where the contract can no longer be met."""
        scores = logits(self.weights, hidden[-1])
        while True:
            token = int(scores.argmax())
            run.logprob += float(scores[token] - scores.logsumexp(-1))
            run.tokens.append(token)
            if token == self.end_token:
                run.stop = "end" if watcher is None or watcher.is_accepting() else "invalid"
                return
            if watcher is not None and not watcher.try_consume(token):
                run.stop = "invalid"
                return
            if len(run.tokens) >= limit:
                return
            scores = logits(self.weights, self._step([token], cache, adapter)[-1])


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in `folder`; truncation and padding it may carry are switched off: nothing is cut in silence."""
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(f"{path} cannot be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def fast_dtype() -> torch.dtype:
    """The dtype this machine multiplies fastest.

    bf16 on CUDA and on CPUs with AMX. AVX512-BF16 alone is no gain: its dot-product units do fewer per cycle than
    two fp32 FMAs, measured 480 against 720 tokens/s of prefill on 2 cores (docs/log.md).
    """
    if torch.cuda.is_available() or torch.cpu._is_amx_tile_supported():
        return torch.bfloat16
    return torch.float32


def _end_token(tokenizer: Tokenizer, chat: ChatFormat) -> int:
    """The token that ends an assistant's turn: what the template puts between the system text and the user's.

    Template and tokenizer say it together, so a wrong `eos_token` in a config file cannot make answers endless.
    """
    for token in tokenizer.encode(chat.before_user, add_special_tokens=False).ids:
        text = tokenizer.id_to_token(token)
        if text and chat.before_user.lstrip().startswith(text) and text in _special(tokenizer):
            return int(token)
    raise ModelError(f"no end-of-turn token at the start of {chat.before_user!r} in the chat template")


def _special(tokenizer: Tokenizer) -> Mapping[str, int]:
    return {added.content: index for index, added in tokenizer.get_added_tokens_decoder().items() if added.special}
