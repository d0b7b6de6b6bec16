"""Writes the tiny checkpoint: configuration files as they are, weights made up, in shards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save_file

from mova_export.demo.weights import random_tensor

SHARD_BYTES = 120_000_000
_ROUTING_CHARACTERS = "ABCDEFG,"
_LOUDER = 2.5
"""The language model's rows for routing letters are louder, so that its gibberish names experts now and then."""

TINY = resources.files(__package__) / "tiny"
IMAGE = resources.files(__package__) / "chart.png"


def write_tiny_checkpoint(out: Path, *, seed: int = 0, dtype: Literal["float32", "bfloat16"] = "float32") -> None:
    """Write a checkpoint in the published layout.

    Args:
        out: its folder.
        seed: another seed, other weights; 2, for one, routes to three experts.
        dtype: of the weights; rotary tables stay float32.
    """
    with resources.as_file(TINY) as tiny:
        shutil.copytree(tiny, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("tensors.json"))
        shapes = json.loads((tiny / "tensors.json").read_text(encoding="utf-8"))
    vocabulary = json.loads((out / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    letters = [vocabulary[character] for character in _ROUTING_CHARACTERS]
    write_shards(out, _tensors(shapes, seed, dtype, letters))


def write_shards(out: Path, tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
    """Write tensors as safetensors shards with an index, holding one shard in memory."""
    written: list[list[str]] = []

    def write(shard: dict[str, torch.Tensor]) -> None:
        save_file(shard, _unnumbered(out, len(written)), metadata={"format": "pt"})
        written.append(list(shard))

    shard: dict[str, torch.Tensor] = {}
    used = total = 0
    for name, tensor in tensors:
        if shard and used + tensor.nbytes > SHARD_BYTES:
            write(shard)
            shard, used = {}, 0
        shard[name] = tensor
        used, total = used + tensor.nbytes, total + tensor.nbytes
    write(shard)

    weight_map = {}
    for number, names in enumerate(written):
        file = f"model-{number + 1:05d}-of-{len(written):05d}.safetensors"  # how many is known only now
        _unnumbered(out, number).rename(out / file)
        weight_map.update(dict.fromkeys(names, file))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")


def _unnumbered(out: Path, number: int) -> Path:
    return out / f"shard-{number}.safetensors.partial"


def _tensors(
    shapes: dict[str, list[int]], seed: int, dtype: str, letters: list[int]
) -> Iterator[tuple[str, torch.Tensor]]:
    for name, shape in shapes.items():
        array = random_tensor(name, shape, seed)
        if name == "lm_head.weight":
            array[letters] *= np.float32(_LOUDER)
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        yield name, tensor.to(torch.bfloat16) if dtype == "bfloat16" and "freqs_" not in name else tensor
