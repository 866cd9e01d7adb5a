"""Short texts and tables on invented things, written by rule, and questions that only one of them answers.

Every question comes with texts that differ from the right one in one thing: the name, the period, the property or the
version. A third have no answer: the name, the period or the property asked for stands in none of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

SYLLABLES = ("bra", "do", "fen", "gal", "hir", "jo", "kes", "lum", "mar", "nor", "ost", "pel", "quin", "ros", "sil",
             "tam", "ul", "ver", "wen", "zor", "cal", "dri", "eth", "fol", "gri", "ist", "kan", "lor", "mi",
             "net")  # fmt: skip
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")  # fmt: skip

Value = Callable[[random.Random], str]


@dataclass(frozen=True)
class Property:
    """Something a thing has: its names (a text uses one, a question perhaps another) and how its value reads."""

    names: tuple[str, ...]
    value: Value


@dataclass(frozen=True)
class Domain:
    """A kind of document. `entity` makes a name; with `periods` every figure belongs to one, with `versions` a text
    has an older one that says something else."""

    title: str
    noun: str
    entity: Value
    properties: tuple[Property, ...]
    periods: Value | None = None
    versions: bool = False


def number(low: int, high: int, unit: str = "", digits: int = 0, step: int = 1) -> Value:
    """A number between two, as it is printed, with its unit behind it."""

    def draw(rng: random.Random) -> str:
        value = rng.randrange(low, high + 1, step) if not digits else rng.uniform(low, high)
        return f"{value:,.{digits}f}" + (f" {unit}" if unit else "")

    return draw


def money(low: int, high: int, tail: str = "", digits: int = 0) -> Value:
    """An amount, its currency before or behind it."""

    def draw(rng: random.Random) -> str:
        text = f"{rng.uniform(low, high):,.{digits}f}"
        form = rng.choice(("${}", "€{}", "EUR {}", "{} euros", "USD {}"))
        return form.format(text + tail) if not form.startswith("{}") else f"{text}{tail} euros"

    return draw


def one_of(*choices: str) -> Value:
    return lambda rng: rng.choice(choices)


def date(rng: random.Random) -> str:
    day, month, year = rng.randint(1, 28), rng.randint(0, 11), rng.randint(2015, 2026)
    long, american = f"{day} {MONTHS[month]} {year}", f"{MONTHS[month]} {day}, {year}"
    return rng.choice((long, american, f"{year}-{month + 1:02}-{day:02}"))


def name(rng: random.Random) -> str:
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.choice((2, 2, 3)))).capitalize()


def product(rng: random.Random) -> str:
    tail = rng.choice(
        (str(rng.randrange(10, 990, 5)), f"{rng.choice('ABCDKLMRTX')}{rng.randrange(1, 90)}", "Pro", "Mini", "Plus")
    )
    return f"{name(rng)} {tail}"


def company(rng: random.Random) -> str:
    return f"{name(rng)} {rng.choice(('Ltd', 'GmbH', 'Group', 'Industries', 'Foods', 'Systems', 'Logistics', 'AG'))}"


def quarter(rng: random.Random) -> str:
    return f"Q{rng.randint(1, 4)} {rng.randint(2019, 2026)}"


def reworded(period: str, rng: random.Random) -> str:
    """The period as it is or, a quarter, spelt out."""
    if not period.startswith("Q") or rng.random() < 0.6:
        return period
    return f"the {('first', 'second', 'third', 'fourth')[int(period[1]) - 1]} quarter of {period[3:]}"


def year(rng: random.Random) -> str:
    return str(rng.randint(2014, 2026))


def properties(*pairs: tuple[str, Value]) -> tuple[Property, ...]:
    return tuple(Property(tuple(names.split("|")), value) for names, value in pairs)


MACHINE = properties(
    ("rated power|power rating|nominal power", number(1, 400, "kW", 1)),
    ("weight|mass|shipping weight", number(2, 900, "kg")),
    ("noise level|sound pressure level", number(40, 95, "dB")),
    ("maximum operating temperature|highest permitted temperature", number(35, 180, "°C")),
    ("minimum flow|lowest permitted flow", number(1, 90, "l/min")),
    ("tank volume|capacity of the tank", number(5, 800, "litres")),
    ("warranty period|guarantee", number(1, 10, "years")),
    ("service interval|maintenance interval", number(200, 9000, "operating hours", 0, 100)),
    ("supply voltage|mains voltage", one_of("230 V", "400 V", "24 V DC", "110 V", "48 V DC")),
    ("cable length|length of the power cable", number(1, 30, "m", 1)),
    ("overall length|installed length", number(200, 6000, "mm")),
    ("protection class|ingress protection", one_of("IP20", "IP44", "IP54", "IP65", "IP67")),
    ("spare part supply|availability of spare parts", number(5, 25, "years")),
)
FIGURES = properties(
    ("revenue|sales|turnover", money(2, 900, " million", 1)),
    ("operating profit|EBIT|operating result", money(1, 90, " million", 1)),
    ("order intake|new orders", money(2, 700, " million", 1)),
    ("headcount|number of employees|staff", number(80, 9000)),
    ("free cash flow|cash generated", money(1, 60, " million", 1)),
    ("capital expenditure|investment", money(1, 80, " million", 1)),
    ("equity ratio|share of equity", number(12, 70, "%", 1)),
    ("customer churn|share of customers lost", number(1, 19, "%", 1)),
    ("average delivery time|mean time to deliver", number(2, 40, "days")),
    ("complaint rate|share of deliveries with complaints", number(1, 9, "%", 2)),
)
PLAN = properties(
    ("monthly price|price a month|monthly fee", money(5, 900, "", 2)),
    ("storage|included storage|disk space", number(5, 4000, "GB")),
    ("response time|time to a first reply", number(1, 48, "hours")),
    ("number of users|seats", number(1, 500)),
    ("setup fee|one-off charge", money(20, 4000)),
    ("minimum term|shortest contract", number(1, 36, "months")),
    ("backup frequency|backup interval", one_of("every hour", "every 6 hours", "once a day", "once a week")),
    ("discount for yearly payment|yearly discount", number(3, 25, "%")),
)
RULES = properties(
    ("daily travel allowance|per diem", money(15, 120)),
    ("approval limit|amount that needs no approval", money(100, 9000)),
    ("paid leave|annual leave|holiday entitlement", number(20, 35, "days")),
    ("remote work|days of work from home", number(1, 4, "days a week")),
    ("notice before a holiday|advance notice for leave", number(1, 8, "weeks")),
    ("retention of invoices|storage time of invoices", number(2, 12, "years")),
    ("password change|interval of password changes", number(30, 365, "days")),
    ("hotel limit|highest price of a hotel night", money(70, 320)),
    ("mileage rate|refund a kilometre", money(0, 1, "", 2)),
    ("deadline for expense claims|time to hand in expenses", number(7, 90, "days")),
)
TERMS = properties(
    (
        "notice period|period of notice",
        one_of("30 days", "60 days", "three months", "six months", "12 months", "two weeks"),
    ),
    ("liability cap|limit of liability", money(20, 900, ",000")),
    ("payment term|time to pay", number(7, 90, "days")),
    ("start date|date on which it begins", date),
    ("end date|date on which it ends", date),
    (
        "governing law|applicable law",
        one_of("the law of Norway", "Swiss law", "the laws of Ireland", "German law", "Dutch law"),
    ),
    ("penalty for late delivery|charge for delay", number(1, 9, "% a week", 1)),
    ("renewal term|extension", one_of("one year", "two years", "six months", "three years")),
    ("monthly rent|rent a month", money(400, 9000)),
    ("minimum order|smallest quantity that can be ordered", number(10, 9000, "pieces")),
)  # fmt: skip
CARE = properties(
    ("daily dose|dose a day", number(5, 800, "mg")),
    ("maximum dose|highest dose", number(100, 2000, "mg")),
    ("storage temperature|temperature it is kept at", one_of("2 to 8 °C", "below 25 °C", "below 30 °C", "15 to 25 °C")),
    ("shelf life|keeping time", number(6, 60, "months")),
    ("interval between doses|time between two doses", number(4, 24, "hours")),
    ("onset of action|time until it works", number(10, 120, "minutes")),
    ("half-life|elimination half-life", number(2, 72, "hours")),
    ("pack size|content of a pack", one_of("10 tablets", "20 tablets", "50 tablets", "100 tablets", "30 capsules")),
)
SITE = properties(
    ("opening date|date it opened", date),
    ("floor area|area", number(200, 90000, "square metres")),
    ("capacity|number of places", number(20, 9000)),
    ("construction cost|building cost", money(2, 400, " million")),
    ("distance to the station|way to the railway station", number(1, 20, "km", 1)),
    ("number of docks|loading docks", number(2, 60)),
    ("opening hours|hours of business", one_of("8:00 to 17:00", "6:30 to 22:00", "9:00 to 18:00", "around the clock")),
)
DOMAINS = (
    Domain("Data sheet", "device", product, MACHINE),
    Domain("Report", "company", company, FIGURES, quarter),
    Domain("Annual figures", "division", lambda r: f"{name(r)} division", FIGURES, year),
    Domain("Plans", "plan", lambda r: f"{name(r)} {r.choice(('Basic', 'Team', 'Plus', 'Premium'))}", PLAN),
    Domain("Policy", "site", lambda r: f"the {name(r)} office", RULES, versions=True),
    Domain("Agreement", "agreement", lambda r: f"the agreement with {company(r)}", TERMS),
    Domain("Leaflet", "medicine", lambda r: name(r) + r.choice(("in", "ol", "ix", "an")), CARE),
    Domain("Sites", "site", lambda r: f"the {name(r)} warehouse", SITE),
    Domain("Terms", "customer", company, TERMS, versions=True),
)

SENTENCES = ("The {p} of {e} is {v}.", "{e} has a {p} of {v}.", "For {e}, the {p} is {v}.", "{P} of {e}: {v}.",
             "At {e} the {p} is {v}.", "{v} is the {p} of {e}.", "The {p} stands at {v} for {e}.")  # fmt: skip
PERIOD_SENTENCES = ("In {t}, {e} reported a {p} of {v}, after {w} in {u}.", "The {p} of {e} was {v} in {t}.",
                    "{P} of {e} reached {v} in {t} ({u}: {w}).", "In {t} the {p} of {e} came to {v}.")  # fmt: skip
BARE = ("{P}: {v}", "- {p}: {v}", "* {P} – {v}", "The {p} is {v}.", "{P} is {v}.")
FILLERS = ("All values are typical and may change without notice.", "See the appendix for details.",
           "This section was reviewed by the responsible department.", "Further information is available on request.",
           "The figures were not audited.", "Questions go to the help desk.")  # fmt: skip
QUESTIONS = ("What is the {p} of {e}?", "{e}: what is the {p}?", "Please give me the {p} of {e}.", "{p} of {e}?",
             "Which {p} does {e} have?", "Tell me the {p} for {e}.", "What {p} applies to {e}?")  # fmt: skip
PERIOD_QUESTIONS = ("What was the {p} of {e} in {t}?", "{e}, {t}: what was the {p}?",
                    "What {p} did {e} report for {t}?", "How high was the {p} of {e} in {t}?")  # fmt: skip


@dataclass(frozen=True)
class Fact:
    entity: str
    property: Property
    value: str
    period: str = ""


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


Text = tuple[str, str, dict[Fact, tuple[int, int]]]
"""Header, text, and where the value of each fact stands in it."""


class Writer:
    """Puts words together and keeps the places of values."""

    def __init__(self, header: str):
        self.header, self.text, self.spans = header, "", dict[Fact, tuple[int, int]]()

    def say(self, pattern: str, fact: Fact, label: str, end: str, **more: str) -> None:
        """`pattern` with the fact's words in it, followed by `end`."""
        words = {"p": label, "P": capital(label), "e": fact.entity, "t": fact.period, **more}
        before, _, after = pattern.partition("{v}")
        head = before.format(**words)
        head = capital(head)
        at = len(self.text) + len(head)
        self.spans[fact] = (at, at + len(fact.value))
        self.text += head + fact.value + after.format(**words) + end

    def done(self) -> Text:
        return self.header, self.text.rstrip(), self.spans


