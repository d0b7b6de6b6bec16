"""A checkpoint becomes a bundle: component by component, each checked against torch before the next is loaded."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch

from mova_export import description
from mova_export.bundle import BundleWriter
from mova_export.checkpoint.layout import COMPONENTS, component_of
from mova_export.checkpoint.load import Checkpoint
from mova_export.checkpoint.prompts import QUESTION, prompts
from mova_export.checkpoint.tokenizer import language_tokenizer, text_tokenizer
from mova_export.component import export_component
from mova_export.errors import ExportError
from mova_runtime.bundle import Manifest
from mova_runtime.bundle.manifest import FORMAT, VERSION, Component, Text

MAX_TEXT_TOKENS = 512


@dataclass(frozen=True)
class Progress:
    """A component is done: its place in the order, its size, its largest error, and the seconds it took."""

    component: str
    index: int
    total: int
    bytes: int
    relative_l2: float
    seconds: float


def export(
    checkpoint_path: Path,
    out: Path,
    *,
    components: Collection[str] = COMPONENTS,
    tower_folders: Mapping[str, Path] | None = None,
    template: str | None = None,
    overwrite: bool = False,
    starting: Callable[[str, int, int], None] = lambda component, index, total: None,
    finished: Callable[[Progress], None] = lambda progress: None,
) -> Manifest:
    """Export a published checkpoint to a bundle.

    Args:
        checkpoint_path: folder with config.json, weights and tokenizer.
        out: the bundle's folder, which appears when the export is complete.
        components: which to export; all by default.
        tower_folders: folders of towers (base, an expert, text) that are not where config.json says.
        template: the prompt template, where the tokenizer does not tell.
        overwrite: replace a bundle that is there.
        starting: called with component, index from 1 and total before each component.
        finished: called after each component.

    Returns:
        What was written to manifest.json.

    Raises:
        CheckpointError: the checkpoint is not MoVA's, incomplete, damaged or unsafe.
        ExportError: an unknown component, the output exists, or the disk is full.
        ParityError: a graph's output is not torch's.
    """
    if unknown := [name for name in components if name not in COMPONENTS]:
        raise ExportError(f"unknown component {', '.join(unknown)}; one of {', '.join(COMPONENTS)}")
    writer = BundleWriter(out, overwrite=overwrite)
    checkpoint = Checkpoint(checkpoint_path, tower_folders)
    chosen = [name for name in COMPONENTS if name in components]
    checkpoint.check(chosen)
    language, text = language_tokenizer(checkpoint_path), text_tokenizer(checkpoint.folders.folder("text"))
    chosen_prompts = prompts(language, template)

    with writer, torch.no_grad():
        writer.require(_expected_bytes(checkpoint, chosen))
        exported: dict[str, Component] = {}
        for index, name in enumerate(chosen, 1):
            starting(name, index, len(chosen))
            start = perf_counter()
            exported[name] = export_component(writer, checkpoint, name)
            artifact = exported[name].artifacts[0]
            error = max(parity.relative_l2 for parity in artifact.parity)
            finished(Progress(name, index, len(chosen), artifact.bytes, error, perf_counter() - start))
        manifest = Manifest(
            format=FORMAT,
            version=VERSION,
            vision=description.vision(checkpoint),
            preprocessing=checkpoint.preprocessing,
            prompts=chosen_prompts,
            text=Text(writer.text("tokenizers/text.json", text.to_str()), MAX_TEXT_TOKENS, QUESTION),
            language=description.language(writer, checkpoint, language, chosen),
            components=exported,
            provenance=description.provenance(checkpoint),
        )
        writer.finish(manifest)
    return manifest


def _expected_bytes(checkpoint: Checkpoint, chosen: Collection[str]) -> int:
    float32 = 4
    return sum(float32 * math.prod(shape) for name, shape in checkpoint.reader.items() if component_of(name) in chosen)
