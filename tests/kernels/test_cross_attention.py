"""Attention of pairs against its reference and torch's own, by the kernel and by the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mova_kernels import launches
from mova_kernels.cross_attention.op import cross_attention
from mova_kernels.cross_attention.reference import attend_pairs, head_moments
from mova_kernels.errors import KernelError

Draw = Callable[..., Tensor]
Same = Callable[[Tensor, Tensor], None]
Arguments = dict[str, Any]

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
HEADS, WIDTH = 2, 16
CHANNELS = HEADS * WIDTH


def tables(draw: Draw, positions: int, width: int = WIDTH) -> tuple[Tensor, Tensor]:
    angle = 3 * draw(positions, width // 2)
    return angle.cos(), angle.sin()


def inputs(draw: Draw, pairs: int, tokens: int, keys: int, dtype: torch.dtype, parts: int = 0) -> Arguments:
    """To attention of pairs; `parts`: of the bias, whose rows the pairs share and skip."""
    query, key, value = (draw(pairs, count, CHANNELS, dtype=dtype) for count in (tokens, keys, keys))
    cosine, sine = tables(draw, max(tokens, keys))
    arguments = {"query": query, "key": key, "value": value, "cosine": cosine, "sine": sine, "heads": HEADS}
    if parts:
        row = torch.tensor([4, 0, 4, 2, 3, 0, 1][:pairs], dtype=torch.int32, device=query.device)
        arguments |= {"bias": draw(5, parts * CHANNELS), "pair_row": row, "rotate_keys": parts == 3}
    return arguments


def check(arguments: Arguments, same: Same) -> None:
    with launches.recorded() as names:
        out, moments = cross_attention(**arguments)
    assert names == ["cross_attention"]
    same(out, attend_pairs(**arguments)[0])
    same(moments, head_moments(out, arguments["heads"]))  # of what was stored


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 144])
@pytest.mark.parametrize("parts", [1, 3])
def test_tokens(tokens: int, parts: int, dtype: torch.dtype, draw: Draw, same: Same) -> None:
    check(inputs(draw, 1, tokens, tokens, dtype, parts), same)


@pytest.mark.parametrize("tokens", [1, 64, 65])
@pytest.mark.parametrize("keys", [1, 63, 64, 130])
def test_as_many_keys_as_there_are(tokens: int, keys: int, draw: Draw, same: Same) -> None:
    check(inputs(draw, 1, tokens, keys, torch.float32), same)


@pytest.mark.parametrize("parts", [0, 1, 3])
@pytest.mark.parametrize("pairs", [3, 7])
def test_pairs(pairs: int, parts: int, draw: Draw, same: Same) -> None:
    check(inputs(draw, pairs, 9, 17 if parts < 3 else 9, torch.float16, parts), same)


def test_no_pairs(draw: Draw) -> None:
    with launches.recorded() as names:
        out, moments = cross_attention(**inputs(draw, 0, 65, 64, torch.bfloat16, 1))
    assert out.shape == (0, 65, CHANNELS)
    assert moments.shape == (0, HEADS, 65, 2)
    assert names == []


def test_heads_of_64_and_keys_rotated_without_biases(draw: Draw, same: Same) -> None:
    cosine, sine = tables(draw, 70, 64)
    query, key, value = draw(1, 65, 128), draw(1, 70, 128), draw(1, 70, 128)
    arguments = {"query": query, "key": key, "value": value, "cosine": cosine, "sine": sine, "heads": 2}
    check({**arguments, "rotate_keys": True}, same)


def test_query_key_and_value_side_by_side_and_a_query_that_pairs_share(draw: Draw, same: Same) -> None:
    joined = draw(2, 65, 3 * CHANNELS, dtype=torch.float16)
    query, key, value = joined.split(CHANNELS, dim=-1)
    assert not key.is_contiguous()
    rest = inputs(draw, 2, 65, 65, torch.float16, 3)
    check({**rest, "query": query, "key": key, "value": value}, same)
    check({**rest, "query": query[:1].expand(2, -1, -1), "key": key, "value": value}, same)


@pytest.mark.parametrize("interpreted", [True, False])
def test_attention_without_rotation_is_torchs(
    interpreted: bool, draw: Draw, same: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = inputs(draw, 2, 65, 70, torch.float32)
    arguments |= {"cosine": torch.ones_like(arguments["cosine"]), "sine": torch.zeros_like(arguments["sine"])}
    if not interpreted:
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        arguments |= {name: part.cpu() for name, part in arguments.items() if isinstance(part, Tensor)}
    with launches.recorded() as names:
        out, moments = cross_attention(**arguments)
    assert names == ["cross_attention" if interpreted else "cross_attention (reference)"]
    heads = [arguments[name].unflatten(-1, (HEADS, WIDTH)).transpose(1, 2) for name in ("query", "key", "value")]
    wanted = F.scaled_dot_product_attention(*heads)
    same(out, wanted.transpose(1, 2).flatten(2))
    same(moments[..., 0], wanted.mean(dim=-1))
    same(moments[..., 1], wanted.var(dim=-1, unbiased=False) * WIDTH)


def test_scores_that_exp_could_not_hold(draw: Draw, same: Same) -> None:
    arguments = inputs(draw, 1, 5, 70, torch.float32)
    arguments["query"] *= 40
    largest = (arguments["query"].norm(dim=-1).amax() * arguments["key"].norm(dim=-1).amax()) / WIDTH**0.5
    assert largest.exp().isinf()
    check(arguments, same)


def test_every_output_is_written(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = inputs(draw, 3, 65, 63, torch.float16, 1)
    assert all(tensor.isfinite().all() for tensor in cross_attention(**arguments))
    monkeypatch.setattr("mova_kernels.cross_attention.op.launch", lambda *_arguments, **_options: None)
    assert all(tensor.isnan().all() for tensor in cross_attention(**arguments))


def test_without_moments_nothing_is_kept_for_them(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = inputs(draw, 1, 9, 9, torch.float32)
    out, moments = cross_attention(**arguments, moments=False)
    assert torch.equal(out, cross_attention(**arguments)[0])
    assert moments.shape == (0,)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert cross_attention(**arguments, moments=False)[1].shape == (0,)


@pytest.mark.parametrize("parts", [0, 1, 3])
def test_as_torch_operator(parts: int, draw: Draw) -> None:
    arguments = inputs(draw, 2, 5, 7, torch.float16, parts)
    torch.library.opcheck(torch.ops.mova.cross_attention.default, (), arguments)


def test_compiled(draw: Draw) -> None:
    arguments = inputs(draw, 2, 5, 7, torch.float32, 1)

    @torch.compile(backend="eager", fullgraph=True)
    def twice(query: Tensor) -> Tensor:
        return 2 * torch.ops.mova.cross_attention(**{**arguments, "query": query})[0]

    with launches.recorded() as names:
        assert torch.equal(twice(arguments["query"]), 2 * cross_attention(**arguments)[0])
    assert names == ["cross_attention"] * 2


def wrong(name: str, change: Callable[[Any], Any]) -> Callable[[Arguments], Arguments]:
    return lambda arguments: {name: change(arguments[name])}


WRONG: dict[str, tuple[Callable[[Arguments], Arguments], str]] = {
    "integers": (wrong("query", lambda x: x.int()), "query: dtype int32, needed float16 or bfloat16 or float32"),
    "dtype of key": (wrong("key", lambda x: x.half()), "key: dtype float16, needed float32"),
    "dtype of value": (wrong("value", lambda x: x.double()), "value: dtype float64, needed float32"),
    "dtype of cosine": (wrong("cosine", lambda x: x.half()), "cosine: dtype float16, needed float32"),
    "dtype of pair_row": (wrong("pair_row", lambda x: x.long()), "pair_row: dtype int64, needed int32"),
    "axes": (wrong("query", lambda x: x[0]), "query: shape [5, 32], needed [pairs, tokens, channels]"),
    "pairs": (wrong("key", lambda x: x[:1]), "key: shape [1, 5, 32], needed [pairs=2, keys, channels=32]"),
    "keys": (wrong("value", lambda x: x[:, :4]), "value: shape [2, 4, 32], needed [pairs=2, keys=5, channels=32]"),
    "no keys": (
        lambda given: {"key": given["key"][:, :0], "value": given["value"][:, :0]},
        "key: shape [2, 0, 32], needed at least one key",
    ),
    "heads": (wrong("heads", lambda _: 3), "heads: 3 of 32 channels, needed heads of 16, 32 or 64 channels"),
    "narrow heads": (wrong("heads", lambda _: 4), "heads: 4 of 32 channels, needed heads of 16"),
    "grid": (
        lambda given: {name: given[name][:1].expand(40000, -1, -1) for name in ("query", "key", "value")},
        "query: 40000 pairs of 2 heads, needed at most 65535 together",
    ),
    "strides": (
        wrong("query", lambda x: x.transpose(1, 2).contiguous().transpose(1, 2)),
        "query: strides [160, 1, 5], needed channels side by side",
    ),
    "strides of value": (
        wrong("value", lambda x: x.transpose(0, 1).contiguous().transpose(0, 1)),
        "value: strides [32, 64, 1], needed [160, 32, 1], as key",
    ),
    "positions": (wrong("sine", lambda x: x[:4]), "sine: 4 positions, needed 5"),
    "angles": (wrong("cosine", lambda x: x[:, :4].contiguous()), "cosine: shape [5, 4], needed [positions, pairs=8]"),
    "table": (wrong("sine", lambda x: x.t().contiguous().t()), "sine: strides [1, 5], needed contiguous"),
    "bias": (wrong("bias", lambda x: x[:, :31].contiguous()), "bias: shape [5, 31], needed [rows, channels=32]"),
    "bias of keys that come rotated": (
        wrong("bias", lambda x: x.repeat(1, 3)),
        "bias: shape [5, 96], needed [rows, channels=32]",
    ),
    "rows": (wrong("pair_row", lambda x: x[:1]), "pair_row: shape [1], needed [pairs=2]"),
    "no rows": (wrong("pair_row", lambda _: None), "pair_row: None, needed [pairs=2] int32 with bias"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_suit_is_refused(case: str, draw: Draw) -> None:
    change, message = WRONG[case]
    arguments = inputs(draw, 2, 5, 5, torch.float32, 1)
    arguments |= {name: part.cpu() for name, part in arguments.items() if isinstance(part, Tensor)}
    with pytest.raises(KernelError) as refused:
        cross_attention(**{**arguments, **change(arguments)})
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@pytest.mark.gpu("mova_kernels.cross_attention.kernel")
def test_tensors_of_two_devices_are_refused(draw: Draw) -> None:
    arguments = inputs(draw, 2, 5, 5, torch.float32)
    with pytest.raises(KernelError, match="sine: device cpu, needed cuda:0, as query"):
        cross_attention(**{**arguments, "sine": arguments["sine"].cpu()})


@pytest.mark.gpu("mova_kernels.cross_attention.kernel", "mova_kernels.tiling")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("tokens", "parts"), [(2304, 1), (2304, 3), (2300, 1), (2300, 3), (65, 3)])
def test_full_size(tokens: int, parts: int, dtype: torch.dtype, draw: Draw, same: Same) -> None:
    pairs, channels, heads = 3, 1024, 16
    query, key, value = (draw(pairs, tokens, channels, dtype=dtype) for _ in range(3))
    cosine, sine = tables(draw, tokens, 64)
    row = torch.tensor([2, 0, 2], dtype=torch.int32, device=query.device)
    arguments = {"query": query, "key": key, "value": value, "cosine": cosine, "sine": sine, "heads": heads}
    check({**arguments, "bias": draw(3, parts * channels), "pair_row": row, "rotate_keys": parts == 3}, same)