def sheet(domain: Domain, facts: Sequence[Fact], rng: random.Random) -> Text:
    """One thing's facts: sentences that name it, or a list or table under a header that does."""
    entity, style = facts[0].entity, rng.choice(("sentences", "list", "table", "sentences"))
    title = f"{domain.title} > {entity}" if style != "sentences" or rng.random() < 0.5 else domain.title
    writer = Writer(title)
    if style == "table":
        writer.text = f"| {rng.choice(('Item', 'Property', 'Quantity'))} | Value |\n| --- | --- |\n"
    pattern = rng.choice(BARE)
    for fact in facts:
        label = fact.property.names[0] if rng.random() < 0.6 else rng.choice(fact.property.names)
        if style == "table":
            writer.say("| {P} | {v} |", fact, label, "\n")
        elif style == "list":
            writer.say(pattern, fact, label, "\n")
        else:
            writer.say(rng.choice(SENTENCES), fact, label, " ")
    if rng.random() < 0.4:
        writer.text += ("\n" if style != "sentences" else "") + rng.choice(FILLERS)
    return writer.done()


def comparison(domain: Domain, facts: Sequence[Fact], rng: random.Random) -> Text:
    """A table of things by properties or, with periods, of properties by periods."""
    columns = sorted({f.period or f.property.names[0] for f in facts})
    lines = sorted({f.property.names[0] if f.period else f.entity for f in facts})
    by_place = {(f.property.names[0] if f.period else f.entity, f.period or f.property.names[0]): f for f in facts}
    writer = Writer(f"{domain.title} > {facts[0].entity}" if facts[0].period else f"{domain.title} compared")
    writer.text = (
        f"| {domain.noun if not facts[0].period else ''} | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 1)}\n"
    )
    for line in lines:
        writer.text += f"| {line} |"
        for column in columns:
            fact = by_place.get((line, column))
            if fact is None:
                writer.text += " - |"
            else:
                writer.say(" {v} |", fact, "", "")
        writer.text += "\n"
    return writer.done()


