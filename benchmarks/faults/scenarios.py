"""What is seldom done and how to judge what is left of it: erasing, pruning, a backup, restoring one, an older schema,
another chunk size (with the writer's place held and in the background), kept words.

Knows nothing of faults. After one restart each scenario judges by itself: what is erased is gone from every file, or is
erased at the next opening, which says so; a backup that is there is whole; a folder is restored wholly or not at all.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factform import backup
from factform.audit.record import AnswerRecord, candidates
from factform.care import told
from factform.errors import SettingsError
from factform.facts import live, tableversions
from factform.facts.care import check_ledger
from factform.facts.ledger import migrations
from factform.project import Project
from factform.records import Citation

from .encoder import WordEncoder
from .invariants import Log, Wanted, violations
from .load import apply

CANARY = "qzxkavurble"
"""A word of the document that is erased, and of nothing else."""

LONG = " ".join(f"alpha{i}" for i in range(100))
KEPT: dict[str, Wanted | None] = {
    "b": Wanted("beta b " + LONG, 2),
    "c": Wanted("gamma c", 1),
    "d": None,
    "e": Wanted("epsilon e", 1),
}
DOOMED = Wanted(f"doomed {CANARY} {LONG} {CANARY}", 1)


class Small(Project):
    """A project with the embedder of fault work, whose writers wait for nobody."""

    def encoder(self, *_: object) -> Any:
        return WordEncoder()


@dataclass(frozen=True)
class Scenario:
    """`prepare` makes what is in a folder before, `act` is struck, `judge` says what is wrong with what it left; it is
    told whether `act` came to its end. All run in processes of their own."""

    prepare: Callable[[Path], None]
    act: Callable[[Path], None]
    judge: Callable[[Path, bool], list[str]]


def small(folder: Path) -> Small:
    live.MERGE_ROWS = 2  # what searches need is kept from the third row on
    tableversions.MANY, tableversions.KEPT, tableversions.REST_S = (
        2,
        1,
        0.0,
    )  # old versions of the table go with nearly every write
    made = Small.open(folder / "project")
    assert isinstance(made, Small)
    return made


# --- what was there before ----------------------------------------------------------------------


def make(folder: Path, chunk_tokens: int = 40) -> None:
    """A project with a document that will be erased, everywhere where one can be: two versions, records, caches."""
    project = folder / "project"
    (project / "behaviors").mkdir(parents=True)
    _set_chunks(folder, chunk_tokens)
    with small(folder) as p:
        facts = p.facts
        apply(facts, {"b": Wanted("beta b", 1), "c": KEPT["c"], "d": Wanted("delta d", 1), "e": KEPT["e"]}, _silent)
        apply(facts, {"a": Wanted(f"older {CANARY}", 1)}, _silent)
        apply(facts, {"a": DOOMED, "b": KEPT["b"], "d": None}, _silent)
        facts._current.get().optimize(wait=True)
        for question in (CANARY, "beta", "gamma"):
            p.audit.write(_record(question, facts.search(question, k=2).hits))
    for place in ("kv/blocks/aa", "cache/asof/x", "training/x", "reports/x"):
        path = project / ".factform" / place
        path.parent.mkdir(parents=True)
        path.write_text(CANARY)


def _set_chunks(folder: Path, chunk_tokens: int) -> None:
    text = f'[facts]\nchunk_tokens = {chunk_tokens}\nwriter_wait_s = 0\n[answer]\nevidence = "off"\n'
    (folder / "project" / "factform.toml").write_text(text)


def _silent(*_: object) -> None:
    return None


def _record(question: str, hits: Any) -> AnswerRecord:
    c = hits[0].chunk
    cited = (Citation(c.document, c.version, c.page, c.start, c.end, c.text, True, c.id, c.title),)
    told = {"text": c.text}
    weighed = candidates(hits)
    return AnswerRecord(
        *(question, "answered", "", {"x": c.text}, "m", None, None, "exact", "0" * 64, told, c.text, {}, {}),
        candidates=weighed,
        citations=cited,
    )


# --- what is left -------------------------------------------------------------------------------


def standing(p: Small, doomed: Wanted | None) -> list[str]:
    """Whether a project holds what it should: documents, records, and nothing that `doctor` would complain of."""
    log = Log(state={**KEPT, **({} if doomed is None else {"a": doomed})})
    found = violations(p.facts, log, search=["b", "c", "e"], all_bytes=True)
    found += _words(p)
    found += p.audit.verify()
    if p.audit.head()[0] < 3:
        found.append("records of answers are lost")
    # Checksums of the index are not forced to disk: a power cut may take them, and the next write notes them again.
    return found + told([c for c in p.examined() if c.status == "problem" and "checksums" not in c.message])


def _words(p: Small) -> list[str]:
    """Whether what is kept for searching says the same as the table alone."""
    questions = ("beta", "gamma", "epsilon", "alpha7", CANARY)

    def answers() -> list[Any]:
        return [[(h.chunk.id, h.chunk.text, h.score) for h in p.facts.search(q, k=5).hits] for q in questions]

    kept = answers()
    p.facts._current.get().forget_words()
    return [] if answers() == kept else ["searches say otherwise once what was kept for them is made anew"]


def left_of(folder: Path) -> list[str]:
    """Files that hold a word of the erased document, in any encoding, or a name of it."""
    found = []
    for path in folder.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        codes = ("utf-8", "utf-16-le", "utf-16-be")
        if any(word.encode(code) in data for word in (CANARY, CANARY.upper()) for code in codes):
            found.append(f"{path.relative_to(folder)} still holds what was erased")
    return found


# --- erasing ------------------------------------------------------------------------------------


def erase(folder: Path) -> None:
    with small(folder) as p:
        p.erase(["a"])


def judge_erased(folder: Path, done: bool) -> list[str]:
    begun = _marked(folder)
    with small(folder) as p:
        there = p.facts.history("a")
        if p.facts.eraser().marked() is not None:
            return [f"the erasure is not finished at the next opening: {p.not_erased}"]
        if begun and p.resumed is None:
            return ["the opening that finished the erasure does not say so"]
        if there and (done or begun):
            return ["it is erased, and has a history"]
        found = standing(p, DOOMED if there else None)
        if not there:
            found += left_of(folder)
            if any(hit.chunk.document == "a" for hit in p.facts.search(CANARY, k=9).hits):
                found.append("it is erased, and a search finds it")
        return found


def _marked(folder: Path) -> bool:
    with closing(sqlite3.connect(folder / "project" / ".factform" / "ledger.db")) as ledger:
        return bool(ledger.execute("SELECT 1 FROM meta WHERE key = 'erasing'").fetchone())


def hidden(folder: Path) -> list[str]:
    """While the disk refuses: what is being erased is found by nobody, all else by everybody, unless the ledger must be
    set back first: for that a disk has to take bytes where there are some already."""
    journal = folder / "project" / ".factform" / "ledger.db-journal"
    if journal.is_file() and journal.stat().st_size:
        return []
    with small(folder) as p:
        found = (
            [] if any(hit.chunk.document == "c" for hit in p.facts.search("gamma", k=3).hits) else ["c is not found"]
        )
        shown = any(hit.chunk.document == "a" for hit in p.facts.search(CANARY, k=9).hits)
        return [*found, *(["what is being erased is found"] if shown and _marked(folder) else [])]


# --- backups ------------------------------------------------------------------------------------


def back_up(folder: Path, name: str = "b.tar") -> None:
    backup.make(folder / "project", folder / name, with_index=True, wait_s=0.0, progress=_silent)


def judge_backup(folder: Path, done: bool) -> list[str]:
    file = folder / "b.tar"
    if done and not file.exists():
        return ["the backup is acknowledged and not there"]
    if not file.exists():
        back_up(folder)
    back_up(folder, "later.tar")
    found = [f"{path.name} is left" for path in folder.iterdir() if path.name.startswith(".")]
    if backup.verify(file, _silent).damaged:
        found.append("the backup lacks files")
    backup.restore(file, folder / "restored" / "project", _silent)
    for place in (folder / "restored", folder):
        with small(place) as p:
            found += standing(p, DOOMED)
    return found


def make_with_backup(folder: Path) -> None:
    make(folder)
    back_up(folder)
    shutil.rmtree(folder / "project")


def restore(folder: Path) -> None:
    backup.restore(folder / "b.tar", folder / "project", _silent)


def judge_restored(folder: Path, done: bool) -> list[str]:
    there = (folder / "project").is_dir() and any((folder / "project").iterdir())
    if done and not there:
        return ["the project is restored and not there"]
    if not there:
        restore(folder)
    backup.restore(folder / "b.tar", folder / "later" / "project", _silent)
    backup.restore(folder / "b.tar", folder / "again", _silent)
    found = [f"{path.name} is left" for path in folder.iterdir() if path.name.startswith(".")]
    for place in (folder, folder / "later"):
        with small(place) as p:
            found += standing(p, DOOMED)
    return found


# --- older schemas and other settings -----------------------------------------------------------


def make_old(folder: Path) -> None:
    """A project as the first version of Factform left it: the ledger's first schema, no second copy of it."""
    make(folder)
    state = folder / "project" / ".factform"
    _older(state / "ledger.db", migrations()[:1])
    (state / "ledger.log").unlink()


