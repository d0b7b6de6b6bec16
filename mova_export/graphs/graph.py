"""A component ready to be exported: the module, what torch compares it with, and how its axes are named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from mova_export.operations import counted

Axes = dict[int, str]


@dataclass(frozen=True)
class Expected:
    """What torch made of a probe: the outputs by name, and the floating-point operations that it took."""

    outputs: dict[str, Tensor]
    operations: int


@dataclass(frozen=True)
class Graph:
    """One component as a graph.

    module: what is exported.
    reference: what torch runs to check it; another form of the same computation where there is one.
    example: inputs to trace with; every dynamic axis is longer than one, as torch.export asks.
    probe: inputs to compare on, kept in the bundle.
    more_probes: further ones by what is special about them: shapes of their own kind that requests have too.
    dynamic: dynamic axes of the inputs, by name; an input without any may be left out.
    outputs: names in order, and their dynamic axes.
    """

    module: nn.Module
    reference: nn.Module
    example: dict[str, Tensor]
    probe: dict[str, Tensor]
    dynamic: dict[str, Axes]
    outputs: dict[str, Axes]
    more_probes: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Parameters and tables the component holds."""
        return sum(tensor.numel() for tensor in self.reference.state_dict().values())

    def expected(self, cases: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Expected]:
        """What torch makes of probes."""
        return {case: self._expected(inputs) for case, inputs in cases.items()}

    def _expected(self, inputs: Mapping[str, Tensor]) -> Expected:
        found, operations = counted(lambda: self.reference(*inputs.values()))
        outputs = found if isinstance(found, tuple) else (found,)
        return Expected(dict(zip(self.outputs, outputs, strict=True)), operations)
