"""Checkpoints to measure on: the tiny one, and one with CLIP-L at its published size and MoVA's grid.

python benchmarks/checkpoints.py clip-l OUT
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from mova_export.checkpoint.load import Checkpoint
from mova_export.demo.checkpoint import TINY, write_shards, write_tiny_checkpoint
from mova_export.demo.weights import random_tensor

NAMES = ("tiny", "clip-l")

GRID = 48
ROUTING_TOKENS = 144
CONTEXT = 4096
"""Holds 576 visual tokens and a prompt that the tiny tokenizer spells byte by byte."""
CLIP_LAYERS, CLIP_INTERMEDIATE, CLIP_PATCHES = 24, 4096, 24
"""As published at 336 px: 24×24 positions, which the exporter resizes to the grid."""
DINOV2_SIDE = 518

_CLIP = "model.vision_tower.vision_tower_0.vision_model."
_DINOV2_POSITIONS = "model.vision_tower.vision_tower_1.embeddings.position_embeddings"
_ADAPTER_TABLE = re.compile(r"model\.mm_projector\.(pos_embed|blocks\.\d+\..+\.rope\.freqs_(cos|sin))")

Shapes = dict[str, list[int]]


def write_checkpoint(name: str, out: Path, *, seed: int = 0) -> None:
    """Write one of `NAMES` in the published layout, float32, a shard in memory at a time, and check it.

    Raises:
        ValueError: an unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"unknown checkpoint {name!r}; one of {', '.join(NAMES)}")
    write_tiny_checkpoint(out, seed=seed)
    if name == "clip-l":
        for shard in out.glob("*.safetensors"):
            shard.unlink()
        _change(out / "config.json", _FULL_GRID)
        _change(out / "towers/clip/config.json", _FULL_CLIP)
        _change(out / "towers/clip/preprocessor_config.json", _CLIP_INPUT)
        _change(out / "towers/dinov2/config.json", {"image_size": DINOV2_SIDE})
        write_shards(out, _tensors(clip_l_shapes(_tiny_shapes()), seed))
    Checkpoint(out).check()


_FULL_GRID = {
    "image_feat_size": GRID,
    "num_routing_tokens": ROUTING_TOKENS,
    "max_position_embeddings": CONTEXT,
    "tokenizer_model_max_length": CONTEXT,
}
_FULL_CLIP = {
    "num_hidden_layers": CLIP_LAYERS,
    "intermediate_size": CLIP_INTERMEDIATE,
    "image_size": 14 * CLIP_PATCHES,
}
_CLIP_INPUT = {
    "crop_size": {"height": 14 * GRID, "width": 14 * GRID},
    "size": {"shortest_edge": 14 * GRID},
}


def clip_l_shapes(tiny: Shapes) -> Shapes:
    """The tiny checkpoint's tensors with CLIP-L's layers, and every table as long as the grid asks."""
    layer = {
        name.removeprefix(f"{_CLIP}encoder.layers.0."): shape
        for name, shape in tiny.items()
        if name.startswith(f"{_CLIP}encoder.layers.0.")
    }
    layer["mlp.fc1.weight"][0] = layer["mlp.fc1.bias"][0] = layer["mlp.fc2.weight"][1] = CLIP_INTERMEDIATE
    shapes = {name: shape for name, shape in tiny.items() if not name.startswith(f"{_CLIP}encoder.layers.")}
    for index in range(CLIP_LAYERS):
        shapes |= {f"{_CLIP}encoder.layers.{index}.{name}": shape for name, shape in layer.items()}
    shapes[f"{_CLIP}embeddings.position_embedding.weight"][0] = 1 + CLIP_PATCHES**2
    shapes[_DINOV2_POSITIONS][1] = 1 + (DINOV2_SIDE // 14) ** 2
    for name, shape in shapes.items():
        if _ADAPTER_TABLE.fullmatch(name):
            shape[-2] = GRID**2
    return shapes


def _tiny_shapes() -> Shapes:
    with resources.as_file(TINY) as tiny:
        shapes: Shapes = json.loads((tiny / "tensors.json").read_text(encoding="utf-8"))
    return shapes


def _change(file: Path, changes: dict[str, Any]) -> None:
    data = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(data | changes, indent=2), encoding="utf-8")


def _tensors(shapes: Shapes, seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    for name, shape in shapes.items():
        yield name, torch.from_numpy(random_tensor(name, shape, seed))


if __name__ == "__main__":
    write_checkpoint(sys.argv[1], Path(sys.argv[2]))
