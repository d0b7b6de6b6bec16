"""The kernels over rows, plainly: everything in float32, rounded once at the end."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mova_kernels.combine.reference import EPSILON


def standardised(x: Tensor) -> Tensor:
    """LayerNorm over the last axis without scale and shift (Ba et al., arXiv 1607.06450, eq. 4), float32."""
    return F.layer_norm(x.float(), x.shape[-1:], eps=EPSILON)


def normalise(source: Tensor, dtype: torch.dtype) -> Tensor:
    """[batch, tokens, channels] to its LayerNorm without affine, of `dtype`."""
    return standardised(source).to(dtype)


def embed(source: Tensor, addend: Tensor, dtype: torch.dtype, chunk: int) -> tuple[Tensor, Tensor, Tensor]:
    """Add, normalise, and sum over tokens.

    Args:
        source: [batch, tokens, channels].
        addend: [rows, channels]; token t gets row t % rows.
        dtype: of the normalised tokens.
        chunk: tokens of a partial sum.

    Returns:
        x = source + addend; LayerNorm(x) without affine; sums [batch, cdiv(tokens, chunk), channels] of x, float32.
    """
    tokens = source.shape[1]
    x = source.float() + addend.float()[torch.arange(tokens, device=addend.device) % addend.shape[0]]
    return x, normalise(x, dtype), chunk_sums(x, chunk)


def chunk_sums(x: Tensor, chunk: int) -> Tensor:
    """[batch, tokens, channels] to float32 sums over chunks of tokens, [batch, cdiv(tokens, chunk), channels]."""
    padded = F.pad(x.float(), (0, 0, 0, -x.shape[1] % chunk))
    return padded.unflatten(1, (-1, chunk)).sum(dim=2)


def swiglu(hidden: Tensor, bias: Tensor, features: int) -> Tensor:
    """LayerNorm(silu(a + b₁)·(b + b₂)) without affine (Shazeer, arXiv 2002.05202, with EVA-02's norm).

    Args:
        hidden: [rows, 2·padded]: a and b, each `features` columns and padding.
        bias: [2·padded], likewise.
        features: columns that count.

    Returns:
        [rows, padded], zero past `features`; dtype of `hidden`.
    """
    gate, value = (hidden.float() + bias.float()).chunk(2, dim=-1)
    padding = gate.shape[-1] - features
    product = F.silu(gate[..., :features]) * value[..., :features]
    return F.pad(standardised(product), (0, padding)).to(hidden.dtype)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, silu: bool) -> Tensor:
    """LayerNorm over the last axis of [rows, channels], then SiLU if `silu`, then + residual; dtype of `x`."""
    out = F.layer_norm(x.float(), weight.shape, weight.float(), bias.float(), EPSILON)
    if silu:
        out = F.silu(out)
    if residual is not None:
        out = out + residual.float()
    return out.to(x.dtype)


def convert(source: Tensor, dtype: torch.dtype) -> Tensor:
    """`source` in another dtype, rounded to nearest, ties to even."""
    return source.to(dtype)


def bias_act(x: Tensor, bias: Tensor, gelu: bool) -> Tensor:
    """x + bias over the last axis, through exact GELU (Hendrycks, arXiv 1606.08415) if `gelu`; dtype of `x`."""
    out = x.float() + bias.float()
    return (F.gelu(out) if gelu else out).to(x.dtype)
