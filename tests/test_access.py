"""access.toml: who holds which labels, and what is said when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from factform.access import labels_of
from factform.errors import AccessError, SettingsError

GOOD = """
[principals]
alice = ["tax", "@finance"]
bob = []
"o'hara" = ["it's"]
[groups]
finance = ["audit", "tax"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "access.toml").write_text(GOOD)
    return tmp_path


def test_labels_and_groups(folder: Path) -> None:
    assert labels_of(folder, "alice", None, required=True) == ("audit", "tax")
    assert labels_of(folder, "bob", None, required=False) == ()
    assert labels_of(folder, "o'hara", None, required=False) == ("it's",)
    assert labels_of(folder, None, None, required=False) is None
    assert labels_of(folder, "somebody", ["x", "x"], required=True) == ("x",)
    assert labels_of(folder, None, [], required=True) == ()


def test_it_is_read_anew(folder: Path) -> None:
    (folder / "access.toml").write_text("[principals]\nalice = []\n")
    assert labels_of(folder, "alice", None, required=False) == ()


def test_who_is_not_known_sees_nothing(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(AccessError, match="does not know 'eve'"):
        labels_of(folder, "eve", None, required=False)
    with pytest.raises(AccessError, match="say who asks"):
        labels_of(folder, None, None, required=True)
    empty = tmp_path_factory.mktemp("empty")
    assert labels_of(empty, "anybody", None, required=False) is None
    with pytest.raises(AccessError, match=r"no access\.toml"):
        labels_of(empty, "anybody", None, required=True)
    with pytest.raises(AccessError, match=r"no access\.toml"):  # labels that nobody is said to hold open nothing
        labels_of(empty, "anybody", None, required=False, labelled=lambda: True)
    assert labels_of(empty, None, None, required=False, labelled=lambda: True) is None  # the owner
    with pytest.raises(AccessError, match="not empty"):
        labels_of(folder, None, [""], required=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("principals = 3", "expected a list"),
        ("[principals]\na = 'tax'", r"principals\.a: expected a list"),
        ("[principals]\na = [1]", r"principals\.a: expected a list"),
        ("[principals]\na = ['@none']", "no group 'none'"),
        ("[groups]\na = ['@b']\nb = []", "not other groups"),
        ("[people]\na = []", "unknown table 'people'"),
        ("[principals", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_name(folder: Path, text: str, words: str) -> None:
    (folder / "access.toml").write_text(text)
    with pytest.raises(SettingsError, match=words):
        labels_of(folder, "a", None, required=False)
