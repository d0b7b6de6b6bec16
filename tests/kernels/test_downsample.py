"""Kernels of the adapter's end against their references, and a whole stage of them against the torch module."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mova_export.modules.adapter.downsample import Downsample, Stage
from mova_kernels import launches
from mova_kernels.blocks import ROWS
from mova_kernels.downsample import kernel, op, reference
from mova_kernels.errors import KernelError
from mova_kernels.rows import op as rows

Draw = Callable[..., Tensor]
Same = Callable[[Tensor, Tensor], None]

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
MAPS = ((1, 1, 48), (3, 2, 37), (3, 3, 64), (1, 8, 30), (1, 12, 80))
"""(batch, side, channels): sides whose squares are whole and broken chunks; channels of every width of access."""

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_map = pytest.mark.parametrize("size", MAPS, ids=str)


@each_dtype
@pytest.mark.parametrize(("n", "channels"), [(1, 48), (63, 37), (64, 64), (65, 30), (144, 80)])
def test_average(n: int, channels: int, dtype: torch.dtype, draw: Draw, same: Same) -> None:
    x, addend, base = draw(n, channels), draw(channels), draw(n, channels)
    with launches.recorded() as names:
        out = op.average(x, addend, base, dtype)
    assert names == ["average"]
    same(out, reference.average(x, addend, base, dtype))


@each_dtype
@each_map
def test_depthwise_norm(size: tuple[int, int, int], dtype: torch.dtype, draw: Draw, same: Same) -> None:
    batch, side, channels = size
    x = draw(batch, side, side, channels, dtype=dtype)
    weight, norm_weight, norm_bias = draw(9, channels), draw(channels), draw(channels)
    with launches.recorded() as names:
        out, sums = op.depthwise_norm(x, weight, norm_weight, norm_bias)
    assert names == ["depthwise_norm"]
    wanted, _ = reference.depthwise_norm(x, weight, norm_weight, norm_bias, ROWS)
    same(out, wanted)
    same(sums, reference.chunk_sums(out.flatten(1, 2), ROWS))  # of what was stored


@each_dtype
@pytest.mark.parametrize(
    ("batch", "slices", "squeezed", "channels"), [(1, 1, 12, 48), (3, 5, 65, 37), (1, 2, 64, 64), (3, 3, 130, 144)]
)
def test_excite(
    batch: int, slices: int, squeezed: int, channels: int, dtype: torch.dtype, draw: Draw, same: Same
) -> None:
    partial, bias1, bias2 = draw(batch, slices, squeezed), draw(squeezed), draw(channels)
    weight2 = draw(squeezed, channels, dtype=dtype) / squeezed**0.5
    with launches.recorded() as names:
        out = op.excite(partial, bias1, weight2, bias2)
    assert names == ["excite"]
    same(out, reference.excite(partial, bias1, weight2, bias2))


@each_dtype
@pytest.mark.parametrize("size", [(1, 1, 48), (3, 63, 37), (1, 64, 64), (3, 65, 30), (7, 1, 80)], ids=str)
def test_scale_channels(size: tuple[int, int, int], dtype: torch.dtype, draw: Draw, same: Same) -> None:
    x, scale = draw(*size, dtype=dtype), draw(size[0], size[2])
    with launches.recorded() as names:
        out = op.scale_channels(x, scale)
    assert names == ["scale_channels"]
    same(out, reference.scale_channels(x, scale))


@each_dtype
@pytest.mark.parametrize("size", [(1, 2, 48), (3, 4, 37), (1, 8, 30), (1, 12, 80)], ids=str)
def test_pool(size: tuple[int, int, int], dtype: torch.dtype, draw: Draw, same: Same) -> None:
    batch, side, channels = size
    x = draw(batch, side, side, channels, dtype=dtype)
    with launches.recorded() as names:
        out = op.pool(x)
    assert names == ["pool"]
    same(out, reference.pool(x))


@pytest.mark.parametrize("interpreted", [True, False])
def test_stages_and_pooling_are_the_module(
    interpreted: bool, draw: Draw, same: Same, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Composed of these functions and matrix products, by kernels and by references."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    if not interpreted:
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        device = torch.device("cpu")
    channels, side = 48, 4
    module = Downsample(channels).to(device)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            parameter.copy_(draw(*parameter.shape) / fan_in**0.5)
    x = draw(3, side, side, channels).to(device)
    with launches.recorded() as names, torch.no_grad():
        out = _stage(module[2], op.pool(_stage(module[0], x)))
        wanted = module(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    stage = ["layer_norm", "depthwise_norm", "excite", "scale_channels", "layer_norm"]
    kernels = [*stage, "pool", *stage]
    assert names == (kernels if interpreted else [f"{name} (reference)" for name in kernels])
    same(out, wanted.contiguous())


def _stage(stage: Stage, x: Tensor) -> Tensor:
    block, (batch, side, _, channels) = stage.b1, x.shape
    flat = x.flatten(0, 2)
    hidden = rows.layer_norm(
        flat @ block.conv1.conv.weight.flatten(1).t(), block.conv1.bn.weight, block.conv1.bn.bias, None, True
    )
    taps = block.conv2.conv.weight.flatten(1).t().contiguous()
    convolved, sums = op.depthwise_norm(hidden.view(x.shape), taps, block.conv2.bn.weight, block.conv2.bn.bias)
    squeezed = (sums.sum(dim=1) / side**2) @ block.se.fc1.weight.flatten(1).t()
    second = block.se.fc2.weight.flatten(1).t().contiguous()
    scale = op.excite(squeezed[:, None], block.se.fc1.bias, second, block.se.fc2.bias)
    scaled = op.scale_channels(convolved.flatten(1, 2), scale).flatten(0, 1)
    out = scaled @ block.conv3.conv.weight.flatten(1).t()
    return rows.layer_norm(out, block.conv3.bn.weight, block.conv3.bn.bias, flat).view(batch, side, side, channels)


def test_nothing_is_written_beside_the_outputs(draw: Draw, device: torch.device) -> None:
    batch, side, channels, margin = 2, 3, 24, 64
    chunks = -(-(side**2) // ROWS)
    x, vector = draw(batch, side, side, channels), draw(channels)
    out = torch.full((x.numel() + margin,), torch.nan, device=device)
    sums = torch.full((batch * chunks * channels + margin,), torch.nan, device=device)
    constants = {"C": channels, "BLOCK_C": 32, "ROWS": ROWS}
    arguments = (x, draw(9, channels), vector, vector, out, sums, side)
    launches.launch(kernel.depthwise_norm, (chunks, batch), *arguments, **constants)
    for buffer in (out, sums):
        assert buffer[:-margin].isfinite().all()
        assert buffer[-margin:].isnan().all()


def test_as_torch_operators(draw: Draw) -> None:
    map_, vector = draw(2, 4, 4, 16), draw(16)
    mova = torch.ops.mova
    for operator, arguments in (
        (mova.average, (draw(4, 16), vector, draw(4, 16), torch.bfloat16)),
        (mova.depthwise_norm, (map_, draw(9, 16), vector, vector)),
        (mova.excite, (draw(2, 3, 8), draw(8), draw(8, 16), vector)),
        (mova.scale_channels, (map_.flatten(1, 2), draw(2, 16))),
        (mova.pool, (map_,)),
    ):
        torch.library.opcheck(operator.default, arguments)


WRONG: dict[str, tuple[Callable[[Draw], object], str]] = {
    "dtype of x": (
        lambda draw: op.average(draw(2, 8, dtype=torch.float16), draw(8), draw(2, 8), torch.float16),
        "x: dtype float16, needed float32",
    ),
    "dtype wanted": (
        lambda draw: op.average(draw(2, 8), draw(8), draw(2, 8), torch.int32),
        "dtype: torch.int32, needed one of torch.float16, torch.bfloat16, torch.float32",
    ),
    "base": (
        lambda draw: op.average(draw(2, 8), draw(8), draw(3, 8), torch.float16),
        "base: shape [3, 8], needed [rows=2, channels=8]",
    ),
    "taps": (
        lambda draw: op.depthwise_norm(draw(1, 2, 2, 8), draw(8, 9), draw(8), draw(8)),
        "weight: shape [8, 9], needed [taps=9, channels=8]",
    ),
    "oblong": (
        lambda draw: op.depthwise_norm(draw(1, 2, 4, 8), draw(9, 8), draw(8), draw(8)),
        "x: shape [1, 2, 4, 8], needed [batch=1, side=2, side_again=2, channels=8]",
    ),
    "no channels": (
        lambda draw: op.pool(draw(1, 2, 2, 0)),
        "x: shape [1, 2, 2, 0], needed [batch=1, side=2, side_again=2, channels=1]",
    ),
    "channels first": (
        lambda draw: op.depthwise_norm(draw(1, 8, 2, 2).permute(0, 2, 3, 1), draw(9, 8), draw(8), draw(8)),
        "x: strides [32, 2, 1, 4], needed contiguous; pass x.contiguous()",
    ),
    "dtype of weight": (
        lambda draw: op.depthwise_norm(draw(1, 2, 2, 8), draw(9, 8, dtype=torch.float16), draw(8), draw(8)),
        "weight: dtype float16, needed float32",
    ),
    "squeezed": (
        lambda draw: op.excite(draw(1, 2, 4), draw(4), draw(5, 8), draw(8)),
        "weight2: shape [5, 8], needed [squeezed=4, channels]",
    ),
    "scale": (
        lambda draw: op.scale_channels(draw(2, 3, 8), draw(1, 8)),
        "scale: shape [1, 8], needed [batch=2, channels=8]",
    ),
    "odd side": (lambda draw: op.pool(draw(1, 3, 3, 8)), "x: side 3, needed an even one"),
    "integers": (
        lambda draw: op.pool(torch.ones(1, 2, 2, 8, dtype=torch.int64)),
        "x: dtype int64, needed float16 or bfloat16 or float32",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_suit_is_refused(case: str, draw: Draw) -> None:
    call, message = WRONG[case]
    with pytest.raises(KernelError) as refused:
        call(draw)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@pytest.mark.gpu("mova_kernels.downsample.kernel")
def test_tensors_of_two_devices_are_refused() -> None:
    with pytest.raises(KernelError, match="scale: device cpu, needed cuda:0, as x"):
        op.scale_channels(torch.randn(1, 2, 16, device="cuda"), torch.randn(1, 16))


@pytest.mark.gpu("mova_kernels.downsample.kernel")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_full_size(dtype: torch.dtype, draw: Draw, same: Same) -> None:
    batch, side, channels, squeezed = 2, 48, 1024, 256
    x, base, vector = draw(side**2, channels), draw(side**2, channels), draw(channels)
    same(op.average(x, vector, base, dtype), reference.average(x, vector, base, dtype))
    map_ = draw(batch, side, side, channels, dtype=dtype)
    weight, scale, shift = draw(9, channels), draw(channels), draw(channels)
    out, sums = op.depthwise_norm(map_, weight, scale, shift)
    wanted, _ = reference.depthwise_norm(map_, weight, scale, shift, ROWS)
    same(out, wanted)
    same(sums, reference.chunk_sums(out.flatten(1, 2), ROWS))
    arguments = (draw(batch, 32, squeezed), draw(squeezed), draw(squeezed, channels, dtype=dtype) / 16, vector)
    same(op.excite(*arguments), reference.excite(*arguments))
    flat, scales = map_.flatten(1, 2), draw(batch, channels)
    same(op.scale_channels(flat, scales), reference.scale_channels(flat, scales))
    same(op.pool(map_), reference.pool(map_))
