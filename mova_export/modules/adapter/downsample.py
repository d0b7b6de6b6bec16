"""Two RegNet stages (Radosavovic et al., arXiv 2003.13678) with pooling between, under timm's parameter names."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mova_export.modules.norm import LayerNorm2d
from mova_kernels.combine.reference import EPSILON

SQUEEZE_RATIO = 0.25


class ConvNorm(nn.Module):
    """A convolution without bias and a LayerNorm over channels."""

    def __init__(self, channels: int, kernel: int, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=groups, bias=False)
        self.bn = LayerNorm2d(channels, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] to the same."""
        return self.bn(self.conv(x))


class SqueezeExcite(nn.Module):
    """Channels scaled by a gate over their means (Hu et al., arXiv 1709.01507)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = round(channels * SQUEEZE_RATIO)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] to the same."""
        squeezed = F.silu(self.fc1(x.mean(dim=(2, 3), keepdim=True)))
        return x * self.fc2(squeezed).sigmoid()


class Bottleneck(nn.Module):
    """1×1, depthwise 3×3, squeeze-excite, 1×1, added to its input; no activation on the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, 1)
        self.conv2 = ConvNorm(channels, 3, groups=channels)
        self.se = SqueezeExcite(channels)
        self.conv3 = ConvNorm(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] to the same."""
        return x + self.conv3(self.se(F.silu(self.conv2(F.silu(self.conv1(x))))))


class Stage(nn.Module):
    """A stage of depth one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.b1 = Bottleneck(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] to the same."""
        return self.b1(x)


class Downsample(nn.Sequential):
    """Stage, average pool, stage: [batch, channels, grid, grid] to [batch, channels, grid/2, grid/2]."""

    def __init__(self, channels: int) -> None:
        # grid is even, so pooling to exactly half is 2×2 averaging.
        super().__init__(Stage(channels), nn.AvgPool2d(2), Stage(channels))
