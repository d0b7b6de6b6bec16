"""Whether a request fits into the memory there is."""

from __future__ import annotations

from dataclasses import dataclass

from mova_export.doctor.plan import Part, Plan

NEEDED = ("base", "text", "adapter", "llm")
"""What every request with an expert takes besides it."""


@dataclass(frozen=True)
class Room:
    """Bytes of the host's memory and of the GPU's.

    least: that the largest engine takes, alone: without it nothing runs; together: all that a request with one expert,
    the largest, uses, loaded at once; available: that can be had now. `measured`: none of it is guessed.
    """

    least: tuple[int, int]
    together: tuple[int, int]
    available: tuple[int, int]
    measured: bool

    @property
    def suffices(self) -> bool:
        """Whether everything fits at once."""
        return self._within(self.together)

    @property
    def suffices_in_turn(self) -> bool:
        """Whether engines fit one at a time: a request then needs a budget."""
        return self._within(self.least)

    def _within(self, size: tuple[int, int]) -> bool:
        return all(need <= there or not there for need, there in zip(size, self.available, strict=True))


def room(plan: Plan, available: int, gpu_memory: int, *, shared: bool) -> Room | None:
    """Of a bundle's components together; None where nothing is planned.

    Args:
        plan: of the bundle.
        available: bytes of the host's memory; 0 where the system does not tell, which counts as enough.
        gpu_memory: bytes of the GPU's.
        shared: the GPU has no memory of its own, so that the host's holds both.
    """
    parts = [part for part in plan.parts if not part.lacks]
    if not parts:
        return None
    experts = [part for part in parts if part.component not in NEEDED]
    largest = max(experts, key=lambda part: sum(part.held) + sum(part.run), default=None)
    used = [part for part in parts if part.component in NEEDED or part is largest]
    least, together = [], []
    for kind in (0, 1):
        least.append(max(_peak(part, kind) for part in parts))
        loaded = sum(part.held[kind] for part in used)
        together.append(loaded + max(part.run[kind] for part in used))
    if shared:
        least, together, gpu_memory = [sum(least), 0], [sum(together), 0], 0
    return Room(
        (least[0], least[1]),
        (together[0], together[1]),
        (available, gpu_memory),
        measured=all(part.measured for part in used),
    )


def _peak(part: Part, kind: int) -> int:
    return max(part.loading[kind], part.held[kind] + part.run[kind])
