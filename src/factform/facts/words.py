"""From text to the terms it is found by: words of any script, identifiers whole and in parts, phrases in quotes.

Knows nothing of documents, rankings or indexes. No language has to be set: nothing done for one language takes a word
away from another. A term is a string; `digest` makes a number of it.

    word          stemmed (English endings), without accents        "Résumés" -> resum, and =résumés as written
    umlaut        also as it is spelt without                       "Müller" -> muller, mueller
    identifier    whole, squeezed and in parts                      "AB-1234/7" -> #ab-1234/7, #ab12347, ab, 1234, 7
    section sign  with its number                                   "§ 823 Abs. 1" -> #§823, 823, abs, 1
    no spaces     single characters and pairs (CJK, Thai, ...)      "本季度" -> 本, 季, 度, 本季, 季度
"""

from __future__ import annotations

import hashlib
import re
import threading
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import Stemmer

VERSION = 1
"""Number of the analysis below; terms stored by another are made anew."""

LONG = 10
"""Letters from which a word may be a compound."""

PART = 4
"""Letters that each part of a compound has at least."""

SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
SPACELESS += "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"

_PIECE = re.compile(rf"(?P<close>[{SPACELESS}]+)|§+\s*(?P<section>\d+\w*)|(?P<run>[^\s{SPACELESS}§]+)")
_EDGES = re.compile(r"^[\W_]+|[\W_]+$")
_PARTS = re.compile(r"[^\W_]+")
_INNER = re.compile(r"[^\W_][\W_]+[^\W_]|[^\W\d_]\d|\d[^\W\d_]")
_CODE = re.compile(r"[^\W_][_.:/\\@#+]+[^\W_]")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_QUOTED = re.compile(r'"([^"]+)"|“([^”]+)”|„([^“”]+)[“”]|«([^»]+)»|「([^」]+)」')
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe"})

# fmt: off
FUNCTION_WORDS = frozenset(
    {"a", "about", "all", "also", "am", "an", "and", "any", "are", "as", "at", "be", "been", "being", "but",
      "by", "can", "could", "did", "do", "does", "doing", "for", "from", "had", "has", "have", "having", "he",
      "her", "his", "how", "i", "if", "in", "into", "is", "it", "its", "may", "me", "might", "must", "my",
      "no", "not", "of", "on", "or", "our", "shall", "she", "should", "so", "such", "than", "that", "the",
      "their", "them", "then", "there", "these", "they", "this", "those", "to", "upon", "us", "was", "we",
      "were", "what", "when", "where", "which", "while", "who", "whom", "why", "will", "with", "would", "you",
      "your"}
)
# fmt: on

_stemmer = Stemmer.Stemmer("english")
_stemming = threading.Lock()  # a Stemmer keeps state while it works


SENTENCE_ENDS = " .,;:!?…。、！？"
"""What a phrase may end with and need not: the sentence around it often ends within the quotation marks."""


@dataclass(frozen=True)
class Asked:
    """A question taken apart: its terms with their counts, the words that may be compounds, and the exact phrases."""

    terms: tuple[tuple[str, int], ...]
    words: tuple[str, ...]
    phrases: tuple[str, ...]


def terms(text: str) -> Counter[str]:
    """Every term of a text, with how often it stands there."""
    found: list[str] = []
    for kind, piece in _pieces(text):
        found += _close(piece) if kind == "close" else _section(piece) if kind == "section" else _run(piece)
    return Counter(found)


def asked(question: str) -> Asked:
    """What to look for. Function words count only where there is nothing else."""
    quoted = (literal("".join(parts)).rstrip(SENTENCE_ENDS) for parts in _QUOTED.findall(question))
    phrases = tuple(dict.fromkeys(phrase for phrase in quoted if phrase))
    counted: Counter[str] = Counter()
    words: dict[str, None] = {}
    for kind, piece in _pieces(question):
        if kind == "close":
            counted.update(_close(piece) if len(piece) == 1 else _pairs(piece))
            continue
        counted.update(_section(piece) if kind == "section" else _run(piece))
        words.update(
            dict.fromkeys(folded(part) for part in _PARTS.findall(piece) if not part.isascii() or part.isalpha())
        )
    telling = {term: count for term, count in counted.items() if term not in _SILENT}
    return Asked(
        tuple((telling or counted).items()),
        tuple(word for word in words if word not in FUNCTION_WORDS and len(word) >= PART),
        phrases,
    )


