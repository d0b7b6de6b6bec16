"""The language model's graph: embeddings and a key/value cache in, the last position's logits and the cache out.

optimum-onnx exports it, through its Llama configuration; what differs here is that embeddings come in instead of
token ids, because visual tokens have no ids, and that only the logits that choose the next token leave the graph.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from optimum.exporters.onnx import export
from optimum.exporters.onnx.model_configs import LlamaOnnxConfig
from torch import Tensor
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from mova_export.graphs.graph import Axes, Graph
from mova_export.graphs.inputs import random

_PAST, _NEW = 3, 5


class EmbeddingsLlama(LlamaForCausalLM):  # type: ignore[misc]  # transformers is not typed
    """A Llama whose forward takes embeddings and gives the last position's logits."""

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past_key_values: Any = None,
        use_cache: bool | None = None,
    ) -> Any:
        """Embeddings [batch, new, hidden], mask [batch, past + new], positions [batch, new] to logits [batch, 1, V]."""
        return super().forward(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            logits_to_keep=1,
        )


class EmbeddingsLlamaOnnxConfig(LlamaOnnxConfig):  # type: ignore[misc]
    """optimum's Llama, taking `inputs_embeds`."""

    @property
    def inputs(self) -> dict[str, Axes]:
        """Names and dynamic axes of the inputs."""
        axes = dict(super().inputs)
        return {"inputs_embeds": axes.pop("input_ids"), **axes}

    @property
    def outputs(self) -> dict[str, Axes]:
        """Names and dynamic axes of the outputs."""
        return {**super().outputs, "logits": {0: "batch_size"}}

    def generate_dummy_inputs(self, framework: str = "pt", **shapes: Any) -> dict[str, Any]:
        """The inputs to trace with: a batch of two, with a cache."""
        config = self._config
        cache = random(2, config.num_key_value_heads, _PAST, config.head_dim)
        return {
            "inputs_embeds": random(2, _NEW, config.hidden_size),
            "attention_mask": torch.ones(2, _PAST + _NEW, dtype=torch.int64),
            "position_ids": torch.arange(_PAST, _PAST + _NEW).expand(2, -1),
            "past_key_values": [(cache, cache) for _ in range(config.num_hidden_layers)],
        }


def language_graph(module: LlamaForCausalLM) -> Graph:
    """The graph's probes: five embeddings after a cache of three; a prompt's beginning; one token after a cache."""
    config: LlamaConfig = module.config
    module.__class__ = EmbeddingsLlama
    # sdpa would be exported with guards against rows that attend to nothing, a pass over all scores in every layer.
    module.set_attn_implementation("eager")
    cache_shape = (1, config.num_key_value_heads, _PAST, config.head_dim)
    probe = {
        "inputs_embeds": random(1, _NEW, config.hidden_size) * module.model.embed_tokens.weight.std(),
        "attention_mask": torch.ones(1, _PAST + _NEW, dtype=torch.int64),
        "position_ids": torch.arange(_PAST, _PAST + _NEW)[None],
    }
    outputs: dict[str, Axes] = {"logits": {0: "batch"}}
    for layer in range(config.num_hidden_layers):
        for part in ("key", "value"):
            probe[f"past_key_values.{layer}.{part}"] = random(*cache_shape)
            outputs[f"present.{layer}.{part}"] = {0: "batch", 2: "past + new"}
    dynamic: dict[str, Axes] = {
        name: {0: "batch", 2: "past"} if name.startswith("past") else {0: "batch", 1: "new"} for name in probe
    }
    dynamic["attention_mask"] = {0: "batch", 1: "past + new"}
    more = {"no cache": _resized(probe, _NEW, 0), "one token": _resized(probe, 1, _PAST)}
    return Graph(module, CachedLlama(module), probe, probe, dynamic, outputs, more)


def _resized(probe: dict[str, Tensor], new: int, past: int) -> dict[str, Tensor]:
    """The probe with fewer embeddings, after a shorter cache."""
    changed = {name: tensor[:, :, :past] if name.startswith("past") else tensor for name, tensor in probe.items()}
    changed["inputs_embeds"] = probe["inputs_embeds"][:, :new]
    changed["attention_mask"] = probe["attention_mask"][:, : past + new]
    changed["position_ids"] = torch.arange(past, past + new)[None]
    return changed


class CachedLlama(torch.nn.Module):
    """The language model with its cache as plain tensors, in the graph's order."""

    def __init__(self, llama: EmbeddingsLlama) -> None:
        super().__init__()
        self.llama = llama

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor, position_ids: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        """Logits, then key and value of every layer."""
        cache = DynamicCache.from_legacy_cache(tuple(zip(past[::2], past[1::2], strict=True)))
        out = self.llama(inputs_embeds, attention_mask, position_ids, past_key_values=cache, use_cache=True)
        present = out.past_key_values.to_legacy_cache()
        return (out.logits, *(tensor for layer in present for tensor in layer))


def write_with_optimum(module: EmbeddingsLlama, path: Path, opset: int) -> None:
    """Export to an ONNX file."""
    config = EmbeddingsLlamaOnnxConfig(module.config, task="text-generation", use_past=True, use_past_in_inputs=True)
    export(module, config, path, opset=opset, disable_dynamic_axes_fix=True)
