"""An adapter block's weights as the kernels read them: norms folded into the matrices after them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mova_export.modules.adapter.attention import CrossAttention
from mova_export.modules.adapter.block import AdapterBlock
from mova_kernels.variants import padded


@dataclass(frozen=True)
class Packed:
    """T: matrices [.., output, input]; float32: biases and the sums of a matrix over its inputs. E experts, C channels.

    query [E, C, C], projection [E, C, C], own_projection [1, C, C], qkv [3C, C], mlp_in [2·FP, C], mlp_out [C, FP],
    gate1 [text + C, C] input by output, gate2 [E, C].
    """

    query: Tensor
    query_bias: Tensor
    projection: Tensor
    projection_sums: Tensor
    projection_bias: Tensor
    gate1: Tensor
    gate1_bias: Tensor
    gate2: Tensor
    gate2_bias: Tensor
    qkv: Tensor
    qkv_bias: Tensor
    own_projection: Tensor
    own_projection_sums: Tensor
    own_projection_bias: Tensor
    mlp_in: Tensor
    mlp_in_bias: Tensor
    mlp_out: Tensor
    mlp_out_bias: Tensor
    features: int
    """SwiGLU's columns, before padding."""


@torch.no_grad()
def pack(block: AdapterBlock, dtype: torch.dtype) -> Packed:
    """Of a float32 block; on its device."""
    crosses = list(block.cross_attn)
    queries = [_folded(cross.q_proj, norm) for cross, norm in zip(crosses, block.norm1, strict=True)]
    projections = [_projection(cross) for cross in crosses]
    own, own_bias = _projection(block.self_attn)
    qkv = [_folded(getattr(block.self_attn, f"{part}_proj"), block.norm3) for part in "qkv"]
    mlp, features = block.mlp, block.mlp.w1.out_features
    room = padded(features) - features
    mlp_in = [_folded(layer, block.norm4) for layer in (mlp.w1, mlp.w2)]
    mlp_out, mlp_out_bias = _folded(mlp.w3, mlp.ffn_ln)
    projection = torch.stack([matrix for matrix, _ in projections]).to(dtype)
    own = own[None].to(dtype)
    first, second = block.gate[0], block.gate[2]
    return Packed(
        query=torch.stack([matrix for matrix, _ in queries]).to(dtype),
        query_bias=torch.stack([bias for _, bias in queries]),
        projection=projection,
        projection_sums=projection.float().sum(-1),
        projection_bias=torch.stack([bias for _, bias in projections]),
        gate1=first.weight.t().contiguous().to(dtype),
        gate1_bias=first.bias,
        gate2=second.weight.to(dtype),
        gate2_bias=second.bias,
        qkv=torch.cat([matrix for matrix, _ in qkv]).to(dtype),
        qkv_bias=torch.cat([bias for _, bias in qkv])[None],
        own_projection=own,
        own_projection_sums=own.float().sum(-1),
        own_projection_bias=own_bias[None],
        mlp_in=torch.cat([nn.functional.pad(matrix, (0, 0, 0, room)) for matrix, _ in mlp_in]).to(dtype),
        mlp_in_bias=torch.cat([nn.functional.pad(bias, (0, room)) for _, bias in mlp_in]),
        mlp_out=nn.functional.pad(mlp_out, (0, room)).to(dtype),
        mlp_out_bias=mlp_out_bias,
        features=features,
    )


def _projection(attention: CrossAttention) -> tuple[Tensor, Tensor]:
    return _folded(attention.proj, attention.inner_attn_ln)


def _folded(layer: nn.Linear, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """LN(a)·Wᵀ + b = n(a)·(W·diag(s))ᵀ + (W·t + b): the matrix and the bias."""
    bias = layer.weight @ norm.bias
    return layer.weight * norm.weight, bias if layer.bias is None else bias + layer.bias
