"""The language model's graph: embeddings and a key/value cache in, the last position's logits and the cache out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor, nn
from transformers import LlamaConfig

from mova_export.checkpoint.tensors import Tensors
from mova_export.errors import ExportError
from mova_export.graphs.graph import Axes, Expected
from mova_export.graphs.inputs import random
from mova_export.graphs.language.reference import reference, whole
from mova_export.graphs.language.repeat import LAYERS, repeat
from mova_export.graphs.language.template import template
from mova_export.graphs.names import TRANSPOSED

_PAST, _NEW = 3, 5
_EMBEDDINGS = "model.embed_tokens.weight"


@dataclass(frozen=True)
class LanguageGraph:
    """A Llama of any size as a graph, whose weights are never in memory all at once.

    probe: five embeddings after a cache of three.
    more_probes: a prompt's beginning; one token after a cache.
    dynamic: dynamic axes of the inputs, by name.
    outputs: names in order, and their dynamic axes.
    """

    config: LlamaConfig
    weights: Tensors
    probe: dict[str, Tensor]
    more_probes: dict[str, dict[str, Tensor]]
    dynamic: dict[str, Axes]
    outputs: dict[str, Axes]

    @property
    def parameters(self) -> int:
        """Parameters the model has, the embedding table among them."""
        return sum(math.prod(shape) for shape in self.weights.values())

    @property
    def reference(self) -> nn.Module:
        """What torch runs, with all weights in memory: for a model that fits."""
        return whole(self.config, self.weights)

    def expected(self, cases: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Expected]:
        """What torch makes of probes, with one layer in memory at a time."""
        return reference(self.config, self.weights, cases)

    def prompts(self, ids: Sequence[Sequence[int]]) -> list[dict[str, Tensor]]:
        """The inputs that read prompts, each with nothing before it."""
        table, empty = self.weights.tensor(_EMBEDDINGS), _resized(self.probe, 1, 0)
        return [
            {
                **empty,
                "inputs_embeds": table[torch.tensor(tokens)][None].float(),
                "attention_mask": torch.ones(1, len(tokens), dtype=torch.int64),
                "position_ids": torch.arange(len(tokens))[None],
            }
            for tokens in ids
        ]

    def model(self, opset: int) -> ir.Model:
        """The float32 graph. A weight is read when it is asked for, each time anew, and not kept.

        Raises:
            ExportError: optimum-onnx exported it in an unknown form.
        """
        full = repeat(template(self.config, LAYERS, opset), self.config.num_hidden_layers, self._initializer)
        for value in (*full.graph.inputs, *full.graph.outputs):
            width = {"inputs_embeds": self.config.hidden_size, "logits": self.config.vocab_size}.get(str(value.name))
            if width is not None and value.shape is not None:
                value.shape = ir.Shape([*value.shape[:-1], width])
        return full

    def _initializer(self, name: str, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        """A weight of the full graph by its name; a constant as it is in the template."""
        key = name.removesuffix(TRANSPOSED)
        if key not in self.weights:
            if name.startswith(("onnx::MatMul", "model.", "lm_head.")):
                raise ExportError(f"llm: the exported graph has a weight {name}, which the model has not")
            return tensor
        shape, transposed, weights = self.weights[key], name != key, self.weights

        def read() -> ir.TensorProtocol:
            found = weights.tensor(key)
            return ir.Tensor((found.t().contiguous() if transposed else found).numpy(), name=name)

        return ir.LazyTensor(
            read, dtype=ir.DataType.FLOAT, shape=ir.Shape(shape[::-1] if transposed else shape), name=name
        )


def language_graph(config: LlamaConfig, weights: Tensors) -> LanguageGraph:
    """The graph of a model; `weights` by transformers' names."""
    probe = {
        "inputs_embeds": random(1, _NEW, config.hidden_size) * weights.tensor(_EMBEDDINGS).std(),
        "attention_mask": torch.ones(1, _PAST + _NEW, dtype=torch.int64),
        "position_ids": torch.arange(_PAST, _PAST + _NEW)[None],
    }
    outputs: dict[str, Axes] = {"logits": {0: "batch"}}
    for layer in range(config.num_hidden_layers):
        for part in ("key", "value"):
            probe[f"past_key_values.{layer}.{part}"] = random(1, config.num_key_value_heads, _PAST, config.head_dim)
            outputs[f"present.{layer}.{part}"] = {0: "batch", 2: "past + new"}
    dynamic: dict[str, Axes] = {
        name: {0: "batch", 2: "past"} if name.startswith("past") else {0: "batch", 1: "new"} for name in probe
    }
    dynamic["attention_mask"] = {0: "batch", 1: "past + new"}
    more = {"no cache": _resized(probe, _NEW, 0), "one token": _resized(probe, 1, _PAST)}
    return LanguageGraph(config, weights, probe, more, dynamic, outputs)


def _resized(probe: dict[str, Tensor], new: int, past: int) -> dict[str, Tensor]:
    """The probe with fewer embeddings, after a shorter cache."""
    changed = {name: tensor[:, :, :past] if name.startswith("past") else tensor for name, tensor in probe.items()}
    changed["inputs_embeds"] = probe["inputs_embeds"][:, :new]
    changed["attention_mask"] = probe["attention_mask"][:, : past + new]
    changed["position_ids"] = torch.arange(past, past + new)[None]
    return changed
