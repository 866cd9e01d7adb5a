"""The local language model: reads a prompt in blocks and writes an answer, token by token, under a grammar.

Knows nothing of stores, behaviors or why a passage was chosen. Two ways to read the same tokens: "exact" (header,
passages and tail attend causally to all before) and "reuse" (header and passages are blocks encoded alone, cached by
content, rotated to their place). In both, an adapter is active on the tail only.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer

from factform import compute
from factform.errors import ContextTooLong, ModelError
from factform.ids import sha256_file, sha256_text
from factform.int8.build import native as library
from factform.model.choose import Scores
from factform.model.config import read_config
from factform.model.decode import DRAFT, Rules, Run, Writing, write_free, write_masked
from factform.model.grammar import Constraint, compile_constraint, compile_watch
from factform.model.kv import Block, make_block, place
from factform.model.kvkey import model_key
from factform.model.kvroom import Lent
from factform.model.kvstore import IN_MEMORY, BlockStore, Keep
from factform.model.llama import StaticCache, Weights, merged, with_native, with_small
from factform.model.load import load_weights
from factform.model.lora import Adapter, cast, load_adapter
from factform.model.matcher import Matcher, grammar_tokenizer
from factform.model.native import NATIVE, fits
from factform.model.probe import choose
from factform.model.prompt import ChatFormat, load_chat_format
from factform.model.schedule import PROMPT_TOKENS, Job, Scheduler, Work
from factform.records import Generation, Mode, Prompt

ADAPTERS = 3
"""Adapters held at once, each as merged matrices: about the size of the model itself."""


@dataclass(frozen=True)
class Tokens:
    """A prompt in tokens, block by block."""

    header: tuple[int, ...]
    blocks: tuple[tuple[int, ...], ...]
    tail: tuple[int, ...]
    texts: tuple[str, ...]
    """Of the header and the blocks."""

    @property
    def encodable(self) -> tuple[Block, ...]:
        """Header and blocks as they are encoded, empty ones left out."""
        parts = enumerate(zip(self.texts, (self.header, *self.blocks), strict=True))
        return tuple(make_block(text, tokens, first=at == 0) for at, (text, tokens) in parts if tokens)

    @property
    def context(self) -> int:
        """Tokens before the tail."""
        return len(self.header) + sum(len(block) for block in self.blocks)

    @property
    def total(self) -> int:
        return self.context + len(self.tail)


@dataclass
class _Text:
    """One text that is being written: what it is made from, and how far it has come."""

    tokens: Tokens
    mode: Mode
    weights: Weights
    constraint: Constraint | None
    masked: bool
    limit: int
    begun: float
    run: Run = field(default_factory=Run)
    reused: int = 0
    first_ms: float = 0.0


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
        keep: Keep = IN_MEMORY,
        tokenizer_digest: str = "",
    ):
        self.weights, self.tokenizer, self.chat = weights, tokenizer, chat
        self.model, self.digest = model, digest
        self.end_token = _end_token(tokenizer, chat)
        self._special = tuple(t.content for t in tokenizer.get_added_tokens_decoder().values() if t.special)
        self._literal = Tokenizer.from_str(tokenizer.to_str())
        self._literal.encode_special_tokens = True
        self.grammar_tokenizer = grammar_tokenizer(tokenizer, self.end_token)
        tokenizer_digest = tokenizer_digest or sha256_text(tokenizer.to_str())
        self.store = BlockStore.open(weights, model_key(weights, digest, tokenizer_digest, keep.stored), keep)
        self.adapters: OrderedDict[str, Weights] = OrderedDict()
        self.drafts = True
        self.schedule = Scheduler()
        self._folders: dict[str, Path] = {}
        self._adapting = threading.Lock()

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        model: str,
        digest: str,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        int8_decode: bool = False,
        native: bool = True,
        keep: Keep = IN_MEMORY,
    ) -> Reader:
        """The reader of the model in `folder`, on CUDA where there is any.

        `dtype` defaults to what this machine computes fastest. With `int8_decode` the matrices are taken in 8 bit, if
        that is faster here: to read and write with the native library, else (or without `native`) to write only.
        """
        device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        small = int8_decode and device.type == "cpu"
        opening = partial(_open_weights, folder, dtype, device, small=small, native=small and native)
        weights = compute.run(opening)
        tokenizer = load_tokenizer(folder)
        chat, tokens = load_chat_format(folder), sha256_file(folder / "tokenizer.json")
        return cls(weights, tokenizer, chat, model=model, digest=digest, keep=keep, tokenizer_digest=tokens)

    @property
    def precision(self) -> str:
        """What answers are computed in: the dtype, and the 8-bit copy where one is used."""
        if self.weights.native is not None:
            return NATIVE
        name = str(self.weights.dtype).removeprefix("torch.")
        return f"{name}+int8" if self.weights.small else name

    # --- adapters ---------------------------------------------------------------------------

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load the adapter in `folder` under `name`; a name already loaded is left as it is (adapters never change)."""
        with self._adapting:
            self._folders[name] = folder
            if name in self.adapters:
                self.adapters.move_to_end(name)
            else:
                self.set_adapter(name, load_adapter(folder, self.weights.config.layers))

    def set_adapter(self, name: str, adapter: Adapter) -> None:
        """Hold `adapter` under `name`, replacing what was there.

        It is merged into weights of its own, used for tails only: the blocks are always read by the base. At most
        ADAPTERS are held; the one asked for least lately is given up (and loaded again when it is asked for).
        """
        self.adapters.pop(name, None)
        while len(self.adapters) >= ADAPTERS:
            self.adapters.pop(next(iter(self.adapters)))
        device = self.weights.device
        plain = cast(adapter, torch.float32, device)
        self.adapters[name] = compute.run(lambda: merged(self.weights, plain))

    # --- tokens -----------------------------------------------------------------------------

    def encode(self, text: str) -> tuple[int, ...]:
        """Tokens of `text`, nothing added."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def tokenize(self, prompt: Prompt) -> Tokens:
        """The prompt's tokens, each block by itself so that both modes see the same.

        What stands in a passage or a question is only text there: where it spells a control token of the model (a
        hostile page that would end the user's turn and begin another), it is read letter by letter.
        """
        blocks, texts = tuple(map(self._encode_text, prompt.blocks)), (prompt.header, *prompt.blocks)
        asked = prompt.tail.removesuffix(self.chat.after_user)
        tail = self.encode(prompt.tail)
        if self._spells_control(asked):
            tail = self._encode_text(asked) + self.encode(prompt.tail[len(asked) :])
        return Tokens(self.encode(prompt.header), blocks, tail, texts)

    def _encode_text(self, text: str) -> tuple[int, ...]:
        """Tokens of a text that is not ours, in which no control token counts as one."""
        if not self._spells_control(text):
            return self.encode(text)
        return tuple(self._literal.encode(text, add_special_tokens=False).ids)

    def _spells_control(self, text: str) -> bool:
        return any(token in text for token in self._special)

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
        cancel: threading.Event | None = None,
    ) -> Generation:
        """Greedy continuation of `prompt`. Calls from several threads are written in shared steps.

        With a `constraint` and `masked`, every token is one the contract's grammar allows. With a constraint and not
        `masked`, the model writes freely and is stopped at the first token after which no answer in contract is
        possible (stop "invalid"). Raises ContextTooLong with the numbers, ModelError for an unknown adapter, Cancelled
        soon after `cancel` is set.
        """
        begun = time.perf_counter()
        weights, tokens = self._tail_weights(adapter), self.tokenize(prompt)
        window = self.weights.config.window
        if tokens.total + max_tokens > window:
            raise ContextTooLong(
                f"the prompt has {tokens.total} tokens and up to {max_tokens} may be written, but the window of "
                f"{self.model} is {window}: ask a shorter question or give fewer passages"
            )
        under_mask = masked and constraint is not None
        text = _Text(tokens, mode, weights, constraint, under_mask, max_tokens, begun)
        room = tokens.total + max_tokens + DRAFT
        self._write(text, room, cancel)
        run = text.run
        return Generation(
            text=self.tokenizer.decode([t for t in run.tokens if t != self.end_token], skip_special_tokens=False),
            prompt_tokens=tokens.total,
            completion_tokens=len(run.tokens),
            stop=run.stop,
            interventions=run.interventions if under_mask else 0,
            ms={"first_token": text.first_ms, "total": (time.perf_counter() - begun) * 1e3},
            logprob=run.logprob,
            forced=run.forced,
            reused_tokens=text.reused,
            violations=run.violations if under_mask else None,
            drafted=run.drafted,
            precision=self.precision + (f", passages {self.store.model_key.stored}" if mode == "reuse" else ""),
        )

    def _write(self, text: _Text, room: int, cancel: threading.Event | None) -> None:
        """Read and write `text` in shared steps. An interrupt leaves its cache to whoever is writing to it."""
        lent: list[Lent] = []

        def start() -> Job:
            lent.append(self.store.rooms.lend(room))
            return self._job(text, lent[0].cache)

        try:
            self.schedule.run(room, start, cancel)
        except Exception:
            for each in lent:
                self.store.rooms.give_back(each)
            raise
        self.store.rooms.give_back(lent[0])

    def _job(self, text: _Text, cache: StaticCache) -> Job:
        """Everything done before the first step, which others need not wait for; then the steps."""
        with torch.inference_mode():
            text.reused = self._place_blocks(text, cache)
        return _steps(text, cache, self.weights, self._writing(text))

    def _writing(self, text: _Text) -> Callable[[Scores], Writing]:
        """From the tail's scores the text: under the grammar of its constraint, or free."""
        run, end, limit = text.run, self.end_token, text.limit
        watcher = self._watcher(text.constraint)
        if not text.masked or text.constraint is None or watcher is None:
            return lambda first: write_free(run, first, end, limit, watcher)
        matcher = compile_constraint(text.constraint, self.grammar_tokenizer).matcher()
        rules = Rules(matcher, watcher, end, limit, text.tokens.blocks if self.drafts else ())
        return lambda first: write_masked(run, first, rules)

    def warm(self, prompts: Iterable[Prompt]) -> None:
        """Encode the blocks of `prompts` ahead of their use in reuse mode."""
        blocks = [block for prompt in prompts for block in self.tokenize(prompt).encodable]
        if blocks:
            self.store.get(blocks)

    def _tail_weights(self, name: str | None) -> Weights:
        """The weights that read and write the tail: the base's, or those with an adapter merged in."""
        if name is None:
            return self.weights
        while (held := self.adapters.get(name)) is None:
            if name not in self._folders:
                raise ModelError(f"adapter {name!r} is not loaded; loaded are {sorted(self.adapters) or 'none'}")
            self.load_adapter(name, self._folders[name])  # others were loaded since and this one was given up for them
        return held

    def _watcher(self, constraint: Constraint | None) -> Matcher | None:
        """A matcher of the contract's form alone, whatever the passages."""
        return compile_watch(constraint.contract, self.grammar_tokenizer).matcher() if constraint else None

    def _place_blocks(self, text: _Text, cache: StaticCache) -> int:
        """Put what is kept as blocks into `cache`; returns how many of its tokens had been encoded before.

        The header stands first, so its block is the same in both modes: a cached prefix, exact by construction.
        """
        tokens = text.tokens
        alone = tokens.encodable if text.mode == "reuse" else tokens.encodable[: bool(tokens.header)]
        blocks, reused = self.store.fetch(alone)
        compute.run(lambda: place(self.weights, blocks, cache))
        return reused


def _open_weights(
    folder: Path, dtype: torch.dtype | None, device: torch.device, *, small: bool, native: bool
) -> Weights:
    """The model's weights with the copies in 8 bit that are asked for, have a gain here and can be had."""
    native = native and dtype in (None, torch.float32) and choose().native and library().library is not None
    if native and fits(read_config(folder)):
        return with_native(load_weights(folder, dtype=torch.float32, device=device))
    weights = load_weights(folder, dtype=dtype or choose().torch_dtype, device=device)
    return with_small(weights) if small and choose().int8 else weights


def _steps(text: _Text, cache: StaticCache, base: Weights, writing: Callable[[Scores], Writing]) -> Job:
    """Read what is not kept as blocks, then the tail; then write.

    Writing is in 8 bit if there is a copy; reading is so with the native library, else in full and by itself.
    """
    rest = [] if text.mode == "reuse" else [t for block in text.tokens.blocks for t in block]
    small = base.native is not None
    for part in _parts(rest):
        yield Work(base, cache, part, 0, int8=small, prompt=True)
    scores: Scores | None = None
    tail = _parts(text.tokens.tail)
    for part in tail:
        scores = yield Work(text.weights, cache, part, 1 if part is tail[-1] else 0, int8=small, prompt=True)
    assert scores is not None
    text.first_ms = (time.perf_counter() - text.begun) * 1e3
    steps = writing(scores)
    step = next(steps, None)
    while step is not None:
        cache.length -= step.forget
        scores = yield Work(text.weights, cache, step.tokens, len(step.tokens), int8=True)
        assert scores is not None
        try:
            step = steps.send(scores)
        except StopIteration:
            return


def _parts(tokens: Sequence[int]) -> list[Sequence[int]]:
    """`tokens` in the pieces a prompt is read in: always the same, whoever else is being answered."""
    return [tokens[at : at + PROMPT_TOKENS] for at in range(0, len(tokens), PROMPT_TOKENS)]


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


def _end_token(tokenizer: Tokenizer, chat: ChatFormat) -> int:
    """The token that ends an assistant's turn: what the template puts behind an answer or, if it renders none, between
    the system text and the user's.

    Template and tokenizer say it together, so a wrong `eos_token` in a config file cannot make answers endless.
    """
    for after in (chat.after_answer, chat.before_user):
        for token in tokenizer.encode(after, add_special_tokens=False).ids:
            text = tokenizer.id_to_token(token)
            if text and after.lstrip().startswith(text) and text in _special(tokenizer):
                return int(token)
    ends = f"{chat.after_answer!r} or {chat.before_user!r}"
    raise ModelError(f"no end-of-turn token at the start of {ends} in the chat template")


def _special(tokenizer: Tokenizer) -> Mapping[str, int]:
    return {added.content: index for index, added in tokenizer.get_added_tokens_decoder().items() if added.special}
