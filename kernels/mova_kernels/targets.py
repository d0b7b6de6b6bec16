"""The GPUs that kernels are compiled for ahead of time: what each is, its shared memory, the tiles chosen for it."""

from __future__ import annotations

from dataclasses import dataclass

_KIB = 1024


@dataclass(frozen=True)
class Tile:
    """How a matrix product is cut: m rows by n columns by k summands a step, by so many warps, steps in flight.

    Of attention, m queries by n keys a step; k is the head's width.
    """

    m: int
    n: int
    k: int
    warps: int
    stages: int

    def half(self) -> Tile:
        """Of an attention: half the queries at a time, by half the warps, and no more keys than queries."""
        return Tile(self.m // 2, min(self.n, self.m // 2), self.k, max(self.warps // 2, 4), self.stages)


@dataclass(frozen=True)
class Tiles:
    """Those of attention to an expert, attention of the image to itself, and `combine`."""

    attention: Tile
    self_attention: Tile
    combine: Tile


@dataclass(frozen=True)
class Target:
    """A compute capability such as "sm_87", the GPUs that have it, the shared memory a block may have, in bytes."""

    capability: str
    devices: str
    shared: int
    tiles: Tiles

    def __str__(self) -> str:
        return f"{self.capability} ({self.devices})"

    @property
    def arch(self) -> int:
        """87 of "sm_87"."""
        return int(self.capability.removeprefix("sm_"))


# Full tensor-core rate with float32 sums: four warps of 32 queries read a step's keys half as often as eight of 16.
# Rotating the keys takes the registers that this needs.
_LARGE = Tiles(Tile(128, 64, 64, 4, 3), Tile(128, 64, 64, 8, 3), Tile(64, 128, 32, 4, 4))

# Half of it: the tensor cores are what is waited for, and eight warps leave registers to spare.
_SMALL = Tiles(Tile(128, 64, 64, 8, 3), Tile(128, 64, 64, 8, 3), Tile(64, 128, 32, 4, 4))

# Instructions of four warps that read both operands from shared memory.
_WGMMA = Tiles(Tile(128, 128, 64, 8, 3), Tile(128, 128, 64, 8, 2), Tile(64, 128, 64, 4, 3))
_TCGEN05 = Tiles(Tile(128, 128, 64, 8, 3), Tile(128, 128, 64, 8, 2), Tile(128, 64, 64, 8, 4))

# Shared memory: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability", less the KiB that the
# system reserves in each block.
TARGETS = {
    target.capability: target
    for target in (
        Target("sm_80", "A100", 163 * _KIB, _LARGE),
        Target("sm_86", "RTX 30, A10", 99 * _KIB, _SMALL),
        Target("sm_87", "Jetson Orin", 163 * _KIB, _LARGE),
        Target("sm_89", "RTX 40, L4", 99 * _KIB, _SMALL),
        Target("sm_90", "H100, H200", 227 * _KIB, _WGMMA),
        Target("sm_100", "B200", 227 * _KIB, _TCGEN05),
        Target("sm_110", "Jetson Thor", 227 * _KIB, _TCGEN05),
        Target("sm_120", "RTX 50", 99 * _KIB, _SMALL),
    )
}
"""By compute capability."""
