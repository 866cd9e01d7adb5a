"""The Markdown of a speed report.

Knows nothing of how a figure came about: everything it writes stands in the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SHOWN_STAGES = 12


def render(report: Mapping[str, Any]) -> str:
    """What was asked and reached, every figure with its spread, where an answer's time goes, how near the limits."""
    parts = [
        goals(report["goals"]),
        *(_figures(name, figures) for name, figures in report["figures"].items()),
        _profile(report.get("profile")),
        _limits(report.get("limits", {})),
        _peers(report["peers"]),
        notes(report),
    ]
    return "\n\n".join(part for part in parts if part)


def number(value: float | None) -> str:
    """Three digits that matter: 12,300 or 1,234 or 56.7 or 8.90."""
    if value is None:
        return "–"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2
    return f"{value:,.{digits}f}"


def goals(found: Sequence[Mapping[str, Any]]) -> str:
    """What was asked and what was reached."""
    lines = ["| | asked | measured | rounds, lowest to highest | against | reached |", "|---|---:|---:|---:|---|---|"]
    for goal in found:
        span = f"{number(goal['low'])} to {number(goal['high'])}" if goal["measured"] is not None else goal["note"]
        met = {True: "yes", False: "no", None: "–"}[goal["met"]]
        shown = number(goal["measured"])
        lines.append(f"| {goal['name']} | {goal['asked']} | {shown} | {span} | {goal['against'] or '–'} | {met} |")
    return "\n".join(lines)


def _figures(name: str, figures: Mapping[str, Mapping[str, float]]) -> str:
    lines = [f"| {name} | median | lowest | quartiles | n |", "|---|---:|---:|---:|---:|"]
    for who, spread in figures.items():
        quartiles = f"{number(spread['q1'])} to {number(spread['q3'])}"
        lines.append(f"| {who} | {number(spread['median'])} | {number(spread['low'])} | {quartiles} | {spread['n']} |")
    return "\n".join(lines)


def _profile(profile: Mapping[str, Any] | None) -> str:
    if not profile:
        return ""
    stages = sorted(profile["stages_ms"].items(), key=lambda item: -item[1])
    total = profile["total_ms"]
    lines = ["| stage of a warm answer | ms | share | calls |", "|---|---:|---:|---:|"]
    for stage, ms in stages[:SHOWN_STAGES]:
        calls = profile["calls"].get(stage, "")
        lines.append(f"| {stage} | {number(ms)} | {100 * ms / total:.1f} % | {calls} |")
    rest = sum(ms for _, ms in stages[SHOWN_STAGES:])
    if stages[SHOWN_STAGES:]:
        lines.append(f"| {len(stages) - SHOWN_STAGES} others | {number(rest)} | {100 * rest / total:.1f} % | |")
    lines.append(f"| all | {number(total)} | 100 % | |")
    if operators := profile.get("operators"):
        shown = ", ".join(
            f"`{each['name']}` {number(each['ms'])} ms in {each['calls']} calls" for each in operators[:6]
        )
        lines.append(f"\nThe operators with most time of their own, watched by torch's profiler: {shown}.")
    if profile["missing"]:
        lines.append(f"\nNot found and so not told apart: {', '.join(profile['missing'])}.")
    return "\n".join(lines)


LIMITS = (
    ("read_bytes_s", "reading memory, far beyond the cache", 1e9, "GB/s"),
    ("read_in_cache_bytes_s", "reading an array of a token's bytes, again and again", 1e9, "GB/s"),
    ("copy_bytes_s", "copying, both directions counted", 1e9, "GB/s"),
    ("fp32_flop_s", "matrix product, fp32", 1e9, "GFLOP/s"),
    ("bf16_flop_s", "matrix product, bf16", 1e9, "GFLOP/s"),
    ("int8_op_s", "matrix product, int8", 1e9, "Gop/s"),
    ("decode_bytes", "bytes read to write a token", 1e6, "MB"),
    ("flop_token", "operations to read a token", 1e6, "MFLOP"),
    ("decode_tokens_s_at_bandwidth", "tokens a second at memory bandwidth", 1, ""),
    ("decode_share", "share of it reached", 0.01, "%"),
    ("decode_tokens_s_in_cache", "tokens a second if the weights stay in the cache", 1, ""),
    ("decode_share_in_cache", "share of it reached", 0.01, "%"),
    ("tail_ms_at_limit", "the tail alone, at the limit", 1, "ms"),
    ("tail_share", "share of it reached", 0.01, "%"),
    ("cold_ms_at_limit", "new passages, at the matrix rate", 1, "ms"),
    ("cold_share", "share of it reached", 0.01, "%"),
)
"""Key in the report, its name for people, what one unit is, the unit."""


def _limits(limits: Mapping[str, float | None]) -> str:
    if not limits:
        return ""
    lines = ["| limit | |", "|---|---:|"]
    for key, name, scale, unit in LIMITS:
        value = limits.get(key)
        if value is not None:
            lines.append(f"| {name} | {number(value / scale)} {unit} |")
    return "\n".join(lines)


def _peers(peers: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["| who | versions | settings |", "|---|---|---|"]
    for name, told in peers.items():
        if "problem" in told:
            lines.append(f"| {name} | not measured | {told['problem']} |")
            continue
        versions = ", ".join(f"{package} {version}" for package, version in told["versions"].items())
        settings = ", ".join(f"{key}: {_plain(value)}" for key, value in told["settings"].items())
        lines.append(f"| {name} | {versions} | {settings} |")
    return "\n".join(lines)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_plain(item)}" for key, item in value.items())
    return number(value) if isinstance(value, float) else str(value)


def notes(report: Mapping[str, Any]) -> str:
    place, asked = report["environment"], report["asked"]
    whole = ""
    if asked.get("questions"):
        held = f"{asked['documents']} documents in {asked['chunks']} chunks"
        whole = f" Whole answers: {asked['questions']} questions over {held}."
    machine = f"{place['threads']} threads on {place['cores']} cores of {place['cpu']}"
    made = f"{place['time'][:10]}, commit {place['commit'][:12] or 'unknown'}, {report['seconds']:,.0f} s in all"
    passages = f"Passages of {asked['tokens']} tokens from {asked['source']}, SHA-256 {asked['sha256'][:12]}."
    return f"{report['rounds']} rounds, every peer once in each, {machine}, {made}. {passages}{whole}"
