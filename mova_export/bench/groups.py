"""Which contenders are in memory together."""

from __future__ import annotations

from collections.abc import Mapping

from mova_export.bench.facts import available_memory

SHARE = 0.85
"""Of the memory that is available, what contenders may take together."""


def room() -> int:
    """Bytes that contenders may take together."""
    return int(available_memory() * SHARE)


def groups(peaks: Mapping[str, int], reference: str | None, room: int) -> list[list[str]]:
    """Contenders in groups that fit, the reference in each of them, in as few as their order allows.

    Args:
        peaks: bytes that each takes at most.
        reference: whom all others are timed beside; it need not be among them.
        room: bytes that a group may take. Who does not fit beside the reference is alone; who does not fit at all, too.
    """
    shared = peaks.get(reference, 0) if reference else 0
    others = [label for label in peaks if label != reference]
    found: list[list[str]] = []
    used: list[int] = []
    for label in others:
        if shared + peaks[label] > room:
            found.append([label])
            used.append(room + 1)  # nobody joins it
            continue
        place = next((index for index, so_far in enumerate(used) if so_far + peaks[label] <= room), None)
        if place is None:
            found.append([])
            used.append(shared)
            place = len(found) - 1
        found[place].append(label)
        used[place] += peaks[label]
    if reference is None or reference not in peaks:
        return found
    joined = [[*group, reference] if taken <= room else group for group, taken in zip(found, used, strict=True)]
    return joined if any(reference in group for group in joined) else [*joined, [reference]]