def by_period(domain: Domain, facts: Sequence[Fact], rng: random.Random) -> Text:
    """Sentences on one thing in one period, each perhaps with the period before."""
    writer = Writer(f"{domain.title} > {facts[0].entity}" + (f" > {facts[0].period}" if rng.random() < 0.5 else ""))
    for fact in facts:
        earlier = another(domain.periods, {fact.period}, rng) if domain.periods else ""
        more = {"t": reworded(fact.period, rng), "u": earlier, "w": fact.property.value(rng)}
        writer.say(rng.choice(PERIOD_SENTENCES), fact, rng.choice(fact.property.names), " ", **more)
    return writer.done()


def distinct(draw: Value, n: int, rng: random.Random) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < n:
        found[draw(rng)] = None
    return list(found)


def another(draw: Value, taken: set[str], rng: random.Random) -> str:
    while (found := draw(rng)) in taken:
        pass
    return found


def texts_of(domain: Domain, rng: random.Random) -> tuple[list[Fact], list[Text]]:
    """All facts of a small world and the texts that state them."""
    entities, chosen = distinct(domain.entity, 4, rng), rng.sample(domain.properties, rng.randint(3, 6))
    if domain.periods is None:
        grid = [[Fact(e, p, p.value(rng)) for p in chosen] for e in entities]
        if rng.random() < 0.3:
            made = [comparison(domain, [f for row in grid[:2] for f in row], rng)]
            made += [comparison(domain, [f for row in grid[2:] for f in row], rng)]
        else:
            made = [sheet(domain, row, rng) for row in grid]
        return [f for row in grid for f in row], made
    periods = distinct(domain.periods, 3, rng)
    cube = [[[Fact(e, p, p.value(rng), t) for p in chosen] for t in periods] for e in entities[:2]]
    if rng.random() < 0.4:
        made = [comparison(domain, [f for row in plane for f in row], rng) for plane in cube]
    else:
        made = [by_period(domain, row, rng) for plane in cube for row in plane]
    return [f for plane in cube for row in plane for f in row], made


