"""The language model's graph with keys and values in one buffer, as ONNX Runtime runs it on a processor.

The graph that every backend takes gives back a longer cache than it was given, so a token copies all that was read
before it. ONNX Runtime's GroupQueryAttention writes new keys and values behind the old ones where both are the same
memory, and knows by itself what a mask, a rotary embedding and repeated heads say. So what lies between the products
for queries, keys and values and the one that follows attention becomes one such node, in every layer.
"""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from mova_export.errors import ExportError
from mova_export.graphs.language.attention import Attention, attention
from mova_export.graphs.prepare import prepare
from mova_export.graphs.quantise import DOMAIN

_LAST, _TOTAL = "seqlens_k", "total_sequence_length"
_NEW, _CAPACITY = "new", "capacity"
_GIVEN_UP = ("attention_mask", "position_ids")
_MULTIPLE = 16
"""Of what a head's width has to be for ONNX Runtime to rotate it."""


def suits(config: LlamaConfig) -> bool:
    """Whether a model can run so: its heads' width, and an embedding of positions that depends on nothing else."""
    kind = (config.rope_scaling or {}).get("rope_type", "default")
    return config.head_dim % _MULTIPLE == 0 and kind != "longrope"


def keep_in_place(model: ir.Model, config: LlamaConfig) -> None:
    """Let a graph of float32, or of weights of fewer bits, keep its cache in one buffer; the graph is changed.

    Its inputs are then `inputs_embeds` [1, new, hidden]; `seqlens_k` [1] and `total_sequence_length` [] int32, the
    tokens that will have been read after the run, less one and as they are; and every layer's `past_key_values.….key`
    and `.value` [1, heads, capacity, width]. Its outputs are `logits` [1, 1, V] and `present.…`, of the same shapes as
    the cache. Weights stay where they are.

    Args:
        model: as it was exported, with masks and positions.
        config: of a model that `suits`.

    Raises:
        ExportError: a layer's attention has another form than the one that is known.
    """
    prepare(model)
    graph = model.graph
    layers = [attention(graph, layer) for layer in range(config.num_hidden_layers)]
    lengths = (_input(_LAST, 1), _input(_TOTAL))
    shared = (*lengths, *_tables(graph, config))
    for layer, found in enumerate(layers):
        _replace(graph, layer, found, config, shared)
    model.opset_imports[DOMAIN] = 1
    passes.RemoveUnusedNodesPass()(model)
    given = {str(value.name): value for value in graph.inputs}
    for name in _GIVEN_UP:
        if given.pop(name).uses():
            raise ExportError(f"llm: what reads {name} is no attention that is known")
    embeddings = given.pop("inputs_embeds")
    graph.inputs[:] = [embeddings, *lengths, *given.values()]
    embeddings.shape = ir.Shape([1, _NEW, config.hidden_size])
    for cache in given.values():
        cache.shape = _cache_shape(config)
    logits = next(value for value in graph.outputs if value.name == "logits")
    logits.shape = ir.Shape([1, 1, config.vocab_size])


def _replace(graph: ir.Graph, layer: int, old: Attention, config: LlamaConfig, shared: tuple[ir.Value, ...]) -> None:
    """One node in an attention's place; `shared`: what every layer reads, lengths and tables."""
    numbers = {
        "num_heads": config.num_attention_heads,
        "kv_num_heads": config.num_key_value_heads,
        "do_rotary": 1,
        "scale": old.scale,
    }
    inputs = [old.query, old.key, old.value, *old.past, *shared]
    name = f"/model/layers.{layer}/self_attn/GroupQueryAttention"
    node = ir.node("GroupQueryAttention", inputs, numbers, domain=DOMAIN, num_outputs=3, name=name)
    graph.insert_after(old.output.producer(), node)
    output, *present = node.outputs
    output.name, output.shape, output.dtype = f"{name}_output_0", old.output.shape, old.output.dtype
    ir.convenience.replace_all_uses_with(old.output, output)
    for was, now in zip(old.present, present, strict=True):
        now.name, was.name = was.name, f"{was.name}.grown"
        now.dtype, now.shape = was.dtype, _cache_shape(config)
        graph.outputs[graph.outputs.index(was)] = now


def _tables(graph: ir.Graph, config: LlamaConfig) -> list[ir.Value]:
    """Cosines and sines [context, width / 2] of transformers' own embedding, as constants of the graph."""
    positions = torch.arange(config.max_position_embeddings)[None]
    found = LlamaRotaryEmbedding(config)(torch.empty(0), positions)
    tables = []
    for name, table in zip(("rotary.cos", "rotary.sin"), found, strict=True):
        half = table[0, :, : config.head_dim // 2].contiguous()  # the other is the same
        tensor = ir.Tensor(half.numpy(), name=name)
        value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        graph.register_initializer(value)
        tables.append(value)
    return tables


def _input(name: str, *shape: int) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.INT32))


def _cache_shape(config: LlamaConfig) -> ir.Shape:
    return ir.Shape([1, config.num_key_value_heads, _CAPACITY, config.head_dim])
