"""Arms: what each one asks, and how validity without the mask is found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from factform.answer import EvidenceUse, Parts
from factform.errors import CaseError
from factform.evaluation import ARMS, ArmSettings, make_arms
from factform.ids import sha256_text
from factform.model.lora import new_adapter
from factform.model.prompt import PLAIN, PLAIN_SPAN
from factform.model.reader import Reader
from factform.records import AdapterInfo, Behavior, Case, Chunk, Evidence, Generation, Hit, Proposal, SearchResult

TEXT = "The monthly rent for unit 7 is 1,480 euros."
CHUNK = Chunk("c", "lease-7", "v", 0, len(TEXT), TEXT, sha256_text(TEXT), "Lease")
BEHAVIOR = Behavior("desk", "", "Long instructions.", PLAIN, (), (), 2, 150, "d")
ADAPTER = AdapterInfo("a" * 64, "desk", "tiny", "now", True, {})
CASE = Case("1", "What is the rent?", answers=("1,480 euros",), documents=("lease-7",))


def parts(reader: Reader, asked: list[tuple[str | None, str, bool, int]]) -> Parts:
    """Parts on the tiny model that note (adapter, mode, masked, passages) of every generation."""

    class Noting:
        model, digest, chat = reader.model, reader.digest, reader.chat

        def generate(  # type: ignore[no-untyped-def]
            self, prompt, *, adapter=None, mode="exact", constraint=None, masked=True, max_tokens=256, cancel=None
        ):
            asked.append((adapter, mode, masked, len(constraint.passages)))
            return reader.generate(
                prompt, adapter=adapter, mode=mode, constraint=constraint, masked=masked, max_tokens=max_tokens
            )

    return Parts(
        search=lambda question, scope: SearchResult((Hit(1, CHUNK, 1.0, {}),), {}),
        verify=lambda hit, start, end, quote: True,
        digest_of=lambda document, version: "0" * 64,
        model=Noting(),
        write=lambda record: "r",
    )


def load(reader: Reader) -> None:
    shapes = {"q": (48, 48), "k": (48, 16), "v": (48, 16), "o": (48, 48)}
    shapes |= {"gate": (48, 96), "up": (48, 96), "down": (96, 48)}
    import torch

    reader.set_adapter(ADAPTER.name, new_adapter(shapes, 3, rank=2, alpha=2, seed=0, device=torch.device("cpu")))


def test_each_arm_asks_what_it_stands_for(tiny: Reader) -> None:
    load(tiny)
    asked: list[tuple[str | None, str, bool, int]] = []
    settings = ArmSettings(BEHAVIOR, ADAPTER, passages=2, max_tokens=150, check_free=False)
    for arm in make_arms(ARMS, settings, parts(tiny, asked)).values():
        arm(CASE)
    assert asked == [
        (None, "exact", True, 0),
        (None, "exact", True, 1),
        (ADAPTER.name, "reuse", True, 0),
        (ADAPTER.name, "reuse", True, 1),
    ]


def test_an_answer_the_mask_had_to_change_is_asked_for_again_without_it(tiny: Reader) -> None:
    asked: list[tuple[str | None, str, bool, int]] = []
    settings = ArmSettings(BEHAVIOR, None, passages=2, max_tokens=150)
    seen = make_arms(("facts",), settings, parts(tiny, asked))["facts"](CASE)
    assert [masked for _, _, masked, _ in asked] == [True, False]
    assert seen.valid_free is False
    assert all(seen.verbatim)


def test_an_answer_the_mask_left_alone_is_valid_without_it(tiny: Reader) -> None:
    asked: list[tuple[str | None, str, bool, int]] = []
    given = parts(tiny, asked)

    class Perfect:
        model, digest, chat = tiny.model, tiny.digest, tiny.chat

        def generate(self, prompt, **_: object) -> Generation:  # type: ignore[no-untyped-def]
            text = '{"source": "1", "quote": "1,480 euros", "answer": "1,480 euros"}'
            return Generation(text, 10, 20, "end", 0, {"first_token": 1.0, "total": 2.0})

    arms = make_arms(("facts",), ArmSettings(BEHAVIOR, None, 2, 150), replace(given, model=Perfect()))
    seen = arms["facts"](CASE)
    assert seen.valid_free is True
    assert seen.citations[0].quote == "1,480 euros"


def test_what_was_held_back_or_refused_before_writing_is_in_contract(tiny: Reader) -> None:
    read = Evidence(0.5, 0.5, (Proposal(31, 42, 0, len(TEXT), 0.0, right=0.4),))
    found = SearchResult((Hit(1, CHUNK, 1.0, {}, evidence=read),), {}, 0.3)
    given = replace(parts(tiny, []), search=lambda question, scope: found)
    load(tiny)
    for use, status in (
        (EvidenceUse("e", PLAIN_SPAN, 1, refuse_below=0.4), "not_in_documents"),
        (EvidenceUse("e", PLAIN_SPAN, 1, min_confidence=0.9), "refused"),
    ):
        settings = ArmSettings(None, ADAPTER, 2, 150, evidence=use, check_free=True)
        seen = make_arms(("both",), settings, given)["both"](CASE)
        assert (seen.status, seen.valid_free, seen.valid, seen.completion_tokens) == (status, True, True, 0)


def test_the_prompted_base_is_not_asked_with_the_limit_of_an_adapter(tiny: Reader) -> None:
    load(tiny)
    given = replace(parts(tiny, []), search=lambda question, scope: SearchResult((Hit(1, CHUNK, 1.0, {}),), {}, 0.3))
    fitted = EvidenceUse("e", PLAIN, refuse_below=0.4, alone=True)
    settings = ArmSettings(
        BEHAVIOR, ADAPTER, 2, 150, check_free=False, evidence=fitted, prompted=EvidenceUse("e", PLAIN)
    )
    seen = {name: arm(CASE) for name, arm in make_arms(("facts", "both"), settings, given).items()}
    assert seen["both"].completion_tokens == 0 < seen["facts"].completion_tokens


def test_unknown_arms_and_arms_without_an_adapter_are_refused(tiny: Reader) -> None:
    settings = ArmSettings(BEHAVIOR, None, 2, 150)
    with pytest.raises(CaseError, match="unknown arm 'all'"):
        make_arms(("all",), settings, parts(tiny, []))
    with pytest.raises(CaseError, match="needs a promoted adapter"):
        make_arms(("both",), settings, parts(tiny, []))
