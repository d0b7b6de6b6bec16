"""A benchmark's results: they grow while it runs, and can be written at any time."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any

from mova_export.bench import facts
from mova_export.bench.candidates import Candidate
from mova_export.bench.figures import Measured
from mova_export.bench.options import Options
from mova_runtime.bundle import Bundle

FORMAT = "mova-bench"
VERSION = 1


@dataclass
class Results:
    """What was found so far.

    command: that asked for it; date: when it began; load_at_start: of the machine, before anything ran.
    """

    bundle: Bundle
    options: Options
    command: str
    date: str = field(
        default_factory=lambda: datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    )
    load_at_start: float = field(default_factory=facts.load)
    matrix_rate: dict[str, float] = field(default_factory=dict)
    components: dict[str, Measured] = field(default_factory=dict)
    routes: list[dict[str, Any]] = field(default_factory=list)
    everything: dict[str, Any] | None = None
    complete: bool = False

    @property
    def contenders(self) -> tuple[Candidate, ...]:
        """Everybody who was measured, ours first."""
        all_of_them = [one.candidate for found in self.components.values() for one in found.contenders.values()]
        return tuple(sorted(dict.fromkeys(all_of_them), key=lambda one: not one.ours))

    def to_json(self) -> dict[str, Any]:
        """As the file has it: seconds, bytes, operations a second."""
        commit = facts.commit()
        options, contenders = self.options, self.contenders
        ours = [one for one in contenders if one.ours]
        return {
            "format": FORMAT,
            "version": VERSION,
            "date": self.date,
            "complete": self.complete,
            "machine": facts.machine(),
            "versions": facts.versions(),
            "commit": None if commit == "unknown" else commit,
            "command": self.command,
            "load": {"start": self.load_at_start, "end": facts.load()},
            "bundle": facts.describe(self.bundle),
            "options": {
                "warmup": options.warmup,
                "repeats": options.repeats,
                "seconds": options.seconds,
                "threads": options.threads,
                "backends": list(dict.fromkeys(one.backend for one in ours)),
                "precisions": list(dict.fromkeys(one.precision for one in ours)),
                "against": list(options.against),
            },
            "matrix_rate": self.matrix_rate,
            "components": {name: found.to_json(self.matrix_rate) for name, found in self.components.items()},
            "routes": self.routes,
            "everything": self.everything,
        }
