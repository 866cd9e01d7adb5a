"""Price lists: tables of article prices, prices in prose, and the conditions of a list year.

Knows nothing of product notes beyond the names of the machines.
"""

from __future__ import annotations

from dataclasses import dataclass

from .common import Document, Draw, Fact, Miss, Section, Table, interleave, plain, row_quote
from .price_texts import CONDITIONS, FILLERS, HEADINGS, ITEM_SENTENCES, LISTS, OPENING

ITEM_FRAMES = (
    "What does the {i} cost in the {y} price list?",
    "What is the {y} list price of the {i}?",
    "How much is the {i} according to the {y} price list?",
    "Please quote the {y} list price of the {i}.",
    "At which price is the {i} listed in {y}?",
    "Price list {y}: how much is the {i}?",
    "I need the {y} price of the {i}.",
    "A customer wants the {i}. What is its list price in {y}?",
)
CONDITION_FRAMES = (
    "What is the {np} in the {y} price list for {l}?",
    "Which {np} applies in the {y} price list for {l}?",
    "Price list {y} for {l}: what is the {np}?",
    "Please state the {np} of the {y} price list for {l}.",
    "According to the {l} price list {y}, what is the {np}?",
    "What {np} does the {y} {l} price list name?",
)

CONDITION_SECTIONS = (
    ("Ordering and delivery", ("min_order", "small_order", "express", "delivery", "packing")),
    ("Discounts, payment and validity", ("volume", "validity", "increase", "payment", "price_hold")),
)


@dataclass(frozen=True)
class PriceList:
    id: str
    split: str
    label: str
    year: str
    noun: str
    table: tuple[tuple[str, str, str], ...]
    prose: tuple[tuple[str, str], ...]
    conditions: dict[str, str]
    absent: tuple[str, ...]

    @property
    def family(self) -> str:
        """Which sentences fit: goods, service or rental."""
        return {"Service": "service", "Rental item": "rental"}.get(self.noun, "goods")


def build(draw: Draw) -> list[Document]:
    return [document(draw, PriceList(**entry)) for entry in LISTS]


def document(draw: Draw, p: PriceList) -> Document:
    draw.here.clear()
    facts: list[Fact] = []
    opening = " ".join(s.format(l=p.label, y=p.year) for s in (OPENING, *fillers(draw, p, "opening", 4)))
    sections = [Section("About this list", (opening,)), price_table(draw, p, facts)]
    half = (len(p.prose) + 1) // 2
    for headings, items in zip(HEADINGS[p.family], (p.prose[:half], p.prose[half:]), strict=True):
        made = [item_fact(p, i, v, item_sentence(draw, p, i, v)) for i, v in items]
        sections.append(prose(draw, p, draw.one(headings), "items", made, facts))
    for heading, names in CONDITION_SECTIONS:
        made = [condition_fact(draw, p, n) for n in names if n in p.conditions]
        sections.append(prose(draw, p, heading, heading, made, facts))
    title = f"Price list {p.year}: {p.label}"
    byline = f"Tarnholm Hydraulics, sales desk. Valid from 1 January {p.year}. Classification: public."
    return Document(p.id, "price", title, byline, tuple(sections), tuple(facts), misses(p), p.split)


def fillers(draw: Draw, p: PriceList, name: str, count: int) -> list[str]:
    """`count` sentences that fit what the list sells, in mixed order."""
    own = draw.some(FILLERS[name][p.family], (count + 1) // 2)
    chosen = own + draw.some(FILLERS[name]["any"], count - len(own))
    draw.rng.shuffle(chosen)
    return chosen


def price_table(draw: Draw, p: PriceList, facts: list[Fact]) -> Section:
    facts += [
        item_fact(p, item, price, row_quote((item, article, price)), table=True) for item, article, price in p.table
    ]
    note = " ".join(fillers(draw, p, "table", 3))
    return Section(f"{p.noun} {p.year}", (note, Table((p.noun, "Article", "Price in EUR"), tuple(p.table))))


def prose(draw: Draw, p: PriceList, heading: str, pool: str, made: list[Fact], facts: list[Fact]) -> Section:
    facts += made
    return Section(heading, (interleave(draw, [f.quote for f in made], fillers(draw, p, pool, 4)),))


def item_sentence(draw: Draw, p: PriceList, item: str, price: str) -> str:
    return draw.unsaid(lambda: draw.one(ITEM_SENTENCES).format(i=item, v=price, y=p.year))


def item_fact(p: PriceList, item: str, price: str, quote: str, table: bool = False) -> Fact:
    asked = tuple(f.format(i=item, y=p.year) for f in ITEM_FRAMES)
    return Fact(f"{item}", "price", plain(price), "EUR", p.year, quote, asked, table)


def condition_fact(draw: Draw, p: PriceList, name: str) -> Fact:
    number, unit = p.conditions[name].split()
    text = f"EUR {number}" if unit == "EUR" else f"{number} {unit}"
    sentence = draw.unsaid(lambda: draw.one(CONDITIONS[name]["sentences"]).format(v=text))
    return Fact(f"{p.label} {p.year}", name, plain(number), unit, p.year, sentence, condition_questions(p, name))


def condition_questions(p: PriceList, name: str) -> tuple[str, ...]:
    return tuple(f.format(np=np, y=p.year, l=p.label) for np in CONDITIONS[name]["names"] for f in CONDITION_FRAMES)


def misses(p: PriceList) -> tuple[Miss, ...]:
    """Conditions and articles this list does not have."""
    missing = [n for n in CONDITIONS if n not in p.conditions]
    conditions = [Miss(condition_questions(p, n), (p.id,), tuple(CONDITIONS[n]["words"])) for n in missing]
    items = [Miss(tuple(f.format(i=i, y=p.year) for f in ITEM_FRAMES), (), (i,)) for i in p.absent]
    return (*conditions, *items)
