"""Configurations and image processors of the parts that transformers has: where they are found, and read.

Order: the path given on the command line, the folder config.json names (beside the checkpoint, or as it stands), and
last a preset, where config.json names a published model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from transformers import BertConfig, CLIPVisionConfig, Dinov2Config, Pix2StructVisionConfig

from mova_export.checkpoint.config import CheckpointConfig
from mova_export.checkpoint.layout import EXPERTS
from mova_export.checkpoint.presets import CONFIGS, PROCESSORS, preset_name
from mova_export.errors import CheckpointError
from mova_runtime.bundle.manifest import PatchInput, PixelInput, Preprocessing

_RESAMPLE: dict[int, Literal["nearest", "bilinear", "bicubic", "lanczos"]] = {
    0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic",
}  # fmt: skip


class Towers(Protocol):
    """Gives configurations and image processors by component (base, an expert's, text)."""

    def config(self, component: str) -> dict[str, Any]:
        """What transformers makes the component's module from."""

    def processor(self, component: str) -> dict[str, Any]:
        """The image processor as (mean, std, resample, resize, side) or (max_patches, patch)."""


class TowerFolders:
    """Finds what config.json names."""

    def __init__(self, checkpoint: Path, config: CheckpointConfig, given: Mapping[str, Path]) -> None:
        """`given` maps component names (base, an expert's, text) to folders from the command line.

        Raises:
            CheckpointError: a given name is unknown, or a given folder does not exist.
        """
        self._checkpoint = checkpoint
        self._names = dict(zip(("base", *EXPERTS, "text"), (*config.towers, config.text_encoder), strict=True))
        self._given = given
        for name, folder in given.items():
            if name not in self._names:
                raise CheckpointError(f"--tower {name}: unknown; one of {', '.join(self._names)}")
            if not folder.is_dir():
                raise CheckpointError(f"--tower {name}: {folder}: no such folder")

    def folder(self, component: str) -> Path | None:
        """The component's folder, or None where it is not on disk."""
        name = self._names[component]
        candidates = (self._given.get(component), self._checkpoint / name, Path(name))
        return next((path for path in candidates if path is not None and path.is_dir()), None)

    def config(self, component: str) -> dict[str, Any]:
        """The component's config.json, or its preset.

        Raises:
            CheckpointError: neither is there.
        """
        folder = self.folder(component)
        if folder is not None and (folder / "config.json").is_file():
            return _read_json(folder / "config.json")
        if (preset := preset_name(self._names[component])) in CONFIGS:
            return CONFIGS[preset]
        raise self._not_found(component, "config.json")

    def processor(self, component: str) -> dict[str, Any]:
        """The component's preprocessor_config.json as (mean, std, resample, resize, side) or (max_patches, patch)."""
        folder = self.folder(component)
        if folder is not None and (file := folder / "preprocessor_config.json").is_file():
            processor = _processor(_read_json(file), file)
            if ("max_patches" in processor) != (component in ("pix2struct", "deplot")):
                raise CheckpointError(f"{file}: an image processor of another kind of tower than {component}")
            return processor
        if (preset := preset_name(self._names[component])) in PROCESSORS:
            return PROCESSORS[preset]
        raise self._not_found(component, "preprocessor_config.json")

    def _not_found(self, component: str, file: str) -> CheckpointError:
        name = self._names[component]
        return CheckpointError(
            f"{component}: config.json names {name!r}, neither a folder here nor a published model with a preset; "
            f"pass --tower {component}=FOLDER with its {file}"
        )


def clip_config(found: Towers, config: CheckpointConfig) -> CLIPVisionConfig:
    """The base encoder's, for the grid of this checkpoint."""
    data = found.config("base")
    tower = CLIPVisionConfig(**data.get("vision_config", data))
    tower.image_size = config.image_side
    return tower


def dinov2_config(found: Towers, side: int) -> Dinov2Config:
    """DINOv2's, with positions for inputs of `side` pixels."""
    tower = Dinov2Config(**found.config("dinov2"))
    tower.image_size, tower.use_mask_token = side, False
    return tower


def pix2struct_config(found: Towers, component: str) -> Pix2StructVisionConfig:
    """Of pix2struct or deplot."""
    data = found.config(component)
    return Pix2StructVisionConfig(**data.get("vision_config", data))


def bert_config(found: Towers) -> BertConfig:
    """The text encoder's."""
    return BertConfig(**found.config("text"))


def preprocessing(found: Towers, config: CheckpointConfig) -> Preprocessing:
    """How the four inputs are made from an image.

    Raises:
        CheckpointError: `max_patches` is not a square number: the features could not be read as a map.
    """
    clip, dinov2, high = (found.processor(name) for name in ("base", "dinov2", "vary"))
    patches = found.processor("pix2struct")
    if math.isqrt(patches["max_patches"]) ** 2 != patches["max_patches"]:
        raise CheckpointError(f"pix2struct: max_patches {patches['max_patches']} is not a square number")
    side = {"resize": config.image_side, "side": config.image_side}
    colours = {name: _colour(p["mean"]) for name, p in (("clip", clip), ("dinov2", dinov2), ("high", high))}
    return Preprocessing(
        aspect=config.aspect,
        clip=_pixel_input({**clip, **side}),
        dinov2=_pixel_input({**dinov2, **side}),
        high=_pixel_input(high),
        flattened=PatchInput(max_patches=patches["max_patches"], patch=patches["patch"]),
        pad_colour={**colours, "flattened": colours["clip"]},
    )


def _pixel_input(processor: dict[str, Any]) -> PixelInput:
    (r, g, b), (dr, dg, db) = processor["mean"], processor["std"]
    return PixelInput(
        resize=processor["resize"],
        side=processor["side"],
        resample=_RESAMPLE[processor["resample"]],
        mean=(float(r), float(g), float(b)),
        std=(float(dr), float(dg), float(db)),
    )


def _colour(mean: tuple[float, float, float]) -> tuple[int, int, int]:
    red, green, blue = (int(x * 255) for x in mean)
    return red, green, blue


def _processor(data: dict[str, Any], file: Path) -> dict[str, Any]:
    try:
        if "max_patches" in data:
            patches = {"max_patches": int(data["max_patches"]), "patch": int(data["patch_size"]["height"])}
            if min(patches.values()) < 1:
                raise ValueError
            return patches
        size, crop = data["size"], data.get("crop_size", data["size"])
        resize = int(size if isinstance(size, int) else size.get("shortest_edge", size.get("height")))
        side = int(crop if isinstance(crop, int) else crop["height"])
        mean, std = (tuple(float(x) for x in data[name]) for name in ("image_mean", "image_std"))
        if (
            len(mean) != 3
            or len(std) != 3
            or min(std) <= 0
            or min(resize, side) < 1
            or data["resample"] not in _RESAMPLE
        ):
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError):
        raise CheckpointError(f"{file}: not an image processor of a supported kind") from None
    return {"mean": mean, "std": std, "resample": data["resample"], "resize": resize, "side": side}


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{file}: not valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{file}: expected an object")
    return data
