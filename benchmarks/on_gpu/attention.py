"""Cross-attention of pairs against the libraries', eager torch and torch.compile; rotation of keys inside or before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mova_kernels.cross_attention.op import cross_attention
from mova_kernels.cross_attention.reference import attend_pairs, attention, rotate
from on_gpu.contest import OURS, Contest, compiled, hold
from on_gpu.report import Section
from on_gpu.setting import Setting, count

LIBRARIES = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
SHARE_OF_BEST = 0.76
SETS = 4
DTYPE = torch.bfloat16


@dataclass(frozen=True)
class Inputs:
    """q not yet rotated, k rotated, v: [pairs, tokens, channels] T; bias [pairs, channels] to q; tables for a head."""

    q: Tensor
    k: Tensor
    v: Tensor
    bias: Tensor
    rows: Tensor
    cosine: Tensor
    sine: Tensor
    heads: int

    @classmethod
    def make(cls, setting: Setting, pairs: int) -> Inputs:
        """Random ones."""
        tokens, c, heads = setting.shape.tokens, setting.shape.channels, setting.heads
        angles = setting.draw(tokens, c // heads // 2)
        q, k, v = (setting.draw(pairs, tokens, c, dtype=DTYPE) for _ in range(3))
        rows = torch.arange(pairs, dtype=torch.int32, device=setting.device)
        return cls(q, k, v, setting.draw(pairs, c), rows, angles.cos(), angles.sin(), heads)


def run(setting: Setting, section: Section) -> None:
    """All numbers of pairs, then the rotation of keys."""
    for pairs in setting.pairs:
        _cross_attention(setting, section, pairs)
    _rotation_of_keys(setting, section)


def _cross_attention(setting: Setting, section: Section, pairs: int) -> None:
    sets = [Inputs.make(setting, pairs) for _ in range(SETS)]
    turned = [rotated(one.q, one.bias, one.cosine, one.sine, one.heads) for one in sets]
    rotation = compiled(setting, rotated)

    def library(backend: SDPBackend) -> Callable[[int], Tensor]:
        return lambda i: _sdpa(turned[i], sets[i].k, sets[i].v, sets[i].heads, backend)

    def rotation_and_library(backend: SDPBackend) -> Callable[[int], Tensor]:
        def way(i: int) -> Tensor:
            one = sets[i]
            q = rotation(one.q, one.bias, one.cosine, one.sine, one.heads)
            return _sdpa(q, one.k, one.v, one.heads, backend)

        return way

    def plain(one: Inputs) -> Tensor:
        return attention(rotated(one.q, one.bias, one.cosine, one.sine, one.heads), one.k, one.v, one.heads)

    plain_compiled = compiled(setting, plain)
    one = sets[0]
    wanted, _ = attend_pairs(
        one.q.float(), one.k.float(), one.v.float(), one.cosine, one.sine, one.heads, one.bias, one.rows
    )
    contest = Contest(
        f"cross-attention, {count(pairs)}",
        {
            f"{OURS}, rotation inside": lambda i: ours(sets[i]),
            **{name: library(backend) for name, backend in LIBRARIES.items()},
            **{f"rotation, {name}": rotation_and_library(backend) for name, backend in LIBRARIES.items()},
            "eager": lambda i: plain(sets[i]),
            "torch.compile": lambda i: plain_compiled(sets[i]),
        },
        wanted,
        DTYPE,
        SETS,
        operations=4 * pairs * setting.shape.tokens**2 * setting.shape.channels,
    )
    alone = {
        "torch.compile": lambda i: rotation(sets[i].q, sets[i].bias, one.cosine, one.sine, one.heads),
        "eager": lambda i: rotated(sets[i].q, sets[i].bias, one.cosine, one.sine, one.heads),
    }
    wanted = rotated(one.q.float(), one.bias, one.cosine, one.sine, one.heads)
    hold(Contest(f"rotation of queries alone, {count(pairs)}", alone, wanted, DTYPE, SETS), setting, section)
    medians = {name: timed.seconds.median for name, timed in hold(contest, setting, section).items()}
    if not medians:
        return
    mine = medians[f"{OURS}, rotation inside"]
    for prefix, bar in (("", SHARE_OF_BEST), ("rotation, ", 1.0)):
        best = min((seconds for name in LIBRARIES if (seconds := medians.get(prefix + name))), default=None)
        if best:
            section.goal(
                f"cross-attention, {count(pairs)}: share of the rate of {prefix}best library",
                best / mine,
                bar,
                at_least=True,
            )


def _rotation_of_keys(setting: Setting, section: Section) -> None:
    """Self-attention of one image: keys rotated inside for every tile of queries, or once before."""
    sets = [Inputs.make(setting, 1) for _ in range(SETS)]
    biases = [F.pad(one.bias, (0, 2 * one.bias.shape[1])) for one in sets]  # keys and values have none
    none = torch.zeros_like(sets[0].bias)
    rotation = compiled(setting, rotated)
    turned = [rotated(one.k, none, one.cosine, one.sine, one.heads) for one in sets]

    def inside(i: int) -> tuple[Tensor, Tensor]:
        one = sets[i]
        return cross_attention(
            one.q, one.k, one.v, one.cosine, one.sine, one.heads, biases[i], one.rows, rotate_keys=True
        )

    def before(i: int) -> tuple[Tensor, Tensor]:
        one = sets[i]
        return ours(one, rotation(one.k, none, one.cosine, one.sine, one.heads))

    one = sets[0]
    wanted, _ = attend_pairs(
        one.q.float(), one.k.float(), one.v.float(), one.cosine, one.sine, one.heads, biases[0], one.rows, True
    )
    ways = {
        f"{OURS}, keys rotated inside": inside,
        "keys rotated before, in their time": before,
        f"{OURS}, keys come rotated": lambda i: ours(sets[i], turned[i]),
    }
    operations = 4 * setting.shape.tokens**2 * setting.shape.channels
    hold(Contest("self-attention, 1 image", ways, wanted, DTYPE, SETS, operations), setting, section)


def ours(given: Inputs, keys: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Our kernel, on rotated keys."""
    return cross_attention(
        given.q,
        given.k if keys is None else keys,
        given.v,
        given.cosine,
        given.sine,
        given.heads,
        given.bias,
        given.rows,
    )


def rotated(x: Tensor, bias: Tensor, cosine: Tensor, sine: Tensor, heads: int) -> Tensor:
    """x + bias, rotated head by head: [pairs, tokens, channels] T."""
    by_head = (x + bias[:, None]).unflatten(-1, (heads, -1)).transpose(1, 2)
    turned = rotate(by_head, cosine.repeat_interleave(2, -1), sine.repeat_interleave(2, -1))
    return turned.transpose(1, 2).flatten(2).to(x.dtype)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, heads: int, backend: SDPBackend) -> Tensor:
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
