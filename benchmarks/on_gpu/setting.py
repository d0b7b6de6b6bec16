"""Where a run takes place: device, sizes, and the random numbers it draws."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from mova_kernels.variants import HEAD_DIM, AdapterShape

FULL = AdapterShape(
    channels=1024,
    text_channels=1024,
    hidden=4096,
    grid=48,
    blocks=3,
    experts=7,
    top_k=3,
    feed_forward=2730,
    squeezed=256,
)
"""MoVA-8B's adapter."""

TINY = AdapterShape(
    channels=128, text_channels=64, hidden=64, grid=4, blocks=1, experts=7, top_k=3, feed_forward=341, squeezed=32
)
"""Everything there is to an adapter, and little of it."""

PAIRS = (1, 3, 7)
"""(image, expert) pairs of one image."""


def count(pairs: int) -> str:
    """In words."""
    return "1 pair" if pairs == 1 else f"{pairs} pairs"


class NotThereError(Exception):
    """What a section needs is not on this machine; the message says what."""


@dataclass(frozen=True)
class Setting:
    """One run.

    gpu: whether on one; else everything is tiny, on the CPU, by Triton's interpreter, and nothing is timed; pairs: how
    many of them to try; repeats: timed regions of each contender; work: a folder for files.
    """

    gpu: bool
    timed: bool
    pairs: tuple[int, ...]
    repeats: int
    work: Path
    generator: torch.Generator = field(repr=False)

    @property
    def shape(self) -> AdapterShape:
        """Sizes of the adapter."""
        return FULL if self.gpu else TINY

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.shape.channels // HEAD_DIM

    @property
    def device(self) -> torch.device:
        """Where tensors are."""
        return self.generator.device

    def draw(self, *shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Tensor:
        """Standard normal numbers times `scale`, new ones each time."""
        return (torch.randn(*shape, generator=self.generator, device=self.device) * scale).to(dtype)
