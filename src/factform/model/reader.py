"""The local language model: reads a prompt in blocks and writes an answer, token by token, under a grammar.

Knows nothing of stores, behaviors or why a passage was chosen. Two ways to read the same tokens: "exact" (header,
passages and tail attend causally to all before) and "reuse" (header and passages are blocks encoded alone, cached by
content, rotated to their place). In both, an adapter is active on the tail only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from factform.errors import ContextTooLong, ModelError
from factform.hardware import has_fast_bf16
from factform.model.decode import DRAFT, Rules, Run, write_free, write_masked
from factform.model.grammar import Constraint, compile_constraint, compile_watch
from factform.model.kv import BlockStore, place
from factform.model.llama import StaticCache, Weights, forward, load_weights, logits, merged, with_small
from factform.model.lora import Adapter, cast, load_adapter
from factform.model.matcher import Matcher, grammar_tokenizer
from factform.model.prompt import ChatFormat, load_chat_format
from factform.model.quantize import is_faster
from factform.records import Generation, Mode, Prompt

ADAPTERS = 3
"""Adapters held at once, each as merged matrices: about the size of the model itself."""

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


class Reader:
    """A model in memory with its tokenizer, its encoded blocks and the adapters loaded into it."""

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
        self.adapters: dict[str, Weights] = {}
        self.drafts = True
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        model: str,
        digest: str,
        dtype: torch.dtype | None = None,
        int8_decode: bool = False,
        kv_budget: int = KV_BUDGET,
    ) -> Reader:
        """The reader of the model in `folder`; `dtype` defaults to what this machine computes fastest.

        With `int8_decode` answers are written, never read, with the layers' matrices in 8 bit, if that is faster here.
        """
        weights = load_weights(folder, dtype=dtype or fast_dtype())
        first = weights.layers[0]
        matrices = (first.qkv, first.out, first.gate_up, first.down)
        if int8_decode and weights.device.type == "cpu" and is_faster(matrices):
            weights = with_small(weights)
        tokenizer = load_tokenizer(folder)
        return cls(weights, tokenizer, load_chat_format(folder), model=model, digest=digest, kv_budget=kv_budget)

    @property
    def precision(self) -> str:
        """What answers are computed in: the dtype, and the 8-bit copy where one is used."""
        name = str(self.weights.dtype).removeprefix("torch.")
        return f"{name}+int8" if self.weights.small else name

    # --- adapters ---------------------------------------------------------------------------

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load the adapter in `folder` under `name`; a name already loaded is left as it is (adapters never change)."""
        if name not in self.adapters:
            self.set_adapter(name, load_adapter(folder, self.weights.config.layers))

    def set_adapter(self, name: str, adapter: Adapter) -> None:
        """Hold `adapter` under `name`, replacing what was there.

        It is merged into weights of its own, used for tails only: the blocks are always read by the base. At most
        ADAPTERS are held; the one loaded first is given up (and loaded again when it is asked for).
        """
        self.adapters.pop(name, None)
        while len(self.adapters) >= ADAPTERS:
            self.adapters.pop(next(iter(self.adapters)))
        device = self.weights.device
        self.adapters[name] = merged(self.weights, cast(adapter, torch.float32, device))

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
        tail_weights = self._tail_weights(adapter)
        tokens = self.tokenize(prompt)
        window = self.weights.config.window
        if tokens.total + max_tokens > window:
            raise ContextTooLong(
                f"the prompt has {tokens.total} tokens and up to {max_tokens} may be written, but the window of "
                f"{self.model} is {window}: ask a shorter question or give fewer passages"
            )
        with self._lock, torch.inference_mode():
            cache = self._cache(tokens.total + max_tokens + DRAFT)
            reused = self._read_context(tokens, mode, cache)
            first = logits(self.weights, self._step(tokens.tail, cache, tail_weights)[-1])
            first_at = time.perf_counter()
            run = Run()

            def read(following: Sequence[int]) -> Tensor:
                return logits(self.weights, self._step(following, cache, tail_weights, int8=True))

            def forget(count: int) -> None:
                cache.length -= count

            watcher = self._watcher(constraint)
            if masked and constraint is not None and watcher is not None:
                matcher = compile_constraint(constraint, self.grammar_tokenizer).matcher()
                sources = tokens.blocks if self.drafts else ()
                rules = Rules(matcher, watcher, self.end_token, max_tokens, sources)
                write_masked(run, first, read, forget, rules)
            else:
                write_free(run, first, read, self.end_token, max_tokens, watcher)
        under_mask = masked and constraint is not None
        return Generation(
            text=self.tokenizer.decode([t for t in run.tokens if t != self.end_token], skip_special_tokens=False),
            prompt_tokens=tokens.total,
            completion_tokens=len(run.tokens),
            stop=run.stop,
            interventions=run.interventions if under_mask else 0,
            ms={"first_token": (first_at - started) * 1e3, "total": (time.perf_counter() - started) * 1e3},
            logprob=run.logprob,
            forced=run.forced,
            reused_tokens=reused,
            violations=run.violations if under_mask else None,
            drafted=run.drafted,
            precision=self.precision,
        )

    def warm(self, prompts: Iterable[Prompt]) -> None:
        """Encode the blocks of `prompts` ahead of their use in reuse mode."""
        blocks = [block for prompt in prompts for block in self._blocks(self.tokenize(prompt))]
        if blocks:
            self.store.get(blocks)

    def _tail_weights(self, name: str | None) -> Weights:
        """The weights that read and write the tail: the base's, or those with an adapter merged in."""
        if name is None:
            return self.weights
        if name not in self.adapters:
            raise ModelError(f"adapter {name!r} is not loaded; loaded are {sorted(self.adapters) or 'none'}")
        return self.adapters[name]

    def _watcher(self, constraint: Constraint | None) -> Matcher | None:
        """A matcher of the contract's form alone, whatever the passages."""
        return compile_watch(constraint.contract, self.grammar_tokenizer).matcher() if constraint else None

    def _cache(self, capacity: int) -> StaticCache:
        return StaticCache(self.weights.config, capacity, self.weights.dtype, self.weights.device)

    @staticmethod
    def _blocks(tokens: Tokens) -> list[tuple[int, ...]]:
        return [block for block in (tokens.header, *tokens.blocks) if block]

    def _read_context(self, tokens: Tokens, mode: Mode, cache: StaticCache) -> int:
        """Fill `cache` with everything before the tail; returns how many of its tokens had been encoded before.

        The header stands first, so its block is the same in both modes: a cached prefix, exact by construction.
        """
        blocks = self._blocks(tokens) if mode == "reuse" else [b for b in (tokens.header,) if b]
        reused = self.store.held(blocks)
        if blocks:
            place(self.weights, self.store.get(blocks), cache)
        if mode == "exact":
            rest = [t for block in tokens.blocks for t in block]
            if rest:
                self._step(rest, cache, self.weights)
        return reused

    def _step(self, tokens: Sequence[int], cache: StaticCache, weights: Weights, *, int8: bool = False) -> Tensor:
        """Read `tokens` behind the cache; hidden states [T, N]. `int8` is for what was just written."""
        ids = torch.tensor([list(tokens)], device=self.weights.device)
        positions = torch.arange(cache.length, cache.length + len(tokens), device=self.weights.device)
        hidden = forward(weights, ids, positions, cache, int8=int8)
        cache.length += len(tokens)
        return hidden[0]


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
    """The dtype this machine multiplies fastest: bf16 on CUDA and on CPUs made for it."""
    return torch.bfloat16 if torch.cuda.is_available() or has_fast_bf16() else torch.float32


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
