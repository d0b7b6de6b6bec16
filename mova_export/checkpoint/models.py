"""The published models as wholes: the sizes of every part, from which each can be built without its checkpoint.

MoVA's are those of its code (github.com/TempleX98/MoVA) and of arXiv 2404.13046; the language models' those of their
config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mova_export.checkpoint.config import MODEL_TYPE
from mova_export.checkpoint.infer import TowerSizes
from mova_export.checkpoint.layout import EXPERTS
from mova_export.checkpoint.presets import CONFIGS, PROCESSORS
from mova_export.modules.biomedclip import VitConfig
from mova_export.modules.codetr import CodetrConfig
from mova_export.modules.sam import SamConfig


@dataclass(frozen=True)
class PublishedModel:
    """A model's config.json, and by component what else its checkpoint's folders and shapes tell.

    configs: of what transformers has; processors: of the inputs; sizes: of the towers without a config.json.
    """

    config_json: Mapping[str, Any]
    configs: Mapping[str, dict[str, Any]]
    processors: Mapping[str, dict[str, Any]]
    sizes: Mapping[str, TowerSizes]

    def config(self, component: str) -> dict[str, Any]:
        """See `Towers.config`."""
        return self.configs[component]

    def processor(self, component: str) -> dict[str, Any]:
        """See `Towers.processor`."""
        return self.processors[component]


_PRESETS = {
    "base": "clip-vit-large-patch14-336",
    "dinov2": "dinov2-giant",
    "vary": "vary",
    "pix2struct": "pix2struct-large",
    "deplot": "deplot",
    "text": "bert-large-uncased",
}

_SIZES: dict[str, TowerSizes] = {
    # SAM's ViT-B: every third block attends to the whole map.
    "vary": SamConfig(
        width=768, hidden=3072, heads=12, patch=16, grid=64, out_channels=256, stride_channels=512,
        windows=tuple(64 if block % 3 == 2 else 14 for block in range(12)),
    ),
    "codetr": CodetrConfig(
        width=1024, hidden=2730, heads=16, patch=16, grid=80, position_grid=80, out_channels=256,
        windows=tuple(80 if block % 6 == 5 else 16 for block in range(24)),
    ),
    "biomedclip": VitConfig(width=768, hidden=3072, depth=12, patch=16, grid=14),
    # SAM's ViT-H: every eighth.
    "sam": SamConfig(
        width=1280, hidden=5120, heads=16, patch=16, grid=64, out_channels=256,
        windows=tuple(64 if block % 8 == 7 else 14 for block in range(32)),
    ),
}  # fmt: skip

_MOVA: dict[str, Any] = {
    "model_type": MODEL_TYPE,
    "mm_vision_tower": [_PRESETS.get(name, name) for name in ("base", *EXPERTS)],
    "mm_projector_text_encoder": _PRESETS["text"],
    "expert_channels": [1536, 512, 256, 1536, 768, 768, 256],
    "image_aspect_ratio": "pad",
    "image_feat_size": 48,
    "mm_hidden_size": 1024,
    "mm_vision_select_layer": -2,
    "num_projector_layers": 3,
    "num_routing_tokens": 144,
    "topk_experts": 3,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}

_LLAMA_3_8B = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192, "rope_theta": 500000.0,
}  # fmt: skip
_VICUNA_7B = {
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 32, "vocab_size": 32000, "max_position_embeddings": 4096, "rope_theta": 10000.0,
}  # fmt: skip
_HERMES_YI_34B = {
    "hidden_size": 7168, "intermediate_size": 20480, "num_hidden_layers": 60, "num_attention_heads": 56,
    "num_key_value_heads": 8, "vocab_size": 64000, "max_position_embeddings": 4096, "rope_theta": 5000000.0,
}  # fmt: skip


def _mova(language_model: dict[str, Any]) -> PublishedModel:
    # A prompt may fill the context: a tokenizer of bytes takes several thousand for the routing prompt.
    limit = {"tokenizer_model_max_length": language_model["max_position_embeddings"]}
    return PublishedModel(
        config_json=_MOVA | language_model | limit,
        configs={component: CONFIGS[name] for component, name in _PRESETS.items() if name in CONFIGS},
        processors={component: PROCESSORS[name] for component, name in _PRESETS.items() if name in PROCESSORS},
        sizes=_SIZES,
    )


MODELS: dict[str, PublishedModel] = {
    "mova-7b": _mova(_VICUNA_7B),
    "mova-8b": _mova(_LLAMA_3_8B),
    "mova-34b": _mova(_HERMES_YI_34B),
}
"""By the name of `mova export --preset`."""
