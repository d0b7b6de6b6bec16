"""The kernels of the adapter's end, plainly: everything in float32, rounded once at the end."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mova_kernels.combine.reference import EPSILON
from mova_kernels.rows.reference import chunk_sums


def average(x: Tensor, addend: Tensor, base: Tensor, dtype: torch.dtype) -> Tensor:
    """(x + addend + base) / 2: x, base [..., channels], addend [channels]."""
    return ((x.float() + addend.float() + base.float()) / 2).to(dtype)


def depthwise_norm(
    x: Tensor, weight: Tensor, norm_weight: Tensor, norm_bias: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """SiLU(LayerNorm(3×3 depthwise convolution)), the middle of a RegNet block (Radosavovic et al., arXiv 2003.13678).

    Args:
        x: [batch, side, side, channels].
        weight: [9, channels], taps row by row.
        norm_weight: [channels].
        norm_bias: [channels].
        chunk: positions of a partial sum.

    Returns:
        The map, shape and dtype of `x`, and float32 sums of it over chunks of positions,
        [batch, cdiv(side², chunk), channels].
    """
    side, channels = x.shape[2:]
    padded = F.pad(x.float(), (0, 0, 1, 1, 1, 1))
    map_ = torch.zeros_like(x, dtype=torch.float32)
    for tap, factor in enumerate(weight.float()):  # not conv2d, which a GPU computes in TF32
        down, right = divmod(tap, 3)
        map_ += padded[:, down : down + side, right : right + side] * factor
    out = F.silu(F.layer_norm(map_, (channels,), norm_weight.float(), norm_bias.float(), EPSILON)).to(x.dtype)
    return out, chunk_sums(out.flatten(1, 2), chunk)


def excite(partial: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
    """Scales of squeeze-and-excitation (Hu et al., arXiv 1709.01507), from its first layer's partial products.

    Args:
        partial: [batch, slices, squeezed]; their sum is the layer's product with the means over the map.
        bias1: [squeezed].
        weight2: [squeezed, channels], input by output.
        bias2: [channels].

    Returns:
        [batch, channels] in (0, 1), float32.
    """
    hidden = F.silu(partial.float().sum(dim=1) + bias1.float())
    return (hidden @ weight2.float() + bias2.float()).sigmoid()


def scale_channels(x: Tensor, scale: Tensor) -> Tensor:
    """[batch, tokens, channels] times [batch, channels]; dtype of `x`."""
    return (x.float() * scale.float()[:, None]).to(x.dtype)


def pool(x: Tensor) -> Tensor:
    """2×2 averages of [batch, side, side, channels]; dtype of `x`."""
    return F.avg_pool2d(x.float().permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1).contiguous().to(x.dtype)
