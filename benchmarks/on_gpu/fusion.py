"""Gate and combination against eager torch and torch.compile."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mova_kernels.combine.op import combine_
from mova_kernels.combine.reference import combine as combine_one
from mova_kernels.combine.reference import combine_pairs
from mova_kernels.cross_attention.reference import head_moments
from mova_kernels.gate.op import gate
from mova_kernels.gate.reference import gate as choose
from mova_kernels.gate.reference import weigh_experts
from on_gpu.contest import OURS, Contest, compiled, hold
from on_gpu.report import Section
from on_gpu.setting import Setting, count

DTYPE = torch.bfloat16
SETS = 8
AT_MOST = 0.5
"""Of torch.compile's time."""


def run(setting: Setting, section: Section) -> None:
    """The gate, then the combination of every number of pairs."""
    _gate(setting, section)
    for pairs in setting.pairs:
        _combine(setting, section, pairs)


def _gate(setting: Setting, section: Section) -> None:
    shape, c = setting.shape, setting.shape.channels
    inputs = shape.text_channels + c
    selected = torch.zeros(1, shape.experts, dtype=torch.int32, device=setting.device)
    selected[0, :4] = 1
    sets = [
        (
            setting.draw(1, shape.tokens, c),
            setting.draw(1, shape.text_channels),
            setting.draw(inputs, c, dtype=DTYPE, scale=inputs**-0.5),
            setting.draw(c),
            setting.draw(shape.experts, c, dtype=DTYPE, scale=c**-0.5),
            setting.draw(shape.experts),
            selected,
            shape.top_k,
        )
        for _ in range(SETS)
    ]

    def plain(x: Tensor, text: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
        pooled = torch.cat((text, x.mean(dim=1)), dim=-1)
        hidden = F.gelu(F.linear(pooled, weight1, bias1))
        return choose(F.linear(hidden, weight2, bias2), selected, shape.top_k)

    # As the module holds them in bfloat16: matrices output by input, and tokens of half the bytes.
    theirs = [
        (x.to(DTYPE), text.to(DTYPE), weight1.t().contiguous(), bias1.to(DTYPE), weight2, bias2.to(DTYPE))
        for x, text, weight1, bias1, weight2, bias2, *_ in sets
    ]
    plain_compiled = compiled(setting, plain)
    ways = {
        OURS: lambda i: gate(*sets[i]),
        "eager": lambda i: plain(*theirs[i]),
        "torch.compile": lambda i: plain_compiled(*theirs[i]),
    }
    moved = 4 * shape.tokens * c + 2 * inputs * c
    _hold(Contest("gate", ways, weigh_experts(*sets[0]), DTYPE, SETS, moved=moved), setting, section)


def _combine(setting: Setting, section: Section, pairs: int) -> None:
    shape, c, tokens = setting.shape, setting.shape.channels, setting.shape.tokens
    experts = list(range(pairs))
    weight = setting.draw(shape.experts, c, c, dtype=DTYPE, scale=c**-0.5)
    bias, sums, gates = setting.draw(shape.experts, c), weight.float().sum(-1), setting.draw(1, shape.experts).abs()
    images = torch.zeros(pairs, dtype=torch.int32, device=setting.device)
    of_pair = torch.arange(pairs, dtype=torch.int32, device=setting.device)
    sets = []
    for _ in range(SETS):
        attended = setting.draw(pairs, tokens, c, dtype=DTYPE)
        sets.append((setting.draw(1, tokens, c), attended, head_moments(attended, setting.heads)))
    narrow = [x.to(DTYPE) for x, *_ in sets]
    narrow_bias, narrow_gates = bias.to(DTYPE), gates.to(DTYPE)
    one, zero = torch.ones(c, dtype=DTYPE, device=setting.device), torch.zeros(c, dtype=DTYPE, device=setting.device)

    def plain(x: Tensor, attended: Tensor) -> Tensor:
        image = x[0]
        for pair, expert in enumerate(experts):
            image = combine_one(
                image, attended[pair], narrow_gates[0, expert], one, zero, weight[expert], narrow_bias[expert]
            )
        return image[None]

    def in_place(i: int) -> Tensor:
        x, attended, moments = sets[i]
        combine_(x, attended, moments, weight, sums, bias, gates, images, of_pair)
        return x

    plain_compiled = compiled(setting, plain)
    x, attended, _ = sets[0]
    wanted = combine_pairs(x, attended, weight, bias, gates, images, of_pair)  # before x is changed
    ways = {
        OURS: in_place,
        "eager": lambda i: plain(narrow[i], sets[i][1]),
        "torch.compile": lambda i: plain_compiled(narrow[i], sets[i][1]),
    }
    operations = 2 * pairs * tokens * c**2
    contest = Contest(f"combine, {count(pairs)}", ways, wanted, DTYPE, SETS, operations=operations)
    _hold(contest, setting, section)


def _hold(contest: Contest, setting: Setting, section: Section) -> None:
    medians = {name: timed.seconds.median for name, timed in hold(contest, setting, section).items()}
    if "torch.compile" in medians:
        section.goal(
            f"{contest.name}: share of torch.compile's time", medians[OURS] / medians["torch.compile"], AT_MOST
        )
