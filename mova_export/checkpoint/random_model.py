"""A published model with random weights: its shapes, and nothing to download.

How long a component takes and what memory it needs depends on shapes alone, so this one is measured like the real one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from mova_export.checkpoint.config import CheckpointConfig
from mova_export.checkpoint.infer import TowerSizes
from mova_export.checkpoint.layout import COMPONENTS, component_of, published_name, tower_prefix
from mova_export.checkpoint.models import MODELS
from mova_export.checkpoint.source import Source
from mova_export.checkpoint.tensors import Tensors
from mova_export.checkpoint.tokenizer import Tokenizers
from mova_export.demo.checkpoint import TINY
from mova_export.demo.weights import random_language_tensor, random_tensor
from mova_export.errors import ExportError
from mova_runtime.bundle.manifest import LANGUAGE_MODEL

_LARGEST_SEED = 2**31 - 1
_QUERY = re.compile(r"encoder\.layer\.\d+\.attention\.query\.weight")


class RandomTensors(Tensors):
    """Every tensor is a function of its published name and a seed, made when it is asked for, and not kept."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], seed: int, factors: Mapping[str, float]) -> None:
        """`factors`: what some tensors are multiplied by."""
        self._shapes = shapes
        self._seed = seed
        self._factors = factors

    def __getitem__(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def tensor(self, name: str) -> Tensor:
        """A tensor in float32."""
        make = random_language_tensor if component_of(name) == LANGUAGE_MODEL else random_tensor
        tensor = torch.from_numpy(make(name, self._shapes[name], self._seed))
        return tensor.mul_(self._factors[name]) if name in self._factors else tensor


class RandomModel(Source):
    """A published model by its name and a seed, with the tiny checkpoint's tokenizers."""

    def __init__(self, name: str, seed: int = 0) -> None:
        """Look it up; nothing is made yet.

        Args:
            name: one of `MODELS`.
            seed: 0 to 2³¹-1; another seed, other weights.

        Raises:
            ExportError: no such model, or no such seed.
        """
        if name not in MODELS:
            raise ExportError(f"unknown preset {name!r}; one of {', '.join(MODELS)}")
        if not 0 <= seed <= _LARGEST_SEED:
            raise ExportError(f"seed {seed}: expected 0 to {_LARGEST_SEED}")
        self._name, self._seed, self._model = name, seed, MODELS[name]
        super().__init__(CheckpointConfig.of(dict(self._model.config_json), Path(name)), self._model)

    @property
    def origin(self) -> str:
        """The model's name, that its weights are random, and the seed."""
        return f"{self._name}, random weights of seed {self._seed}"

    @property
    def files(self) -> list[Path]:
        """None: the origin tells which weights these are."""
        return []

    @cached_property
    def reader(self) -> Tensors:  # type: ignore[override]  # the shapes take a second: not before they are needed
        """Tensors of the shapes that the components' modules have."""
        shapes = {
            published_name(component, key): tuple(tensor.shape)
            for component in COMPONENTS
            for key, tensor in self._blueprint(component).state_dict().items()
        }
        return RandomTensors(shapes, self._seed, dict(self._query_factors(shapes)))

    def sizes(self, component: str) -> TowerSizes:
        """See `Source.sizes`."""
        return self._model.sizes[component]

    def tokenizers(self) -> Tokenizers:
        """Those of the tiny checkpoint: they have fewer tokens than the model has embeddings, and know as much."""
        with resources.as_file(TINY) as tiny:
            return Tokenizers.read(tiny, tiny / "bert")

    def _query_factors(self, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, float]]:
        """Pix2Struct does not divide its attention's scores by √d_kv.

        Its queries are initialised smaller instead, as T5's are (arXiv 1910.10683); with others, every position would
        attend to one other, and rounding errors would grow from layer to layer.
        """
        for component in ("pix2struct", "deplot"):
            prefix = tower_prefix(component)
            factor = self._model.config(component)["d_kv"] ** -0.5
            for name in shapes:
                if name.startswith(prefix) and _QUERY.fullmatch(name, len(prefix)):
                    yield name, factor
