"""From raw runs to medians with their spread, ratios side by side, and what they were to reach.

Knows nothing of how anything was run. A ratio is taken within each round, where the machine was in one state for both,
and the median of the rounds is told with the lowest and the highest.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Round = Mapping[str, Any]
"""Results of one round by peer."""

PREFILLING = ("transformers", "openvino", "llamacpp")
PIPELINES = ("llamaindex", "haystack")


@dataclass(frozen=True)
class Spread:
    """Median, quartiles and lowest of `n` runs."""

    median: float
    low: float
    q1: float
    q3: float
    n: int


@dataclass(frozen=True)
class Goal:
    """One thing asked of the project: what was measured (over rounds: median, lowest, highest) and what was asked.

    `measured` is None where it could not be measured; `note` then says why. `against` is the peer compared with.
    """

    name: str
    asked: str
    measured: float | None
    low: float | None = None
    high: float | None = None
    met: bool | None = None
    against: str = ""
    note: str = ""


def spread(values: Sequence[float]) -> Spread:
    """Raises ValueError for no value at all."""
    if not values:
        raise ValueError("no run was measured")
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return Spread(median, min(values), q1, q3, len(values))


def first_ms(round_: Round, peer: str, task: str) -> list[float]:
    return [run["first_ms"] for run in _runs(round_, peer, task)]


def rates(round_: Round, peer: str, task: str = "decode") -> list[float]:
    """Tokens a second after the first one."""
    return [
        1e3 * (run["tokens"] - 1) / (run["total_ms"] - run["first_ms"])
        for run in _runs(round_, peer, task)
        if run["total_ms"] > run["first_ms"]
    ]


def totals(round_: Round, peer: str, task: str) -> list[float]:
    return [run["total_ms"] for run in _runs(round_, peer, task)]


def answers(round_: Round, kind: str) -> list[dict[str, Any]]:
    """Factform's whole answers of a round: "cold", "warm" or "plain"."""
    return list(round_.get("factform", {}).get("project", {}).get(kind, []))


def _runs(round_: Round, peer: str, task: str) -> list[dict[str, float]]:
    return list(round_.get(peer, {}).get("runs", {}).get(task, []))


Values = Callable[[Round], Sequence[float]]


def table_of(rounds: Sequence[Round], values: Mapping[str, Values]) -> dict[str, dict[str, float]]:
    """The spread over all rounds of each thing in `values` that was measured."""
    pooled = {name: [v for r in rounds for v in get(r)] for name, get in values.items()}
    return {name: asdict(spread(found)) for name, found in pooled.items() if found}


def ratios(rounds: Sequence[Round], above: Values, below: Values) -> list[float]:
    """Ratio of the medians, round by round, where both were measured."""
    pairs = [(above(r), below(r)) for r in rounds]
    return [statistics.median(a) / statistics.median(b) for a, b in pairs if a and b]


def goal(name: str, asked: str, found: Sequence[float], met: Callable[[float], bool], **more: str) -> Goal:
    if not found:
        return Goal(name, asked, None, **{"note": "not measured", **more})
    median = statistics.median(found)
    return Goal(name, asked, median, min(found), max(found), met(median), **more)


def best(rounds: Sequence[Round], peers: Sequence[str], values: Callable[[str], Values], *, low: bool) -> str:
    """The peer with the lowest (or highest) median over all rounds; "" where none was measured."""
    medians = {}
    for peer in peers:
        pooled = [v for r in rounds for v in values(peer)(r)]
        if pooled:
            medians[peer] = statistics.median(pooled)
    return (min if low else max)(medians, key=lambda peer: medians[peer]) if medians else ""


