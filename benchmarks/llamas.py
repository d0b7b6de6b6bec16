"""Llamas with random weights to measure on: one of a billion parameters, and a tiny one that a script is tried with.

What a product takes does not depend on its numbers, but how many bits the exporter gives a matrix does: random weights
of full precision bear 4 bits worse than trained ones, so most would get 8. Hence every matrix is rounded to 4 bits when
it is made, block by block as the exporter's quantiser does it. Rounding it once more loses nothing, and what is
measured is what a model takes whose matrices all bear 4 bits.
"""

from __future__ import annotations

from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mova_export.checkpoint.config import CheckpointConfig
from mova_export.checkpoint.infer import TowerSizes
from mova_export.checkpoint.layout import component_of, published_name
from mova_export.checkpoint.models import MODELS
from mova_export.checkpoint.random_model import RandomModel, RandomTensors
from mova_export.checkpoint.source import Source
from mova_export.checkpoint.tensors import Tensors
from mova_export.checkpoint.tokenizer import Tokenizers
from mova_export.demo.checkpoint import TINY
from mova_export.graphs.quantise import BLOCK
from mova_runtime.bundle.manifest import LANGUAGE_MODEL

LLAMAS: dict[str, dict[str, Any]] = {
    # Llama 3.2 1B's config.json, with the positions of Llama 3 and a shorter context.
    "llama-1b": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 2048, "rope_theta": 500000.0,
        "tie_word_embeddings": True,
    },
    "llama-tiny": {
        "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 2048, "rope_theta": 500000.0,
        "tie_word_embeddings": True,
    },
}  # fmt: skip
_AT_ONCE = 1 << 15
"""Blocks that are rounded at once: an embedding table's copies would take gigabytes."""


def four_bit(weight: np.ndarray) -> np.ndarray:
    """Round a matrix [outputs, inputs] to what 4 bits can say, in place; the inputs are a multiple of `BLOCK`.

    In each block of inputs the number furthest from 0 becomes -8 steps, and every other a whole number of steps from
    -8 to 7.
    """
    blocks = weight.reshape(-1, BLOCK)
    for start in range(0, len(blocks), _AT_ONCE):
        part = blocks[start : start + _AT_ONCE]
        furthest = np.take_along_axis(part, np.abs(part).argmax(axis=1)[:, None], axis=1)
        step = furthest / np.float32(-8)
        part[:] = np.clip(np.rint(part / step), -8, 7) * step
    return weight


class FourBitTensors(RandomTensors):
    """Random tensors of which the language model's matrices lose nothing when they are rounded to 4 bits."""

    def tensor(self, name: str) -> Tensor:
        """A tensor in float32."""
        tensor = super().tensor(name)
        is_spoken = component_of(name) == LANGUAGE_MODEL and tensor.ndim == 2
        return torch.from_numpy(four_bit(tensor.numpy())) if is_spoken else tensor


class FourBitModel(RandomModel):
    """A published model with random weights whose language model bears 4 bits everywhere."""

    @property
    def origin(self) -> str:
        """See `Source.origin`."""
        return f"{super().origin}, the language model's rounded to 4 bits"

    @cached_property
    def reader(self) -> Tensors:  # type: ignore[override]  # as `RandomModel.reader`
        """See `RandomModel.reader`; of Pix2Struct's tensors, too, nothing is smaller: it is not exported from here."""
        return FourBitTensors(dict(super().reader), self._seed, {})


class RandomLlama(Source):
    """A model of which the language model alone can be exported; the rest of its sizes are MoVA-8B's."""

    def __init__(self, name: str, seed: int = 0) -> None:
        """`name`: one of `LLAMAS`."""
        self._name, self._seed, self._rest = name, seed, MODELS["mova-8b"]
        sizes = LLAMAS[name]
        limit = {"tokenizer_model_max_length": sizes["max_position_embeddings"]}
        super().__init__(CheckpointConfig.of({**self._rest.config_json, **sizes, **limit}, Path(name)), self._rest)

    @property
    def origin(self) -> str:
        """See `Source.origin`."""
        return f"{self._name}, random weights of seed {self._seed}, rounded to 4 bits"

    @property
    def files(self) -> list[Path]:
        """None: the origin tells which weights these are."""
        return []

    @cached_property
    def reader(self) -> Tensors:  # type: ignore[override]  # made when it is needed, as a checkpoint's is not
        """The language model's tensors; its output matrix is the embedding table, which is there once."""
        module = self._blueprint(LANGUAGE_MODEL)
        shapes = {
            published_name(LANGUAGE_MODEL, key): tuple(tensor.shape)
            for key, tensor in module.state_dict().items()
            if key != "lm_head.weight"
        }
        return FourBitTensors(shapes, self._seed, {})

    def sizes(self, component: str) -> TowerSizes:
        """See `Source.sizes`."""
        return self._rest.sizes[component]

    def tokenizers(self) -> Tokenizers:
        """Those of the tiny checkpoint: they have fewer tokens than the model has embeddings."""
        with resources.as_file(TINY) as tiny:
            return Tokenizers.read(tiny, tiny / "bert")
