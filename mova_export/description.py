"""What the manifest says of a checkpoint as a whole."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Collection

from tokenizers import Tokenizer

from mova_export.bundle import BundleWriter
from mova_export.checkpoint.layout import EXPERTS
from mova_export.checkpoint.load import EMBEDDINGS, Checkpoint
from mova_export.checkpoint.prompts import routing_letters
from mova_export.checkpoint.tokenizer import beginning_of_sequence, cleans_up_spaces
from mova_export.graphs.components import EXPERT_INPUTS
from mova_runtime.bundle import sha256_of
from mova_runtime.bundle.manifest import Expert, Language, Provenance, Vision

_TOOLS = ("mova-export", "torch", "transformers", "optimum-onnx", "onnx", "onnxscript", "onnxruntime")


def vision(checkpoint: Checkpoint) -> Vision:
    """Sizes of the fused image, and the experts."""
    config = checkpoint.config
    return Vision(
        grid=config.grid,
        visual_tokens=(config.grid // 2) ** 2,
        routing_tokens=config.routing_tokens,
        top_k=config.top_k,
        experts=tuple(
            Expert(name, letter, EXPERT_INPUTS[name]) for name, letter in zip(EXPERTS, routing_letters(), strict=True)
        ),
    )


def language(writer: BundleWriter, checkpoint: Checkpoint, tokenizer: Tokenizer, chosen: Collection[str]) -> Language:
    """Sizes of the language model; its tokenizer is written, and its embedding table where the model was exported."""
    llama = checkpoint.llama_config
    embeddings = None
    if "llm" in chosen:
        table = checkpoint.reader.tensor(EMBEDDINGS)
        embeddings = writer.array("components/llm/embeddings.npy", table)
    return Language(
        tokenizer=writer.text("tokenizers/language.json", tokenizer.to_str()),
        bos=beginning_of_sequence(checkpoint.path, tokenizer),
        embeddings=embeddings,
        hidden=llama.hidden_size,
        layers=llama.num_hidden_layers,
        key_value_heads=llama.num_key_value_heads,
        head_dim=llama.head_dim,
        context=checkpoint.config.context,
        max_prompt=checkpoint.config.max_prompt,
        clean_up_spaces=cleans_up_spaces(checkpoint.path),
    )


def provenance(checkpoint: Checkpoint) -> Provenance:
    """Hashes of the checkpoint's files, and the versions of the tools."""
    files = [checkpoint.path / "config.json", *checkpoint.reader.files]
    versions = {name: importlib.metadata.version(name) for name in _TOOLS}
    return Provenance(checkpoint.config.model_type, {file.name: sha256_of(file) for file in files}, versions)
