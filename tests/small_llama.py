"""Small Llamas of random weights, their graphs, and what torch makes of their probes."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mova_export.checkpoint.tensors import HeldTensors
from mova_export.graphs.graph import Expected
from mova_export.graphs.language.graph import LanguageGraph, language_graph
from mova_export.reference import Reference
from mova_runtime.parity.probe import Case

SHAPES: dict[str, dict[str, Any]] = {
    "shared heads": {},
    "one layer": {"num_hidden_layers": 1},
    "two layers": {"num_hidden_layers": 2},
    "a head each": {"num_key_value_heads": 4, "num_hidden_layers": 3},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "wider heads": {"head_dim": 32},
    "scaled positions": {
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 512,
        }
    },
}  # fmt: skip


def llama(**changes: Any) -> LlamaForCausalLM:
    """A small Llama of random weights, no two norms alike."""
    sizes = {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 5, "num_attention_heads": 4, "head_dim": 16,
        "num_key_value_heads": 2, "vocab_size": 101, "max_position_embeddings": 2048, "rope_theta": 500000.0,
    }  # fmt: skip
    torch.manual_seed(0)
    module = LlamaForCausalLM(LlamaConfig(**{**sizes, **changes})).eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter += torch.randn_like(parameter) * (0.1 if parameter.ndim == 1 else parameter.shape[1] ** -0.5)
    return module


def graph_of(module: LlamaForCausalLM) -> LanguageGraph:
    return language_graph(module.config, HeldTensors(module.state_dict()))


def cases(graph: LanguageGraph) -> dict[str, dict[str, torch.Tensor]]:
    return {"": graph.probe, **graph.more_probes}


def held_against(found: dict[str, Expected], graph: LanguageGraph) -> Reference:
    """The reference of a graph's probes."""
    numpy = [
        Case(case, *({name: tensor.numpy() for name, tensor in t.items()} for t in (inputs, found[case].outputs)))
        for case, inputs in cases(graph).items()
    ]
    return Reference("llm", tuple(numpy))
