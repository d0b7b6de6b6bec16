"""The adapter's graph: its inputs, a probe in which one image chose one expert and another two, and one without."""

from __future__ import annotations

import torch

from mova_export.graphs.graph import Graph
from mova_export.graphs.inputs import random
from mova_export.graphs.pairs import AdapterGraph
from mova_export.modules.adapter.adapter import MovAdapter

_PAIRS = ((0, 1), (1, 3), (1, 6))


def adapter_graph(module: MovAdapter) -> Graph:
    """See `MovAdapter.forward` for inputs and outputs."""
    config = module.config
    pair_image, pair_expert = torch.tensor(_PAIRS).T.contiguous()
    pairs = (len(_PAIRS), config.blocks, config.tokens, config.channels)
    keys, values = random(2, *pairs)
    inputs = {
        "base": random(2, config.tokens, config.channels),
        "text": random(2, config.text_channels),
        "keys": keys,
        "values": values,
        "pair_image": pair_image,
        "pair_expert": pair_expert,
    }
    none = {name: tensor[:1] if name in ("base", "text") else tensor[:0] for name, tensor in inputs.items()}
    return Graph(
        module=AdapterGraph(module),
        reference=module,
        example=inputs,
        probe=inputs,
        dynamic={name: {0: "batch" if name in ("base", "text") else "pairs"} for name in inputs},
        outputs={"visual": {0: "batch"}, "gates": {1: "batch"}},
        more_probes={"no pairs": none},
    )
