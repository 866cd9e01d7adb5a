"""Files that come and go below a folder are told, each once."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factform.facts.listing import Listing


def files(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if path.is_file()}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000))
def test_changes_are_those_between_two_looks(tmp_path: Path, seed: int) -> None:
    pick = random.Random(seed)
    folder = tmp_path / str(seed)
    shutil.rmtree(folder, ignore_errors=True)
    listing, before = Listing(folder), set[str]()
    for _ in range(6):
        for _ in range(pick.randint(0, 5)):
            path = folder.joinpath(*(pick.choice("ab") for _ in range(pick.randint(0, 2))), f"{pick.randrange(6)}.x")
            if path.exists():
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("")
        if pick.random() < 0.2:
            shutil.rmtree(folder / "a", ignore_errors=True)
        now = files(folder)
        assert listing.changes() == (now - before, before - now)
        before = now
    assert listing.changes() == (set(), set())