def outdated(domain: Domain, text: Text, facts: Sequence[Fact], rng: random.Random) -> tuple[Text, Text]:
    """The text in force, and an older one of the same shape with other values."""
    old_year = rng.randint(2015, 2023)
    old = sheet(domain, [Fact(f.entity, f.property, f.property.value(rng)) for f in facts], rng)
    notes = (f"This version was withdrawn in {old_year + 1}.", f"No longer valid; replaced in {old_year + 1}.",
             f"Valid until December {old_year}.")  # fmt: skip
    new_notes = (f"In force since {old_year + 1}.", f"This version replaces that of {old_year}.", "Current version.")
    return (text[0], f"{text[1]}\n\n{rng.choice(new_notes)}", text[2]), (old[0], f"{old[1]}\n\n{rng.choice(notes)}", {})


def question_for(fact: Fact, rng: random.Random) -> str:
    pattern = rng.choice(PERIOD_QUESTIONS if fact.period else QUESTIONS)
    entity, label = fact.entity, rng.choice(fact.property.names)
    if rng.random() < 0.3:
        entity = entity.removeprefix("the ")
    return capital(pattern.format(p=label, e=entity, t=reworded(fact.period, rng)))


def missing_fact(domain: Domain, facts: Sequence[Fact], rng: random.Random) -> Fact:
    """A fact like the others, of another thing, another period or another property."""
    like = rng.choice(facts)
    kind = rng.choice(("property", "entity", "period"))
    held = {f.property for f in facts}
    spare = [p for p in domain.properties if p not in held]
    if kind == "property" and spare:
        return Fact(like.entity, rng.choice(spare), "", like.period)
    if kind == "period" and domain.periods:
        return Fact(like.entity, like.property, "", another(domain.periods, {f.period for f in facts}, rng))
    return Fact(another(domain.entity, {f.entity for f in facts}, rng), like.property, "", like.period)


