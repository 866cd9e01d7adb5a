"""Quarterly and annual results of the group and its divisions, and the questions about them.

Knows nothing of the other kinds of documents, nor of where the figures come from (`result_figures.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from .common import Document, Draw, Fact, Miss, Section, Table, interleave, plain, row_quote
from .result_figures import QUARTERS, annual, division_figures, group_series
from .result_texts import FIGURES, FILLERS, HEADINGS, REGION_NAMES, SLOTS, TOPICS

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
CASES = {"2024-Q3", "2025-Q1", "2025-Q4", "2026-Q2", "2025", "Service 2025-Q3", "Water Treatment 2026-Q1"}
FORMATS = {
    "2024-Q1": "md", "2024-Q2": "pdf", "2024-Q3": "html", "2024-Q4": "docx", "2025-Q1": "md", "2025-Q2": "md",
    "2025-Q3": "html", "2025-Q4": "pdf", "2026-Q1": "docx", "2026-Q2": "docx", "2024": "pdf", "2025": "pdf",
}  # fmt: skip
DIVISIONS = (
    ("Pumps", 2025, 2, "md"),
    ("Service", 2025, 3, "html"),
    ("Water Treatment", 2026, 1, "md"),
    ("Water Treatment", 2025, 4, "md"),
    ("Pumps", 2026, 2, "md"),
)
LATEST = "results/latest.md"
DEMAND = ("steady", "growing", "slower", "mixed", "firm", "uneven")
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
    """Who reports: `subject` opens a sentence; `names` are what a question calls it, alone and as an owner."""

    name: str
    subject: str
    names: tuple[tuple[str, str], ...]


GROUP = Entity(
    "group", "The group", (("the group", "the group's"), ("Tarnholm", "Tarnholm's"), ("the group", "the group's"))
)


def division(name: str) -> Entity:
    return Entity(name, "The division", ((f"the {name} division", f"the {name} division's"),))


def build(draw: Draw) -> list[Document]:
    """All result documents but the latest quarter."""
    made = []
    series = group_series()
    for year, quarter in QUARTERS[:10]:
        period = Period.quarter(year, quarter)
        id = f"results/{year}-q{quarter}.{FORMATS[period.code]}"
        title = f"Tarnholm Hydraulics group: {results_of(period)}"
        made.append(report(draw, id, title, GROUP, period, series[period.code]))
    for year in (2024, 2025):
        period = Period.year(year)
        title = f"Tarnholm Hydraulics group: annual results {year}"
        made.append(report(draw, f"results/annual-{year}.pdf", title, GROUP, period, annual(draw, series, year)))
    for name, year, quarter, extension in DIVISIONS:
        period = Period.quarter(year, quarter)
        id = f"results/{name.lower().replace(' ', '-')}-{year}-q{quarter}.{extension}"
        title = division_title(name, period)
        made.append(report(draw, id, title, division(name), period, division_figures(draw, name)))
    return made


def latest(draw: Draw) -> tuple[Document, Document]:
    """`results/latest.md` as it is at first (Q3 2026), and as it is after the update (Q4 2026)."""
    series = group_series()
    versions = []
    for quarter in (3, 4):
        period = Period.quarter(2026, quarter)
        versions.append(
            report(draw, LATEST, "Tarnholm Hydraulics group: latest quarter", GROUP, period, series[period.code])
        )
    return versions[0], versions[1]


def report(draw: Draw, id: str, title: str, entity: Entity, period: Period, figures: dict[str, float]) -> Document:
    draw.here.clear()
    sections: list[Section] = []
    facts: list[Fact] = []
    for key, names in HEADINGS.items():
        if key == "regions":
            if entity is GROUP:
                sections.append(regions(draw, period, figures["revenue"], facts))
            continue
        made = [fact(draw, entity, period, n, figures[n], id == LATEST) for n in names if n in figures]
        facts += made
        if made or key == "outlook":
            sections.append(commentary(draw, entity, key, [f.quote for f in made]))
    byline = f"Tarnholm Hydraulics, investor relations. Report for {period.long}. Classification: public."
    near = misses(draw, id, entity, period, figures)
    return Document(id, "results", title, byline, tuple(sections), tuple(facts), near, split_of(entity, period))


def split_of(entity: Entity, period: Period) -> str:
    name = period.code if entity is GROUP else f"{entity.name} {period.code}"
    return "cases" if name in CASES else "examples"


def commentary(draw: Draw, entity: Entity, key: str, stated: list[str]) -> Section:
    """The figures of one heading among sentences without figures; the summary ends in a list of topics."""
    count = 5 if key == "outlook" else max(3, 5 - len(stated))
    fillers = [sentence(draw, entity, s) for s in draw.some(FILLERS[key], count)]
    parts: list[str | tuple[str, ...] | Table] = [interleave(draw, stated, fillers)]
    if key == "summary":
        parts += ["Topics of the period:", tuple(draw.some(TOPICS, 2))]
    return Section(draw.one(FILLERS["heading " + key]), tuple(parts))


def sentence(draw: Draw, entity: Entity, template: str) -> str:
    """A sentence of commentary, with its open places filled from SLOTS."""
    slots = {name: draw.one(pool) for name, pool in SLOTS.items() if "{" + name + "}" in template}
    return template.format(E=entity.subject, **slots)


def regions(draw: Draw, period: Period, revenue: float, facts: list[Fact]) -> Section:
    """Revenue by region; the regions sum to the revenue of the period."""
    rng = draw.rng
    values = [round(revenue * (share + rng.uniform(-0.02, 0.02)), 1) for share in (0.31, 0.28, 0.19)]
    values.append(round(revenue - sum(values), 1))
    rows = []
    for name, value in zip(REGION_NAMES, values, strict=True):
        rows.append(region_row(draw, name, value))
        np = f"revenue in the {name} region"
        questions = asked(GROUP, period, (np,))
        facts.append(Fact("group", np, str(value), "EUR_m", period.code, row_quote(rows[-1]), questions, table=True))
    table = Table(("Region", f"Revenue {period.short}", "Demand"), tuple(rows))
    note, end = " ".join(draw.some(FILLERS["regions"], 3)), draw.one(FILLERS["regions end"])
    return Section(draw.one(FILLERS["heading regions"]), (note, table, end))


def region_row(draw: Draw, name: str, value: float) -> tuple[str, ...]:
    quote = draw.unsaid(lambda: row_quote((name, f"EUR {value} million", draw.one(DEMAND))))
    return tuple(quote.strip("| ").split(" | "))


def fact(draw: Draw, entity: Entity, period: Period, name: str, value: float, named: bool) -> Fact:
    figure = FIGURES[name]
    number = f"{value:,.{figure.get('digits', 1)}f}"
    # "Latest quarter" is asked for without naming the quarter, so the sentence itself has to name it.
    templates = ("Revenue came to {v} in {p}.",) if named and name == "revenue" else figure["sentences"]

    def write() -> str:
        words = {"E": entity.subject, "e": lower_first(entity.subject), "p": draw.one((period.short, period.long))}
        return draw.one(templates).format(v=shown(draw, number, figure["unit"]), **words)

    sentence = draw.unsaid(write)
    questions = asked(entity, period, figure["names"])
    return Fact(entity.name, name, plain(number), figure["unit"], period.code, sentence, questions)


def shown(draw: Draw, number: str, unit: str) -> str:
    match unit:
        case "EUR_m":
            return draw.one((f"EUR {number} million", f"{number} million euros"))
        case "EUR":
            return f"EUR {number}"
        case _:
            return f"{number} {unit}"


def asked(entity: Entity, period: Period, names: tuple[str, ...]) -> tuple[str, ...]:
    """Questions for a figure under each of its names, naming who reports and the period in turns."""
    out = []
    for index, frame in enumerate(FRAMES):
        for np in names:
            p = (period.short, period.long)[(index + len(np)) % 2]
            who, possessive = entity.names[(index + len(np)) // 2 % len(entity.names)]
            out.append(frame.format(poss=possessive, ent=who, np=np, p=p, P=p[0].upper() + p[1:]))
    return tuple(out)


def lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def misses(draw: Draw, id: str, entity: Entity, period: Period, figures: dict[str, float]) -> tuple[Miss, ...]:
    """Figures this report does not give, periods nobody reported, and quarters this division did not report."""
    absent = [n for n in FIGURES if n not in figures]
    out = [Miss(asked(entity, period, FIGURES[n]["names"]), (id,), FIGURES[n]["words"]) for n in absent]
    year, quarter = draw.rng.choice(((2023, 1), (2023, 2), (2023, 3), (2023, 4), (2027, 1), (2027, 2)))
    other = Period.quarter(year, quarter)
    out += [Miss(asked(entity, other, FIGURES[n]["names"]), (), (other.short, other.long)) for n in list(figures)[:4]]
    if entity is not GROUP:
        reported = [(y, q) for name, y, q, _ in DIVISIONS if name == entity.name]
        silent = Period.quarter(*draw.rng.choice([q for q in QUARTERS[:10] if q not in reported]))
        title = division_title(entity.name, silent)
        out += [Miss(asked(entity, silent, FIGURES[n]["names"]), (), (title,)) for n in list(figures)[:4]]
    return tuple(out)


def division_title(name: str, period: Period) -> str:
    return f"{name} division: {results_of(period)}"


def results_of(period: Period) -> str:
    """Both ways of naming a quarter, so that either finds the paper."""
    return f"{period.short} results, {period.long.removeprefix('the ').split(' of ')[0]}"
