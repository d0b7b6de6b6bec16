"""Masked softmax over experts, top-k, renormalised."""

from __future__ import annotations

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
    weights = (logits.float() + (1 - mask) * MASKED).softmax(dim=-1)
    largest = weights.topk(top_k, dim=-1).indices
    kept = weights.new_zeros(weights.shape).scatter(-1, largest, 1.0) * weights
    return kept / kept.sum(dim=-1, keepdim=True) * mask.amax(dim=-1, keepdim=True)
