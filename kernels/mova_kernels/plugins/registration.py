"""What TensorRT is told of each plugin, and its registration: `tensorrt.plugin` of classic TensorRT, 10.8 and later.

A plugin is compiled to PTX when an engine is built. The engine then holds it, and runs it without Python.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import GenericAlias, ModuleType
from typing import Any

from mova_kernels.aot import Compiled, compile_variant
from mova_kernels.errors import KernelError
from mova_kernels.plugins.ptx import without_scratch
from mova_kernels.targets import Target
from mova_kernels.variants import AdapterShape, Variant, variants

NAMESPACE = "mova"

Shapes = Mapping[str, Sequence[Any]]
"""By an input's name, its lengths: symbolic expressions of TensorRT."""

Of = Callable[[Shapes, Mapping[str, int]], Any]
"""A length, or several, from the inputs' shapes and the kernel's constants."""


@dataclass(frozen=True)
class Plugin:
    """A kernel as TensorRT sees it.

    name: of the variant that it is; kernel: its function in kernel.py; inputs: in order; numbers: whole numbers passed
    after them; outputs: shape by name, and whether it is float32; grid: x as it is, or as (length, block, times) for
    times·cdiv(length, block); y, at least one, if there is one.
    """

    name: str
    kernel: str
    inputs: tuple[str, ...]
    numbers: dict[str, Of]
    outputs: dict[str, tuple[Of, bool]]
    grid: tuple[Of, ...]


def _attention(name: str) -> Plugin:
    return Plugin(
        name,
        "attention_plugin",
        ("query", "key", "value", "bias", "pair_row", "cosine", "sine"),
        {
            "pairs": lambda shapes, _: shapes["query"][0],
            "tokens": lambda shapes, _: shapes["query"][1],
            "keys": lambda shapes, _: shapes["key"][1],
        },
        {
            "out": (lambda shapes, _: tuple(shapes["query"]), False),
            "moments": (
                lambda shapes, constants: (shapes["query"][0], constants["HEADS"], shapes["query"][1], 2),
                True,
            ),
        },
        (
            lambda shapes, constants: (shapes["query"][1], constants["BLOCK_M"], 1),
            lambda shapes, constants: shapes["query"][0] * constants["HEADS"],
        ),
    )


