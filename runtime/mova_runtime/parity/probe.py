"""A component's probes: fixed inputs, and what torch made of them in float32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mova_runtime.bundle.arrays import load_array
from mova_runtime.bundle.manifest import LANGUAGE_MODEL, Precision, Probe
from mova_runtime.engines.host import on_host
from mova_runtime.parity.bars import BARS, Bar
from mova_runtime.parity.compare import Difference, compare

if TYPE_CHECKING:
    from mova_runtime.bundle import Bundle
    from mova_runtime.engines.protocol import Engine


@dataclass(frozen=True)
class Case:
    """A probe as arrays: what is special about it, its inputs, and what torch made of them in float32."""

    case: str
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Verdict:
    """One engine's parity: per output, and whether all of it is within the bar."""

    component: str
    precision: Precision
    outputs: tuple[Difference, ...]

    @property
    def bar(self) -> Bar:
        """What the outputs are held to."""
        return BARS[self.precision]

    @property
    def passed(self) -> bool:
        """Every output is within the bar."""
        return all(self.bar.passes(output) for output in self.outputs)

    def complaint(self) -> str:
        """The first output below the bar, with its numbers."""
        below = next(output for output in self.outputs if not self.bar.passes(output))
        return (
            f"{self.component}: output {below.output!r} is not what torch computed: cosine {below.cosine:.8f}, "
            f"relative L2 {below.relative_l2:.1e}, of a row {below.worst_row:.1e}, worst at {list(below.worst)} "
            f"(allowed for {self.precision}: {self.bar})"
        )


def verify(bundle: Bundle, component: str, engine: Engine, precision: Precision) -> Verdict:
    """Run a component's engine on its probes.

    Raises:
        IntegrityError: a probe file is not what the manifest says.
        BackendError: the engine failed.
    """
    return judge(component, engine, precision, (_case(bundle, probe) for probe in bundle.component(component).probes))


def judge(component: str, engine: Engine, precision: Precision, cases: Iterable[Case]) -> Verdict:
    """Run a component's engine on probes, one in memory at a time.

    Raises:
        BackendError: the engine failed.
    """
    outputs: list[Difference] = []
    for case in cases:
        outputs += differences(case, _run(engine, component, case.inputs, list(case.outputs)))
    return Verdict(component, precision, tuple(outputs))


def differences(case: Case, found: Mapping[str, np.ndarray]) -> list[Difference]:
    """How far what was computed from a probe's inputs, by the outputs' names, is from what torch made of them."""
    return [compare(_label(name, case.case), found[name], array) for name, array in case.outputs.items()]


def _case(bundle: Bundle, probe: Probe) -> Case:
    inputs = {name: load_array(bundle.checked_path(file)) for name, file in probe.inputs.items()}
    outputs = {name: load_array(bundle.checked_path(file)) for name, file in probe.outputs.items()}
    return Case(probe.case, inputs, outputs)


def _run(engine: Engine, component: str, inputs: Mapping[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
    """Run as requests do: the language model by its binding, the others with outputs left where they are computed.

    A language model whose cache is shared makes buffers of a probe's by itself.
    """
    if component == LANGUAGE_MODEL and engine.cache == "growing":
        binding = engine.bind()
        for name, array in inputs.items():
            binding.set(name, array)
        binding.run()
        return {name: np.array(binding.get(name)) for name in names}
    kept = engine.keep(inputs)
    return {name: on_host(kept[name]) for name in names}


def _label(name: str, case: str) -> str:
    """What an output is called in a verdict: its name, and the probe's case if it has one."""
    return f"{name} ({case})" if case else name
