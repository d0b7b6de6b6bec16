"""Importing this registers every operator as `torch.ops.mova.*`; here they are under their own names, beside `convert`,
which to torch is `Tensor.to` and no operator.

On CUDA a Triton kernel computes, and on the CPU too where TRITON_INTERPRET=1; elsewhere on the CPU the reference does.
There are no gradients.
"""

from __future__ import annotations

from mova_kernels.combine.op import combine, combine_
from mova_kernels.cross_attention.op import cross_attention
from mova_kernels.downsample.op import average, depthwise_norm, excite, pool, scale_channels
from mova_kernels.gate.op import gate
from mova_kernels.rows.op import bias_act, bias_act_, convert, embed, embed_, layer_norm, normalise, swiglu

__all__ = [
    "average",
    "bias_act",
    "bias_act_",
    "combine",
    "combine_",
    "convert",
    "cross_attention",
    "depthwise_norm",
    "embed",
    "embed_",
    "excite",
    "gate",
    "layer_norm",
    "normalise",
    "pool",
    "scale_channels",
    "swiglu",
]
