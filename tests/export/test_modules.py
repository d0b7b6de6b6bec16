"""The torch modules and references against independent statements of the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mova_export.graphs.pairs import AdapterGraph
from mova_export.modules import window
from mova_export.modules.adapter.adapter import AdapterConfig, MovAdapter
from mova_export.modules.align import align
from mova_kernels.cross_attention.reference import attention, rotate
from mova_kernels.gate.reference import gate

CONFIG = AdapterConfig(channels=128, text_channels=32, hidden=48, grid=6, blocks=2, experts=7, top_k=3)


def adapter() -> MovAdapter:
    torch.manual_seed(0)
    module = MovAdapter(CONFIG).eval().requires_grad_(False)
    angle = torch.rand(CONFIG.tokens, 32).repeat_interleave(2, dim=1)
    for name, tensor in module.state_dict().items():
        if name.endswith("freqs_cos"):
            tensor.copy_(angle.cos())
        elif name.endswith("freqs_sin"):
            tensor.copy_(angle.sin())
        elif "norm" not in name and "ln" not in name and "bn" not in name:
            tensor.normal_(std=tensor.shape[-1] ** -0.5)
    return module


def inputs(batch: int, pairs: list[tuple[int, int]]) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    shape = (len(pairs), CONFIG.blocks, CONFIG.tokens, CONFIG.channels)
    pair = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
    return (
        torch.randn(batch, CONFIG.tokens, CONFIG.channels),
        torch.randn(batch, CONFIG.text_channels),
        torch.randn(shape),
        torch.randn(shape),
        pair[:, 0],
        pair[:, 1],
    )


@pytest.mark.parametrize(
    ("batch", "pairs"),
    [
        (1, []),
        (1, [(0, 4)]),
        (2, []),
        (3, [(2, 6), (0, 1), (2, 0), (2, 5), (2, 3)]),
        (3, [(0, 0), (0, 1), *((2, expert) for expert in range(7))]),
    ],
)
def test_the_paired_graph_is_the_adapter(batch: int, pairs: list[tuple[int, int]]) -> None:
    module, arguments = adapter(), inputs(batch, pairs)
    visual, gates = module(*arguments)
    paired_visual, paired_gates = AdapterGraph(module)(*arguments)
    torch.testing.assert_close(paired_visual, visual, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(paired_gates, gates, rtol=1e-5, atol=1e-6)


def test_the_order_of_pairs_does_not_matter() -> None:
    module = AdapterGraph(adapter())
    base, text, keys, values, image, expert = inputs(2, [(0, 1), (1, 2), (0, 5)])
    order = torch.tensor([2, 0, 1])
    expected = module(base, text, keys, values, image, expert)[0]
    found = module(base, text, keys[order], values[order], image[order], expert[order])[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_an_image_does_not_see_its_neighbours_experts() -> None:
    module = AdapterGraph(adapter())
    base, text, keys, values, image, expert = inputs(2, [(1, 2), (1, 4)])
    alone = module(base[:1], text[:1], keys[:0], values[:0], image[:0], expert[:0])[0]
    torch.testing.assert_close(module(base, text, keys, values, image, expert)[0][:1], alone, rtol=1e-4, atol=1e-5)


def test_experts_with_different_rotary_tables_are_refused() -> None:
    module = adapter()
    module.blocks[1].cross_attn[3].rope.freqs_cos[0, 0] += 1
    with pytest.raises(ValueError, match="rotary tables differ"):
        AdapterGraph(module)


def test_rotation_is_multiplication_of_complex_numbers() -> None:
    x, angle = torch.randn(2, 5, 63, 8), torch.rand(63, 4)
    expected = torch.view_as_real(
        torch.view_as_complex(x.unflatten(-1, (4, 2))) * torch.polar(torch.ones(63, 4), angle)
    )
    pairs = angle.repeat_interleave(2, dim=1)
    torch.testing.assert_close(rotate(x, pairs.cos(), pairs.sin()), expected.flatten(-2))


@pytest.mark.parametrize("keys", [1, 63, 64])
def test_attention_is_torchs(keys: int) -> None:
    query, key, value = torch.randn(2, 63, 96), torch.randn(2, keys, 96), torch.randn(2, keys, 96)
    heads = [x.unflatten(-1, (3, 32)).transpose(1, 2) for x in (query, key, value)]
    expected = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention(query, key, value, 3), expected, rtol=1e-4, atol=1e-5)


def test_gate_keeps_the_largest_of_the_selected() -> None:
    logits = torch.tensor([[9.0, 1.0, 2.0, 3.0, 4.0, 8.0, 7.0]]).repeat(4, 1)
    selected = torch.tensor([[0, 1, 1, 1, 1, 0, 0], [0] * 7, [0, 0, 0, 0, 0, 0, 1], [1] * 7])
    weights = gate(logits, selected, 3)
    torch.testing.assert_close(weights[0, [2, 3, 4]], torch.tensor([2.0, 3.0, 4.0]).softmax(0))
    assert weights[0, [0, 1, 5, 6]].sum() == 0
    assert weights[1].abs().sum() == 0
    assert weights[2].tolist() == [0, 0, 0, 0, 0, 0, 1]
    torch.testing.assert_close(weights[3, [0, 5, 6]], torch.tensor([9.0, 8.0, 7.0]).softmax(0))


@pytest.mark.parametrize(("height", "width", "size"), [(16, 16, 14), (14, 14, 14), (5, 9, 4), (80, 80, 16)])
def test_windows_come_back(height: int, width: int, size: int) -> None:
    x = torch.randn(2, height, width, 3)
    windows = window.partition(x, size)
    assert windows.shape[1:] == (size, size, 3)
    assert torch.equal(windows[0], F.pad(x, (0, 0, 0, size, 0, size))[0, :size, :size])
    assert torch.equal(window.merge(windows, size, height, width), x)


def test_align() -> None:
    feature = torch.randn(2, 49, 5)
    assert align(feature, 7) is feature
    expected = nn.Upsample(size=(4, 4), mode="bilinear")(feature.transpose(1, 2).reshape(2, 5, 7, 7))
    torch.testing.assert_close(align(feature, 4), expected.flatten(2).transpose(1, 2))