def _older(path: Path, scripts: list[tuple[int, str]]) -> None:
    """Put what a ledger holds into one of an earlier schema, as far as it had a place for it."""
    with closing(sqlite3.connect(path.with_suffix(".old"), isolation_level=None)) as old:
        for number, script in scripts:
            old.executescript(f"{script}\nPRAGMA user_version = {number};")
        old.execute("ATTACH ? AS new", (str(path),))
        tables = [name for (name,) in old.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")]
        for table in (name for name in tables if not name.startswith("sqlite_")):
            columns = [row[1] for row in old.execute(f"PRAGMA main.table_info({table})")]
            listed = ", ".join(columns)
            old.execute(f"INSERT INTO main.{table} ({listed}) SELECT {listed} FROM new.{table}")
        old.execute("PRAGMA main.synchronous = FULL")
    path.with_suffix(".old").replace(path)


def open_old(folder: Path) -> None:
    with small(folder) as p:
        p.facts.search("beta")


def judge_migrated(folder: Path, done: bool) -> list[str]:
    with small(folder) as p:
        found = [] if p.facts._ledger.schema_version() == len(migrations()) else ["its schema is an older one"]
        found += [f"{c.name}: {c.message}" for c in check_ledger(p.state) if c.status == "problem"]
        return found + standing(p, DOOMED)


def make_for_rebuild(folder: Path) -> None:
    make(folder, chunk_tokens=60)
    _set_chunks(folder, 40)


def rebuild(folder: Path) -> None:
    with small(folder) as p:
        p.rebuild_index()


def judge_rebuilt(folder: Path, done: bool) -> list[str]:
    """The index is the new one, or the old one is whole and in use."""
    try:
        with small(folder) as p:
            return standing(p, DOOMED)
    except SettingsError as error:
        if done:
            return [f"made anew, and not in use: {error}"]
    _set_chunks(folder, 60)
    with small(folder) as p:
        words = {"b": "beta", "c": "gamma", "e": "epsilon", "a": CANARY}
        found = [
            f"{name}: not found in the old index"
            for name, word in words.items()
            if not any(hit.chunk.document == name for hit in p.facts.search(word, k=3).hits)
        ]
    _set_chunks(folder, 40)
    rebuild(folder)
    with small(folder) as p:
        return found + standing(p, DOOMED)


def rebuild_behind(folder: Path) -> None:
    with small(folder) as p:
        p.rebuild_index(background=True)


def judge_rebuilt_behind(folder: Path, done: bool) -> list[str]:
    """The index is the new one, or the old one is in use and whole, and the next call goes on."""
    found: list[str] = []
    try:
        with small(folder) as p:
            if p.facts.status()["rebuild"] is None:
                return standing(p, DOOMED)
            words = {"b": "beta", "c": "gamma", "e": "epsilon", "a": CANARY}
            for name, word in words.items():
                if not any(hit.chunk.document == name for hit in p.facts.search(word, k=3).hits):
                    found.append(f"{name}: not found in the old index")
            if not p.facts.status()["consistent"]:
                found.append("the old index is not what the ledger says")
    except SettingsError as error:
        if done:
            return [f"made anew, and not in use: {error}"]
    rebuild_behind(folder)
    with small(folder) as p:
        return found + standing(p, DOOMED)


# --- pruning ------------------------------------------------------------------------------------


def make_for_pruning(folder: Path) -> None:
    """With an index begun to be made anew and left: it may hold what is pruned."""
    make(folder)
    path = folder / "project" / "factform.toml"
    path.write_text(path.read_text().replace("[facts]", "[facts]\nkeep_versions = 1\nkeep_cited = false"))
    with small(folder) as p:
        p.facts._writer.rebuilder._begin(background=True)


def prune(folder: Path) -> None:
    with small(folder) as p:
        p.prune()


def judge_pruned(folder: Path, done: bool) -> list[str]:
    """All of what the policy does not keep is there, or nothing; what it keeps always is."""
    with small(folder) as p:
        if p.facts.pruner().marked():
            return [f"the pruning is not finished at the next opening: {p.not_pruned}"]
        gone = [row.pruned_at is not None for name in ("a", "b") for row in p.facts.history(name)]
        if gone not in ([True, False, True, False], [False] * 4) or (done and not gone[0]):
            return [f"pruned by half: {gone}"]
        found = standing(p, DOOMED)
        blobs = {path.parent.name + path.name for path in (p.state / "blobs").glob("??/*")}
        for name in ("a", "b"):
            old = p.facts.history(name)[0]
            if (old.sha256 in blobs) == gone[0]:
                found.append(f"{name}: pruned is {gone[0]}, and its bytes are {'' if gone[0] else 'not '}there")
        return found


# --- what is kept for searching -----------------------------------------------------------------


def keep_words(folder: Path) -> None:
    """Documents change, and after each change what searches need is kept anew."""
    with small(folder) as p:
        for text in ("eins zwei", "drei vier fuenf", "sechs"):
            apply(p.facts, {"f": Wanted(text, 1)}, _silent)
            p.facts._current.get().optimize(wait=True)
        apply(p.facts, {"f": None}, _silent)


def judge_words(folder: Path, done: bool) -> list[str]:
    with small(folder) as p:
        if p.facts.document("f") is not None:
            if done:
                return ["it is removed, and listed"]
            apply(p.facts, {"f": None}, _silent)
        found = _words(p)
        return found + standing(p, DOOMED)


SCENARIOS = {
    "erase": Scenario(make, erase, judge_erased),
    "backup": Scenario(make, back_up, judge_backup),
    "restore": Scenario(make_with_backup, restore, judge_restored),
    "migrate": Scenario(make_old, open_old, judge_migrated),
    "rebuild": Scenario(make_for_rebuild, rebuild, judge_rebuilt),
    "background": Scenario(make_for_rebuild, rebuild_behind, judge_rebuilt_behind),
    "prune": Scenario(make_for_pruning, prune, judge_pruned),
    "words": Scenario(make, keep_words, judge_words),
}
