"""What torch makes of the language model's probes, with one decoder layer's weights in memory at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.integrations.accelerate import init_empty_weights
from transformers.modeling_utils import no_init_weights

from mova_export.checkpoint.tensors import Tensors
from mova_export.graphs.graph import Expected
from mova_export.operations import counted


class _Recorder(nn.Module):
    """Stands in for the decoder layers: remembers what they are given besides the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, Any] = {}

    def forward(self, stream: Tensor, **given: Any) -> Tensor:
        """The stream as it came."""
        self.given = given
        return stream


@dataclass
class _Run:
    """A probe on its way through the layers: the stream [batch, new, hidden], the cache, what every layer is given."""

    stream: Tensor
    cache: DynamicCache
    given: dict[str, Any]
    operations: int = 0

    def go(self, compute: Callable[[], Tensor]) -> Tensor:
        """A step's result; its operations are added up."""
        found, operations = counted(compute)
        self.operations += operations
        return found


@torch.no_grad()
def reference(config: LlamaConfig, weights: Tensors, cases: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Expected]:
    """Logits [batch, 1, V] of the last position, and key and value of every layer, for every probe.

    Args:
        config: of the model.
        weights: by transformers' names; each is asked for once.
        cases: embeddings, mask, positions, and the cache's tensors, by the graph's names.
    """
    llama = _empty(config)
    model, layers, norm = llama.model, llama.model.layers, llama.model.norm
    recorder = _Recorder()
    model.layers, model.norm = nn.ModuleList([recorder]), nn.Identity()
    runs = {case: _begun(model, recorder, inputs) for case, inputs in cases.items()}
    for index, layer in enumerate(layers):
        with _filled(layer, f"model.layers.{index}", weights):
            for run in runs.values():
                run.stream = run.go(partial(layer, run.stream, **run.given))
    with _filled(norm, "model.norm", weights):
        for run in runs.values():
            run.stream = norm(run.stream[:, -1:])
    with _filled(llama.lm_head, "lm_head", weights):
        for run in runs.values():
            run.stream = run.go(partial(llama.lm_head, run.stream))
    return {case: Expected(_outputs(run), run.operations) for case, run in runs.items()}


def _begun(model: nn.Module, recorder: _Recorder, inputs: Mapping[str, Tensor]) -> _Run:
    past = [tensor for name, tensor in inputs.items() if name.startswith("past_key_values.")]
    cache = DynamicCache.from_legacy_cache(tuple(zip(past[::2], past[1::2], strict=True)))
    given = {name: inputs[name] for name in ("inputs_embeds", "attention_mask", "position_ids")}
    stream = model(**given, past_key_values=cache, use_cache=True).last_hidden_state
    return _Run(stream, cache, recorder.given)


def _outputs(run: _Run) -> dict[str, Tensor]:
    found = {"logits": run.stream}
    for index, (key, value) in enumerate(run.cache.to_legacy_cache()):
        found[f"present.{index}.key"], found[f"present.{index}.value"] = key, value
    return found


class CachedLlama(nn.Module):
    """The language model as one module, with its cache as plain tensors, in the graph's order."""

    def __init__(self, llama: LlamaForCausalLM) -> None:
        super().__init__()
        self.llama = llama

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor, position_ids: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        """Logits of the last position, then key and value of every layer."""
        cache = DynamicCache.from_legacy_cache(tuple(zip(past[::2], past[1::2], strict=True)))
        out = self.llama(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, position_ids=position_ids,
            past_key_values=cache, use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        present = out.past_key_values.to_legacy_cache()
        return (out.logits, *(tensor for layer in present for tensor in layer))


def whole(config: LlamaConfig, weights: Tensors) -> CachedLlama:
    """The language model with all of its weights in memory."""
    llama = _empty(config)
    llama.load_state_dict({key: weights.tensor(key) for key in llama.state_dict()}, strict=True, assign=True)
    return CachedLlama(llama.requires_grad_(False))


def _empty(config: LlamaConfig) -> LlamaForCausalLM:
    """A model whose parameters have shapes and no memory."""
    with no_init_weights(), init_empty_weights(include_buffers=False):
        llama = LlamaForCausalLM(config).eval()
    llama.set_attn_implementation("eager")
    return llama


@contextlib.contextmanager
def _filled(module: nn.Module, prefix: str, weights: Tensors) -> Iterator[None]:
    """A module without memory that has its weights for as long as this takes."""
    state = {key: weights.tensor(f"{prefix}.{key}") for key in module.state_dict()}
    module.load_state_dict(state, strict=True, assign=True)
    del state
    try:
        yield
    finally:
        module.to("meta")
