"""Who may refuse: the limit that tuning fitted, the settings, and the adapter itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from factform.model.prompt import PLAIN
from factform.project import Project
from factform.records import AdapterInfo, Behavior

BEHAVIOR = Behavior("desk", "", "Instructions.", PLAIN, (), (), 2, 200, "digest")
FITTED = AdapterInfo("a" * 64, "desk", "tiny", "now", True, {"evidence": "e1", "refusal": {"below": 0.3}})
UNFITTED = replace(FITTED, lineage={"evidence": "e1", "refusal": {"below": 0.0}})
ELSEWHERE = replace(FITTED, lineage={"evidence": "e0", "refusal": {"below": 0.3}})


@pytest.mark.parametrize(
    ("settings", "adapter", "behavior", "limit", "alone"),
    [
        ({}, FITTED, BEHAVIOR, 0.3, True),
        ({"adapter_refuses": "always"}, FITTED, BEHAVIOR, 0.3, False),
        ({"refuse_below": 0.5}, FITTED, BEHAVIOR, 0.5, True),
        ({"refuse_below": 0.0}, FITTED, BEHAVIOR, 0.0, False),  # then somebody has to
        ({"refuse_below": 0.5}, UNFITTED, BEHAVIOR, 0.5, False),
        ({}, UNFITTED, BEHAVIOR, 0.0, False),
        ({}, ELSEWHERE, BEHAVIOR, 0.0, False),  # fitted with another evidence model
        ({}, None, BEHAVIOR, 0.0, False),
        ({}, None, None, 0.4, False),
    ],
)
def test_the_evidence_decides_alone_only_by_a_limit_fitted_with_it(
    tmp_path: Path,
    settings: dict[str, Any],
    adapter: AdapterInfo | None,
    behavior: Behavior | None,
    limit: float,
    alone: bool,
) -> None:
    with Project.init(tmp_path) as project:
        project.settings = project.settings.model_copy(
            update={"answer": project.settings.answer.model_copy(update=settings)}
        )
        read = SimpleNamespace(digest="e1", calibration=SimpleNamespace(refuse_below=0.4))
        project.__dict__["evidence"] = read
        use = project.evidence_use(behavior, adapter)
        assert (use.refuse_below, use.alone) == (limit, alone)
        url = project.settings.model.model_copy(update={"url": "http://localhost:1/v1"})
        project.settings = project.settings.model_copy(update={"model": url})
        assert not project.evidence_use(behavior, adapter).alone  # what a larger model refuses was not measured
