"""Decides which nodes of a graph compute in float16 or bfloat16, and which in float32.

The rules are torch.autocast's, with the constants following instead of leading:

- a contraction (MatMul, Gemm, Conv, Einsum) is narrow; its accumulator is the hardware's, float32;
- what loses too much stays float32: softmax, norms, powers, sums, positions, the residual stream, the policy's parts,
  what the operator set does not define for the type, and what reads a constant beyond its range;
- an elementwise node computes in the widest type of its operands;
- data movement has its input's type, but moves the narrow one where all who read it want that;
- constants, and sines and cosines, take the type of who reads them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from mova_export.graphs.operators import (
    CONTRACTIONS,
    ELEMENTWISE,
    MOVEMENT,
    WHY,
    floating_inputs,
    floating_outputs,
    is_indifferent,
    takes,
)
from mova_export.graphs.policy import Policy
from mova_export.graphs.residual import residual_sums

_ANGLES = {"Sin", "Cos"}

LARGE_TABLE = 1 << 18
"""Elements from which a lookup table is stored narrow even for float32 readers: a cast row costs less than the file."""


@dataclass
class Plan:
    """The type of every node that has a choice, and of every value that is neither constant nor theirs.

    narrow: node to whether it computes in the narrow type; nodes without floating-point inputs are left out.
    kept: why nodes stay float32, in words for the manifest.
    """

    dtype: ir.DataType
    opset: int
    narrow: dict[ir.Node, bool] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)

    def is_narrow(self, value: ir.Value) -> bool:
        """Whether a node's output has the narrow type."""
        return self.narrow.get(value.producer(), False)


def plan_types(graph: ir.Graph, dtype: ir.DataType, opset: int, policy: Policy) -> Plan:
    """Decide every node's type. All values must have a dtype, and constants must be initializers."""
    planner = _Planner(graph, dtype, opset, policy)
    planner.forward()
    planner.backward()
    return planner.plan


class _Planner:
    def __init__(self, graph: ir.Graph, dtype: ir.DataType, opset: int, policy: Policy) -> None:
        self.graph = graph
        self.policy = policy
        self.plan = Plan(dtype, opset)
        self.inputs = {node: floating_inputs(node, opset) for node in graph}
        self.residual = residual_sums(graph, self.inputs)
        self.positions = self._leading_to_angles()
        self.yields: set[ir.Node] = set()  # made of constants, sines and cosines alone: no say in their readers' type
        self.parts: set[ir.Node] = set()  # of the policy's parts, and what is computed from them
        self.pinned: set[ir.Node] = set()  # read a constant beyond the range
        self.overflows = _Overflows(dtype)

    # ---- from inputs to outputs: what each node's operands ask for ----

    def forward(self) -> None:
        for node in self.graph:
            if not self.inputs[node] or is_indifferent(node):
                continue
            reason = self._reason(node)
            votes = [self.plan.is_narrow(value) for value in self._deciding(node)]
            if reason:
                self.plan.kept.add(reason)
                narrow = False
            elif node.op_type in CONTRACTIONS:
                narrow = any(votes) or len(votes) < len(self.inputs[node])
            else:
                narrow = all(votes)
            if narrow and not takes(node, self.plan.dtype, self.plan.opset):
                narrow = False
                self.plan.kept.add(str(node.op_type))
            if any(value.producer() in self.parts for value in self._floating(node)):
                # What a part decides is applied in float32, like the gate's weights to the experts' outputs.
                if not (narrow and node.op_type in CONTRACTIONS):
                    self.parts.add(node)
                narrow = False
            if (not votes and not reason) or node.op_type in _ANGLES:
                self.yields.add(node)
            self.plan.narrow[node] = narrow

    def _reason(self, node: ir.Node) -> str | None:
        """Why a node must stay float32, if it must."""
        constants = [value for value in self._floating(node) if value.is_initializer()]
        for part, mark in self.policy.weights:
            if any(mark in value.name for value in constants):
                self.parts.add(node)
                return part
        if self.policy.gated_outputs and constants and self._reads_gated(node):
            return "gated MLP outputs"
        if node in self.residual:
            return "residual"
        if node in self.positions:
            return "positions"
        if beyond := [value for value in constants if self.overflows(value)]:
            self.pinned.add(node)
            return "masks" if beyond[0].const_value.size == 1 else f"weight {beyond[0].name}"
        if node.op_type not in CONTRACTIONS | ELEMENTWISE | MOVEMENT:
            return WHY.get(node.op_type, node.op_type)
        return None

    def _reads_gated(self, node: ir.Node) -> bool:
        producer = node.inputs[0].producer()
        return (
            node.op_type == "MatMul"
            and producer is not None
            and producer.op_type == "Mul"
            and len(self._deciding(producer)) == 2
        )

    def _floating(self, node: ir.Node) -> list[ir.Value]:
        return [node.inputs[index] for index in self.inputs[node]]

    def _deciding(self, node: ir.Node) -> list[ir.Value]:
        """The operands whose type decides the node's."""
        floating = self._floating(node)
        return [value for value in floating if not value.is_initializer() and value.producer() not in self.yields]

    # ---- from outputs to inputs: what the readers ask for ----

    def backward(self) -> None:
        for node in reversed(self.graph):
            if node not in self.plan.narrow or node in self.pinned:
                continue
            if node in self.yields and node.op_type not in _ANGLES:
                wanted = self._is_large_lookup(node) or self._readers(node) != {False}
                self.plan.narrow[node] = wanted and takes(node, self.plan.dtype, self.plan.opset)
            elif node.op_type in MOVEMENT and node not in self.parts and self._readers(node) == {True}:
                self.plan.narrow[node] = True

    def _readers(self, node: ir.Node) -> set[bool]:
        """The types that the node's outputs are read in."""
        found = set()
        for value in floating_outputs(node):
            if value.is_graph_output():
                found.add(False)
            for reader, index in value.uses():
                if not is_indifferent(reader):
                    found.add(index in self.inputs[reader] and self.plan.narrow[reader])
        return found

    def _leading_to_angles(self) -> set[ir.Node]:
        """The sines and cosines, and the nodes that compute what they are taken of."""
        found: set[ir.Node] = set()
        for node in reversed(self.graph):
            if node.op_type in _ANGLES or any(
                reader in found and index in self.inputs[reader]
                for value in floating_outputs(node)
                for reader, index in value.uses()
            ):
                found.add(node)
        return found

    def _is_large_lookup(self, node: ir.Node) -> bool:
        table = node.inputs[0]
        return node.op_type == "Gather" and table.is_initializer() and table.const_value.size >= LARGE_TABLE


class _Overflows:
    """Whether a constant holds values that are not finite in the narrow type."""

    def __init__(self, dtype: ir.DataType) -> None:
        self._dtype = dtype.numpy()
        self._known: dict[str, bool] = {}

    def __call__(self, value: ir.Value) -> bool:
        if value.name not in self._known:
            with np.errstate(over="ignore"):
                extremes = [f(value.const_value.numpy(), initial=0.0) for f in (np.min, np.max)]
                self._known[value.name] = not np.isfinite(np.array(extremes).astype(self._dtype)).all()
        return self._known[value.name]
