"""Where torch's weights are from: a checkpoint, or a preset's random weights, made again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mova_export.errors import BenchError
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.folder import sha256_of
from mova_runtime.engines.installed import has_module

if TYPE_CHECKING:
    from mova_export.checkpoint.source import Source

_RANDOM = re.compile(r"\s*(?P<preset>[\w.-]+)\s*,\s*random weights of seed\s+(?P<seed>\d+)\s*")
_CONFIG = "config.json"


@dataclass(frozen=True)
class Origin:
    """A checkpoint's folder, or the name of a preset and the seed of its random weights."""

    checkpoint: str | None = None
    preset: str | None = None
    seed: int = 0

    def source(self) -> Source:
        """The model to load; imports torch.

        Raises:
            CheckpointError, ExportError: there is none.
        """
        from mova_export.checkpoint.load import Checkpoint  # noqa: PLC0415
        from mova_export.checkpoint.random_model import RandomModel  # noqa: PLC0415

        if self.checkpoint:
            return Checkpoint(Path(self.checkpoint))
        assert self.preset, "an origin is one of both"
        return RandomModel(self.preset, self.seed)

    def check(self) -> None:
        """See that there is such a model. Raises like `source`."""
        self.source()


def origin_of(bundle: Bundle, checkpoint: Path | None) -> Origin:
    """The weights that a bundle was made from.

    Raises:
        BenchError: torch is not installed, or these weights can't be found: what to pass is told.
    """
    if lacks := [module for module in ("torch", "transformers", "safetensors") if not has_module(module)]:
        raise BenchError(f"torch's side needs {lacks[0]}; install the project with its `export` extra")
    if checkpoint is not None:
        return Origin(checkpoint=str(_the_same(bundle, checkpoint)))
    told = bundle.manifest.provenance.model_type
    if not (found := _RANDOM.fullmatch(told)):
        raise BenchError(
            f"torch needs the weights that {bundle.root} was made from, a checkpoint of type "
            f"{told}; pass --checkpoint DIR, its folder"
        )
    return Origin(preset=found["preset"], seed=int(found["seed"]))


def _the_same(bundle: Bundle, checkpoint: Path) -> Path:
    config = checkpoint / _CONFIG
    if not config.is_file():
        raise BenchError(f"--checkpoint {checkpoint}: not a checkpoint (no {_CONFIG})")
    for name, wanted in bundle.manifest.provenance.checkpoint.items():
        file = checkpoint / name
        if file.is_file() and sha256_of(file) != wanted:  # files of towers lie in folders of their own
            raise BenchError(f"--checkpoint {checkpoint}: its {name} is not that of the checkpoint {bundle.root} is of")
    return checkpoint
