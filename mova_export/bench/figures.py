"""What was found about one contender for one component, and how it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from mova_export.bench.candidates import Candidate
from mova_export.bench.timing import Spread

Json = dict[str, Any]


@dataclass
class Figures:
    """Grows while it is measured; what is not known is None.

    load_cold, load_warm, first_run: seconds; times: seconds of every timed run; memory, device_memory: bytes, `loaded`
    and `peak`; group: number of the group whose members were timed together; error: why it was not measured to the end.
    """

    candidate: Candidate
    engine_bytes: int | None = None
    load_cold: float | None = None
    load_warm: float | None = None
    first_run: float | None = None
    times: list[float] = field(default_factory=list)
    memory: Json | None = None
    device_memory: Json | None = None
    parity: Json | None = None
    energy: Json | None = None
    group: int | None = None
    error: str | None = None

    @property
    def peak(self) -> int:
        """Bytes that it takes at most, wherever they are."""
        return sum(kind["peak"] for kind in (self.memory, self.device_memory) if kind)

    @property
    def median(self) -> float | None:
        """Seconds of a run."""
        return median(self.times) if self.times else None

    @property
    def is_right(self) -> bool:
        """Whether it computes what torch computed, as far as is known."""
        return self.parity is None or self.parity["passed"] is not False

    def to_json(self, operations: int | None, best_rate: float | None) -> Json:
        """As the file has it.

        Args:
            operations: of a run, in floating point.
            best_rate: operations a second of the largest products that this machine does.
        """
        seconds = self.median
        rate = operations / seconds if operations and seconds else None
        return {
            "label": self.candidate.label,
            "ours": self.candidate.ours,
            "backend": self.candidate.backend,
            "precision": self.candidate.precision,
            "engine_bytes": self.engine_bytes,
            "load_cold": self.load_cold,
            "load_warm": self.load_warm,
            "first_run": self.first_run,
            "run": _run(self.times),
            "per_second": 1 / seconds if seconds else None,
            "memory": self.memory,
            "device_memory": self.device_memory,
            "rate": rate,
            "share": rate / best_rate if rate and best_rate else None,
            "parity": self.parity,
            "energy": self.energy,
            "group": self.group,
            "error": self.error,
        }


@dataclass
class Measured:
    """What was found about one component: its contenders, and ratios of neighbours in time, ours over theirs."""

    name: str
    parameters: int
    operations: int | None
    contenders: dict[str, Figures]
    ratios: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    @property
    def fastest(self) -> Figures | None:
        """Of ours that compute what torch computed, and did not fail on the way."""
        right = [
            one
            for one in self.contenders.values()
            if one.candidate.ours and one.is_right and one.times and not one.error
        ]
        return min(right, key=lambda one: median(one.times), default=None)

    def to_json(self, matrix_rate: Mapping[str, float]) -> Json:
        """As the file has it; `matrix_rate`: of this machine, whose best shares are of."""
        best = max(matrix_rate.values(), default=None)
        fastest = self.fastest
        compared: dict[str, Json] = {}
        for (mine, other), sample in self.ratios.items():
            if sample:
                compared.setdefault(mine, {})[other] = _spread(sample)
        return {
            "parameters": self.parameters,
            "operations": self.operations,
            "contenders": [one.to_json(self.operations, best) for one in self.contenders.values()],
            "ratios": compared,
            "fastest": fastest.candidate.label if fastest else None,
        }


def _run(times: Sequence[float]) -> Json | None:
    if not times:
        return None
    spread = Spread.of(times)
    return {"median": spread.median, "p10": spread.p10, "p90": spread.p90, "p95": spread.p95, "count": spread.count}


def _spread(sample: Sequence[float]) -> Json:
    spread = Spread.of(sample)
    return {"median": spread.median, "p10": spread.p10, "p90": spread.p90, "count": spread.count}
