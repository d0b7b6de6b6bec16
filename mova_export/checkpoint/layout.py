"""Which published tensor belongs to which component of the bundle, and under what name the component knows it.

A component is what becomes one graph. The key and value matrices of the adapter's cross-attention, and the norm before
them, see nothing but an expert's feature: they belong to that expert.
"""

from __future__ import annotations

import re

EXPERTS = ("dinov2", "vary", "codetr", "pix2struct", "deplot", "biomedclip", "sam")
"""In the order of routing letters A to G, of `expert_channels`, and of vision_tower_1 to 7."""

COMPONENTS = ("base", *EXPERTS, "text", "adapter", "llm")
"""In the order they are exported."""

_TOWER = "model.vision_tower.vision_tower_{}."
_ADAPTER = "model.mm_projector."
_TEXT = "model.mm_projector.text_encoder."
_INNER = {
    "dinov2": ("model.", ""),
    "pix2struct": ("model.", ""),
    "deplot": ("model.", ""),
    "biomedclip": ("", "trunk."),
}

_KEY_VALUE = re.compile(r"blocks\.(\d+)\.(norm|k_proj|v_proj|rope)\.(.+)")
_PUBLISHED_KEY_VALUE = re.compile(
    re.escape(_ADAPTER) + r"blocks\.\d+\.(?:norm2\.(?P<norm>\d)|cross_attn\.(?P<cross>\d)\.(?:k_proj|v_proj))\."
)

# Tensors that published checkpoints may hold and no output depends on.
_UNUSED = re.compile(
    r"""\.position_ids$                       # an index that older transformers saved
      | \.rotary_emb\.inv_freq$               # follows from the configuration
      | ^model\.vision_tower\.vision_tower_1\.embeddings\.mask_token$
      | ^model\.vision_tower\.vision_tower_3\.rope_(win|glb)\.   # each block holds its own copy
      | ^model\.vision_tower\.vision_tower_6\.head\.             # CLIP's projection
      | ^model\.mm_projector\.text_encoder\.(cls|bert\.pooler)\. # BERT's language-model head and pooler
    """,
    re.VERBOSE,
)


def is_unused(name: str) -> bool:
    """Whether a published tensor may be there without being loaded."""
    return bool(_UNUSED.search(name))


def published_name(component: str, key: str) -> str:
    """The checkpoint's name of a tensor that a component's module calls `key`."""
    if component == "base":
        return _TOWER.format(0) + key
    if component == "text":
        return _TEXT + key
    if component == "adapter":
        return _ADAPTER + key
    if component == "llm":
        return key
    index = EXPERTS.index(component)
    if key.startswith("tower."):
        ours, theirs = _INNER.get(component, ("", ""))
        return _TOWER.format(index + 1) + theirs + key.removeprefix("tower." + ours)
    block, part, rest = _KEY_VALUE.fullmatch(key).groups()  # type: ignore[union-attr]
    middle = f"norm2.{index}" if part == "norm" else f"cross_attn.{index}.{part}"
    return f"{_ADAPTER}blocks.{block}.{middle}.{rest}"


def tower_prefix(component: str) -> str:
    """What every tensor of an expert's tower starts with in a checkpoint."""
    return _TOWER.format(EXPERTS.index(component) + 1)


def component_of(name: str) -> str | None:
    """The component a published tensor belongs to by its name, or None where no component has such names."""
    if name.startswith(_TOWER.format(0)):
        return "base"
    for expert in EXPERTS:
        if name.startswith(tower_prefix(expert)):
            return expert
    if name.startswith(_TEXT):
        return "text"
    if match := _PUBLISHED_KEY_VALUE.match(name):
        index = int(match["norm"] or match["cross"])
        return EXPERTS[index] if index < len(EXPERTS) else None
    if name.startswith(_ADAPTER):
        return "adapter"
    if name.startswith(("model.embed_tokens.", "model.layers.", "model.norm.", "lm_head.")):
        return "llm"
    return None
