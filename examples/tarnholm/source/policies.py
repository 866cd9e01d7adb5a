"""Company policies of Tarnholm Hydraulics, written out by hand with their figures marked.

Knows nothing of the other kinds of documents. Markup: `## heading`; `* value unit | short name of the figure |
question clause :: sentence`; other lines are prose; an empty line starts a new paragraph; `! question | word,word`
is a near miss, with words the document must not contain.
"""

from __future__ import annotations

from .common import Document, Draw, Fact, Miss, Section, Table, plain, upper_first
from .policy_texts import CLOSING, CLOSING_HEADINGS, POLICIES, ROLES

FRAMES = (
    "What is the {np} under the {policy}?",
    "According to the {policy}, what is the {np}?",
    "Please give me the {np} set by the {policy}.",
    "Which {np} does the {policy} lay down?",
    "What does the {policy} say about the {np}?",
    "I need the {np} from the {policy}.",
    "{Policy}: what is the {np}?",
    "Under the {policy}, {wh}?",
    "{Wh}, according to the {policy}?",
    "{Wh} under the {policy}?",
)


def build(draw: Draw) -> list[Document]:
    return [document(draw, *entry) for entry in POLICIES]


def document(draw: Draw, id: str, split: str, title: str, byline: str, text: str) -> Document:
    draw.here.clear()
    policy = title[0].lower() + title[1:]
    sections: list[Section] = []
    facts: list[Fact] = []
    misses: list[Miss] = []
    heading = ""
    paragraphs: list[str] = []
    current: list[str] = []

    def close_paragraph() -> None:
        if current:
            paragraphs.append(" ".join(current))
            current.clear()

    def close_section() -> None:
        close_paragraph()
        if heading:
            sections.append(Section(heading, tuple(paragraphs)))
            paragraphs.clear()

    for line in text.strip().splitlines():
        if line.startswith("## "):
            close_section()
            heading = line[3:]
        elif line.startswith("* "):
            head, sentence = line[2:].split(" :: ")
            figure, np, wh = (part.strip() for part in head.split("|"))
            value, unit = figure.split()
            facts.append(Fact(title, np, plain(value), unit, "", sentence, questions(policy, np, wh)))
            current.append(sentence)
        elif line.startswith("! "):
            question, words = line[2:].split("|")
            misses.append(Miss((question.strip(),), (id,), tuple(w.strip() for w in words.split(","))))
        elif line.strip():
            current.append(line.strip())
        else:
            close_paragraph()
    close_section()
    sections.append(closing(draw, byline))
    return Document(id, "policy", title, byline, tuple(sections), tuple(facts), tuple(misses), split)


def closing(draw: Draw, byline: str) -> Section:
    """Who looks after the policy: sentences and a table without figures."""
    owner = byline.removeprefix("Issued by the ").split(".")[0]
    text = " ".join(s.format(owner=owner) for s in draw.some(CLOSING, 5))
    rows = ((upper_first(owner), "owns the text and answers questions"), *draw.rng.sample(ROLES, 3))
    return Section(draw.one(CLOSING_HEADINGS), (text, Table(("Role", "Task"), rows)))


def questions(policy: str, np: str, wh: str) -> tuple[str, ...]:
    names = {"np": np, "wh": wh, "Wh": upper_first(wh), "policy": policy, "Policy": upper_first(policy)}
    return tuple(frame.format(**names) for frame in FRAMES)