def length(counted: Counter[str]) -> int:
    """How long a text is for BM25: function words do not count, as they do not in questions."""
    return sum(count for term, count in counted.items() if term not in _SILENT)


def literal(text: str) -> str:
    """Text as phrases are compared: one kind of width and case, every white space one blank."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def parts_of(phrase: str) -> list[str]:
    """The terms that every text with this phrase has: what stands beside it may belong to the same identifier."""
    return [term for term in terms(phrase) if term[0] not in "#="]


def long_words(text: str) -> set[str]:
    """Folded words that may be compounds."""
    found = (folded(part) for part in _PARTS.findall(unicodedata.normalize("NFKC", text)) if len(part) >= LONG)
    return {word for word in found if word.isalpha() and len(word) >= LONG}


def digest(term: str) -> int:
    """A term as 64 bits. Two terms in ten million share one with a chance of 1 in 400,000; they would count as one."""
    return int.from_bytes(hashlib.blake2b(term.encode("utf-8", "replace"), digest_size=8).digest(), "little")


@lru_cache(maxsize=200_000)
def folded(word: str) -> str:
    """A word without case and accents."""
    plain = word.casefold()
    if plain.isascii():
        return plain
    apart = unicodedata.normalize("NFKD", plain)
    return unicodedata.normalize("NFKC", "".join(mark for mark in apart if unicodedata.category(mark) != "Mn"))


@lru_cache(maxsize=200_000)
def stem(word: str) -> str:
    """A folded word without its English ending; words of other scripts stay as they are."""
    if not word.isascii() or not word.isalpha():
        return word
    with _stemming:
        return str(_stemmer.stemWord(word))


_SILENT = frozenset(stem(word) for word in FUNCTION_WORDS)


def _pieces(text: str) -> list[tuple[str, str]]:
    normal = unicodedata.normalize("NFKC", text)
    return [(match.lastgroup or "", match[match.lastgroup or 0]) for match in _PIECE.finditer(normal)]


@lru_cache(maxsize=200_000)
def _run(run: str) -> tuple[str, ...]:
    """Terms of what stands between blanks."""
    bare = _EDGES.sub("", run)
    if not bare:
        return ()
    made: list[str] = []
    # Not for words joined by hyphens alone: "boundary-layer" outweighed its parts (cranfield lost .013 nDCG@10).
    if _INNER.search(bare) and (any(mark.isdigit() for mark in bare) or _CODE.search(bare)):
        whole = bare.casefold()
        squeezed = re.sub(r"[\W_]+", "", whole)
        made += [f"#{whole}"] if whole == squeezed else [f"#{whole}", f"#{squeezed}"]
    for part in _PARTS.findall(bare):
        made += _word(part)
        camel = _CAMEL.split(part)
        if len(camel) > 1:
            made += [term for each in camel for term in _word(each)]
    return tuple(made)


@lru_cache(maxsize=200_000)
def _word(word: str) -> tuple[str, ...]:
    plain, bare = word.casefold(), folded(word)
    made = [stem(bare)] if bare else []
    if bare != plain:
        made.append(f"={plain}")
        spelt = folded(plain.translate(_UMLAUTS))
        if spelt != bare:
            made.append(stem(spelt))
    return tuple(made)


def _section(number: str) -> tuple[str, ...]:
    return (f"#§{number.casefold()}", *_word(number))


def _close(piece: str) -> tuple[str, ...]:
    return (*piece, *_pairs(piece))


def _pairs(piece: str) -> tuple[str, ...]:
    return tuple(piece[at : at + 2] for at in range(len(piece) - 1))
