"""The arithmetic of benchmarks/refusing.py: what each policy refuses follows from two answers and a probability."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from factform.records import AdapterInfo

ADAPTER = AdapterInfo("a" * 64, "desk", "tiny", "now", True, {})


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script as a module."""
    root = Path(__file__).resolve().parents[1]
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    monkeypatch.syspath_prepend(str(root / "recipes" / "reader"))
    before = set(sys.modules)
    import refusing as module

    yield module
    for name in {"refusing", "evaluate"} - before:
        sys.modules.pop(name, None)


def test_every_policy_is_counted_over_the_same_questions(refusing: ModuleType) -> None:
    asked = [
        refusing.Asked("a", True, 0.9, False, 1.0),
        refusing.Asked("b", True, 0.8, True, 0.5),
        refusing.Asked("c", True, 0.2, False, 1.0),
        refusing.Asked("d", False, 0.1, False, None),
        refusing.Asked("e", False, 0.6, True, None),
    ]
    report = refusing.report_of(asked, 0.4, ADAPTER)
    got = {name: [round(found[key]["value"], 3) for key in found] for name, found in report["policies"].items()}
    assert got == {
        "nobody": [0.0, 0.0, 0.833, 0.6],
        "the adapter": [0.5, 0.333, 0.667, 0.2],
        "the evidence": [0.5, 0.333, 0.5, 0.4],
        "either": [1.0, 0.667, 0.333, 0.0],
    }
    assert report["evidence_auc"] == pytest.approx(5 / 6)
    assert report["fields_right_evidence_less_either"]["value"] == pytest.approx(1 / 6)
    assert "| either | 1.00 [" in refusing.markdown(report)
