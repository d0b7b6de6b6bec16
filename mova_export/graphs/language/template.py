"""A Llama of few layers and narrow matrices as a graph, node for node that of the full one.

optimum-onnx exports it, through its Llama configuration; what differs here is that embeddings come in instead of
token ids, because visual tokens have no ids, and that only the logits that choose the next token leave the graph.

Tracing needs two to three times a model's size in memory. No node of a Llama's graph depends on the lengths that make
its matrices large, though: the stream's width, the MLP's and the vocabulary are axes of weights alone. Heads and their
width are in the graph, and stay.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from optimum.exporters.onnx import export
from optimum.exporters.onnx.model_configs import LlamaOnnxConfig
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from mova_export.graphs.graph import Axes
from mova_export.graphs.inputs import SEED, random
from mova_export.graphs.names import name_transposed

_PAST, _NEW = 3, 5
_NARROW = 24


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


def template(config: LlamaConfig, layers: int, opset: int) -> ir.Model:
    """The graph of a model of `layers` layers, as narrow as can be, in memory; weights under their parameters' names.

    A weight that the graph holds transposed has `TRANSPOSED` after its parameter's name.
    """
    narrow = copy.deepcopy(config)
    narrow.num_hidden_layers = layers
    narrow.head_dim = config.head_dim
    narrow.hidden_size = config.num_attention_heads  # has to be divisible by them
    narrow.intermediate_size = narrow.vocab_size = _NARROW
    narrow.pad_token_id = None  # is an index into the vocabulary
    narrow.tie_word_embeddings = False
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(SEED)
        module = EmbeddingsLlama(narrow).eval()
        for parameter in module.parameters():  # no two are equal, else the exporter would make one of them
            torch.nn.init.normal_(parameter.requires_grad_(False))
    return traced(module, opset)


def traced(module: EmbeddingsLlama, opset: int) -> ir.Model:
    """A module as a graph in memory."""
    # sdpa would be exported with guards against rows that attend to nothing, a pass over all scores in every layer.
    module.set_attn_implementation("eager")
    config = EmbeddingsLlamaOnnxConfig(module.config, task="text-generation", use_past=True, use_past_in_inputs=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "llm.onnx"
        export(module, config, path, opset=opset, disable_dynamic_axes_fix=True)
        model = ir.load(path)
        ir.external_data.load_to_model(model)  # before the temporary file goes
    name_transposed(model, module)
    return model
