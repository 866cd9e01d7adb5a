"""Examples by what they are for: training, checks while training, the gate.

Knows nothing of models or of how a part is used.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from factform.errors import RegistryError, TrainingError
from factform.form.rows import question_key
from factform.groups import linked
from factform.ids import sha256_json
from factform.records import AdapterInfo, Behavior, Case

HELD_OUT = "held_out"
"""Field of an adapter's lineage: {id: what it asked} of the examples kept for its gate."""


@dataclass(frozen=True)
class Split:
    """Examples by what they are for; no document and no question is in two of them."""

    train: tuple[Case, ...]
    check: tuple[Case, ...]
    gate: tuple[Case, ...]


def split_examples(examples: Sequence[Case], *, check: int, gate: int, seed: int) -> Split:
    """Split by document: whole documents go to the gate, then to the checks, the rest trains.

    Examples that share a document or a question stay together, all that are linked by others too. Unanswerable
    examples have no document; they are dealt out in proportion, so that a small gate is not made of them by chance.
    Raises TrainingError where none is left to train on.
    """
    rng = random.Random(seed)
    groups: dict[int, list[Case]] = {}
    for case, group in zip(examples, linked([_keys(case) for case in examples]), strict=True):
        groups.setdefault(group, []).append(case)
    with_documents = {
        name: of for of in groups.values() if (name := min((d for c in of for d in c.documents), default=""))
    }
    unanswerable = [of for of in groups.values() if not any(case.documents for case in of)]
    rng.shuffle(unanswerable)
    share = sum(map(len, unanswerable)) / max(1, len(examples))
    parts: dict[str, list[Case]] = {"gate": [], "check": [], "train": []}
    _deal(parts, unanswerable, round(gate * share), round(check * share))
    names = sorted(with_documents)
    rng.shuffle(names)
    _deal(parts, [with_documents[name] for name in names], gate, check)
    if not parts["train"]:
        raise TrainingError(
            f"{len(examples)} examples leave none to train on after {check} for checks and {gate} for the gate: "
            "add examples of other documents, or lower train.held_out and train.gate_cases"
        )
    return Split(tuple(parts["train"]), tuple(parts["check"]), tuple(parts["gate"]))


def _keys(case: Case) -> set[tuple[str, str]]:
    return {("document", name) for name in case.documents} | {("question", question_key(case.question))}


def _deal(parts: Mapping[str, list[Case]], groups: Sequence[Sequence[Case]], gate: int, check: int) -> None:
    """Each group to the first part that has room. One with more examples than there is room for gives only those: the
    others are not trained on either."""
    for group in groups:
        for name, most in (("gate", gate), ("check", check), ("train", len(parts["train"]) + len(group))):
            if len(parts[name]) < most:
                parts[name].extend(group[: most - len(parts[name])])
                break


def held_out(split: Split) -> dict[str, str]:
    """What the lineage of an adapter says of the examples its gate may ask."""
    return {case.id: asked(case) for case in split.gate}


def asked(case: Case) -> str:
    """A short digest of what an example asks and of which documents; its expected answer may be corrected."""
    return sha256_json([question_key(case.question), sorted(case.documents)])[:16]


def gate_cases(info: AdapterInfo, behavior: Behavior, split: Split) -> tuple[tuple[Case, ...], str]:
    """The examples `info` was not trained on, and what is to be said of those that are not there any more.

    Examples added since could change how all of them are split, so what counts is what was kept apart when the adapter
    was tuned. An adapter that does not tell takes today's split, if the behavior is still the one it was tuned for.
    Raises RegistryError where nothing is left to ask.
    """
    kept = info.lineage.get(HELD_OUT)
    if kept is None:
        if info.lineage.get("behavior_digest") == behavior.digest:
            return split.gate, ""
        raise RegistryError(
            f"behavior {behavior.name!r} has changed since {info.name} was tuned, which does not say what examples it "
            "was trained on: tune it again"
        )
    cases = tuple(case for case in behavior.examples if kept.get(case.id) == asked(case))
    if not cases:
        raise RegistryError(
            f"none of the {len(kept)} examples held out when {info.name} was tuned is still there: tune it again"
        )
    gone = len(kept) - len(cases)
    return (
        cases,
        f"{gone} of {len(kept)} examples held out when it was tuned are gone or ask something else now."
        if gone
        else "",
    )
