"""Does an engine still compute what torch computed? Every component of a bundle can be asked on any machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mova_runtime.bundle.manifest import Parity
from mova_runtime.errors import IntegrityError

if TYPE_CHECKING:
    from mova_runtime.bundle import Bundle
    from mova_runtime.engines.protocol import Engine

TOLERANCE = {"fp32": 1e-4}
"""Relative L2 error allowed by precision. Float32 engines differ from torch by the order of their sums: measured 1e-7
to 3e-6 on every component; a wrong operation shows at 1e-2 and above."""


@dataclass(frozen=True)
class Verdict:
    """One component's parity: per output, and whether all of it is within tolerance."""

    component: str
    outputs: tuple[Parity, ...]
    tolerance: float

    @property
    def passed(self) -> bool:
        """Every output is within tolerance; NaN is not."""
        return all(parity.relative_l2 <= self.tolerance for parity in self.outputs)


def compare(output: str, found: np.ndarray, expected: np.ndarray) -> Parity:
    """Errors of `found` against `expected`, accumulated in float64; infinite where the shapes differ."""
    if found.shape != expected.shape:
        return Parity(output, float("inf"), float("inf"))
    difference = found.astype(np.float64) - expected.astype(np.float64)
    norm = float(np.linalg.norm(expected.astype(np.float64)))
    relative = float(np.linalg.norm(difference)) / norm if norm else float(np.linalg.norm(difference))
    return Parity(output, relative, float(np.abs(difference).max(initial=0.0)))


def verify(bundle: Bundle, engine: Engine, precision: str) -> Verdict:
    """Run a component's engine on its probe.

    Raises:
        IntegrityError: a probe file is not what the manifest says.
        BackendError: the engine failed.
    """
    component = bundle.component(engine.name)
    inputs = {name: load_array(bundle.checked_path(file)) for name, file in component.probe.inputs.items()}
    found = engine.run(inputs, list(component.probe.outputs))
    expected = {name: load_array(bundle.checked_path(file)) for name, file in component.probe.outputs.items()}
    outputs = tuple(compare(name, found[name], array) for name, array in expected.items())
    return Verdict(engine.name, outputs, TOLERANCE[precision])


def load_array(path: Path, *, mapped: bool = False) -> np.ndarray:
    """A `.npy` file, never unpickled; read-only and mapped on request.

    Raises:
        IntegrityError: it is not a plain array.
    """
    try:
        array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise IntegrityError(f"{path}: not an array ({error})") from None
    return array