PLUGINS = (
    _attention("cross_attention"),
    _attention("self_attention"),
    Plugin(
        "combine",
        "combine_plugin",
        ("attended", "moments", "weight", "column_sums", "bias", "gates", "pair_image", "pair_expert", "x"),
        {
            "pairs": lambda shapes, _: shapes["pair_image"][0],
            "tokens": lambda shapes, _: shapes["x"][1],
            "gate_row": lambda shapes, _: shapes["gates"][1],
        },
        {"out": (lambda shapes, _: tuple(shapes["x"]), True)},
        (
            lambda shapes, constants: (
                shapes["x"][1],
                constants["BLOCK_M"],
                -(-constants["C"] // constants["BLOCK_N"]),
            ),
            lambda shapes, _: shapes["x"][0],
        ),
    ),
    Plugin(
        "gate_partial",
        "gate_partial_plugin",
        ("rows", "text", "weight"),
        {"count": lambda shapes, _: shapes["rows"][1]},
        {"partial": (lambda shapes, constants: (shapes["rows"][0], _slices(constants), constants["HID"]), True)},
        (lambda _, constants: _slices(constants), lambda shapes, _: shapes["rows"][0]),
    ),
    Plugin(
        "gate_weights",
        "gate_weights_plugin",
        ("partial", "bias1", "weight2", "bias2", "selected"),
        {},
        {"out": (lambda shapes, constants: (shapes["partial"][0], constants["EXPERTS"]), True)},
        (lambda shapes, _: shapes["partial"][0],),
    ),
)


def compiled(shape: AdapterShape, dtype: str, target: Target) -> dict[str, Compiled]:
    """Every plugin's kernel for a GPU, its PTX with the arguments that TensorRT passes and no others.

    Args:
        shape: of the adapter.
        dtype: "bf16" or "fp16".
        target: the GPU.

    Raises:
        KernelError: the kernel needs scratch memory, which TensorRT does not give it.
    """
    by_name = {variant.name: variant for variant in variants(shape, dtype, target)}
    return {plugin.name: _compiled(plugin, by_name[plugin.name], target) for plugin in PLUGINS}


def register(shape: AdapterShape, dtype: str, target: Target, plugin_module: ModuleType, dtypes: Any) -> None:
    """Tell TensorRT of every plugin, as `mova::<name>`.

    Args:
        shape: of the adapter.
        dtype: "bf16" or "fp16".
        target: the GPU that engines are built for.
        plugin_module: tensorrt.plugin.
        dtypes: tensorrt.DataType.

    Raises:
        KernelError: as `compiled`.
    """
    activation = dtypes.BF16 if dtype == "bf16" else dtypes.HALF
    kernels = compiled(shape, dtype, target)
    for plugin in PLUGINS:
        _register(plugin, kernels[plugin.name], plugin_module, activation, dtypes.FLOAT)


def _register(plugin: Plugin, kernel: Compiled, trtp: Any, activation: Any, float32: Any) -> None:
    constants = kernel.constants
    identity = f"{NAMESPACE}::{plugin.name}"

    def shapes(inputs: Sequence[Any]) -> Shapes:
        return {name: tensor.shape_expr for name, tensor in zip(plugin.inputs, inputs, strict=True)}

    def describe(*inputs: Any) -> Any:
        found = tuple(
            trtp.from_shape_expr(of(shapes(inputs), constants), float32 if single else activation)
            for of, single in plugin.outputs.values()
        )
        return found if len(found) > 1 else found[0]

    def implement(*inputs: Any) -> Any:
        *tensors, _outputs, _tactic = inputs
        return _launch(plugin, kernel, shapes(tensors), trtp)

    # TensorRT reads arguments and types off the signatures.
    tensors = [_parameter(name, trtp.TensorDesc) for name in plugin.inputs]
    several = GenericAlias(tuple, (trtp.TensorDesc,) * len(plugin.outputs))
    outputs = several if len(plugin.outputs) > 1 else trtp.TensorDesc
    _sign(describe, tensors, outputs)
    returned = tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]
    _sign(implement, [*tensors, _parameter("outputs", tuple[trtp.TensorDesc]), _parameter("tactic", int)], returned)
    trtp.register(identity)(describe)
    trtp.aot_impl(identity)(implement)


def _launch(plugin: Plugin, kernel: Compiled, shapes: Shapes, trtp: Any) -> tuple[str, str, Any, Any]:
    first, *others = (of(shapes, kernel.constants) for of in plugin.grid)
    launch = trtp.KernelLaunchParams()
    if isinstance(first, tuple):
        length, block, times = first
        first = trtp.cdiv(length, block) * times
    launch.grid_x = first
    if others:
        launch.grid_y = trtp.max(others[0], 1)
    launch.block_x = 32 * kernel.warps
    launch.shared_mem = kernel.shared
    numbers = trtp.SymIntExprs(len(plugin.numbers))
    for index, of in enumerate(plugin.numbers.values()):
        numbers[index] = trtp.SymInt32(of(shapes, kernel.constants))
    return kernel.symbol, kernel.ptx, launch, numbers


def _compiled(plugin: Plugin, variant: Variant, target: Target) -> Compiled:
    single = [name for name, (_, float32) in plugin.outputs.items() if float32]
    types = {**dict(variant.signature), **dict.fromkeys(plugin.numbers, "i32"), **dict.fromkeys(single, "*fp32")}
    names = (*plugin.inputs, *plugin.numbers, *plugin.outputs)
    kernel = compile_variant(
        replace(
            variant,
            kernel=f"mova_kernels.plugins.kernel:{plugin.kernel}",
            signature=tuple((name, types[name]) for name in names),
        ),
        target,
    )
    if any(kernel.scratch.values()):
        raise KernelError(f"{plugin.name} for {target.capability} needs scratch memory: it can't be a plugin")
    return replace(kernel, ptx=without_scratch(kernel.ptx, len(names)))


def _slices(constants: Mapping[str, int]) -> int:
    return -(-constants["CT"] // constants["BLOCK_K"]) - (-constants["C"] // constants["BLOCK_K"])


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation)


def _sign(function: Any, parameters: Sequence[inspect.Parameter], returned: Any) -> None:
    function.__signature__ = inspect.Signature(parameters, return_annotation=returned)
