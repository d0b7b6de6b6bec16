"""The sum of pairs into their images as torch operators: checks, and the kernel's launch or its reference."""

from __future__ import annotations

import torch
from torch import Tensor

from mova_kernels.blocks import power
from mova_kernels.checks import ACTIVATIONS, check_contiguous, check_device, check_dtype, check_shape
from mova_kernels.combine.reference import combine_pairs
from mova_kernels.errors import KernelError
from mova_kernels.launches import by_kernel, launch, reference
from mova_kernels.tiling import tiles


@torch.library.custom_op("mova::combine_", mutates_args=("x",))
def combine_(
    x: Tensor,
    attended: Tensor,
    moments: Tensor,
    weight: Tensor,
    column_sums: Tensor,
    bias: Tensor,
    gates: Tensor,
    pair_image: Tensor,
    pair_expert: Tensor,
) -> None:
    """xᵢ += Σ gᵢₑ·(LayerNorm(attended)·weightₑᵀ + biasₑ) over the pairs (i, e) of a batch, in place.

    Args:
        x: [batch, tokens, channels] float32, changed.
        attended: [pairs, tokens, channels] T: bfloat16, float16 or float32.
        moments: [pairs, heads, tokens, 2] float32, those of `attended`, as `mova::cross_attention` returns them.
        weight: [experts, channels, channels] T, output by input, the norm's scale folded in.
        column_sums: [experts, channels] float32, sums of `weight` over its inputs, of what is stored.
        bias: [experts, channels] float32, of the projection, the norm's shift times the projection folded in.
        gates: [batch, experts] float32; an expert of weight 0 is not read.
        pair_image: [pairs] int32 below batch, in any order.
        pair_expert: [pairs] int32 below experts.

    Raises:
        KernelError: an argument's dtype, shape, strides or device doesn't suit.
    """
    _check(x, attended, moments, weight, column_sums, bias, gates, pair_image, pair_expert)
    if not by_kernel(x):
        reference("combine")
        x.copy_(combine_pairs(x, attended, weight, bias, gates, pair_image, pair_expert))
        return
    from mova_kernels.combine import kernel  # noqa: PLC0415  # needs Triton

    batch, tokens, channels = x.shape
    heads = moments.shape[1]
    tile = tiles(attended).combine
    launch(
        kernel.combine,
        (-(-tokens // tile.m) * -(-channels // tile.n) if len(attended) else 0, batch),
        attended,
        moments,
        weight,
        column_sums,
        bias,
        gates,
        pair_image,
        pair_expert,
        x,
        len(attended),
        tokens,
        gates.shape[1],
        C=channels,
        HEADS=heads,
        BLOCK_HEADS=power(heads),
        BLOCK_M=tile.m,
        BLOCK_N=tile.n,
        BLOCK_K=tile.k,
        EVEN=tokens % tile.m == 0,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


@combine_.register_fake
def _(
    x: Tensor,
    attended: Tensor,
    moments: Tensor,
    weight: Tensor,
    column_sums: Tensor,
    bias: Tensor,
    gates: Tensor,
    pair_image: Tensor,
    pair_expert: Tensor,
) -> None:
    return None


@torch.library.custom_op("mova::combine", mutates_args=())
def combine(
    x: Tensor,
    attended: Tensor,
    moments: Tensor,
    weight: Tensor,
    column_sums: Tensor,
    bias: Tensor,
    gates: Tensor,
    pair_image: Tensor,
    pair_expert: Tensor,
) -> Tensor:
    """`combine_` on a copy of `x`, which it returns."""
    out = x.clone(memory_format=torch.contiguous_format)
    combine_(out, attended, moments, weight, column_sums, bias, gates, pair_image, pair_expert)
    return out


@combine.register_fake
def _(
    x: Tensor,
    attended: Tensor,
    moments: Tensor,
    weight: Tensor,
    column_sums: Tensor,
    bias: Tensor,
    gates: Tensor,
    pair_image: Tensor,
    pair_expert: Tensor,
) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _check(
    x: Tensor,
    attended: Tensor,
    moments: Tensor,
    weight: Tensor,
    column_sums: Tensor,
    bias: Tensor,
    gates: Tensor,
    pair_image: Tensor,
    pair_expert: Tensor,
) -> None:
    tensors = {
        "x": x,
        "attended": attended,
        "moments": moments,
        "weight": weight,
        "column_sums": column_sums,
        "bias": bias,
        "gates": gates,
        "pair_image": pair_image,
        "pair_expert": pair_expert,
    }
    check_device(**tensors)
    check_contiguous(**tensors)
    for name in ("x", "moments", "column_sums", "bias", "gates"):
        check_dtype(name, tensors[name], torch.float32)
    for name in ("pair_image", "pair_expert"):
        check_dtype(name, tensors[name], torch.int32)
    check_dtype("attended", attended, *ACTIVATIONS)
    check_dtype("weight", weight, attended.dtype)
    batch, tokens, channels = check_shape("x", x, batch=None, tokens=None, channels=None)
    pairs = check_shape("attended", attended, pairs=None, tokens=tokens, channels=channels)[0]
    heads = check_shape("moments", moments, pairs=pairs, heads=None, tokens=tokens, moments=2)[1]
    experts = check_shape("weight", weight, experts=None, channels=channels, inputs=channels)[0]
    check_shape("column_sums", column_sums, experts=experts, channels=channels)
    check_shape("bias", bias, experts=experts, channels=channels)
    check_shape("gates", gates, batch=batch, experts=experts)
    check_shape("pair_image", pair_image, pairs=pairs)
    check_shape("pair_expert", pair_expert, pairs=pairs)
    if heads == 0 or channels % heads:
        raise KernelError(f"moments: {heads} heads, needed a divisor of {channels} channels")
