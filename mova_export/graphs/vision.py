"""Graphs of what sees an image or reads a question: base, experts, text."""

from __future__ import annotations

import torch
from torch import Tensor

from mova_export.graphs.expert import ExpertGraph
from mova_export.graphs.graph import Graph
from mova_export.graphs.inputs import SEED, random
from mova_export.modules.clip import ClipEncoder
from mova_export.modules.expert import Expert
from mova_export.modules.text import TextEncoder
from mova_runtime.bundle.manifest import PatchInput, PixelInput

_BATCH = {0: "batch"}


def pixels(batch: int, kind: PixelInput) -> Tensor:
    """A normalised image of noise, [batch, 3, side, side]."""
    return random(batch, 3, kind.side, kind.side)


def patches(batch: int, kind: PatchInput) -> Tensor:
    """Flattened patches of noise with their rows and columns, [batch, max_patches, 2 + 3·patch²]."""
    side = round(kind.max_patches**0.5)
    row, column = torch.meshgrid(torch.arange(1, side + 1), torch.arange(1, side + 1), indexing="ij")
    places = torch.stack((row, column), dim=-1).reshape(1, -1, 2).float().expand(batch, -1, -1)
    return torch.cat((places, random(batch, kind.max_patches, 3 * kind.patch**2)), dim=-1)


def base_graph(module: ClipEncoder, kind: PixelInput) -> Graph:
    """pixels [batch, 3, side, side] to features [batch, tokens, channels]."""
    return Graph(
        module=module,
        reference=module,
        example={"pixels": pixels(2, kind)},
        probe={"pixels": pixels(1, kind)},
        dynamic={"pixels": _BATCH},
        outputs={"features": _BATCH},
    )


def expert_graph(module: Expert, kind: PixelInput | PatchInput) -> Graph:
    """pixels or patches to features [batch, n, channels], keys and values [batch, blocks, tokens, channels]."""
    name, make = ("pixels", pixels) if isinstance(kind, PixelInput) else ("patches", patches)
    return Graph(
        module=ExpertGraph(module),
        reference=module,
        example={name: make(2, kind)},  # type: ignore[arg-type]  # `make` fits `kind`
        probe={name: make(1, kind)},  # type: ignore[arg-type]
        dynamic={name: _BATCH},
        outputs={"features": _BATCH, "keys": _BATCH, "values": _BATCH},
    )


def text_graph(module: TextEncoder) -> Graph:
    """ids and mask [batch, tokens] int64 to text [batch, hidden]."""
    axes = {0: "batch", 1: "tokens"}
    vocabulary = module.bert.config.vocab_size
    ids = torch.randint(vocabulary, (2, 12), generator=torch.Generator().manual_seed(SEED))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    inputs = {"ids": ids, "mask": mask}
    return Graph(module, module, inputs, inputs, {"ids": axes, "mask": axes}, {"text": _BATCH})
