"""Quarterly and annual results: figures drawn once from a seed so that they hang together, and the reports stating them.

Knows nothing of the other kinds of documents. Backlog, margins and regional sums follow from the drawn figures.
"""

from __future__ import annotations

from dataclasses import dataclass

from .common import Document, Draw, Fact, Miss, Section, Table, interleave, plain, row_quote
from .result_texts import FIGURES, FILLERS, HEADINGS, REGION_NAMES

FRAMES = (
    "What was {poss} {np} in {p}?",
    "How high was {poss} {np} in {p}?",
    "Which figure did {ent} report for {np} in {p}?",
    "{P}: what was {poss} {np}?",
    "Please state {poss} {np} for {p}.",
    "What {np} did {ent} report for {p}?",
    "I am looking for {poss} {np} in {p}.",
    "Can you tell me {poss} {np} for {p}?",
)
QUARTERS = tuple((year, quarter) for year in (2024, 2025, 2026) for quarter in (1, 2, 3, 4))
CASES = {"2024-Q3", "2025-Q1", "2025-Q4", "2026-Q2", "2025", "Service 2025-Q3", "Water Treatment 2026-Q1"}
FORMATS = {
    "2024-Q1": "md", "2024-Q2": "pdf", "2024-Q3": "html", "2024-Q4": "docx", "2025-Q1": "md", "2025-Q2": "md", "2025-Q3": "html",
    "2025-Q4": "pdf", "2026-Q1": "docx", "2026-Q2": "docx", "2024": "pdf", "2025": "pdf",
}  # fmt: skip
DIVISIONS = (
    ("Pumps", 2025, 2, "md"),
    ("Service", 2025, 3, "html"),
    ("Water Treatment", 2026, 1, "md"),
    ("Water Treatment", 2025, 4, "html"),
    ("Pumps", 2026, 2, "md"),
)
LATEST = "results/latest.md"
WORDS = {1: "first", 2: "second", 3: "third", 4: "fourth"}


@dataclass(frozen=True)
class Period:
    code: str
    short: str
    long: str

    @staticmethod
    def quarter(year: int, quarter: int) -> Period:
        return Period(f"{year}-Q{quarter}", f"Q{quarter} {year}", f"the {WORDS[quarter]} quarter of {year}")

    @staticmethod
    def year(year: int) -> Period:
        return Period(str(year), str(year), f"the financial year {year}")


@dataclass(frozen=True)
class Entity:
    """Who reports: `subject` opens a sentence, `possessive` stands in a question."""

    name: str
    subject: str
    possessive: str


GROUP = Entity("group", "The group", "the group's")


def division(name: str) -> Entity:
    return Entity(name, "The division", f"the {name} division's")


def build(draw: Draw) -> list[Document]:
    """All result documents; the last one is "Latest quarter", reporting Q3 2026."""
    made = []
    series = group_series(draw)
    for year, quarter in QUARTERS[:10]:
        period = Period.quarter(year, quarter)
        id = f"results/{year}-q{quarter}.{FORMATS[period.code]}"
        title = f"Results of {period.long}: Tarnholm Hydraulics group"
        made.append(report(draw, id, title, GROUP, period, series[period.code]))
    for year in (2024, 2025):
        period = Period.year(year)
        title = f"Annual results {year}: Tarnholm Hydraulics group"
        made.append(report(draw, f"results/annual-{year}.pdf", title, GROUP, period, annual(draw, series, year)))
    for name, year, quarter, extension in DIVISIONS:
        period = Period.quarter(year, quarter)
        id = f"results/{name.lower().replace(' ', '-')}-{year}-q{quarter}.{extension}"
        title = f"{name} division: results of {period.long}"
        made.append(report(draw, id, title, division(name), period, division_figures(draw, name)))
    return made


def latest(draw: Draw) -> tuple[Document, Document]:
    """`results/latest.md` as it is at first (Q3 2026), and as it is after the update (Q4 2026)."""
    series = group_series(Draw(draw.rng))
    versions = []
    for quarter in (3, 4):
        period = Period.quarter(2026, quarter)
        versions.append(
            report(draw, LATEST, "Latest quarter: Tarnholm Hydraulics group", GROUP, period, series[period.code])
        )
    return versions[0], versions[1]


def group_series(draw: Draw) -> dict[str, dict[str, float]]:
    """Figures of every quarter. Backlog moves by intake less revenue; money in EUR million."""
    rng, series, backlog, people = draw.rng, {}, 61.3, 1384
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
    return series


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