def written_rows(n: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """`n` questions with their passages, in the shape of the rows that data.py writes."""
    for number in range(n):
        domain = rng.choice(DOMAINS)
        facts, texts = texts_of(domain, rng)
        missing = rng.random() < 1 / 3
        fact = missing_fact(domain, facts, rng) if missing else rng.choice([f for t in texts for f in t[2]])
        if domain.versions and not missing:
            at = next(i for i, t in enumerate(texts) if fact in t[2])
            texts[at : at + 1] = outdated(domain, texts[at], list(texts[at][2]), rng)
        passages = [passage(number, i, text, fact) for i, text in enumerate(texts)]
        if missing:  # the nearest text is about it: of the same thing, or one like it
            near = [i for i, t in enumerate(texts) if any(f.entity == fact.entity for f in t[2])] or [0]
            passages[near[0]]["about"] = True
        rng.shuffle(passages)
        passages.sort(key=lambda p: not p["about"])
        yield {
            "id": f"written/{number}", "set": "written", "article": f"written/{number}", "split": "train",
            "document": passages[0]["document"], "question": question_for(fact, rng),
            "answers": [] if missing else [fact.value], "answerable": not missing, "passages": passages,
        }  # fmt: skip


def passage(number: int, place: int, text: Text, fact: Fact) -> dict[str, Any]:
    header, words, spans = text
    inside = [list(spans[fact])] if fact in spans else []
    return {"document": f"written/{number}/{place}", "header": header, "text": words, "rank": 1 + place,
            "about": bool(inside), "spans": inside}  # fmt: skip