def first_token_goals(rounds: Sequence[Round], sizes: Sequence[int], grown: int) -> list[Goal]:
    """Time to the first token, warm and cold, against the fastest peer that has to read the passages."""

    def of(peer: str, task: str) -> Values:
        return lambda r: first_ms(r, peer, task)

    found = []
    for size in sizes:
        peer = best(rounds, PREFILLING, lambda p, size=size: of(p, f"first/other/{size}"), low=True)
        reads = of(peer, f"first/other/{size}")
        warm, cold, tail = (of("factform", f"first/{kind}/{size}") for kind in ("warm", "cold", "tail"))
        name = f"{size} passages"
        warmer, colder = ratios(rounds, reads, warm), ratios(rounds, cold, reads)
        found.append(
            goal(f"first token, {name} warm: faster than a peer", ">= 10x", warmer, lambda x: x >= 10, against=peer)
        )
        found.append(
            goal(f"first token, {name} warm: of the tail alone", "<= 2x", ratios(rounds, warm, tail), lambda x: x <= 2)
        )
        found.append(
            goal(f"first token, {name} cold: of a peer's", "<= 1.2x", colder, lambda x: x <= 1.2, against=peer)
        )
    growth = ratios(rounds, of("factform", f"first/warm/{grown}"), of("factform", f"first/warm/{sizes[0]}"))
    return [*found, goal(f"first token, growth from {sizes[0]} to {grown}", "<= 1.3x", growth, lambda x: x <= 1.3)]


def decode_goals(rounds: Sequence[Round]) -> list[Goal]:
    peer = best(rounds, PREFILLING, lambda p: lambda r: rates(r, p), low=False)
    plain = ratios(rounds, lambda r: rates(r, "factform"), lambda r: rates(r, peer))
    quoted = [a["tokens"] / a["steps"] for r in rounds for a in _quoted(r)]
    same = [r["factform"]["project"]["identical"] / len(answers(r, "warm")) for r in rounds if answers(r, "warm")]
    return [
        goal("tokens a second: of a peer's", ">= 1x", plain, lambda x: x >= 1, against=peer),
        goal("quoted answers: tokens a step", ">= 2.0", quoted, lambda x: x >= 2),
        goal("quoted answers: identical to plain greedy", "all", same, lambda x: x == 1),
    ]


def _quoted(round_: Round) -> list[dict[str, Any]]:
    return [a for a in answers(round_, "warm") if a["status"] == "answered" and a.get("steps")]


def answer_goals(rounds: Sequence[Round]) -> list[Goal]:
    """Whole answers, question in to verified record out, over the same questions."""

    def pipeline(peer: str) -> Values:
        return lambda r: totals(r, peer, "answer/same")

    peer = best(rounds, PIPELINES, pipeline, low=True)
    found = [
        goal(
            f"whole answer, passages {kind}: faster than a pipeline",
            ">= 4x",
            ratios(rounds, pipeline(peer), lambda r, kind=kind: _asked(r, kind, len(pipeline(peer)(r)))),
            lambda x: x >= 4,
            against=peer,
        )
        for kind in ("warm", "cold")
    ]
    together = [r["factform"]["project"]["together"] for r in rounds if answers(r, "warm")]
    faster = [t["alone_s"] / t["together_s"] for t in together if "together_s" in t]
    note = next((t["problem"] for t in together if "problem" in t), "")
    count = together[0]["asks"] if together else 8
    name = f"{count} asks at once: throughput of one after another"
    return [*found, goal(name, ">= 3x", faster, lambda x: x >= 3, note=note or ("" if faster else "not measured"))]


def _asked(round_: Round, kind: str, count: int) -> list[float]:
    """Milliseconds of the first `count` answers: those the pipelines were asked too."""
    return [a["total_ms"] for a in answers(round_, kind)][:count]


def goals(rounds: Sequence[Round], sizes: Sequence[int], grown: int) -> list[dict[str, Any]]:
    found = [*first_token_goals(rounds, sizes, grown), *decode_goals(rounds), *answer_goals(rounds)]
    return [asdict(each) for each in found]


