"""Adapters with random weights, small enough for Triton's interpreter: in torch, and packed for the kernels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from mova_export.graphs.pairs import AdapterGraph
from mova_export.kernels.packing import plan
from mova_export.kernels.parameters import Parameters
from mova_export.kernels.weights import layout, write
from mova_export.modules.adapter.adapter import AdapterConfig, MovAdapter
from mova_runtime.bundle.kernels import AdapterShape, AdapterWeights


@dataclass(frozen=True)
class SmallAdapter:
    """Its sizes; everything else follows, the same each time."""

    config: AdapterConfig

    @property
    def shape(self) -> AdapterShape:
        sizes = {name: getattr(self.config, name) for name in ("channels", "text_channels", "hidden", "grid")}
        counts = {name: getattr(self.config, name) for name in ("blocks", "experts", "top_k")}
        channels = self.config.channels
        return AdapterShape(**sizes, **counts, feed_forward=int(channels * 8 / 3), squeezed=channels // 4)

    @cached_property
    def module(self) -> MovAdapter:
        """In torch, float32; norms have scales and shifts."""
        generator = torch.Generator().manual_seed(0)
        module = MovAdapter(self.config).eval().requires_grad_(False)
        angle = torch.rand(self.config.tokens, 32, generator=generator).repeat_interleave(2, dim=1) * 6
        for name, tensor in module.state_dict().items():
            if name.endswith("freqs_cos"):
                tensor.copy_(angle.cos())
            elif name.endswith("freqs_sin"):
                tensor.copy_(angle.sin())
            elif "norm" in name or "ln" in name or ".bn." in name:
                tensor.normal_(std=0.2, generator=generator).add_(float(name.endswith("weight")))
            else:
                tensor.normal_(std=tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.2, generator=generator)
        return module

    def pack(self, path: Path, precision: str) -> AdapterWeights:
        """Pack its weights into a file, as `mova kernels` does a bundle's; their record."""
        state = AdapterGraph(self.module).state_dict()
        initializers = {name: ir.tensor(tensor.numpy(), name=name) for name, tensor in state.items()}
        parameters = Parameters("0" * 64, "fp32", initializers)
        tensors = plan(parameters, self.shape, precision)  # type: ignore[arg-type]
        file = write(tensors, path, path.name)
        return AdapterWeights(precision, self.shape, parameters.graph, file, layout(tensors))  # type: ignore[arg-type]

    def inputs(self, batch: int, pairs: list[tuple[int, int]], seed: int = 1) -> dict[str, np.ndarray]:
        """Random inputs of a run over (image, expert) pairs."""
        rng, config = np.random.default_rng(seed), self.config

        def normal(*shape: int) -> np.ndarray:
            return rng.normal(size=shape).astype(np.float32)

        cache = (len(pairs), config.blocks, config.tokens, config.channels)
        pair = np.array(pairs, np.int64).reshape(-1, 2)
        return {
            "base": normal(batch, config.tokens, config.channels),
            "text": normal(batch, config.text_channels),
            "keys": normal(*cache),
            "values": normal(*cache),
            "pair_image": pair[:, 0].copy(),
            "pair_expert": pair[:, 1].copy(),
        }

    def by_torch(self, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What torch makes of inputs, image by image and expert by expert."""
        visual, gates = self.module(*(torch.from_numpy(given[name]) for name in self.inputs(1, [])))
        return {"visual": visual.numpy(), "gates": gates.numpy()}


ODD = SmallAdapter(AdapterConfig(channels=192, text_channels=48, hidden=80, grid=6, blocks=2, experts=7, top_k=3))
"""No size is a multiple of a tile: 36 tokens, 512 columns in a feed-forward layer that is not padded."""

MINI = SmallAdapter(AdapterConfig(channels=64, text_channels=16, hidden=32, grid=2, blocks=2, experts=5, top_k=2))
"""As little work as there can be: one head, four tokens, 170 columns padded to 192."""
