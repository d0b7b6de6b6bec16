"""An engine's inputs and outputs: names, types, and the shapes that its profile allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from mova_runtime.engines.cuda.array import form
from mova_runtime.engines.protocol import Inputs
from mova_runtime.errors import BackendError

Shape: TypeAlias = tuple[int, ...]

PROFILE = 0
"""Engines are built with one profile."""


@dataclass(frozen=True)
class Input:
    """An input: its dtype, and the least and greatest length of each axis."""

    dtype: np.dtype[Any]
    minimum: Shape
    maximum: Shape


@dataclass(frozen=True)
class Signature:
    """Inputs, and outputs' dtypes, by name."""

    inputs: Mapping[str, Input]
    outputs: Mapping[str, np.dtype[Any]]

    @classmethod
    def of(cls, trt: Any, engine: Any) -> Signature:
        """An engine's.

        Raises:
            BackendError: a tensor is neither float32 nor int64, or not read from the GPU's memory.
        """
        dtypes: dict[Any, np.dtype[Any]] = {
            trt.DataType.FLOAT: np.dtype(np.float32),
            trt.DataType.INT64: np.dtype(np.int64),
        }
        inputs, outputs = {}, {}
        for name in (engine.get_tensor_name(index) for index in range(engine.num_io_tensors)):
            dtype = dtypes.get(engine.get_tensor_dtype(name))
            if dtype is None or engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
                raise BackendError(
                    f"{name!r} is {engine.get_tensor_dtype(name)} in {engine.get_tensor_location(name)}; engines "
                    "exchange float32 and int64 in the GPU's memory"
                )
            if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                least, _, greatest = engine.get_tensor_profile_shape(name, PROFILE)
                inputs[name] = Input(dtype, tuple(least), tuple(greatest))
            else:
                outputs[name] = dtype
        return cls(inputs, outputs)

    def shapes(self, given: Inputs) -> dict[str, Shape]:
        """The shapes of what is given for a run, in the inputs' order.

        Raises:
            BackendError: an input is missing or unknown, has another dtype, or a shape outside the profile.
        """
        if wrong := sorted({*given} ^ {*self.inputs}):
            raise BackendError(f"takes {', '.join(self.inputs)}; missing or unknown: {', '.join(wrong)}")
        shapes = {}
        for name, wanted in self.inputs.items():
            shape, dtype = form(given[name])
            if dtype != wanted.dtype:
                raise BackendError(f"input {name!r} is {dtype}, the engine takes {wanted.dtype}")
            least, greatest = wanted.minimum, wanted.maximum
            fits = len(shape) == len(least) and all(
                low <= length <= high for low, length, high in zip(least, shape, greatest, strict=True)
            )
            if not fits:
                raise BackendError(
                    f"input {name!r} has the shape {list(shape)}; the engine was built for {list(least)} to "
                    f"{list(greatest)}"
                )
            shapes[name] = shape
        return shapes