def measured(rounds: Sequence[Round], sizes: Sequence[int], grown: int) -> dict[str, dict[str, dict[str, float]]]:
    """Every figure with its spread: by table, then by who and how."""
    tables: dict[str, dict[str, dict[str, float]]] = {}
    for size in (*sizes, grown):
        ours = {f"factform, {k}": _first("factform", f"first/{k}/{size}") for k in ("warm", "cold", "exact", "tail")}
        peers = {f"{p}, {k}": _first(p, f"first/{k}/{size}") for p in PREFILLING for k in ("other", "again")}
        tables[f"first token, {size} passages, ms"] = table_of(rounds, {**ours, **peers})
    names = ("factform", *PREFILLING)
    tables["tokens a second"] = table_of(rounds, {p: lambda r, p=p: rates(r, p) for p in names}) | table_of(
        rounds,
        {
            f"factform, quoted answers, {kind}": lambda r, kind=kind: [
                1e3 * a["tokens"] / a["decode_ms"] for a in answers(r, kind) if a.get("decode_ms")
            ]
            for kind in ("warm", "plain")
        },
    )
    whole: dict[str, Values] = {
        f"factform, {kind}": lambda r, kind=kind: [a["total_ms"] for a in answers(r, kind)] for kind in ("warm", "cold")
    }
    for peer in PIPELINES:
        for kind in ("same", "own"):
            whole[f"{peer}, {kind} settings"] = lambda r, p=peer, k=kind: totals(r, p, f"answer/{k}")
    for peer in PREFILLING:
        whole[f"{peer}, the prompt only"] = lambda r, p=peer: totals(r, p, "answer/prompts")
    tables["whole answer, ms"] = table_of(rounds, whole)
    return {name: table for name, table in tables.items() if table}


def _first(peer: str, task: str) -> Values:
    return lambda r: first_ms(r, peer, task)


def limits(rounds: Sequence[Round], size: int, length: int) -> dict[str, float | None]:
    """How near the machine's limits the reader comes: its share of what bandwidth or matrix rate would allow.

    Decoding is held against the bytes of a token at measured bandwidth, reading `size` new passages of `length` tokens
    and the tail of a warm prompt against the larger of its bytes and its operations. In 8 bit a product with a matrix
    is two of whole numbers, one for each digit of its input; attention is in fp32.
    """
    held = [r["factform"] for r in rounds if "roofline" in r.get("factform", {})]
    if not held:
        return {}
    get = {key: _median([h["roofline"].get(key) for h in held]) for key in held[0]["roofline"]}
    dtype, read = held[0]["settings"]["dtype"], get["read_bytes_s"]
    rate = pairs = get["bf16_flop_s"] if dtype.startswith("bfloat16") else get["fp32_flop_s"]
    if dtype == "int8" and get["int8_op_s"]:
        rate = get["int8_op_s"] / 2
    if not rate or not pairs or not read or not get["decode_bytes"]:
        return dict(get)
    decode = [v for r in rounds for v in rates(r, "factform")]
    tails = [run for r in rounds for run in _runs(r, "factform", f"first/tail/{size}")]
    cold = [v for r in rounds for v in first_ms(r, "factform", f"first/cold/{size}")]
    found: dict[str, float | None] = dict(get)
    found["decode_tokens_s_at_bandwidth"] = read / get["decode_bytes"]
    found["decode_tokens_s_in_cache"] = (get["read_in_cache_bytes_s"] or 0.0) / get["decode_bytes"]
    if decode:
        found["decode_share"] = statistics.median(decode) * get["decode_bytes"] / read
        found["decode_share_in_cache"] = statistics.median(decode) / found["decode_tokens_s_in_cache"]
    if tails:
        tokens = statistics.median(run["prompt_tokens"] for run in tails)
        products = (tokens * (get["flop_token"] or 0) + (get["flop_head"] or 0)) / rate
        attention = tokens * (get["context"] or 0) * (get["flop_pair"] or 0) / pairs
        least = max((get["weights_bytes"] or 0) / read, products + attention)
        found["tail_ms_at_limit"] = 1e3 * least
        found["tail_share"] = 1e3 * least / statistics.median(run["first_ms"] for run in tails)
    if cold:
        each = length * ((get["flop_token"] or 0) / rate + length / 2 * (get["flop_pair"] or 0) / pairs)
        found["cold_ms_at_limit"] = 1e3 * size * each
        found["cold_share"] = found["cold_ms_at_limit"] / statistics.median(cold)
    return found


def _median(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None