def report(draw: Draw, id: str, title: str, entity: Entity, period: Period, figures: dict[str, float]) -> Document:
    sections, facts = [], []
    for key, names in HEADINGS.items():
        made = [fact(draw, entity, period, n, figures[n], id == LATEST) for n in names if n in figures]
        facts += made
        if key == "regions" and entity is GROUP:
            section, rows = regions(draw, period, figures["revenue"])
            sections.append(section)
            facts += rows
        elif made or key == "outlook":
            count = 5 if key == "outlook" else max(3, 5 - len(made))
            fillers = [s.format(E=entity.subject) for s in draw.some(FILLERS[key], count)]
            heading = draw.one(FILLERS["heading " + key])
            sections.append(Section(heading, (interleave(draw, [f.quote for f in made], fillers),)))
    byline = f"Tarnholm Hydraulics, investor relations. Report for {period.long}. Classification: public."
    split = (
        "cases" if period.code in CASES and entity is GROUP or f"{entity.name} {period.code}" in CASES else "examples"
    )
    return Document(
        id, "results", title, byline, tuple(sections), tuple(facts), misses(draw, id, entity, period, figures), split
    )


def regions(draw: Draw, period: Period, revenue: float) -> tuple[Section, list[Fact]]:
    """Revenue by region; the shares sum to the revenue of the period."""
    rng = draw.rng
    shares = [0.31 + rng.uniform(-0.02, 0.02), 0.28 + rng.uniform(-0.02, 0.02), 0.19 + rng.uniform(-0.02, 0.02)]
    values = [round(revenue * s, 1) for s in shares]
    values.append(round(revenue - sum(values), 1))
    rows, facts = [], []
    for name, value in zip(REGION_NAMES, values, strict=True):
        row = (name, f"EUR {value} million", f"{rng.choice(('steady', 'growing', 'slower', 'mixed'))}")
        rows.append(row)
        np = f"revenue in the {name} region"
        facts.append(
            Fact("group", np, str(value), "EUR_m", period.code, row_quote(row), asked(GROUP, period, (np,)), table=True)
        )
    note = " ".join(draw.some(FILLERS["regions"], 3))
    heading = draw.one(FILLERS["heading regions"])
    return Section(
        heading,
        (note, Table(("Region", f"Revenue {period.short}", "Demand"), tuple(rows)), draw.one(FILLERS["regions end"])),
    ), facts


def fact(draw: Draw, entity: Entity, period: Period, name: str, value: float, named: bool) -> Fact:
    figure = FIGURES[name]
    number = f"{int(value):,}" if figure["unit"] in ("people",) or name == "dso" else f"{value:,}"
    text = shown(draw, number, figure["unit"])
    # "Latest quarter" is asked for without naming the quarter, so the sentence itself has to name it.
    sentence = "Revenue came to {v} in {p}." if named and name == "revenue" else draw.one(figure["sentences"])
    sentence = sentence.format(
        v=text, E=entity.subject, e=lower_first(entity.subject), p=draw.one((period.short, period.long))
    )
    return Fact(
        entity.name, name, plain(number), figure["unit"], period.code, sentence, asked(entity, period, figure["names"])
    )


def shown(draw: Draw, number: str, unit: str) -> str:
    match unit:
        case "EUR_m":
            return draw.one((f"EUR {number} million", f"{number} million euros"))
        case "EUR":
            return f"EUR {number}"
        case _:
            return f"{number} {unit}"


def asked(entity: Entity, period: Period, names: tuple[str, ...]) -> tuple[str, ...]:
    who = "the group" if entity is GROUP else f"the {entity.name} division"
    out = []
    for index, frame in enumerate(FRAMES):
        for np in names:
            p = (period.short, period.long)[(index + len(np)) % 2]
            out.append(frame.format(poss=entity.possessive, ent=who, np=np, p=p, P=p[0].upper() + p[1:]))
    return tuple(out)


def lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def misses(draw: Draw, id: str, entity: Entity, period: Period, figures: dict[str, float]) -> tuple[Miss, ...]:
    """Figures this report does not give, and periods nobody reported."""
    absent = [n for n in FIGURES if n not in figures]
    here = [Miss(asked(entity, period, FIGURES[n]["names"]), (id,), FIGURES[n]["words"]) for n in absent]
    other = (
        Period.quarter(2023, draw.rng.randrange(1, 5))
        if draw.rng.random() < 0.6
        else Period.quarter(2027, draw.rng.randrange(1, 3))
    )
    there = [
        Miss(asked(entity, other, FIGURES[n]["names"]), (id,), (other.short, other.long)) for n in list(figures)[:5]
    ]
    return (*here, *there)
