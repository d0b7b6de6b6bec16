"""A launch of every kernel that an adapter needs, under the names it is compiled by, on random numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mova_kernels.variants import Variant
from on_gpu.fused_arguments import FusedArguments
from on_gpu.plain_arguments import PlainArguments
from on_gpu.setting import Setting

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Launch:
    """grid: programs along each axis; arguments: by the kernel's names, in order; outputs: those it writes."""

    variant: Variant
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    outputs: tuple[str, ...]

    def fresh(self) -> dict[str, Any]:
        """Arguments whose outputs are tensors of their own."""
        return {name: value.clone() if name in self.outputs else value for name, value in self.arguments.items()}


def launches(setting: Setting, dtype: str, variants: Mapping[str, Variant]) -> Iterator[Launch]:
    """One for each variant; a variant that is not known here raises KeyError."""
    maker = _Maker(setting, DTYPES[dtype])
    for name, variant in variants.items():
        grid, arguments = getattr(maker, name)(variant.constants)
        names = [argument for argument, _ in variant.signature]
        yield Launch(variant, grid, {argument: arguments[argument] for argument in names}, WRITTEN[name])


WRITTEN: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("cross_attention", "self_attention"), ("out", "moments")),
    **dict.fromkeys(("gate_partial", "squeeze"), ("partial",)),
    "combine": ("x",),
    "embed": ("x", "normal", "sums"),
    "normalise": ("normal",),
    "convert": ("target",),
    "depthwise_norm": ("out", "sums"),
    **dict.fromkeys(
        ("gate_weights", "swiglu", "norm_silu", "norm_residual", "bias_gelu", "bias", "average", "excite"), ("out",)
    ),
    **dict.fromkeys(("scale_channels", "pool"), ("out",)),
}


class _Maker(FusedArguments, PlainArguments):
    """A method for every variant."""
