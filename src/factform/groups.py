"""Things that share a key belong together: what is learnt of one is known of the other, so no split may part them.

Knows nothing of what the things or their keys are.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence


def linked(keys: Sequence[Collection[Hashable]]) -> list[int]:
    """For each of `keys` the number of its group: the same for two that share a key, or are linked by a third."""
    leader = list(range(len(keys)))

    def find(i: int) -> int:
        while leader[i] != i:
            leader[i] = leader[leader[i]]
            i = leader[i]
        return i

    first: dict[Hashable, int] = {}
    for i, own in enumerate(keys):
        for key in own:
            leader[find(i)] = find(first.setdefault(key, i))
    return [find(i) for i in range(len(keys))]
