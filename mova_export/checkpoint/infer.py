"""Sizes that published checkpoints leave to the tensor shapes: SAM, Vary, Co-DETR, BiomedCLIP.

A size is what most tensors agree on, so that one misshapen tensor is reported as such and not taken for the truth.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping

from mova_export.checkpoint.layout import tower_prefix
from mova_export.errors import TensorMismatchError
from mova_export.modules.biomedclip import VitConfig
from mova_export.modules.codetr import CodetrConfig
from mova_export.modules.sam import SamConfig

Shapes = Mapping[str, tuple[int, ...]]
TowerSizes = SamConfig | CodetrConfig | VitConfig
"""Of a tower that has no configuration file."""


class TowerShapes:
    """Shapes of one tower's tensors, by their names within the tower."""

    def __init__(self, shapes: Shapes, component: str) -> None:
        self.component = component
        self._prefix = tower_prefix(component)
        self._shapes = {
            name.removeprefix(self._prefix): shape for name, shape in shapes.items() if name.startswith(self._prefix)
        }

    def size(self, pattern: str, axis: int) -> int:
        """The most common length of an axis among the tensors whose names match.

        Raises:
            TensorMismatchError: no tensor matches.
        """
        sizes = Counter(
            shape[axis] for name, shape in self._shapes.items() if re.fullmatch(pattern, name) and len(shape) > axis
        )
        if not sizes:
            raise TensorMismatchError(f"{self.component}: missing {self._prefix}{_readable(pattern)}")
        return sizes.most_common(1)[0][0]

    def lengths(self, pattern: str) -> set[int]:
        """Every length of the first axis among the tensors whose names match."""
        return {shape[0] for name, shape in self._shapes.items() if re.fullmatch(pattern, name) and shape}

    def depth(self, blocks: str) -> int:
        """One more than the largest block number."""
        numbers = [int(match[1]) for name in self._shapes if (match := re.match(rf"{blocks}\.(\d+)\.", name))]
        if not numbers:
            raise TensorMismatchError(f"{self.component}: missing {self._prefix}{_readable(blocks)}.*")
        return max(numbers) + 1

    def windows(self, tables: tuple[str, ...], to_side: Mapping[int, int]) -> tuple[int, ...]:
        """Window side of each block, from the lengths of its position tables; `to_side` maps lengths to sides."""
        sides = [
            [to_side[rows] for rows in self._rows(block, tables) if rows in to_side]
            for block in range(self.depth("blocks"))
        ]
        usual = Counter(side for block in sides for side in block).most_common(1)
        default = usual[0][0] if usual else max(to_side.values())
        return tuple(block[0] if block else default for block in sides)

    def _rows(self, block: int, tables: tuple[str, ...]) -> list[int]:
        shapes = [self._shapes.get(f"blocks.{block}.{table}") for table in tables]
        return [shape[0] for shape in shapes if shape]


def _readable(pattern: str) -> str:
    return pattern.replace(r"\d+", "N").replace("\\", "")


def tower_sizes(shapes: Shapes, component: str, image_side: int) -> TowerSizes:
    """Sizes of vary, codetr, biomedclip or sam; SAM's encoders read images of `image_side` pixels.

    Raises:
        TensorMismatchError: the tensors that would tell are missing.
    """
    if component == "codetr":
        return codetr_config(shapes)
    return biomedclip_config(shapes) if component == "biomedclip" else sam_config(shapes, component, image_side)


def sam_config(shapes: Shapes, component: str, image_side: int) -> SamConfig:
    """Sizes of a SAM encoder (`component` sam or vary) that reads images of `image_side` pixels."""
    tower = TowerShapes(shapes, component)
    width = tower.size(r"blocks\.\d+\.norm1\.weight", 0)
    patch = tower.size(r"patch_embed\.proj\.weight", 2)
    grid = image_side // patch
    lengths = [length for length in tower.lengths(r"blocks\.\d+\.attn\.rel_pos_[hw]") if length % 2]
    to_side = {length: (length + 1) // 2 for length in lengths if (length + 1) // 2 <= grid}
    return SamConfig(
        width=width,
        hidden=tower.size(r"blocks\.\d+\.mlp\.lin1\.weight", 0),
        heads=width // tower.size(r"blocks\.\d+\.attn\.rel_pos_[hw]", 1),
        patch=patch,
        grid=grid,
        windows=tower.windows(("attn.rel_pos_h", "attn.rel_pos_w"), to_side or {0: grid}),
        out_channels=tower.size(r"neck\.[123]\.(weight|bias)", 0),
        stride_channels=tower.size(r"net_2\.weight", 0) if component == "vary" else None,
    )


def codetr_config(shapes: Shapes) -> CodetrConfig:
    """Sizes of the Co-DETR encoder."""
    tower = TowerShapes(shapes, "codetr")
    width = tower.size(r"blocks\.\d+\.norm1\.weight", 0)
    grid = math.isqrt(tower.size(r"rope_glb\.freqs_(cos|sin)", 0))
    window = math.isqrt(tower.size(r"rope_win\.freqs_(cos|sin)", 0))
    return CodetrConfig(
        width=width,
        hidden=tower.size(r"blocks\.\d+\.mlp\.w[12]\.weight", 0),
        heads=width // tower.size(r"blocks\.\d+\.attn\.rope\.freqs_(cos|sin)", 1),
        patch=tower.size(r"patch_embed\.proj\.weight", 2),
        grid=grid,
        position_grid=math.isqrt(tower.size(r"pos_embed", 1) - 1),
        windows=tower.windows(
            ("attn.rope.freqs_cos", "attn.rope.freqs_sin"), {window * window: window, grid * grid: grid}
        ),
        out_channels=tower.size(r"neck\.[134]\.(weight|bias)", 0),
    )


def biomedclip_config(shapes: Shapes) -> VitConfig:
    """Sizes of the BiomedCLIP tower."""
    tower = TowerShapes(shapes, "biomedclip")
    return VitConfig(
        width=tower.size(r"trunk\.blocks\.\d+\.norm1\.weight", 0),
        hidden=tower.size(r"trunk\.blocks\.\d+\.mlp\.fc1\.weight", 0),
        depth=tower.depth(r"trunk\.blocks"),
        patch=tower.size(r"trunk\.patch_embed\.proj\.weight", 2),
        grid=math.isqrt(tower.size(r"trunk\.pos_embed", 1) - 1),
    )
