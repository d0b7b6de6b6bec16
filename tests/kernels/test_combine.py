"""The sum of pairs into their images against its reference and against the published form, pair by pair."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mova_kernels import launches
from mova_kernels.combine.op import combine, combine_
from mova_kernels.combine.reference import combine as of_one_pair
from mova_kernels.combine.reference import combine_pairs
from mova_kernels.cross_attention.reference import head_moments
from mova_kernels.errors import KernelError

Draw = Callable[..., Tensor]
Same = Callable[[Tensor, Tensor], None]
Arguments = dict[str, Tensor]

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
EXPERTS, HEADS = 7, 3
RAGGED = [(3, 1), (0, 6), (3, 0), (1, 2), (0, 1), (3, 5), (3, 2)]
"""Pairs of four images, unsorted: two, one, none and four."""


def inputs(
    draw: Draw,
    batch: int,
    pairs: list[tuple[int, int]],
    tokens: int,
    dtype: torch.dtype = torch.float32,
    channels: int = 48,
    heads: int = HEADS,
) -> Arguments:
    attended = (draw(len(pairs), tokens, channels) + draw(len(pairs), tokens, 1)).to(dtype)
    weight = (draw(EXPERTS, channels, channels) / channels**0.5).to(dtype)
    images, experts = torch.tensor(pairs, dtype=torch.int32, device=weight.device).reshape(-1, 2).t().contiguous()
    return {
        "x": draw(batch, tokens, channels),
        "attended": attended,
        "moments": head_moments(attended, heads),
        "weight": weight,
        "column_sums": weight.float().sum(dim=-1),
        "bias": draw(EXPERTS, channels),
        "gates": draw(batch, EXPERTS).softmax(dim=-1),
        "pair_image": images,
        "pair_expert": experts,
    }


def wanted(arguments: Arguments) -> Tensor:
    return combine_pairs(**{name: part for name, part in arguments.items() if name not in ("moments", "column_sums")})


def check(arguments: Arguments, same: Same) -> Tensor:
    before = {name: part.clone() for name, part in arguments.items()}
    with launches.recorded() as names:
        found = combine(**arguments)
    assert names == ["combine"]
    assert all(torch.equal(arguments[name], part) for name, part in before.items())
    same(found, wanted(arguments))
    return found


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 144])
def test_tokens(tokens: int, dtype: torch.dtype, draw: Draw, same: Same) -> None:
    check(inputs(draw, 2, [(1, 3), (0, 5), (1, 0)], tokens, dtype), same)


@pytest.mark.parametrize("pairs", [1, 3, 7])
@pytest.mark.parametrize("channels", [16, 64, 80])
def test_pairs_of_one_image(pairs: int, channels: int, draw: Draw, same: Same) -> None:
    check(inputs(draw, 1, [(0, expert) for expert in range(pairs)], 9, channels=channels, heads=1), same)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_ragged_batch(dtype: torch.dtype, draw: Draw, same: Same) -> None:
    arguments = inputs(draw, 4, RAGGED, 65, dtype)
    found = check(arguments, same)
    assert torch.equal(found[2], arguments["x"][2])


def test_an_image_is_what_it_would_be_alone(draw: Draw) -> None:
    """Not one bit depends on the neighbours' pairs; what they hold is not read."""
    arguments = inputs(draw, 4, RAGGED, 65)
    of_others = arguments["pair_image"] != 3
    broken = {name: arguments[name].clone() for name in ("attended", "moments")}
    for part in broken.values():
        part[of_others] = torch.nan
    mine = {name: arguments[name][~of_others].contiguous() for name in ("attended", "moments", "pair_expert")}
    alone = {
        "x": arguments["x"][3:],
        "gates": arguments["gates"][3:],
        "pair_image": torch.zeros_like(mine["pair_expert"]),
    }
    found = combine(**{**arguments, **broken})[3]
    assert found.isfinite().all()
    assert torch.equal(found, combine(**{**arguments, **mine, **alone})[0])


def test_an_expert_that_weighs_nothing_is_not_read(draw: Draw, same: Same) -> None:
    arguments = inputs(draw, 2, [(0, 1), (0, 4), (1, 4)], 5)
    arguments["gates"][0, 4] = 0
    reference = wanted(arguments)
    arguments["attended"][1] = torch.nan
    same(combine(**arguments), reference)


def test_all_experts_masked(draw: Draw) -> None:
    arguments = inputs(draw, 2, [(0, 1), (1, 4)], 5)
    arguments["gates"].zero_()
    assert torch.equal(combine(**arguments), arguments["x"])


