"""Masked softmax over experts, top-k, renormalised; and the whole gate from an image's tokens on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MASKED = -1e6
"""Added to the logit of an expert that was not selected (the published implementation's value)."""


def gate(logits: Tensor, selected: Tensor, top_k: int) -> Tensor:
    """Weights of the experts of each image (MoVA, arXiv 2404.13046, section 3.3).

    Args:
        logits: [batch, experts], from the gate's MLP.
        selected: [batch, experts] in {0, 1}: which experts the router chose.
        top_k: at most so many experts count.

    Returns:
        [batch, experts] float32, rows summing to 1 over the (at most) `top_k` largest selected experts, and all
        zero where no expert was selected.
    """
    mask = selected.float()
    weights = _softmax(logits, mask)
    return _renormalised(weights, weights.topk(top_k, dim=-1).indices, mask)


def weigh_experts(
    x: Tensor,
    text: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    selected: Tensor,
    top_k: int,
) -> Tensor:
    """What the operator `mova::gate` computes: mean over tokens, two layers with GELU between, `gate`.

    Args:
        x: [batch, tokens, channels].
        text: [batch, text channels].
        weight1: [text channels + channels, hidden], input by output, text first.
        bias1: [hidden].
        weight2: [experts, hidden].
        bias2: [experts].
        selected: [batch, experts] in {0, 1}.
        top_k: at most so many experts count; of experts that weigh the same, those of lower index.

    Returns:
        [batch, experts] float32, see `gate`.
    """
    pooled = torch.cat((text.float(), x.float().mean(dim=1)), dim=-1)
    logits = F.linear(F.gelu(pooled @ weight1.float() + bias1), weight2.float(), bias2)
    mask = selected.float()
    weights = _softmax(logits, mask)
    # `topk` may take any of equal ones.
    return _renormalised(weights, weights.sort(dim=-1, descending=True, stable=True).indices[:, :top_k], mask)


def _softmax(logits: Tensor, mask: Tensor) -> Tensor:
    return (logits.float() + (1 - mask) * MASKED).softmax(dim=-1)


def _renormalised(weights: Tensor, largest: Tensor, mask: Tensor) -> Tensor:
    kept = weights.new_zeros(weights.shape).scatter(-1, largest, 1.0) * weights
    return kept / kept.sum(dim=-1, keepdim=True) * mask.amax(dim=-1, keepdim=True)
