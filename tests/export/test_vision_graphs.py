"""The forms that vision graphs are exported in compute what the models do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mova_export.graphs.expert import ExpertGraph
from mova_export.graphs.sam import SamGraph
from mova_export.graphs.windows import Windows
from mova_export.modules import window
from mova_export.modules.adapter.attention import HEAD_DIM, KeyValue
from mova_export.modules.expert import Expert
from mova_export.modules.rotary import Rotary
from mova_export.modules.sam import SamConfig, SamEncoder
from mova_kernels.cross_attention.reference import rotate


def randomised(module: nn.Module) -> nn.Module:
    """Nothing at zero or one, where nothing could go wrong; rotary tables that are some."""
    torch.manual_seed(0)
    for name, tensor in module.state_dict().items():
        if name.endswith("freqs_cos"):
            angle = torch.rand(tensor.shape[0], tensor.shape[1] // 2).repeat_interleave(2, dim=1)
            tensor.copy_(angle.cos())
            module.get_buffer(name.replace("cos", "sin")).copy_(angle.sin())
        elif not name.endswith("freqs_sin"):
            tensor.normal_(std=tensor.shape[-1] ** -0.5)
    return module.eval().requires_grad_(False)


def one_table(expert: Expert) -> Expert:
    """Every block turns by the same angles, as in a checkpoint."""
    for block in expert.blocks:
        block.rope.load_state_dict(expert.blocks[0].rope.state_dict())
    return expert


def expert_of(tokens: int, *, aligned: bool = False, grid: int = 6, offset: float = 0.0) -> tuple[Expert, torch.Tensor]:
    """An expert whose tower gives what it is given, and something to give it, [2, tokens, 24]."""
    blocks = [KeyValue(24, 2 * HEAD_DIM, grid * grid) for _ in range(3)]
    expert = one_table(randomised(Expert(nn.Identity(), blocks, grid, aligned_features=aligned)))  # type: ignore[arg-type]
    return expert, torch.randn(2, tokens, 24) + offset


@pytest.mark.parametrize("head_dim", [2, 64])
def test_rotation_by_a_matrix_is_rotation(head_dim: int) -> None:
    rope = randomised(Rotary(63, head_dim))
    x = torch.randn(2, 3, 63, head_dim)
    torch.testing.assert_close(rope(x), rotate(x, rope.freqs_cos, rope.freqs_sin), rtol=0, atol=0)


@pytest.mark.parametrize(("side", "size"), [(4, 2), (5, 2), (7, 3), (64, 14), (3, 5)])
def test_windows_are_those_of_the_model(side: int, size: int) -> None:
    windows, x = Windows(side, size), torch.randn(2, side, side, 3)
    tokens = x.flatten(1, 2)
    if windows.padded:
        tokens = torch.cat((tokens, torch.zeros(2, 1, 3)), dim=1)
    cut = windows.partition(tokens)
    torch.testing.assert_close(cut, window.partition(x, size).flatten(1, 2), rtol=0, atol=0)
    torch.testing.assert_close(windows.merge(cut), x.flatten(1, 2), rtol=0, atol=0)
    assert windows.padded == (side % size != 0)


@pytest.mark.parametrize("stride_channels", [None, 12])
@pytest.mark.parametrize("size", [3, 5, 8])
def test_sams_graph_is_sam(size: int, stride_channels: int | None) -> None:
    config = SamConfig(32, 48, 2, 4, 8, (size, 8, size), 6, stride_channels)
    encoder = randomised(SamEncoder(config))
    pixels = torch.randn(2, 3, config.image_side, config.image_side)
    expected = encoder(pixels)
    assert expected.std() > 0.1
    torch.testing.assert_close(SamGraph(encoder)(pixels), expected, rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("tokens", [1, 4, 25, 36, 81])
def test_an_experts_graph_is_the_expert(tokens: int, aligned: bool) -> None:
    expert, features = expert_of(tokens, aligned=aligned)
    for found, expected in zip(ExpertGraph(expert)(features), expert(features), strict=True):
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_feature_far_from_zero_is_projected_as_exactly() -> None:
    expert, features = expert_of(4, offset=1000.0)
    for found, expected in zip(ExpertGraph(expert)(features)[1:], expert.double()(features.double())[1:], strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)


def test_a_small_map_is_projected_before_it_is_resized() -> None:
    expert, features = expert_of(4)
    seen = []
    graph = ExpertGraph(expert)
    real = torch.nn.functional.linear

    def linear(x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape[1])
        return real(x, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "linear", linear)
        graph(features)
    assert seen == [4, 4]  # once for the keys of all three blocks, once for the values


def test_an_expert_whose_blocks_turn_differently_is_refused() -> None:
    expert, _ = expert_of(4)
    expert.blocks[1].rope.freqs_cos[0, 0] += 1
    with pytest.raises(ValueError, match="rotary tables differ"):
        ExpertGraph(expert)