@pytest.mark.parametrize("interpreted", [True, False])
def test_no_pairs(interpreted: bool, draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = inputs(draw, 2, [], 65)
    if not interpreted:
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        arguments = {name: part.cpu() for name, part in arguments.items()}
    with launches.recorded() as names:
        found = combine(**arguments)
    assert names == ([] if interpreted else ["combine (reference)"])
    assert torch.equal(found, arguments["x"])
    assert found.data_ptr() != arguments["x"].data_ptr()


@pytest.mark.parametrize("interpreted", [True, False])
def test_with_the_norm_folded_it_is_the_published_form(
    interpreted: bool, draw: Draw, same: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = inputs(draw, 4, RAGGED, 9)
    scale, shift, projection, bias = draw(EXPERTS, 48) + 1, draw(EXPERTS, 48), arguments["weight"], arguments["bias"]
    arguments["weight"] = projection * scale[:, None]
    arguments["column_sums"] = arguments["weight"].sum(dim=-1)
    arguments["bias"] = bias + (projection @ shift[..., None])[..., 0]
    if not interpreted:
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        arguments = {name: part.cpu() for name, part in arguments.items()}
    with launches.recorded() as names:
        found = combine(**arguments)
    assert names == ["combine" if interpreted else "combine (reference)"]
    published = arguments["x"].clone()
    parts = [part.to(published.device) for part in (scale, shift, projection, bias)]
    for attended, (image, expert) in zip(arguments["attended"], RAGGED, strict=True):
        weight = arguments["gates"][image, expert]
        published[image] = of_one_pair(published[image], attended, weight, *(part[expert] for part in parts))
    same(found, published)


def test_a_mean_far_from_zero_does_not_cancel(draw: Draw) -> None:
    """Sums run over what attention stored, its mean included; how much of it is lost is bounded by its size."""
    arguments = inputs(draw, 1, [(0, 0)], 65)
    arguments["attended"] += 64
    arguments["moments"] = head_moments(arguments["attended"], HEADS)
    assert (combine(**arguments) - wanted(arguments)).abs().max() < 64 * 2e-5


def test_rows_all_alike_add_the_bias_alone(draw: Draw, same: Same) -> None:
    arguments = inputs(draw, 1, [(0, 2)], 5)
    arguments["attended"].fill_(3)
    arguments["moments"] = head_moments(arguments["attended"], HEADS)
    found = combine(**arguments) - arguments["x"]
    assert (found - arguments["gates"][0, 2] * arguments["bias"][2]).abs().max() < 1e-2  # 1/√ε times a rounding


def test_in_place(draw: Draw) -> None:
    arguments = inputs(draw, 4, RAGGED, 65)
    expected = combine(**arguments)
    assert combine_(**arguments) is None
    assert torch.equal(arguments["x"], expected)


def test_as_torch_operators(draw: Draw) -> None:
    arguments = inputs(draw, 2, [(1, 3), (0, 5)], 5, torch.float16)
    torch.library.opcheck(torch.ops.mova.combine.default, (), arguments)
    torch.library.opcheck(torch.ops.mova.combine_.default, (), arguments)


def test_compiled(draw: Draw) -> None:
    arguments = inputs(draw, 2, [(1, 3), (0, 5)], 5)

    @torch.compile(backend="eager", fullgraph=True)
    def twice(x: Tensor) -> Tensor:
        return 2 * torch.ops.mova.combine(**{**arguments, "x": x})

    assert torch.equal(twice(arguments["x"]), 2 * combine(**arguments))


WRONG: dict[str, tuple[str, Callable[[Tensor], Tensor], str]] = {
    "dtype of x": ("x", Tensor.half, "x: dtype float16, needed float32"),
    "integers": ("attended", Tensor.int, "attended: dtype int32, needed float16 or bfloat16 or float32"),
    "dtype of weight": ("weight", Tensor.half, "weight: dtype float16, needed float32"),
    "dtype of gates": ("gates", Tensor.half, "gates: dtype float16, needed float32"),
    "dtype of pair_image": ("pair_image", Tensor.long, "pair_image: dtype int64, needed int32"),
    "axes": ("x", lambda x: x[0], "x: shape [5, 48], needed [batch, tokens, channels]"),
    "tokens": (
        "attended",
        lambda x: x[:, :4].contiguous(),
        "attended: shape [2, 4, 48], needed [pairs, tokens=5, channels=48]",
    ),
    "pairs": ("moments", lambda x: x[:1], "moments: shape [1, 3, 5, 2], needed [pairs=2, heads, tokens=5, moments=2]"),
    "heads": (
        "moments",
        lambda x: x.repeat(1, 2, 1, 1)[:, :5].contiguous(),
        "moments: 5 heads, needed a divisor of 48 channels",
    ),
    "weight": (
        "weight",
        lambda x: x[:, :40].contiguous(),
        "weight: shape [7, 40, 48], needed [experts, channels=48, inputs=48]",
    ),
    "column_sums": ("column_sums", lambda x: x[:6], "column_sums: shape [6, 48], needed [experts=7, channels=48]"),
    "bias": ("bias", lambda x: x[0], "bias: shape [48], needed [experts=7, channels=48]"),
    "gates": ("gates", lambda x: x[:1], "gates: shape [1, 7], needed [batch=2, experts=7]"),
    "pair_expert": ("pair_expert", lambda x: x[:1], "pair_expert: shape [1], needed [pairs=2]"),
    "strides": ("weight", lambda x: x.transpose(1, 2), "weight: strides [2304, 1, 48], needed contiguous"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("operator", [combine, combine_])
def test_what_does_not_suit_is_refused(operator: Callable[..., object], case: str, draw: Draw) -> None:
    name, change, message = WRONG[case]
    arguments = inputs(draw, 2, [(1, 3), (0, 5)], 5)
    with pytest.raises(KernelError) as refused:
        operator(**{**arguments, name: change(arguments[name])})
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@pytest.mark.gpu("mova_kernels.combine.kernel", "mova_kernels.tiling")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tokens", [2304, 2300, 65])
def test_full_size(tokens: int, dtype: torch.dtype, draw: Draw, same: Same) -> None:
    check(inputs(draw, 4, RAGGED, tokens, dtype, 1024, 16), same)
