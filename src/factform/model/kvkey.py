"""The name of an encoded block: a hash over everything that changes its numbers.

Knows nothing of where blocks are kept. A name begins with the hash of the block's text, so that what was kept of a text
can be found, and taken away, without a model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from factform.ids import sha256_json
from factform.model.kv import Block, Stored
from factform.model.llama import Weights
from factform.model.native import NATIVE

VERSION = 1
"""Raised when blocks are encoded or kept in another way; what was kept before is then never found again."""


@dataclass(frozen=True)
class BlockKey:
    """What the numbers of a block depend on.

    `weights` is the digest of the model's files, `tokenizer` that of its tokenizer, `rope` that of its frequencies and
    sizes, `computed` what it was read in (a dtype, or the native library's 8 bit), `stored` the dtype it is kept in.
    `text` is the hash of the words, which for a passage begin with its header (title and headings). Nothing stands
    before them: a block is encoded alone, and the prompt's own header is a block like any other.
    """

    weights: str
    tokenizer: str
    rope: str
    computed: str
    stored: Stored
    version: int = VERSION
    text: str = ""
    tokens: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The text's hash, a dot, and 32 hex digits over everything else."""
        return f"{self.text}.{sha256_json({**asdict(self), 'text': ''})[:32]}"

    def of(self, block: Block) -> BlockKey:
        """The key of `block` with the same model."""
        stored: Stored = "float16" if block.first and self.stored == "int8" else self.stored
        return replace(self, stored=stored, text=block.text, tokens=block.tokens)


def text_of(name: str) -> str:
    """The hash of the text of the block called `name`."""
    return name.partition(".")[0]


def model_key(weights: Weights, digest: str, tokenizer: str, stored: Stored) -> BlockKey:
    """The key of a model's blocks, their words left open. `digest` and `tokenizer` are those of its files."""
    rope = sha256_json([asdict(weights.config), weights.frequencies.tolist()])
    computed = NATIVE if weights.native is not None else str(weights.dtype).removeprefix("torch.")
    return BlockKey(digest, tokenizer, rope, computed, stored)
