"""Published sizes of the hub models that MoVA checkpoints name, for when their folders are not on disk.

Configurations as published on the models' hub pages; processors as their preprocessor_config.json.
"""

from __future__ import annotations

from typing import Any

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BICUBIC = 3

_PIX2STRUCT = {"seq_len": 4096, "d_kv": 64, "patch_embed_hidden_size": 768}

CONFIGS: dict[str, dict[str, Any]] = {
    "clip-vit-large-patch14-336": {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "image_size": 336, "patch_size": 14, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    },
    "dinov2-giant": {
        "hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24, "mlp_ratio": 4,
        "image_size": 518, "patch_size": 14, "use_swiglu_ffn": True, "layer_norm_eps": 1e-6,
    },
    "pix2struct-large": {
        "hidden_size": 1536, "d_ff": 3968, "num_hidden_layers": 18, "num_attention_heads": 24, **_PIX2STRUCT,
    },
    "deplot": {
        "hidden_size": 768, "d_ff": 2048, "num_hidden_layers": 12, "num_attention_heads": 12, **_PIX2STRUCT,
    },
    "bert-large-uncased": {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2, "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    },
}  # fmt: skip

# 45² patches: MoVA reads Pix2Struct's features as a square map.
PIX2STRUCT_PATCHES = 2025

PROCESSORS: dict[str, dict[str, Any]] = {
    "clip-vit-large-patch14-336": {"mean": CLIP_MEAN, "std": CLIP_STD, "resample": BICUBIC},
    "dinov2-giant": {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "resample": BICUBIC},
    "vary": {"mean": CLIP_MEAN, "std": CLIP_STD, "resample": BICUBIC, "resize": 1024, "side": 1024},
    "pix2struct-large": {"max_patches": PIX2STRUCT_PATCHES, "patch": 16},
    "deplot": {"max_patches": PIX2STRUCT_PATCHES, "patch": 16},
}


def preset_name(hub_name: str) -> str:
    """The preset for a hub name or the path it was saved under, or "" where there is none."""
    base = hub_name.rstrip("/").rsplit("/", 1)[-1].lower()
    if base in CONFIGS or base in PROCESSORS:
        return base
    if base.startswith("pix2struct-") and base.endswith("-large"):
        return "pix2struct-large"
    return "vary" if base.startswith("vary") else ""
