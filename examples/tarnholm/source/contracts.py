# ruff: noqa: E501 (tables and prose, one entry a line)
"""Supply and customer contracts of Tarnholm Hydraulics: a table of agreed terms, and the clauses that state them.

Knows nothing of the other kinds of documents.
"""

from __future__ import annotations

from dataclasses import dataclass

from .common import Document, Draw, Fact, Miss, Section, interleave, plain, upper_first
from .contract_texts import BOILERPLATE, SUBJECTS, TERMS

FRAMES = (
    "What is the {np} in the contract with {e}?",
    "Under the agreement with {e}, what is the {np}?",
    "Which {np} was agreed with {e}?",
    "Please state the {np} agreed with {e}.",
    "Contract with {e}: what is the {np}?",
    "What does our contract with {e} say about the {np}?",
    "I need the {np} from the {e} contract.",
    "Can you look up the {np} in the {e} agreement?",
)

STRANGERS = (
    "Grandal Pipeworks", "Ovenmark Castings", "Sundvarg Terminals", "Brattle Moor Utilities", "Pellworth Gaskets",
    "Nordhask Cables", "Ilmerstad Breweries", "Corvane Electronics", "Haddelow Chemicals", "Tursk Municipal Heating",
)  # fmt: skip
ANNEXES = ("Annex A: scope", "Annex B: prices", "Annex C: packing", "Annex D: critical equipment", "Annex E: contacts")
CLAUSES = (
    ("Subject matter and volume", ("volume", "min_order", "forecast")),
    ("Term and termination", ("term", "notice", "cure")),
    ("Prices and payment", ("payment", "discount", "price_cap", "late_interest")),
    ("Delivery and delay", ("lead_time", "penalty", "penalty_cap")),
    ("Service levels", ("response", "availability")),
    ("Warranty and complaints", ("warranty", "complaint")),
    ("Liability and insurance", ("liability", "insurance")),
    ("Confidentiality, records and audits", ("confidentiality", "audit_notice")),
)


@dataclass(frozen=True)
class Contract:
    id: str
    split: str
    partner: str
    role: str
    kind: str
    date: str
    terms: dict[str, str]


def contract(id: str, split: str, partner: str, role: str, kind: str, date: str, **terms: str) -> Contract:
    return Contract(id, split, partner, role, kind, date, terms)


CONTRACTS = (
    contract("contracts/quernby-foundry.pdf", "examples", "Quernby Foundry", "Supplier", "supply agreement for grey iron castings", "4 March 2024",
             term="3 years", notice="6 months", payment="45 days", discount="2 percent", price_cap="3.5 percent", lead_time="7 weeks", penalty="0.5 percent",
             penalty_cap="5 percent", warranty="36 months", complaint="14 days", liability="1.8 EUR_m", volume="2,350,000 EUR", confidentiality="5 years"),
    contract("contracts/morvath-seals.docx", "examples", "Morvath Seals", "Supplier", "framework agreement for mechanical seals", "18 September 2023",
             term="4 years", notice="3 months", payment="30 days", price_cap="2.8 percent", lead_time="5 weeks", penalty="0.8 percent", complaint="21 days",
             warranty="18 months", liability="650,000 EUR", min_order="1,250 EUR", forecast="13 weeks", insurance="2.5 EUR_m", audit_notice="10 days"),
    contract("contracts/kelmora-motors.md", "examples", "Kelmora Motors", "Supplier", "supply agreement for electric motors", "2 December 2024",
             term="5 years", notice="9 months", payment="60 days", discount="3 percent", late_interest="8 percent", lead_time="11 weeks", penalty="1.0 percent",
             penalty_cap="8 percent", warranty="30 months", liability="3.2 EUR_m", volume="4,150,000 EUR", cure="30 days", confidentiality="7 years"),
    contract("contracts/elstrand-dairies.html", "examples", "Elstrand Dairies", "Customer", "maintenance agreement for process pumps", "11 June 2025",
             term="2 years", notice="4 months", payment="14 days", price_cap="4.2 percent", response="6 hours", availability="98.5 percent", penalty_cap="12 percent",
             liability="400,000 EUR", complaint="7 days", cure="20 days", insurance="5.5 EUR_m", confidentiality="3 years"),
    contract("contracts/halvik-waterworks.pdf", "examples", "Halvik Waterworks", "Customer", "delivery and service agreement for booster stations", "27 January 2025",
             term="8 years", notice="12 months", payment="28 days", late_interest="6.5 percent", response="4 hours", availability="99.2 percent", lead_time="16 weeks",
             penalty="0.3 percent", warranty="60 months", liability="6.4 EUR_m", volume="9,800,000 EUR", audit_notice="15 days"),
    contract("contracts/oltrek-bearings.md", "cases", "Oltrek Bearings", "Supplier", "framework agreement for rolling bearings", "6 May 2024",
             term="3 years", notice="5 months", payment="40 days", discount="1.5 percent", price_cap="3.1 percent", lead_time="6 weeks", penalty="0.6 percent",
             penalty_cap="6 percent", warranty="24 months", liability="925,000 EUR", min_order="840 EUR", complaint="10 days", forecast="9 weeks"),
    contract("contracts/dornquist-logistics.html", "cases", "Dornquist Logistics", "Supplier", "freight and warehousing agreement", "1 April 2025",
             term="2 years", notice="2 months", payment="21 days", late_interest="7.2 percent", response="3 hours", availability="97.8 percent", penalty="1.2 percent",
             liability="1.1 EUR_m", insurance="4.8 EUR_m", volume="1,640,000 EUR", cure="15 days", audit_notice="5 days"),
    contract("contracts/lindvarra-paper.docx", "cases", "Lindvarra Paper", "Customer", "maintenance agreement for stock pumps", "14 October 2024",
             term="6 years", notice="8 months", payment="35 days", price_cap="3.9 percent", response="5 hours", availability="98.1 percent", penalty_cap="9 percent",
             warranty="15 months", liability="2.7 EUR_m", complaint="12 days", confidentiality="6 years", discount="2.5 percent"),
    contract("contracts/ravenmoss-water-board.pdf", "cases", "Ravenmoss Water Board", "Customer", "delivery agreement for borehole pumps", "22 August 2025",
             term="4 years", notice="7 months", payment="50 days", late_interest="5.8 percent", lead_time="14 weeks", penalty="0.4 percent", penalty_cap="7 percent",
             warranty="48 months", liability="5.1 EUR_m", volume="7,250,000 EUR", insurance="8.5 EUR_m", cure="25 days", complaint="18 days"),
    contract("contracts/tessarin-coatings.docx", "examples", "Tessarin Coatings", "Supplier", "processing agreement for corrosion protection", "9 July 2025",
             term="1 years", notice="1 months", payment="25 days", discount="4 percent", lead_time="3 weeks", penalty="1.5 percent", warranty="42 months",
             complaint="5 days", liability="275,000 EUR", min_order="390 EUR", insurance="1.2 EUR_m", audit_notice="3 days", forecast="6 weeks"),
)  # fmt: skip


