"""config.json of a published checkpoint, checked and given types."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mova_export.errors import CheckpointError

MODEL_TYPE = "mova_llama"
_DEFAULT_MAX_PROMPT = 2048


@dataclass(frozen=True)
class CheckpointConfig:
    """What the exporter needs of config.json.

    grid: side of the token map (`image_feat_size`); channels: width of the base encoder; llama: the whole file, for
    the language model's own configuration.
    """

    model_type: str
    grid: int
    channels: int
    hidden: int
    expert_channels: tuple[int, ...]
    blocks: int
    routing_tokens: int
    top_k: int
    select_layer: int
    aspect: Literal["pad", "crop"]
    max_prompt: int
    context: int
    towers: tuple[str, ...]
    text_encoder: str
    llama: dict[str, Any]

    @property
    def image_side(self) -> int:
        """Side of the base encoder's input in pixels: 14 a grid cell."""
        return 14 * self.grid

    @classmethod
    def read(cls, folder: Path) -> CheckpointConfig:
        """Read `folder`/config.json.

        Raises:
            CheckpointError: no such file, not JSON, another model type, a field missing or of an unsupported value.
        """
        if not folder.is_dir():
            raise CheckpointError(f"{folder}: no such folder")
        file = folder / "config.json"
        if not file.is_file():
            raise CheckpointError(f"{folder}: not a checkpoint (no config.json)")
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise CheckpointError(f"{file}: not valid JSON ({error})") from None
        if not isinstance(data, dict) or data.get("model_type") != MODEL_TYPE:
            found = data.get("model_type") if isinstance(data, dict) else None
            raise CheckpointError(f"{file}: model type {found!r} is not MoVA's ({MODEL_TYPE!r})")
        return cls.of(data, file)

    @classmethod
    def of(cls, data: dict[str, Any], file: Path) -> CheckpointConfig:
        """Check the fields of a config.json; `file` is where errors say they are.

        Raises:
            CheckpointError: a field is missing or of an unsupported value.
        """

        def field(name: str, kind: type) -> Any:
            value = data.get(name)
            if type(value) is not kind:
                problem = "missing" if value is None else f"expected {kind.__name__}, found {value!r}"
                raise CheckpointError(f"{file}: {name}: {problem}")
            return value

        required = {
            "mm_projector_type": "mov_adapter",
            "mm_vision_select_feature": "patch",
            "mm_patch_merge_type": "flat",
        }
        for name, wanted in required.items():
            if data.get(name, wanted) != wanted:
                raise CheckpointError(f"{file}: {name} {data[name]!r} is not supported, only {wanted!r}")
        if data.get("mm_use_im_start_end") or data.get("mm_use_im_patch_token"):
            raise CheckpointError(f"{file}: image start, end or patch tokens are not supported")

        aspect = data.get("image_aspect_ratio") or "square"
        if aspect not in ("pad", "square"):
            raise CheckpointError(f"{file}: image_aspect_ratio {aspect!r} is not supported, only 'pad' and 'square'")
        if data.get("tokenizer_model_max_length") is None:
            data = {**data, "tokenizer_model_max_length": _DEFAULT_MAX_PROMPT}

        config = cls(
            model_type=MODEL_TYPE,
            grid=field("image_feat_size", int),
            channels=field("mm_hidden_size", int),
            hidden=field("hidden_size", int),
            expert_channels=tuple(field("expert_channels", list)),
            blocks=field("num_projector_layers", int),
            routing_tokens=field("num_routing_tokens", int),
            top_k=field("topk_experts", int),
            select_layer=field("mm_vision_select_layer", int),
            aspect="pad" if aspect == "pad" else "crop",
            context=field("max_position_embeddings", int),
            max_prompt=min(field("tokenizer_model_max_length", int), field("max_position_embeddings", int)),
            towers=tuple(field("mm_vision_tower", list)),
            text_encoder=field("mm_projector_text_encoder", str),
            llama=data,
        )
        config._check(file)
        return config

    def _check(self, file: Path) -> None:
        if len(self.towers) != 8 or not all(isinstance(name, str) for name in self.towers):
            raise CheckpointError(f"{file}: mm_vision_tower: expected 8 names, the base encoder's and seven experts'")
        if len(self.expert_channels) != 7 or not all(type(n) is int and n > 0 for n in self.expert_channels):
            raise CheckpointError(f"{file}: expert_channels: expected 7 positive numbers")
        if self.grid < 2 or self.grid % 2:
            raise CheckpointError(f"{file}: image_feat_size {self.grid}: expected an even number")
        if not 1 <= self.top_k <= 7:
            raise CheckpointError(f"{file}: topk_experts {self.top_k}: expected 1 to 7")
        if self.channels < 64 or self.channels % 64:
            raise CheckpointError(f"{file}: mm_hidden_size {self.channels}: expected a multiple of 64")
        positive = {
            "num_projector_layers": self.blocks,
            "hidden_size": self.hidden,
            "max_position_embeddings": self.context,
            "tokenizer_model_max_length": self.max_prompt,
            "num_routing_tokens": self.routing_tokens,
        }
        for name, value in positive.items():
            if value < 1:
                raise CheckpointError(f"{file}: {name} {value}: expected a positive number")
        if self.select_layer >= 0:
            raise CheckpointError(f"{file}: mm_vision_select_layer {self.select_layer}: expected a negative number")
        routing_side = math.isqrt(self.routing_tokens)
        if routing_side**2 != self.routing_tokens or self.grid // 2 % routing_side:
            raise CheckpointError(
                f"{file}: num_routing_tokens {self.routing_tokens} does not divide a {self.grid // 2}-square map"
            )
