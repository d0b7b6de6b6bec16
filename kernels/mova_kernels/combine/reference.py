"""Normalise, project, weigh and add attention outputs: of one pair, and of all pairs of a batch."""

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


def combine_pairs(
    x: Tensor,
    attended: Tensor,
    weight: Tensor,
    bias: Tensor,
    gates: Tensor,
    pair_image: Tensor,
    pair_expert: Tensor,
) -> Tensor:
    """What the operator `mova::combine` computes: each image's tokens and its pairs' contributions, in float32.

    Args:
        x: [batch, tokens, channels].
        attended: [pairs, tokens, channels], attention output over all heads.
        weight: [experts, channels, channels], output by input, the norm's scale folded in.
        bias: [experts, channels], the norm's shift folded in.
        gates: [batch, experts].
        pair_image: [pairs] integer, the image of each pair.
        pair_expert: [pairs] integer, the expert of each pair.

    Returns:
        [batch, tokens, channels] float32: xᵢ + Σ gᵢₑ·(LayerNorm(attended)·weightₑᵀ + biasₑ) over pairs (i, e).
    """
    out = x.float().clone()
    normalised = F.layer_norm(attended.float(), attended.shape[-1:], eps=EPSILON)
    for tokens, image, expert in zip(normalised, pair_image.tolist(), pair_expert.tolist(), strict=True):
        out[image] += gates[image, expert] * F.linear(tokens, weight[expert].float(), bias[expert])
    return out
