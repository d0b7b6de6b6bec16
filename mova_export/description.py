"""What the manifest says of a model as a whole."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Collection

from mova_export.bundle import BundleWriter
from mova_export.checkpoint.blueprint import llama_config
from mova_export.checkpoint.layout import EXPERTS
from mova_export.checkpoint.prompts import routing_letters
from mova_export.checkpoint.source import EMBEDDINGS, Source
from mova_export.checkpoint.tokenizer import Tokenizers
from mova_export.graphs.components import EXPERT_INPUTS
from mova_runtime.bundle import sha256_of
from mova_runtime.bundle.manifest import Expert, Language, Provenance, Vision

_TOOLS = ("mova-export", "torch", "transformers", "optimum-onnx", "onnx", "onnxscript", "onnxruntime")


def vision(source: Source) -> Vision:
    """Sizes of the fused image, and the experts."""
    config = source.config
    return Vision(
        grid=config.grid,
        visual_tokens=(config.grid // 2) ** 2,
        routing_tokens=config.routing_tokens,
        top_k=config.top_k,
        experts=tuple(
            Expert(name, letter, EXPERT_INPUTS[name]) for name, letter in zip(EXPERTS, routing_letters(), strict=True)
        ),
    )


def language(writer: BundleWriter, source: Source, tokenizers: Tokenizers, chosen: Collection[str]) -> Language:
    """Sizes of the language model; its tokenizer is written, and its embedding table where the model was exported."""
    llama = llama_config(source.config)
    embeddings = None
    if "llm" in chosen:
        table = source.reader.tensor(EMBEDDINGS)
        embeddings = writer.array("components/llm/embeddings.npy", table)
    return Language(
        tokenizer=writer.text("tokenizers/language.json", tokenizers.language.to_str()),
        bos=tokenizers.bos,
        embeddings=embeddings,
        hidden=llama.hidden_size,
        layers=llama.num_hidden_layers,
        key_value_heads=llama.num_key_value_heads,
        head_dim=llama.head_dim,
        context=source.config.context,
        max_prompt=source.config.max_prompt,
        clean_up_spaces=tokenizers.clean_up_spaces,
    )


def provenance(source: Source) -> Provenance:
    """Hashes of the files that the weights came from, and the versions of the tools."""
    versions = {name: importlib.metadata.version(name) for name in _TOOLS}
    return Provenance(source.origin, {file.name: sha256_of(file) for file in source.files}, versions)
