"""The adapter's graph with our kernels in it as plugins of TensorRT, made from the weights packed for the kernels.

What the plugins don't hold is left to TensorRT: matrix products, the feed-forward layer, the convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mova_kernels.combine.reference import EPSILON
from mova_kernels.variants import HEAD_DIM
from mova_runtime.bundle.kernels import AdapterShape


class PluginAdapter(nn.Module):
    """Same arguments and results as `MovAdapter`; its plugins exist in TensorRT alone, so torch can export it only."""

    def __init__(self, shape: AdapterShape, slices: int, tensors: Mapping[str, Tensor]) -> None:
        """Take over packed tensors.

        Args:
            shape: of the adapter.
            slices: into which the plugin `gate_partial` cuts its sum.
            tensors: by name, as `AdapterWeights` lists them; matrices in the dtype to multiply in.
        """
        super().__init__()
        self.shape = shape
        self.slices = slices
        self._names = {name: name.replace(".", "_") for name in tensors}
        for name, tensor in tensors.items():
            self.register_buffer(self._names[name], tensor)
        self.dtype = tensors["head.0"].dtype

    def forward(
        self, base: Tensor, text: Tensor, keys: Tensor, values: Tensor, pair_image: Tensor, pair_expert: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `MovAdapter.forward`."""
        images = torch.arange(base.shape[0])
        belongs = (images[:, None] == pair_image[None]).to(base.dtype)
        chose = (pair_expert[:, None] == torch.arange(self.shape.experts)[None]).to(base.dtype)
        selected = torch.matmul(belongs, chose).to(torch.int32)
        image, expert = pair_image.to(torch.int32), pair_expert.to(torch.int32)
        itself, none = images.to(torch.int32), torch.zeros_like(images, dtype=torch.int32)
        one = torch.ones_like(base[:, 0, :1])

        x = base + self._of("pos_embed")
        gates = []
        for b in range(self.shape.blocks):
            name = f"blocks.{b}."
            gates.append(self._gate(name, x, text, selected))
            query = torch.bmm(
                self._normal(x).index_select(0, pair_image),
                self._of(f"{name}query").index_select(0, pair_expert).transpose(1, 2),
            )
            key, value = (cache[:, b].to(self.dtype) for cache in (keys, values))
            attended = self._attend("cross_attention", query, key, value, self._of(f"{name}query_bias"), expert)
            x = self._combine(f"{name}projection", *attended, gates[-1], image, expert, x)

            query, key, value = F.linear(self._normal(x), self._of(f"{name}qkv")).chunk(3, dim=-1)
            attended = self._attend("self_attention", query, key, value, self._of(f"{name}qkv_bias"), none)
            x = self._combine(f"{name}self_projection", *attended, one, itself, none, x)
            x = x + self._feed_forward(name, x)
        return self._project(x, base), torch.stack(gates)

    def _of(self, name: str) -> Tensor:
        tensor: Tensor = self.get_buffer(self._names[name])
        return tensor

    def _normal(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], eps=EPSILON).to(self.dtype)

    def _gate(self, name: str, x: Tensor, text: Tensor, selected: Tensor) -> Tensor:
        weight, bias = self._of(f"{name}gate1"), self._of(f"{name}gate1_bias")
        partial = torch.onnx.ops.symbolic(
            "mova::gate_partial",
            (x, text, weight),
            _PLUGIN,
            dtype=torch.float32,
            shape=(x.shape[0], self.slices, weight.shape[1]),
            version=1,
        )
        return torch.onnx.ops.symbolic(
            "mova::gate_weights",
            (partial, bias, self._of(f"{name}gate2"), self._of(f"{name}gate2_bias"), selected),
            _PLUGIN,
            dtype=torch.float32,
            shape=(x.shape[0], self.shape.experts),
            version=1,
        )

    def _attend(
        self, plugin: str, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, row: Tensor
    ) -> tuple[Tensor, Tensor]:
        pairs, tokens, channels = query.shape
        out, moments = torch.onnx.ops.symbolic_multi_out(
            f"mova::{plugin}",
            (query, key, value, bias, row, self._of("cosine"), self._of("sine")),
            _PLUGIN,
            dtypes=(self.dtype, torch.float32),
            shapes=((pairs, tokens, channels), (pairs, channels // HEAD_DIM, tokens, 2)),
            version=1,
        )
        return out, moments

    def _combine(
        self, name: str, attended: Tensor, moments: Tensor, gates: Tensor, image: Tensor, expert: Tensor, x: Tensor
    ) -> Tensor:
        weight, sums, bias = (self._of(name + part) for part in ("", "_sums", "_bias"))
        return torch.onnx.ops.symbolic(
            "mova::combine",
            (attended, moments, weight, sums, bias, gates, image, expert, x),
            _PLUGIN,
            dtype=torch.float32,
            shape=x.shape,
            version=1,
        )

    def _feed_forward(self, name: str, x: Tensor) -> Tensor:
        hidden = F.linear(self._normal(x), self._of(f"{name}mlp_in")).float() + self._of(f"{name}mlp_in_bias")
        gate, value = (half[..., : self.shape.feed_forward] for half in hidden.chunk(2, dim=-1))
        normal = self._normal(F.silu(gate) * value)
        out = F.linear(normal, self._of(f"{name}mlp_out")[:, : self.shape.feed_forward])
        return out.float() + self._of(f"{name}mlp_out_bias")

    def _project(self, x: Tensor, base: Tensor) -> Tensor:
        side = self.shape.grid
        tokens = self._stage(0, ((x + base) / 2).to(self.dtype), side)
        square = tokens.transpose(1, 2).unflatten(2, (side, side))
        pooled = F.avg_pool2d(square, 2).flatten(2).transpose(1, 2)
        tokens = self._stage(1, pooled, side // 2)
        hidden = F.linear(tokens, self._of("head.0")).float() + self._of("head.0_bias")
        out = F.linear(F.gelu(hidden).to(self.dtype), self._of("head.2"))
        return out.float() + self._of("head.2_bias")

    def _stage(self, index: int, x: Tensor, side: int) -> Tensor:
        """A RegNet stage over tokens, [batch, side², channels] to the same."""

        def of(part: str) -> Tensor:
            return self._of(f"stages.{index}.{part}")

        def norm(tokens: Tensor, which: int) -> Tensor:
            scale, shift = of(f"norm{which}_weight"), of(f"norm{which}_bias")
            return F.layer_norm(tokens.float(), scale.shape, scale, shift, EPSILON)

        hidden = F.silu(norm(F.linear(x, of("conv1")), 1)).transpose(1, 2).unflatten(2, (side, side))
        taps = of("depthwise").T.unflatten(1, (3, 3))[:, None]
        hidden = F.conv2d(hidden, taps, padding=1, groups=taps.shape[0]).flatten(2).transpose(1, 2)
        hidden = F.silu(norm(hidden, 2))
        squeezed = F.silu(hidden.mean(dim=1) @ of("squeeze").float() + of("squeeze_bias"))
        scale = (squeezed @ of("excite").float() + of("excite_bias")).sigmoid()
        hidden = (hidden * scale[:, None]).to(self.dtype)
        return (norm(F.linear(hidden, of("conv3")), 3) + x.float()).to(self.dtype)


_PLUGIN: dict[str, Any] = {"plugin_namespace": "mova", "plugin_version": "1"}
