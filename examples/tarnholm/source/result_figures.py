"""The figures of every report, drawn once from a seed so that they hang together.

Knows nothing of how they are worded. Backlog moves by intake less revenue, margins and growth follow from the
figures, a year is the sum of its quarters. Money is in EUR million.
"""

from __future__ import annotations

import random

from .common import Draw

QUARTERS = tuple((year, quarter) for year in (2024, 2025, 2026) for quarter in (1, 2, 3, 4))


def group_series() -> dict[str, dict[str, float]]:
    """Figures of every quarter, by "2025-Q2" and name: the same at every call."""
    rng, series, backlog, people = random.Random("Tarnholm quarters"), {}, 61.3, 1384
    for index, (year, quarter) in enumerate(QUARTERS):
        revenue = round(41.5 + 1.15 * index + (-1.8, 0.6, -0.4, 2.3)[quarter - 1] + rng.uniform(-0.9, 0.9), 1)
        intake = round(revenue * rng.uniform(0.95, 1.14), 1)
        backlog = round(backlog + intake - revenue, 1)
        profit = round(revenue * rng.uniform(0.076, 0.112), 1)
        people += rng.randrange(-6, 29)
        series[f"{year}-Q{quarter}"] = {
            "revenue": revenue,
            "intake": intake,
            "backlog": backlog,
            "profit": profit,
            "margin": round(100 * profit / revenue, 1),
            "net": round(profit * rng.uniform(0.61, 0.72), 1),
            "capex": round(rng.uniform(1.4, 3.9), 1),
            "research": round(revenue * rng.uniform(0.031, 0.043), 1),
            "cash": round(profit * rng.uniform(0.5, 1.25), 1),
            "equity": round(37.5 + 0.45 * index + rng.uniform(-1.1, 1.1), 1),
            "dso": float(rng.randrange(46, 63)),
            "delivery": round(rng.uniform(88.5, 96.9), 1),
            "people": float(people),
            "training": round(rng.uniform(4.1, 9.8), 1),
            "sickness": round(rng.uniform(3.2, 5.9), 1),
        }
    for year, quarter in QUARTERS[4:]:
        growth(series[f"{year}-Q{quarter}"], series[f"{year - 1}-Q{quarter}"])
    return series


def growth(now: dict[str, float], before: dict[str, float]) -> None:
    """Adds the growth of revenue, in percent, where there was any."""
    change = round(100 * (now["revenue"] / before["revenue"] - 1), 1)
    if change > 0:
        now["growth"] = change


def annual(draw: Draw, series: dict[str, dict[str, float]], year: int) -> dict[str, float]:
    quarters = [series[f"{year}-Q{q}"] for q in (1, 2, 3, 4)]
    total = {
        key: round(sum(q[key] for q in quarters), 1)
        for key in ("revenue", "intake", "profit", "net", "capex", "research", "cash")
    }
    rng = draw.rng
    return total | {
        "margin": round(100 * total["profit"] / total["revenue"], 1),
        "delivery": round(sum(q["delivery"] for q in quarters) / 4, 1),
        "training": round(rng.uniform(19.5, 31.5), 1),
        "dividend": round(rng.uniform(0.82, 1.64), 2),
        "apprentices": float(rng.randrange(61, 98)),
        "renewable": round(rng.uniform(52.0, 79.0), 1),
        "tenure": round(rng.uniform(8.1, 11.9), 1),
    }


def division_figures(draw: Draw, name: str) -> dict[str, float]:
    rng = draw.rng
    share = {"Pumps": 0.52, "Service": 0.21, "Water Treatment": 0.24}[name]
    revenue = round(50 * share + rng.uniform(-1.5, 2.5), 1)
    profit = round(revenue * rng.uniform(0.07, 0.14), 1)
    return {
        "revenue": revenue,
        "intake": round(revenue * rng.uniform(0.94, 1.17), 1),
        "profit": profit,
        "margin": round(100 * profit / revenue, 1),
        "capex": round(rng.uniform(0.3, 1.2), 2),
        "delivery": round(rng.uniform(87.5, 97.5), 1),
        "people": float(int(1500 * share) + rng.randrange(-40, 40)),
        "complaints": round(rng.uniform(6.2, 14.8), 1),
        "utilization": round(rng.uniform(71.0, 93.0), 1),
        "lead": round(rng.uniform(4.2, 11.6), 1),
    }
