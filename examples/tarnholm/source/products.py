# ruff: noqa: E501 (tables and prose, one entry a line)
"""Product notes: a table of specifications, and the prose and tables that state them.

Knows nothing of prices: a note describes a machine, a price list sells it.
"""

from __future__ import annotations

from dataclasses import dataclass

from .common import Document, Draw, Fact, Miss, Section, Table, interleave, plain, row_quote
from .product_texts import APPLICATIONS, BACKGROUND, ROWS, SHEET, SHEET_END, SPECS

FRAMES = (
    "What is the {np} of the {e}?",
    "Which {np} is stated for the {e}?",
    "Please give me the {np} of the {e}.",
    "According to its product note, what is the {np} of the {e}?",
    "{e}: what is the {np}?",
    "A customer asks for the {np} of the {e}. What is it?",
    "Can you look up the {np} of the {e}?",
    "I need the {np} of the {e}.",
)

PARTS = (
    ("Hydraulic performance", ("flow", "pressure", "efficiency", "solids")),
    ("Drive and noise", ("power", "noise", "ambient")),
    ("Liquids and temperature", ("liquid", "suction_temp", "min_flow")),
    ("Dimensions and installation", ("weight", "connection", "length", "crew")),
    ("Operation and maintenance", ("service", "seal", "overhaul", "oil")),
    ("Warranty, storage and spare parts", ("warranty", "storage", "parts", "life")),
)

IMAGINED = ("18", "33", "47", "64", "85", "145")
FAMILY = {"Torvik": "dry", "Hauk": "dry", "Skelda": "wet", "Dype": "wet", "Kvern": "wet"} | dict.fromkeys(
    ("Ryst", "Vannor", "Maren"), "unit"
)

UNIT_TEXT = {
    "m3_per_h": ("{v} m³/h", "{v} cubic meters per hour"),
    "bar": ("{v} bar",),
    "kg": ("{v} kg", "{v} kilograms"),
    "kW": ("{v} kW", "{v} kilowatts"),
    "dB": ("{v} dB", "{v} decibels"),
    "mm": ("{v} mm", "{v} millimeters"),
    "celsius": ("{v} °C", "{v} degrees Celsius"),
    "hours": ("{v} hours", "{v} operating hours"),
}


@dataclass(frozen=True)
class Product:
    id: str
    split: str
    name: str
    type: str
    use: str
    table: tuple[str, ...]
    specs: dict[str, str]

    @property
    def family(self) -> str:
        """Which background sentences fit: a pump standing dry, a pump under water, or a treatment unit."""
        return FAMILY[self.name.split()[0]]


def product(id: str, split: str, name: str, type: str, use: str, table: str, **specs: str) -> Product:
    return Product(id, split, name, type, use, tuple(table.split()), specs)


PRODUCTS = (
    product("products/torvik-25.md", "examples", "Torvik 25", "booster pump", "raising the pressure in apartment blocks and small hotels", "flow weight",
            flow="25.4 m3_per_h", pressure="9.5 bar", efficiency="68 percent", power="5.5 kW", noise="61 dB", liquid="70 celsius", weight="84 kg",
            connection="50 mm", service="4,000 hours", seal="9,500 hours", warranty="30 months", storage="18 months", crew="2 people"),
    product("products/torvik-60.html", "cases", "Torvik 60", "booster pump", "district pressure zones and large office buildings", "power connection",
            flow="61.8 m3_per_h", pressure="12.5 bar", efficiency="73 percent", power="18.5 kW", ambient="42 celsius", liquid="75 celsius", weight="236 kg",
            connection="80 mm", service="4,500 hours", overhaul="6 years", warranty="27 months", parts="12 years", length="1,140 mm"),
    product("products/skelda-110.pdf", "examples", "Skelda 110", "submersible sewage pump", "pumping stations with unscreened sewage", "solids weight",
            flow="112 m3_per_h", pressure="3.8 bar", solids="82 mm", power="22 kW", ambient="38 celsius", liquid="45 celsius", weight="395 kg",
            connection="150 mm", service="3,200 hours", oil="2 years", warranty="20 months", life="15 years", crew="3 people"),
    product("products/hauk-200.docx", "examples", "Hauk 200", "centrifugal pump", "cooling circuits and irrigation mains", "efficiency noise",
            flow="208 m3_per_h", pressure="7.2 bar", efficiency="81 percent", power="55 kW", noise="74 dB", liquid="105 celsius", min_flow="31 m3_per_h",
            weight="518 kg", length="1,685 mm", service="6,000 hours", seal="14,000 hours", warranty="26 months", parts="14 years"),
    product("products/dype-75.md", "cases", "Dype 75", "borehole pump", "drinking water wells of medium depth", "flow length",
            flow="74.6 m3_per_h", pressure="21 bar", efficiency="71 percent", power="37 kW", liquid="32 celsius", min_flow="12.8 m3_per_h", weight="178 kg",
            length="2,460 mm", solids="3 mm", overhaul="5 years", warranty="33 months", storage="24 months", life="18 years"),
    product("products/ryst-5.html", "examples", "Ryst 5", "dosing pump", "metering of disinfectant and flocculant", "pressure ambient",
            flow="0.52 m3_per_h", pressure="16 bar", power="0.37 kW", noise="54 dB", ambient="45 celsius", liquid="50 celsius", weight="13.6 kg",
            service="2,500 hours", seal="5,000 hours", oil="4 years", warranty="16 months", storage="9 months", connection="15 mm"),
    product("products/vannor-8.pdf", "cases", "Vannor 8", "filter unit", "removing iron and manganese from raw water", "weight pressure",
            flow="8.3 m3_per_h", pressure="6.5 bar", power="1.1 kW", noise="58 dB", suction_temp="4 celsius", liquid="40 celsius", weight="460 kg",
            connection="65 mm", service="2,800 hours", warranty="22 months", parts="11 years", crew="4 people", life="20 years"),
    product("products/maren-15.md", "examples", "Maren 15", "ultraviolet disinfection unit", "disinfecting drinking water without chemicals", "length power",
            flow="15.7 m3_per_h", pressure="10.5 bar", power="0.84 kW", ambient="40 celsius", suction_temp="3 celsius", liquid="36 celsius", weight="47 kg",
            length="1,275 mm", service="8,000 hours", overhaul="7 years", warranty="28 months", storage="15 months", parts="9 years"),
    product("products/kvern-90.docx", "cases", "Kvern 90", "grinder pump", "pressure sewers in scattered settlements", "noise weight",
            flow="9.4 m3_per_h", pressure="4.6 bar", solids="7 mm", power="3.2 kW", noise="66 dB", liquid="43 celsius", weight="58 kg",
            connection="32 mm", service="3,600 hours", oil="3 years", seal="7,500 hours", warranty="19 months", crew="2 people"),
)  # fmt: skip


