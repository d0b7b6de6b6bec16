"""Normalise, project, weigh and add one pair's attention output."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-5
"""Of every LayerNorm in the adapter."""


def combine(
    residual: Tensor, attended: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, projection: Tensor, bias: Tensor
) -> Tensor:
    """residual + weight·(LayerNorm(attended)·projectionᵀ + bias) for one (image, expert) pair.

    Args:
        residual: [tokens, channels], the image's tokens.
        attended: [tokens, channels], attention output over all heads.
        weight: [], the pair's gate weight.
        scale: [channels], LayerNorm weight.
        shift: [channels], LayerNorm bias.
        projection: [channels, channels], output by input.
        bias: [channels].

    Returns:
        [tokens, channels].
    """
    normalised = F.layer_norm(attended, scale.shape, scale, shift, EPSILON)
    return residual + weight * F.linear(normalised, projection, bias)
