"""Activations in float32."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def silu(x):
    """x·sigmoid(x) of float32 values of any shape."""
    return x / (1.0 + tl.exp(-x))


@triton.jit
def gelu(x):
    """x·Φ(x), exact: with the error function, as `torch.nn.GELU()`."""
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
