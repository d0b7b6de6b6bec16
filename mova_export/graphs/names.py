"""Weights keep their parameters' names in a graph, also those that torch's exporter folded into another layout."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx_ir as ir
from torch import Tensor, nn

TRANSPOSED = ".T"
"""Follows the name of a parameter that a graph holds transposed, as it does for every matrix product."""


def name_transposed(model: ir.Model, module: nn.Module) -> None:
    """Name every initializer that is a matrix of `module` transposed: the exporter left it a number.

    Equal matrices are equal wherever they are used: each takes the next name that fits. A matrix that is part of two
    modules takes the later's, as the exporter does for what it leaves as it is.
    """
    state = module.state_dict()
    latest = {tensor.data_ptr(): name for name, tensor in state.items() if tensor.ndim == 2}
    matrices: defaultdict[tuple[int, ...], dict[str, Tensor]] = defaultdict(dict)
    for name in latest.values():
        if name not in model.graph.initializers:
            matrices[tuple(state[name].shape[::-1])][name] = state[name]
    for value in list(model.graph.initializers.values()):
        shape = tuple(value.shape.numpy()) if value.shape is not None else ()
        if value.name in state or not matrices.get(shape) or value.const_value is None:
            continue
        array = value.const_value.numpy()
        for name, tensor in matrices[shape].items():
            if _equal(array.astype(np.float32, copy=False), tensor.detach().float().numpy().T):
                del matrices[shape][name]
                value.name = name + TRANSPOSED
                break


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two matrices are the same; most that aren't differ in their first row."""
    return np.array_equal(a[0], b[0]) and np.array_equal(a, b)
