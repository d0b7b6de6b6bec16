"""One block of the adapter: our operators and torch's matrix products, against the module."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from mova_export.modules.adapter.block import AdapterBlock
from mova_kernels.combine.op import combine_
from mova_kernels.cross_attention.op import cross_attention
from mova_kernels.gate.op import gate
from mova_kernels.rows.op import embed, normalise, swiglu
from on_gpu.bundle import make_adapter
from on_gpu.contest import OURS, Contest, compiled, hold
from on_gpu.packed import Packed, pack
from on_gpu.report import Section
from on_gpu.sdpa import with_sdpa
from on_gpu.setting import Setting, count

DTYPE = torch.bfloat16
SETS = 2
AT_MOST = 0.7
"""Of torch.compile's time, as for the whole adapter."""


def run(setting: Setting, section: Section) -> None:
    """Every number of pairs of one image."""
    module = make_adapter(setting)
    block = module.blocks[0].to(setting.device)
    rope = block.self_attn.rope
    tables = (rope.freqs_cos[:, ::2].contiguous(), rope.freqs_sin[:, ::2].contiguous())
    packed = pack(block, DTYPE)
    blocks = {torch.float32: block, DTYPE: copy.deepcopy(block).to(DTYPE)}
    for pairs in setting.pairs:
        _contest(setting, section, blocks, packed, tables, pairs)


def _contest(
    setting: Setting,
    section: Section,
    blocks: dict[torch.dtype, AdapterBlock],
    packed: Packed,
    tables: tuple[Tensor, Tensor],
    pairs: int,
) -> None:
    shape, heads = setting.shape, setting.heads
    size = (shape.tokens, shape.channels)
    sets = [
        (
            setting.draw(1, *size),
            setting.draw(1, shape.text_channels),
            setting.draw(pairs, *size, dtype=DTYPE),
            setting.draw(pairs, *size, dtype=DTYPE),
        )
        for _ in range(SETS)
    ]
    experts = torch.arange(pairs, dtype=torch.int32, device=setting.device)
    images, one = torch.zeros_like(experts), torch.ones(1, 1, device=setting.device)
    selected = torch.zeros(1, shape.experts, dtype=torch.int32, device=setting.device)
    selected[0, :pairs] = 1
    nothing = torch.zeros(1, shape.channels, device=setting.device)
    first = torch.zeros(1, dtype=torch.int32, device=setting.device)
    queries = packed.query[:pairs].transpose(1, 2)

    def ours(i: int) -> Tensor:
        source, text, keys, values = sets[i]
        x, normal, _ = embed(source, nothing, DTYPE)
        weights = gate(x, text, packed.gate1, packed.gate1_bias, packed.gate2, packed.gate2_bias, selected, shape.top_k)
        query = torch.bmm(normal.expand(pairs, -1, -1), queries)
        attended, moments = cross_attention(query, keys, values, *tables, heads, packed.query_bias, experts)
        combine_(
            x,
            attended,
            moments,
            packed.projection,
            packed.projection_sums,
            packed.projection_bias,
            weights,
            images,
            experts,
        )
        qkv = F.linear(normalise(x, DTYPE), packed.qkv)
        attended, moments = cross_attention(
            *qkv.chunk(3, dim=-1), *tables, heads, packed.qkv_bias, first, rotate_keys=True
        )
        combine_(
            x,
            attended,
            moments,
            packed.own_projection,
            packed.own_projection_sums,
            packed.own_projection_bias,
            one,
            first,
            first,
        )
        hidden = F.linear(normalise(x, DTYPE)[0], packed.mlp_in)
        out = F.linear(swiglu(hidden, packed.mlp_in_bias, packed.features), packed.mlp_out)
        return x + (out + packed.mlp_out_bias)

    def module(dtype: torch.dtype, x: Tensor, text: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        block = blocks[dtype]
        weights = block.weights(x, text, selected)
        total = x[0]
        for pair in range(pairs):
            total = total + block.fuse(x[0], keys[pair], values[pair], pair, weights[0, pair].to(dtype))
        return block.mix(total[None])

    with torch.no_grad():
        wanted = module(torch.float32, *(tensor.float() for tensor in sets[0]))
        narrow = [tuple(tensor.to(DTYPE) for tensor in one) for one in sets]
        module_compiled = compiled(setting, module)
        ways = {
            OURS: ours,
            "eager": lambda i: module(DTYPE, *narrow[i]),
            "torch.compile": lambda i: module_compiled(DTYPE, *narrow[i]),
            "eager with SDPA": with_sdpa(lambda i: module(DTYPE, *narrow[i])),
            "torch.compile with SDPA": with_sdpa(lambda i: module_compiled(DTYPE, *narrow[i])),
        }
        timed = hold(Contest(f"block, {count(pairs)}", ways, wanted, DTYPE, SETS), setting, section)
    medians = {name: one.seconds.median for name, one in timed.items()}
    for other in ("torch.compile", "torch.compile with SDPA"):
        if other in medians:
            section.goal(f"block, {count(pairs)}: share of {other}'s time", medians[OURS] / medians[other], AT_MOST)
