"""Every kernel against its reference, by its operator: outputs full of NaN before, new random inputs each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from mova_kernels import launches
from mova_kernels.blocks import ROWS
from mova_kernels.combine import op as combine
from mova_kernels.combine import reference as combine_reference
from mova_kernels.cross_attention import op as attention
from mova_kernels.cross_attention import reference as attention_reference
from mova_kernels.downsample import op as downsample
from mova_kernels.downsample import reference as downsample_reference
from mova_kernels.gate import op as gate
from mova_kernels.gate import reference as gate_reference
from mova_kernels.rows import op as rows
from mova_kernels.rows import reference as rows_reference
from on_gpu.agreement import Check, agree, poisoned
from on_gpu.setting import Setting

BATCH = 2
PAIR_IMAGE, PAIR_EXPERT = (1, 0, 1), (3, 1, 6)
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
ODD = 63
"""Tokens that no tile divides."""

ROUNDED = ("attention", "depthwise_norm")
"""Their float32 outputs are of numbers that were rounded before."""

Case = tuple[str, Callable[[], Any], Callable[[], Any]]
"""What runs, and the kernel's and the reference's outputs."""


def check(setting: Setting) -> Iterator[Check]:
    """All kernels, in every type of activations, at full size and with an odd number of tokens."""
    for dtype in DTYPES:
        short = str(dtype).removeprefix("torch.")
        for tokens in (setting.shape.tokens, ODD if setting.gpu else 7):
            for name, kernel, reference in _cases(_Inputs(setting, dtype, tokens)):
                with poisoned(), launches.recorded() as launched:
                    found = kernel()
                label = f"{name}, {short}, {tokens} tokens"
                if not launched or any("reference" in one for one in launched):
                    yield Check(f"{label}: no kernel ran", float("nan"), 0.0)
                for number, (ours, wanted) in enumerate(zip(_tuple(found), _tuple(reference()), strict=True)):
                    narrowest = dtype if any(one in name for one in ROUNDED) else ours.dtype
                    yield agree(f"{label}, output {number}", ours, wanted, narrowest)


class _Inputs:
    def __init__(self, setting: Setting, dtype: torch.dtype, tokens: int) -> None:
        self.setting, self.shape, self.dtype, self.tokens = setting, setting.shape, dtype, tokens
        self.side = setting.shape.grid if tokens == setting.shape.tokens else 6

    def wide(self, *shape: int) -> Tensor:
        """float32."""
        return self.setting.draw(*shape)

    def narrow(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Activations or a matrix."""
        return self.setting.draw(*shape, dtype=self.dtype, scale=scale)

    def integers(self, numbers: tuple[int, ...]) -> Tensor:
        """An int32 table."""
        return torch.tensor(numbers, dtype=torch.int32, device=self.setting.device)


def _cases(given: _Inputs) -> Iterator[Case]:
    yield from _attention_cases(given)
    yield from _fusion_cases(given)
    yield from _row_cases(given)
    yield from _map_cases(given)


