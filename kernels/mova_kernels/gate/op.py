"""The gate as a torch operator: checks, allocation, and two launches or the reference."""

from __future__ import annotations

import torch
from torch import Tensor

from mova_kernels.blocks import INPUTS, power
from mova_kernels.checks import ACTIVATIONS, check_contiguous, check_device, check_dtype, check_shape
from mova_kernels.errors import KernelError
from mova_kernels.gate.reference import weigh_experts
from mova_kernels.launches import by_kernel, launch, reference


@torch.library.custom_op("mova::gate", mutates_args=())
def gate(
    x: Tensor,
    text: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    selected: Tensor,
    top_k: int,
) -> Tensor:
    """Weights of each image's experts: mean over tokens, two layers with GELU, masked softmax, top-k, renormalised.

    Args:
        x: [batch, tokens, channels] float32, tokens ≥ 1.
        text: [batch, text channels] float32.
        weight1: [text channels + channels, hidden] T: bfloat16, float16 or float32; input by output, text first.
        bias1: [hidden] float32.
        weight2: [experts, hidden] T.
        bias2: [experts] float32.
        selected: [batch, experts] int32 in {0, 1}: the experts that the router chose.
        top_k: at most so many experts count, 1 to experts; of experts that weigh the same, those of lower index.

    Returns:
        [batch, experts] float32, rows summing to 1, and all zero where no expert is selected.

    Raises:
        KernelError: an argument's dtype, shape, strides or device doesn't suit.
    """
    _check(x, text, weight1, bias1, weight2, bias2, selected, top_k)
    if not by_kernel(x):
        reference("gate")
        return weigh_experts(x, text, weight1, bias1, weight2, bias2, selected, top_k)
    from mova_kernels.gate import kernel  # noqa: PLC0415  # needs Triton

    (batch, tokens, channels), text_channels = x.shape, text.shape[1]
    experts, hidden = weight2.shape
    slices = -(-text_channels // INPUTS) + -(-channels // INPUTS)
    partial = x.new_empty(batch, slices, hidden)
    out = x.new_empty(batch, experts)
    launch(
        kernel.gate_partial,
        (slices, batch),
        x,
        text,
        weight1,
        partial,
        tokens,
        1 / tokens,
        CT=text_channels,
        C=channels,
        HID=hidden,
        BLOCK_K=INPUTS,
        BLOCK_R=64,
        BLOCK_H=256,
        num_warps=4,
    )
    launch(
        kernel.gate_weights,
        (batch,),
        partial,
        bias1,
        weight2,
        bias2,
        selected,
        out,
        SLICES=slices,
        HID=hidden,
        EXPERTS=experts,
        TOP_K=top_k,
        BLOCK_H=min(power(hidden), 1024),
        BLOCK_E=power(experts),
        num_warps=8,
    )
    return out


@gate.register_fake
def _(
    x: Tensor,
    text: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    selected: Tensor,
    top_k: int,
) -> Tensor:
    return x.new_empty(selected.shape)


def _check(
    x: Tensor,
    text: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    selected: Tensor,
    top_k: int,
) -> None:
    tensors = {
        "x": x,
        "text": text,
        "weight1": weight1,
        "bias1": bias1,
        "weight2": weight2,
        "bias2": bias2,
        "selected": selected,
    }
    check_device(**tensors)
    check_contiguous(**tensors)
    for name in ("x", "text", "bias1", "bias2"):
        check_dtype(name, tensors[name], torch.float32)
    check_dtype("weight1", weight1, *ACTIVATIONS)
    check_dtype("weight2", weight2, weight1.dtype)
    check_dtype("selected", selected, torch.int32)
    batch, tokens, channels = check_shape("x", x, batch=None, tokens=None, channels=None)
    text_channels = check_shape("text", text, batch=batch, channels=None)[1]
    hidden = check_shape("weight1", weight1, inputs=text_channels + channels, hidden=None)[1]
    experts = check_shape("weight2", weight2, experts=None, hidden=hidden)[0]
    check_shape("bias1", bias1, hidden=hidden)
    check_shape("bias2", bias2, experts=experts)
    check_shape("selected", selected, batch=batch, experts=experts)
    if tokens == 0:
        raise KernelError(f"x: shape {list(x.shape)}, needed at least one token")
    if not 1 <= top_k <= experts:
        raise KernelError(f"top_k: {top_k}, needed 1 to {experts}, the number of experts")
