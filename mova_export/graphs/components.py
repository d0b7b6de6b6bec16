"""The graph of every component of a model."""

from __future__ import annotations

from mova_export.checkpoint.blueprint import llama_config
from mova_export.checkpoint.layout import EXPERTS
from mova_export.checkpoint.source import Source
from mova_export.graphs.adapter import adapter_graph
from mova_export.graphs.graph import Graph
from mova_export.graphs.language.graph import LanguageGraph, language_graph
from mova_export.graphs.vision import base_graph, expert_graph, text_graph
from mova_runtime.bundle.manifest import LANGUAGE_MODEL, ImageInput

EXPERT_INPUTS: dict[str, ImageInput] = {
    "dinov2": "dinov2",
    "vary": "high",
    "codetr": "high",
    "pix2struct": "flattened",
    "deplot": "flattened",
    "biomedclip": "clip",
    "sam": "high",
}


def component_graph(source: Source, name: str) -> Graph | LanguageGraph:
    """Make one component's graph; its weights are loaded, but for the language model's, which are read as needed."""
    if name == LANGUAGE_MODEL:
        return language_graph(llama_config(source.config), source.weights(name))
    module = source.load(name)
    if name == "base":
        return base_graph(module, source.preprocessing.clip)  # type: ignore[arg-type]  # `load` gives each its own
    if name in EXPERTS:
        return expert_graph(module, getattr(source.preprocessing, EXPERT_INPUTS[name]))  # type: ignore[arg-type]
    if name == "text":
        return text_graph(module)  # type: ignore[arg-type]
    return adapter_graph(module)  # type: ignore[arg-type]