def build(draw: Draw) -> list[Document]:
    return [document(draw, p) for p in PRODUCTS]


def document(draw: Draw, p: Product) -> Document:
    draw.here.clear()
    sections, facts = [overview(draw, p)], []
    rows: list[tuple[str, str, str]] = []
    for heading, names in PARTS:
        present = [n for n in names if n in p.specs]
        stated = [prose_fact(draw, p, n) for n in present if n not in p.table]
        shown = [table_fact(p, n) for n in present if n in p.table]
        facts += [*stated, *(f for f, _ in shown)]
        rows += [row for _, row in shown]
        if stated:
            fillers = background(draw, p, heading, max(3, 5 - len(stated)))
            sections.append(Section(heading, (interleave(draw, [f.quote for f in stated], fillers),)))
    sections.append(data_sheet(draw, p, rows))
    title = f"Product note: {p.name} {p.type}"
    byline = "Tarnholm Hydraulics, product management. Classification: public."
    return Document(p.id, "product", title, byline, tuple(sections), tuple(facts), misses(draw, p), p.split)


def overview(draw: Draw, p: Product) -> Section:
    article = "an" if p.type[0] in "aeio" else "a"
    opening = f"The {p.name} is {article} {p.type} made for {p.use}. "
    places = tuple(draw.some(APPLICATIONS[p.family], 3))
    return Section("Overview", (opening + " ".join(background(draw, p, "Overview", 4)), "It is also used in:", places))


def background(draw: Draw, p: Product, heading: str, count: int) -> list[str]:
    """`count` sentences that fit the kind of machine, those of its own family first in line."""
    own = draw.some(BACKGROUND[heading][p.family], min(2, count))
    chosen = own + draw.some(BACKGROUND[heading]["any"], count - len(own))
    draw.rng.shuffle(chosen)
    return [s.format(e=p.name, type=p.type) for s in chosen]


def data_sheet(draw: Draw, p: Product, rows: list[tuple[str, str, str]]) -> Section:
    extra = draw.rng.sample(ROWS["any"] + ROWS[p.family], 3)
    table = Table(("Property", "Value", "Remark"), (*rows, *extra))
    note = draw.one(SHEET).format(e=p.name)
    return Section(f"Data sheet {p.name}", (note, table, draw.one(SHEET_END).format(e=p.name)))


def prose_fact(draw: Draw, p: Product, name: str) -> Fact:
    number, unit = p.specs[name].split()

    def write() -> str:
        text = draw.one(UNIT_TEXT[unit]) if unit in UNIT_TEXT else "{v} " + unit
        return draw.one(SPECS[name]["sentences"]).format(e=p.name, type=p.type, v=text.format(v=number))

    sentence = draw.unsaid(write)
    return Fact(p.name, name, plain(number), unit, "", sentence, questions(p.name, name))


def table_fact(p: Product, name: str) -> tuple[Fact, tuple[str, str, str]]:
    number, unit = p.specs[name].split()
    text = UNIT_TEXT[unit][0].format(v=number) if unit in UNIT_TEXT else f"{number} {unit}"
    row = (SPECS[name]["label"], text, SPECS[name]["remark"])
    return Fact(p.name, name, plain(number), unit, "", row_quote(row), questions(p.name, name), table=True), row


def questions(name: str, spec: str) -> tuple[str, ...]:
    framed = [frame.format(np=np, e=name) for np in SPECS[spec]["names"] for frame in FRAMES]
    return tuple(framed + [q.format(e=name) for q in SPECS[spec]["questions"]])


def misses(draw: Draw, p: Product) -> tuple[Miss, ...]:
    """Specifications this note does not give, and those of a machine nobody makes."""
    absent = [Miss(questions(p.name, n), (p.id,), tuple(SPECS[n]["words"])) for n in SPECS if n not in p.specs]
    imagined = f"{p.name.split()[0]} {draw.rng.choice(IMAGINED)}"
    return (*absent, *(Miss(questions(imagined, n), (), (imagined,)) for n in list(p.specs)[:2]))
