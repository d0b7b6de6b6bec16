"""Matrix products inside kernels."""

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))
"""Whether kernels run in Triton's interpreter."""


@triton.jit
def dot(a, b, total):
    """total + a·b, float32; float32 operands are multiplied as such, not as TF32.

    Triton's interpreter multiplies the bits of bfloat16 numbers as integers: there they are widened first.
    """
    if INTERPRETED:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, total, input_precision="ieee")