def build(draw: Draw) -> list[Document]:
    return [document(draw, c) for c in CONTRACTS]


def document(draw: Draw, c: Contract) -> Document:
    draw.here.clear()
    sections, facts = [recitals(draw, c)], []
    number = 1
    for heading, names in CLAUSES:
        present = [n for n in names if n in c.terms]
        if not present:
            continue
        made = [fact(draw, c, name) for name in present]
        facts += made
        fillers = [fill(c, s) for s in draw.some(BOILERPLATE[heading], max(2, 4 - len(made)))]
        number += 1
        sections.append(Section(f"{number}. {heading}", (interleave(draw, [f.quote for f in made], fillers),)))
    closing = " ".join(fill(c, s) for s in draw.some(BOILERPLATE["Final provisions"], 3))
    sections.append(Section(f"{number + 1}. Final provisions", (closing, "Annexes:", ANNEXES)))
    title = f"{upper_first(c.kind)} with {c.partner}"
    byline = (
        f"Between Tarnholm Hydraulics and {c.partner} (the “{c.role}”), signed on {c.date}. Classification: restricted."
    )
    return Document(c.id, "contract", title, byline, tuple(sections), tuple(facts), misses(draw, c), c.split)


def recitals(draw: Draw, c: Contract) -> Section:
    text = " ".join(
        fill(c, s) for s in (*draw.some(SUBJECTS[c.role], 2), *draw.some(BOILERPLATE["Parties and purpose"], 3))
    )
    return Section("1. Parties and purpose", (text,))


def fill(c: Contract, sentence: str) -> str:
    other = "Supplier" if c.role == "Supplier" else "Customer"
    seller = "the Supplier" if c.role == "Supplier" else "Tarnholm"
    buyer = "Tarnholm" if c.role == "Supplier" else "the Customer"
    names = {"p": c.partner, "kind": c.kind, "role": other, "seller": seller, "buyer": buyer}
    names |= {"Seller": upper_first(seller), "Buyer": upper_first(buyer)}
    return sentence.format(**names)


def fact(draw: Draw, c: Contract, name: str) -> Fact:
    term = TERMS[name]
    number, unit = c.terms[name].split()
    text = amount(number, unit)
    sentence = draw.unsaid(lambda: fill(c, draw.one(term["sentences"]).replace("{v}", text)))
    return Fact(c.partner, name, plain(number), unit, "", sentence, questions(c.partner, name))


def amount(number: str, unit: str) -> str:
    """How a figure stands in a contract."""
    match unit:
        case "EUR":
            return f"EUR {number}"
        case "EUR_m":
            return f"EUR {number} million"
        case _:
            return f"{number} {unit.removesuffix('s') if number == '1' else unit}"


def questions(partner: str, name: str) -> tuple[str, ...]:
    term = TERMS[name]
    framed = [frame.format(np=np, e=partner) for np in term["names"] for frame in FRAMES]
    return tuple(framed + [q.format(e=partner) for q in term["questions"]])


def misses(draw: Draw, c: Contract) -> tuple[Miss, ...]:
    """Clauses this contract does not have, and terms of a contract nobody signed."""
    absent = [Miss(questions(c.partner, n), (c.id,), tuple(TERMS[n]["words"])) for n in TERMS if n not in c.terms]
    stranger = draw.one(STRANGERS)
    return (*absent, Miss(questions(stranger, draw.rng.choice(list(c.terms))), (), (stranger,)))
