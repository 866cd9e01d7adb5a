"""The Markdown of what `retrieval_quality.py` measured.

Knows nothing of how a figure came about: everything it writes stands in the reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Report = Mapping[str, Any]

LABELS = {
    "bm25": "words alone (BM25)",
    "dense": "vectors alone",
    "rrf": "reciprocal rank fusion, 60",
    "convex": "convex, 0.3 words",
    "maxsim_even": "and late interaction, every token alike",
    "default": "and late interaction, tokens that stand out (the default)",
    "adaptive": "the default, words' weight by how much the lists agree",
}


def reported(report: Report) -> str:
    """Two tables: the arms on every set, and the paired differences of the default."""
    sets = report["sets"]
    lines = _head("nDCG@10", sets)
    for arm, label in LABELS.items():
        lines.append(_row(label, [cell(one["arms"][arm]["ndcg@10"]) for one in sets.values()]))
    lines.append(_row("vectors computed in", [one["engine"] for one in sets.values()]))
    lines += ["", *_head("the default minus", sets)]
    for arm, label in LABELS.items():
        if arm != "default":
            lines.append(_row(label, [cell(one["default_minus"][arm], "+") for one in sets.values()]))
    return "\n".join(lines)


def ablations(report: Report) -> str:
    """One table a part, sets across."""
    sets = report["sets"]
    parts = ["\n".join(part(sets)) for part in (_headers, _copies, _budget)]
    smaller = [
        f"{name} is cut to {one['documents']:,} of its {one['of']:,} documents"
        for name, one in sets.items()
        if one["documents"] < one["of"]
    ]
    return "\n\n".join([*parts, *([f"{'; '.join(smaller)}, all right ones among them."] if smaller else [])])


def _headers(sets: Report) -> list[str]:
    found = {name: one["headers"] for name, one in sets.items()}
    return [
        *_head("nDCG@10, contextual headers", found),
        _row("with (the default)", [cell(one["arms"]["with"]) for one in found.values()]),
        _row("without", [cell(one["arms"]["without"]) for one in found.values()]),
        _row("what they bring", [cell(one["base_minus"]["without"], "+") for one in found.values()]),
    ]


ARMS = {
    "as ranked": "as ranked",
    "same words": "same words apart (`distinct`)",
    "looser": "looser: 4 of 5 runs of 5 words",
}


def _copies(sets: Report) -> list[str]:
    found = {name: one["copies"] for name, one in sets.items()}
    lines = _head("a fifth of the documents twice", found)
    for arm, label in ARMS.items():
        lines.append(_row(f"nDCG@10, {label}", [cell(one["ndcg@10"]["arms"][arm]) for one in found.values()]))
    for arm in ("as ranked", "looser"):
        cells = [cell(one["ndcg@10"]["base_minus"][arm], "+") for one in found.values()]
        lines.append(_row(f"`distinct` minus {arm}", cells))
    for arm, label in ARMS.items():
        lines.append(_row(f"documents among 4, {label}", [mean(one["documents"][arm]) for one in found.values()]))
    for arm, label in ARMS.items():
        lines.append(_row(f"right among 4, {label}", [cell(one["right"][arm]) for one in found.values()]))
    for arm, label in ARMS.items():
        if arm != "as ranked":
            told = [one["changed"][arm] for one in found.values()]
            cells = [f"{one['lost']} of {one['pairs']}" for one in told]
            lines.append(_row(f"pairs that say otherwise, one lost, {label}", cells))
    return lines


def _budget(sets: Report) -> list[str]:
    found = {name: one["budget"] for name, one in sets.items()}
    lines = _head("a right document among the passages", found)
    first = next(iter(found.values()))
    for tokens, one in first["budgets"].items():
        for arm in one["right"]["arms"]:
            of = [each["budgets"][tokens] for each in found.values()]
            cells = [f"{cell(o['right']['arms'][arm])}, {o['documents'][arm]['value']:.1f} documents" for o in of]
            lines.append(_row(f"{tokens} tokens, {arm}", cells))
    return lines


def shares(report: Report) -> str:
    """The sets on which the shares were tried, and the grid's means."""
    now, best = report["present"], report["best"]
    lines = [
        "| nDCG@10 | n | present | best on the mean | best minus present | chosen without this set, minus present |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, one in report["sets"].items():
        chosen = f"{_pair(one['chosen_without'])}: {cell(one['without_minus_present'], '+')}"
        cells = [
            str(one["n"]),
            f"{one['present']:.3f}",
            f"{one['best']:.3f}",
            cell(one["best_minus_present"], "+"),
            chosen,
        ]
        lines.append(_row(name, cells))
    late = list(next(iter(report["mean"].values())))
    lines += ["", f"| words \\ late | {' | '.join(late)} |", f"|---|{'---:|' * len(late)}"]
    lines += [_row(words, [f"{value:.4f}" for value in row.values()]) for words, row in report["mean"].items()]
    return "\n".join([*lines, "", f"Words' share and late interaction's: present {_pair(now)}, best {_pair(best)}."])


def _pair(of: Mapping[str, float]) -> str:
    return f"{of['words']:g} and {of['late']:g}"


def _head(title: str, sets: Report) -> list[str]:
    names = [f"{name} (n={one['n']})" for name, one in sets.items()]
    return [f"| {title} | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]


def _row(label: str, cells: list[str]) -> str:
    return f"| {label} | {' | '.join(cells)} |"


def cell(of: Mapping[str, float], sign: str = "") -> str:
    return f"{of['value']:{sign}.3f} [{of['low']:{sign}.3f}, {of['high']:{sign}.3f}]"


def mean(of: Mapping[str, float]) -> str:
    return f"{of['value']:.2f} [{of['low']:.2f}, {of['high']:.2f}]"
