"""A project in one file and back: the same afterwards, nothing of a damaged or cut file, nothing outside the target."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest
from hash_encoder import HashEncoder

from factform import backup
from factform.access import labels_of
from factform.audit.log import AuditLog
from factform.audit.record import AnswerRecord
from factform.errors import ProjectError, StoreError
from factform.facts.store import DataLayer
from factform.records import Source

BODIES = {"a": "An old zebra sleeps.", "b": "A bear eats honey.", "gone": "The panther left."}


def silent(*_: object) -> None:
    return None


def record(question: str) -> AnswerRecord:
    return AnswerRecord(question, "answered", "", {}, "m", None, None, "exact", "0" * 64, {}, "", {}, {})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "behaviors" / "rents").mkdir(parents=True)
    (folder / "factform.toml").write_text("[facts]\nchunk_tokens = 160\n")
    (folder / "behaviors" / "rents" / "instructions.md").write_text("Be short.")
    with DataLayer.open(folder / ".factform", HashEncoder()) as layer:
        layer.add([Source(name, body.encode(), f"{name}.txt") for name, body in BODIES.items()])
        layer.add([Source("a", b"A new giraffe walks.", "a.txt")])
        layer.remove(["gone"])
    AuditLog.open(folder / ".factform" / "audit.db").write(record("who sleeps?"))
    return folder


def make(project: Path, *, with_index: bool = False) -> Path:
    file = project.parent / "backup.tar"
    backup.make(project, file, with_index=with_index, wait_s=1.0, progress=silent)
    return file


def everything(project: Path) -> list[object]:
    with DataLayer.open(project / ".factform", HashEncoder()) as layer:
        texts = [(row, layer.text_of(name, row.version)) for name in BODIES for row in layer.history(name)]
        found = [layer.documents(), texts, [hit.chunk for hit in layer.search("giraffe", k=9).hits]]
    log = AuditLog.open(project / ".factform" / "audit.db")
    toml = (project / "factform.toml").read_text()
    told = (project / "behaviors" / "rents" / "instructions.md").read_text()
    return [*found, log.verify(), log.head(), toml, told]


@pytest.mark.parametrize("with_index", [False, True])
def test_what_is_restored_is_what_was_backed_up(project: Path, tmp_path: Path, with_index: bool) -> None:
    file = make(project, with_index=with_index)
    report = backup.verify(file, silent)
    assert (report.documents, report.versions, report.records, report.with_index) == (2, 4, 1, with_index)
    assert report.damaged == ()
    before = everything(project)
    assert backup.restore(file, tmp_path / "new", silent) == report
    for path in (tmp_path / "new" / ".factform").glob("index/**/*"):  # which of them came first is still to be seen
        old = project / path.relative_to(tmp_path / "new")
        assert path.is_dir() or abs(path.stat().st_mtime - old.stat().st_mtime) < 1e-3
    assert (tmp_path / "new" / ".factform" / "index").exists() is with_index
    assert everything(tmp_path / "new") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.tar", "new", "project"]


def test_what_is_kept_for_searching_may_be_made_anew_meanwhile(project: Path, tmp_path: Path) -> None:
    state = project / ".factform"
    with DataLayer.open(state, HashEncoder()) as layer:
        layer.search("giraffe")
        layer._current.get()._live.merge(wait=True)
    before, words = everything(project), list(state.glob("index/*.words/*/*"))
    assert words

    def tidied(*_: object) -> None:
        for path in words:
            path.unlink(missing_ok=True)

    backup.make(project, tmp_path / "b.tar", with_index=True, wait_s=1.0, progress=tidied)
    backup.restore(tmp_path / "b.tar", tmp_path / "new", silent)
    assert everything(tmp_path / "new") == before


def test_who_may_see_what_is_restored_too(project: Path, tmp_path: Path) -> None:
    (project / "access.toml").write_text("[principals]\nbob = []\n")
    backup.restore(make(project), tmp_path / "back", progress=silent)
    assert labels_of(tmp_path / "back", "bob", None, required=False) == ()
    (project / "access.toml").unlink()
    (tmp_path / "backup.tar").unlink()
    backup.restore(make(project), tmp_path / "open", progress=silent)
    assert not (tmp_path / "open" / "access.toml").exists()


def test_a_target_that_holds_something_is_refused(project: Path, tmp_path: Path) -> None:
    file = make(project)
    with pytest.raises(ProjectError, match="not empty"):
        backup.restore(file, project, silent)
    (tmp_path / "empty").mkdir()
    backup.restore(file, tmp_path / "empty", silent)
    assert everything(tmp_path / "empty") == everything(project)
    with pytest.raises(ProjectError, match="is there already"):
        backup.make(project, file, with_index=False, wait_s=1.0, progress=silent)


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_byte_or_a_cut_is_refused_and_nothing_is_put_in_place(
    project: Path, tmp_path: Path, seed: int
) -> None:
    import random

    file = make(project)
    dice, data = random.Random(seed), bytearray(file.read_bytes())
    with tarfile.open(file) as tar:
        members = tar.getmembers()
    member = dice.choice(members)
    if seed % 3 == 0:
        end = members[-1].offset_data + members[-1].size  # behind it is only padding
        del data[dice.randrange(member.offset_data, end) :]
    else:
        data[member.offset_data + dice.randrange(member.size)] ^= 1 << dice.randrange(8)
    file.write_bytes(data)
    with pytest.raises(StoreError, match=r"damaged|not a whole backup|format"):
        backup.verify(file, silent)
    with pytest.raises(StoreError):
        backup.restore(file, tmp_path / "new", silent)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.tar", "project"]


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", ".factform/../../evil", "evil", ".factform//x", "behaviors/./x", ".factform\\x"]
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(StoreError, match="not a backup of Factform"):
        backup.restore(tmp_path / "b.tar", tmp_path / "in" / "new", silent)
    assert [path.name for path in tmp_path.rglob("*")] == ["b.tar", "in"] or not (tmp_path / "evil").exists()
    assert not list((tmp_path / "in").iterdir())


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_what_is_no_plain_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        info = tarfile.TarInfo("behaviors/x")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(StoreError, match="not a backup of Factform"):
        backup.verify(tmp_path / "b.tar", silent)


def test_a_damaged_document_does_not_keep_the_others_from_being_backed_up(project: Path) -> None:
    (path,) = [p for p in project.glob(".factform/blobs/*/*") if p.read_bytes() == b"The panther left."]
    path.write_bytes(b"The panthet left.")
    file = make(project)
    name = str(path.relative_to(project))
    assert backup.verify(file, silent).damaged == (name,)
    path.unlink()
    file.unlink()
    assert backup.verify(make(project), silent).damaged == (name,)


def test_a_backup_made_while_somebody_writes_is_of_one_moment(project: Path, tmp_path: Path) -> None:
    """Every document of the copied ledger is there and searchable, whatever was added meanwhile."""
    over = threading.Event()

    def write() -> None:
        with DataLayer.open(project / ".factform", HashEncoder()) as layer:
            number = 0
            while not over.is_set():
                layer.add([Source(f"n{number % 7}", f"round {number}".encode(), "n.txt")])
                number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(4):
            file = tmp_path / f"{number}.tar"
            backup.make(project, file, with_index=False, wait_s=1.0, progress=silent)
            backup.restore(file, tmp_path / f"restored{number}", silent)
    finally:
        over.set()
        writer.join()
    for number in range(4):
        with DataLayer.open(tmp_path / f"restored{number}" / ".factform", HashEncoder()) as layer:
            status = layer.status()
            assert status["consistent"]
            assert (status["pending"], status["failed"]) == (0, 0)


def test_killed_while_restoring_leaves_the_target_as_it_was(project: Path, tmp_path: Path) -> None:
    file = make(project)
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom factform import backup\n"
        "def stop(what, done, of):\n    if done > of // 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "backup.restore(Path(sys.argv[1]), Path(sys.argv[2]), stop)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, file, tmp_path / "new"], env=dict(os.environ), check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "new").exists()
    assert [path.name for path in tmp_path.glob(f"{backup.UNFINISHED}*")] != []
    backup.restore(file, tmp_path / "new", silent)
    assert list(tmp_path.glob(f"{backup.UNFINISHED}*")) == []  # it held documents
    assert everything(tmp_path / "new") == everything(project)


def test_the_list_itself_is_checked(project: Path) -> None:
    file = make(project)
    with tarfile.open(file) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    told = json.loads(members[-1][1])
    told["files"] = told["files"][:-1]
    with tarfile.open(file, "w") as tar:
        for member, data in members[:-1]:
            tar.addfile(member, io.BytesIO(data))
        body = json.dumps(told).encode()
        info = tarfile.TarInfo(backup.LIST)
        info.size = len(body)
        tar.addfile(info, io.BytesIO(body))
    with pytest.raises(StoreError, match="list of its files was changed"):
        backup.verify(file, silent)


def test_what_another_process_is_making_is_left_alone(project: Path, tmp_path: Path) -> None:
    import fcntl

    living, dead = (tmp_path / f"{backup.UNFINISHED}{name}" for name in ("living", "dead"))
    for folder in (living, dead):
        folder.mkdir()
        (folder / "backup.tar").write_text("a document")
    handle = os.open(living, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        make(project)
        assert living.exists()
        assert not dead.exists()
    finally:
        os.close(handle)
    (project.parent / "backup.tar").unlink()
    make(project)
    assert not living.exists()
