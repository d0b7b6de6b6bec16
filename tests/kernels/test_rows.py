"""Kernels over rows of channels against their references and against the torch modules they belong to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mova_export.modules.swiglu import SwiGlu
from mova_kernels import launches
from mova_kernels.blocks import ROWS
from mova_kernels.errors import KernelError
from mova_kernels.rows import kernel, op, reference

Draw = Callable[..., Tensor]
Same = Callable[[Tensor, Tensor], None]

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
SIZES = ((1, 1, 48), (3, 63, 37), (1, 64, 64), (3, 65, 30), (1, 144, 80))
"""(batch, tokens, channels): tokens of whole and of broken chunks; channels of every width of access."""

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_size = pytest.mark.parametrize("size", SIZES, ids=str)


@each_dtype
@each_size
def test_normalise(size: tuple[int, int, int], dtype: torch.dtype, draw: Draw, same: Same) -> None:
    source = draw(*size)
    with launches.recorded() as names:
        normal = op.normalise(source, dtype)
    assert names == ["normalise"]
    same(normal, reference.normalise(source, dtype))


@each_dtype
@each_size
def test_embed(size: tuple[int, int, int], dtype: torch.dtype, draw: Draw, same: Same) -> None:
    batch, tokens, channels = size
    source, addend = draw(*size), draw(tokens if batch > 1 else 1, channels)
    before = source.clone()
    with launches.recorded() as names:
        x, normal, sums = op.embed(source, addend, dtype)
    assert names == ["normalise"]
    assert torch.equal(source, before)
    wanted, wanted_normal, wanted_sums = reference.embed(source, addend, dtype, ROWS)
    assert torch.equal(x, wanted)  # one addition: nothing to round differently
    same(normal, wanted_normal)
    same(sums, wanted_sums)
    same(sums.sum(dim=1), wanted.sum(dim=1))


@pytest.mark.parametrize("rows", [2, 5])
def test_rows_of_the_addend_take_turns(rows: int, draw: Draw) -> None:
    source, addend = draw(2, 12, 16), draw(rows, 16)
    x, *_ = op.embed(source, addend, torch.float32)
    assert torch.equal(x, torch.stack([source[:, t] + addend[t % rows] for t in range(12)], dim=1))


@each_size
def test_embed_in_place(size: tuple[int, int, int], draw: Draw) -> None:
    source, addend = draw(*size), draw(size[1], size[2])
    x, normal, sums = op.embed(source, addend, torch.bfloat16)
    with launches.recorded() as names:
        normal_too, sums_too = op.embed_(source, addend, torch.bfloat16)
    assert names == ["normalise"]
    assert torch.equal(source, x)
    assert torch.equal(normal_too, normal)
    assert torch.equal(sums_too, sums)


def test_a_mean_far_from_zero_does_not_cancel(device: torch.device, same: Same) -> None:
    """Whole numbers whose mean and deviations are exact, and whose squares are not."""
    source = 4096 + torch.randint(-8, 9, (1, 5, 64), device=device).float()
    same(op.normalise(source, torch.float32), F.layer_norm(source.double(), (64,), eps=reference.EPSILON).float())


def test_a_constant_row_is_normalised_to_zero(device: torch.device) -> None:
    assert torch.equal(
        op.normalise(torch.full((1, 3, 32), 7.0, device=device), torch.float32), torch.zeros(1, 3, 32, device=device)
    )


@each_dtype
@pytest.mark.parametrize(("rows", "features", "padded"), [(1, 30, 64), (63, 85, 128), (65, 64, 64), (3, 33, 40)])
def test_swiglu(rows: int, features: int, padded: int, dtype: torch.dtype, draw: Draw, same: Same) -> None:
    hidden, bias = draw(rows, 2 * padded, dtype=dtype), draw(2 * padded)
    for unread in (hidden[:, features:padded], hidden[:, padded + features :], bias[features:padded]):
        unread.fill_(torch.nan)
    with launches.recorded() as names:
        out = op.swiglu(hidden, bias, features)
    assert names == ["swiglu"]
    same(out, reference.swiglu(hidden, bias, features))
    assert not out[:, features:].any()


def test_swiglu_with_its_norm_folded_is_the_module(draw: Draw, same: Same, device: torch.device) -> None:
    width, hidden = 48, 130
    padded = 192
    module = _randomised(SwiGlu(width, hidden, reference.EPSILON).to(device), draw)
    x = draw(65, width)
    with torch.no_grad():
        into, bias = draw(2 * padded, width), draw(2 * padded)
        for start, layer in ((0, module.w1), (padded, module.w2)):
            into[start : start + hidden], bias[start : start + hidden] = layer.weight, layer.bias
        out = torch.zeros(width, padded, device=device)
        out[:, :hidden] = module.w3.weight * module.ffn_ln.weight
        out_bias = module.w3.weight @ module.ffn_ln.bias + module.w3.bias
        same(op.swiglu(x @ into.t(), bias, hidden) @ out.t() + out_bias, module(x))


@each_dtype
@pytest.mark.parametrize(
    ("rows", "channels", "silu", "added"),
    [(1, 48, True, True), (63, 37, True, False), (64, 64, False, True), (65, 80, False, False), (5, 30, True, True)],
)
def test_layer_norm(
    rows: int, channels: int, silu: bool, added: bool, dtype: torch.dtype, draw: Draw, same: Same
) -> None:
    x, weight, bias = draw(rows, channels, dtype=dtype), draw(channels), draw(channels)
    residual = draw(rows, channels, dtype=dtype) if added else None
    with launches.recorded() as names:
        out = op.layer_norm(x, weight, bias, residual, silu)
    assert names == ["layer_norm"]
    same(out, reference.layer_norm(x, weight, bias, residual, silu))


@each_dtype
@pytest.mark.parametrize("count", [1, 63, 1023, 1024, 1025, 5000])
def test_convert(count: int, dtype: torch.dtype, draw: Draw, same: Same) -> None:
    source = draw(count)
    with launches.recorded() as names:
        target = op.convert(source, dtype)
    assert names == ["convert"]
    same(target, source.to(dtype))
    if dtype != torch.bfloat16:  # Triton's interpreter cuts bfloat16 off where hardware rounds
        assert torch.equal(target, source.to(dtype))


@each_dtype
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(1, 48), (63, 37), (64, 64), (65, 66)])
def test_bias_act(rows: int, columns: int, gelu: bool, dtype: torch.dtype, draw: Draw, same: Same) -> None:
    x, bias = draw(rows, columns, dtype=dtype), draw(columns)
    with launches.recorded() as names:
        out = op.bias_act(x, bias, gelu)
        same(out, reference.bias_act(x, bias, gelu))
        op.bias_act_(x, bias, gelu)
    assert names == ["bias_act"] * 2
    assert torch.equal(x, out)


def test_nothing_is_written_beside_the_outputs(draw: Draw, device: torch.device) -> None:
    batch, tokens, channels, margin = 2, 6, 24, 64
    chunks = -(-tokens // ROWS)
    source, addend = draw(batch, tokens, channels), draw(1, channels)
    buffers = {
        name: torch.full((size + margin,), torch.nan, device=device)
        for name, size in (("x", source.numel()), ("normal", source.numel()), ("sums", batch * chunks * channels))
    }
    constants = {"C": channels, "BLOCK_C": 32, "ROWS": ROWS, "ADD": True, "SUMS": True}
    arguments = (source, addend, *buffers.values(), tokens, 1)
    launches.launch(kernel.normalise, (chunks, batch), *arguments, **constants)
    for name, buffer in buffers.items():
        assert buffer[:-margin].isfinite().all(), name
        assert buffer[-margin:].isnan().all(), name


@pytest.mark.parametrize("columns", [15, 16])
def test_kernels_that_know_no_rows_stop_at_the_count(columns: int, draw: Draw, device: torch.device) -> None:
    count, block = 5 * columns, 64
    source, bias = draw(count + block), draw(columns)
    converted, biased = (torch.full((count + block,), torch.nan, device=device) for _ in range(2))
    grid = (-(-count // block),)
    launches.launch(kernel.convert, grid, source, converted, count, BLOCK=block)
    launches.launch(kernel.bias_act, grid, source, bias, biased, count, COLUMNS=columns, BLOCK=block, GELU=False)
    for out in (converted, biased):
        assert out[:count].isfinite().all()
        assert out[count:].isnan().all()


def test_without_a_gpu_or_the_interpreter_references_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    source, addend = torch.randn(2, 5, 16), torch.randn(1, 16)
    flat, bias = torch.randn(6, 16), torch.randn(16)
    in_place, biased = source.clone(), flat.clone()
    with launches.recorded() as names:
        x, normal, sums = op.embed(source, addend, torch.float32)
        normal_too, sums_too = op.embed_(in_place, addend, torch.float32)
        assert torch.equal(op.normalise(x, torch.float32), normal)
        assert torch.equal(op.swiglu(flat, bias, 8), reference.swiglu(flat, bias, 8))
        assert torch.equal(op.layer_norm(flat, bias, bias), reference.layer_norm(flat, bias, bias, None, False))
        assert torch.equal(op.convert(flat, torch.float16), flat.half())
        op.bias_act_(biased, bias, True)
        assert torch.equal(op.bias_act(flat, bias, True), biased)
    kernels = ("normalise", "normalise", "normalise", "swiglu", "layer_norm", "convert", "bias_act", "bias_act")
    assert names == [f"{name} (reference)" for name in kernels]
    assert torch.equal(in_place, x)
    assert torch.equal(normal_too, normal)
    assert torch.equal(sums_too, sums)


def test_no_tokens_launch_nothing(device: torch.device) -> None:
    empty = torch.empty(2, 0, 16, device=device)
    with launches.recorded() as names:
        assert op.normalise(empty, torch.float16).shape == (2, 0, 16)
        assert op.bias_act(empty[0], torch.ones(16, device=device)).shape == (0, 16)
        assert op.convert(empty, torch.float16).dtype == torch.float16
    assert names == []


def test_as_torch_operators(draw: Draw) -> None:
    source, addend, flat, vector = draw(1, 6, 16), draw(1, 16), draw(4, 16), draw(16)
    mova = torch.ops.mova
    for operator, arguments in (
        (mova.normalise, (source, torch.bfloat16)),
        (mova.embed, (source, addend, torch.float16)),
        (mova.embed_, (source, addend, torch.float16)),
        (mova.swiglu, (flat, vector, 7)),
        (mova.layer_norm, (flat, vector, vector, flat.clone(), True)),
        (mova.bias_act, (flat, vector, True)),
        (mova.bias_act_, (flat, vector, True)),
    ):
        torch.library.opcheck(operator.default, arguments)


WRONG: dict[str, tuple[Callable[[Draw], object], str]] = {
    "dtype of source": (
        lambda draw: op.normalise(draw(1, 2, 16, dtype=torch.float16), torch.float16),
        "source: dtype float16, needed float32",
    ),
    "dtype wanted": (
        lambda draw: op.normalise(draw(1, 2, 16), torch.float64),
        "dtype: torch.float64, needed one of torch.float16, torch.bfloat16, torch.float32",
    ),
    "axes": (lambda draw: op.normalise(draw(2, 16), torch.float16), "source: shape [2, 16], needed [batch, tokens, "),
    "strides": (
        lambda draw: op.normalise(draw(1, 16, 2).transpose(1, 2), torch.float16),
        "source: strides [32, 1, 2], needed contiguous; pass source.contiguous()",
    ),
    "no channels": (
        lambda draw: op.normalise(draw(1, 2, 0), torch.float16),
        "source: shape [1, 2, 0], needed at least one channel",
    ),
    "no channels to a norm": (
        lambda draw: op.layer_norm(draw(2, 0), draw(0), draw(0)),
        "x: shape [2, 0], needed at least one channel",
    ),
    "channels of addend": (
        lambda draw: op.embed(draw(1, 2, 16), draw(1, 8), torch.float16),
        "addend: shape [1, 8], needed [rows, channels=16]",
    ),
    "no addend": (
        lambda draw: op.embed_(draw(1, 2, 16), draw(0, 16), torch.float16),
        "addend: shape [0, 16], needed at least one row",
    ),
    "device": (
        lambda draw: op.convert(torch.empty(4, device="meta"), torch.float16),
        "source: device meta, needed cuda or cpu",
    ),
    "features": (
        lambda draw: op.swiglu(draw(2, 32), draw(32), 17),
        "features: 17, needed 1 to half of hidden's 32 columns",
    ),
    "bias of swiglu": (lambda draw: op.swiglu(draw(2, 32), draw(16), 16), "bias: shape [16], needed [doubled=32]"),
    "integers": (
        lambda draw: op.layer_norm(draw(2, 8, dtype=torch.int32), draw(8), draw(8)),
        "x: dtype int32, needed float16 or bfloat16 or float32",
    ),
    "dtype of weight": (
        lambda draw: op.layer_norm(draw(2, 8), draw(8, dtype=torch.bfloat16), draw(8)),
        "weight: dtype bfloat16, needed float32",
    ),
    "residual": (
        lambda draw: op.layer_norm(draw(2, 8), draw(8), draw(8), draw(1, 8)),
        "residual: shape [1, 8], needed [rows=2, channels=8]",
    ),
    "dtype of residual": (
        lambda draw: op.layer_norm(draw(2, 8), draw(8), draw(8), draw(2, 8, dtype=torch.float16)),
        "residual: dtype float16, needed float32",
    ),
    "bias": (lambda draw: op.bias_act(draw(2, 8), draw(4)), "bias: shape [4], needed [columns=8]"),
    "bias in place": (lambda draw: op.bias_act_(draw(2, 8), draw(1, 8)), "bias: shape [1, 8], needed [columns=8]"),
    "target": (
        lambda draw: op.convert(draw(4), torch.int8),
        "target: dtype int8, needed float16 or bfloat16 or float32",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_suit_is_refused(case: str, draw: Draw) -> None:
    call, message = WRONG[case]
    with pytest.raises(KernelError) as refused:
        call(draw)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@pytest.mark.gpu("mova_kernels.rows.kernel")
def test_tensors_of_two_devices_are_refused() -> None:
    with pytest.raises(KernelError, match="addend: device cpu, needed cuda:0, as source"):
        op.embed(torch.randn(1, 2, 16, device="cuda"), torch.randn(1, 16), torch.float16)


@pytest.mark.gpu("mova_kernels.rows.kernel")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_full_size(dtype: torch.dtype, draw: Draw, same: Same) -> None:
    batch, tokens, channels, features, padded, hidden = 2, 2304, 1024, 2730, 2752, 4096
    source, addend = draw(batch, tokens, channels), draw(tokens, channels)
    x, normal, sums = op.embed(source, addend, dtype)
    wanted, wanted_normal, wanted_sums = reference.embed(source, addend, dtype, ROWS)
    assert torch.equal(x, wanted)
    same(normal, wanted_normal)
    same(sums, wanted_sums)
    op.embed_(source, addend, dtype)
    assert torch.equal(source, x)
    same(op.normalise(x, dtype), wanted_normal)
    wide, wide_bias = draw(tokens, 2 * padded, dtype=dtype), draw(2 * padded)
    same(op.swiglu(wide, wide_bias, features), reference.swiglu(wide, wide_bias, features))
    rows, residual = draw(tokens, channels, dtype=dtype), draw(tokens, channels, dtype=dtype)
    scale, shift = draw(channels), draw(channels)
    for silu, added in ((True, None), (False, residual)):
        same(op.layer_norm(rows, scale, shift, added, silu), reference.layer_norm(rows, scale, shift, added, silu))
    assert torch.equal(op.convert(x, dtype), x.to(dtype))
    tall, bias = draw(576, hidden, dtype=dtype), draw(hidden)
    same(op.bias_act(tall, bias, True), reference.bias_act(tall, bias, True))
    same(op.bias_act(tall.float(), bias, False), reference.bias_act(tall.float(), bias, False))


def _randomised(module: SwiGlu, draw: Draw) -> SwiGlu:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(draw(*parameter.shape))
    return module
