"""The harness of flipped bytes in its short form: nothing found wrong, and the harness itself can tell."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

FAULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "faults"


@pytest.fixture
def flips(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FAULTS))
    import flips

    return flips


@pytest.mark.slow
def test_no_flip_goes_unnoticed(flips: ModuleType, tmp_path: Path) -> None:
    results = flips.run(25, 2, tmp_path, first=5000)
    assert len(results) == 25
    assert flips.failures(results) == []
    counts = flips.summary(results)["all"]
    assert counts["mattered"] > 3
    assert counts["wrong_citations_verified"] == 0


def test_it_tells_a_wrong_citation_and_an_unnamed_loss(flips: ModuleType) -> None:
    right = {"differs": [], "problems": [], "crashed": [], "wrong_citations": 0}
    assert flips.failures([right]) == []
    unseen, cited = {**right, "differs": ["documents"]}, {**right, "wrong_citations": 1}
    lost = {**right, "problems": ["ledger"], "lost": ["documents"], "named": False}
    assert flips.failures([unseen, cited, lost]) == [unseen, cited, lost]
    hits = [["a", 1.0, True, True], ["b", 0.5, True, False]]
    assert flips.wrong_citations({"search x": hits, "search y": "raised StoreError", "rows": hits}) == 1