def _attention_cases(given: _Inputs) -> Iterator[Case]:
    heads, tokens, c = given.setting.heads, given.tokens, given.shape.channels
    angles = given.wide(tokens, c // heads // 2)
    tables = (angles.cos(), angles.sin())
    pairs = len(PAIR_EXPERT)
    q, k, v = (given.narrow(pairs, tokens, c) for _ in range(3))
    experts, bias = given.integers(PAIR_EXPERT), given.wide(given.shape.experts, c)
    qkv, own_bias = given.narrow(BATCH, tokens, 3 * c), given.wide(1, 3 * c)
    zeros = torch.zeros(BATCH, dtype=torch.int32, device=q.device)
    for name, arguments in (
        ("cross_attention", (q, k, v, *tables, heads, bias, experts)),
        ("cross_attention without bias", (q, k, v, *tables, heads)),
        ("self_attention", (*qkv.chunk(3, dim=-1), *tables, heads, own_bias, zeros, True)),
    ):
        yield (
            name,
            lambda given=arguments: attention.cross_attention(*given),
            lambda given=arguments: attention_reference.attend_pairs(*given),
        )


def _fusion_cases(given: _Inputs) -> Iterator[Case]:
    shape, tokens, c = given.shape, given.tokens, given.shape.channels
    attended = given.narrow(len(PAIR_EXPERT), tokens, c)
    moments = attention_reference.head_moments(attended, given.setting.heads)
    weight, bias = given.narrow(shape.experts, c, c, scale=c**-0.5), given.wide(shape.experts, c)
    gates, x = given.wide(BATCH, shape.experts), given.wide(BATCH, tokens, c)
    tables = (given.integers(PAIR_IMAGE), given.integers(PAIR_EXPERT))
    sums = weight.float().sum(-1)
    yield (
        "combine",
        lambda: combine.combine(x, attended, moments, weight, sums, bias, gates, *tables),
        lambda: combine_reference.combine_pairs(x, attended, weight, bias, gates, *tables),
    )
    inputs = shape.text_channels + c
    selected = torch.zeros(BATCH, shape.experts, dtype=torch.int32, device=x.device)
    selected[0, :5] = 1
    arguments = (
        x,
        given.wide(BATCH, shape.text_channels),
        given.narrow(inputs, c, scale=inputs**-0.5),
        given.wide(c),
        given.narrow(shape.experts, c, scale=c**-0.5),
        given.wide(shape.experts),
        selected,
        shape.top_k,
    )
    yield "gate", lambda: gate.gate(*arguments), lambda: gate_reference.weigh_experts(*arguments)


def _row_cases(given: _Inputs) -> Iterator[Case]:
    shape, dtype, tokens, c = given.shape, given.dtype, given.tokens, given.shape.channels
    source, addend = given.wide(BATCH, tokens, c), given.wide(tokens, c)
    yield (
        "normalise",
        lambda: rows.normalise(source, dtype),
        lambda: rows_reference.standardised(source),
    )
    yield (
        "embed",
        lambda: rows.embed(source, addend, dtype),
        lambda: rows_reference.embed(source, addend, dtype, ROWS),
    )
    hidden, bias = given.narrow(BATCH * tokens, 2 * shape.padded), given.wide(2 * shape.padded)
    yield (
        "swiglu",
        lambda: rows.swiglu(hidden, bias, shape.feed_forward),
        lambda: rows_reference.swiglu(hidden.float(), bias, shape.feed_forward),
    )
    x, residual = (given.narrow(BATCH * tokens, c) for _ in range(2))
    weight, shift = given.wide(c), given.wide(c)
    for name, more in (("norm_silu", (None, True)), ("norm_residual", (residual, False))):
        yield (
            name,
            lambda more=more: rows.layer_norm(x, weight, shift, *more),
            lambda more=more: rows_reference.layer_norm(x.float(), weight, shift, *more),
        )
    yield "convert", lambda: rows.convert(source, dtype), lambda: source
    wide, wide_bias = given.narrow(tokens, shape.hidden), given.wide(shape.hidden)
    for name, gelu in (("bias_gelu", True), ("bias", False)):
        yield (
            name,
            lambda gelu=gelu: rows.bias_act(wide, wide_bias, gelu),
            lambda gelu=gelu: rows_reference.bias_act(wide.float(), wide_bias, gelu),
        )


def _map_cases(given: _Inputs) -> Iterator[Case]:
    shape, dtype, side, c = given.shape, given.dtype, given.side, given.shape.channels
    x, base, vector = given.wide(given.tokens, c), given.wide(given.tokens, c), given.wide(c)
    yield (
        "average",
        lambda: downsample.average(x, vector, base, dtype),
        lambda: downsample_reference.average(x, vector, base, torch.float32),
    )
    map_, taps, shift = given.narrow(BATCH, side, side, c), given.wide(9, c), given.wide(c)
    yield (
        "depthwise_norm",
        lambda: downsample.depthwise_norm(map_, taps, vector, shift),
        lambda: downsample_reference.depthwise_norm(map_.float(), taps, vector, shift, ROWS),
    )
    squeezed = shape.squeezed
    arguments = (
        given.wide(BATCH, 3, squeezed),
        given.wide(squeezed),
        given.narrow(squeezed, c, scale=squeezed**-0.5),
        vector,
    )
    yield "excite", lambda: downsample.excite(*arguments), lambda: downsample_reference.excite(*arguments)
    flat, scale = map_.flatten(1, 2), given.wide(BATCH, c)
    yield (
        "scale_channels",
        lambda: downsample.scale_channels(flat, scale),
        lambda: downsample_reference.scale_channels(flat.float(), scale),
    )
    yield "pool", lambda: downsample.pool(map_), lambda: downsample_reference.pool(map_.float())


def _tuple(outputs: Any) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)
