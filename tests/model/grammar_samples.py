"""Contracts, passages and answers that the tests of schema, grammar and matcher share.

Knows nothing of what is tested with them.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from factform.model.grammar import align_quote
from factform.model.matcher import GrammarTokenizer, grammar_tokenizer
from factform.model.schema import check_contract, dump_answer, marked_paths
from factform.records import Contract

END = 0


def tiny_tokenizer() -> GrammarTokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    text = '{"answer": "the quote of the source", "status": "not_in_documents", "evidence": {"quote": "revenue rose"}}'
    tokenizer.train_from_iterator([text, "revenue rose to 12.5 million in the quarter"] * 3, trainer)
    return grammar_tokenizer(tokenizer, END)


TOKENIZER = tiny_tokenizer()
QUOTE = {"type": "string", "x-factform": "quote"}
SOURCE = {"type": "string", "x-factform": "source"}


def object_of(properties: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def contract_of(schema: dict[str, Any], refusal: bool = True) -> Contract:
    assert check_contract(schema) == []
    return Contract(schema, marked_paths(schema, "quote"), marked_paths(schema, "source"), refusal)


FLAT = contract_of(object_of({"source": SOURCE, "quote": QUOTE, "answer": {"type": "string"}}))
QUOTE_FIRST = contract_of(object_of({"quote": QUOTE, "source": SOURCE}))
RICH = contract_of(
    object_of(
        {
            'ansWer "é"': {"type": "string"},
            "kind": {"enum": ["fact", "été", None, 3]},
            "amount": object_of(
                {"value": {"type": "number"}, "unit": {"type": ["string", "null"]}}, optional=("unit",)
            ),
            "evidence": object_of({"note": {"type": "string"}, "quote": QUOTE, "at": object_of({"source": SOURCE})}),
            "count": {"type": "integer"},
            "sure": {"type": "boolean"},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
        },
        optional=("count", "kind"),
    )
)
TWO = contract_of(object_of({"quote": QUOTE, "source": SOURCE, "other_quote": QUOTE, "other_source": SOURCE}))
TEXTS = [("1", 'Revenue rose to "12.5 million" in Q3.\n\nCosts fell.'), ("2", "Staff: 40\\45 people — 😀 and €7.")]


def answer(source: str, quote: str) -> str:
    return dump_answer({"source": source, "quote": quote, "answer": "a"}, FLAT)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
passages = st.lists(texts.filter(lambda t: any(not c.isspace() for c in t)), min_size=1, max_size=3)


def labelled(found: list[str]) -> list[tuple[str, str]]:
    return [(str(i), text) for i, text in enumerate(found, start=1)]


@st.composite
def quoted(draw: st.DrawFn, text: str) -> str:
    visible = [i for i, c in enumerate(text) if not c.isspace()]
    start = draw(st.sampled_from(visible))
    end = draw(st.integers(start + 1, len(text)))
    a, b = align_quote(text, start, end)
    return text[a:b]


@st.composite
def flat_answers(draw: st.DrawFn) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    given_passages = labelled(draw(passages))
    label, text = draw(st.sampled_from(given_passages))
    return given_passages, {"answer": draw(texts), "quote": draw(quoted(text)), "source": label}


@st.composite
def rich_answers(draw: st.DrawFn) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    given_passages = labelled(draw(passages))
    label, text = draw(st.sampled_from(given_passages))
    amount: dict[str, Any] = {"value": draw(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9**20))}
    if draw(st.booleans()):
        amount["unit"] = draw(st.none() | texts)
    answer: dict[str, Any] = {
        "tags": draw(st.lists(texts, max_size=3)),
        "sure": draw(st.booleans()),
        "evidence": {"at": {"source": label}, "quote": draw(quoted(text)), "note": draw(texts)},
        "amount": amount,
        'ansWer "é"': draw(texts),
    }
    if draw(st.booleans()):
        answer["count"] = draw(st.integers() | st.integers(-5, 5).map(float))
    if draw(st.booleans()):
        answer["kind"] = draw(st.sampled_from(["fact", "été", None, 3]))
    return given_passages, answer
