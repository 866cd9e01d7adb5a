"""What a person who looks after a project wants to know.

Knows nothing of where its parts come from: they are given, opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from factform.errors import BehaviorError, FactformError


def examine(
    *,
    facts: Mapping[str, Any],
    records: Sequence[str],
    adapters: Path,
    digests: Sequence[str],
    behaviors: Sequence[str],
    check_behavior: Callable[[str], object],
    evidence: str | None,
    kv: Mapping[str, Any] | None,
    machine: Mapping[str, Any],
) -> dict[str, Any]:
    """A report with every problem: `problems` is empty when all is well.

    `facts` is the data layer's status, `records` what is wrong with the audit log, `digests` name the adapters in the
    folder `adapters`, `check_behavior` raises BehaviorError, `kv` reports what is kept of encoded passages,
    `machine` what it computes with.
    """
    from factform.form import registry

    problems = [] if facts["consistent"] else [STALE]
    problems += records
    for digest in digests:
        try:
            registry.verify(adapters, digest)
        except FactformError as error:
            problems.append(str(error))
    for name in behaviors:
        try:
            check_behavior(name)
        except BehaviorError as error:
            problems.append(str(error))
    return {
        "problems": problems,
        "facts": facts,
        "evidence": evidence,
        "adapters": len(digests),
        "behaviors": behaviors,
        "kv": kv,
        "machine": machine,
    }


STALE = "the index does not hold what the ledger says: run `factform index rebuild`"
