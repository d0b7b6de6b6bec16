"""A model becomes a bundle: component by component, each checked against torch before the next is loaded."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch

from mova_export import description
from mova_export.agreement import PROMPTS
from mova_export.bundle import BundleWriter
from mova_export.checkpoint.layout import COMPONENTS, component_of
from mova_export.checkpoint.prompts import QUESTION, prompts
from mova_export.checkpoint.source import EMBEDDINGS, Source
from mova_export.component import export_component
from mova_export.errors import ExportError
from mova_export.peak import PeakMemory
from mova_export.precisions import by_component
from mova_export.reference import SECTION
from mova_runtime.bundle import Manifest
from mova_runtime.bundle.manifest import (
    FORMAT,
    LANGUAGE_MODEL,
    VERSION,
    Artifact,
    Component,
    Precision,
    Text,
)

MAX_TEXT_TOKENS = 512

_BYTES: dict[Precision, float] = {"fp32": 4, "fp16": 2.2, "bf16": 2.5, "int8": 1.7, "int4": 1.5}
"""Of a parameter on disk at most: so it is with the tiny checkpoint, of which more stays wide than of large ones."""

_LANGUAGE_BYTES: dict[Precision, float] = {"fp32": 4, "fp16": 2.1, "bf16": 2.1, "int8": 1.2, "int4": 1.2}
"""Of the language model's, which are matrices but for its norms; of 4 bits, where most of them needed 8 in the end."""


@dataclass(frozen=True)
class Progress:
    """A precision of a component is done: the component's place in the order, what was written, what it took.

    seconds and peak_bytes, the most memory that the process held meanwhile: the first precision's hold what is done
    once a component.
    """

    component: str
    index: int
    total: int
    artifact: Artifact
    seconds: float
    peak_bytes: int


def export(
    source: Source,
    out: Path,
    *,
    components: Collection[str] = COMPONENTS,
    precisions: Sequence[str] = ("fp32",),
    template: str | None = None,
    overwrite: bool = False,
    starting: Callable[[str, int, int], None] = lambda component, index, total: None,
    finished: Callable[[Progress], None] = lambda progress: None,
) -> Manifest:
    """Export a model to a bundle.

    Args:
        source: a checkpoint, or whatever else gives its components.
        out: the bundle's folder, which appears when the export is complete.
        components: which to export; all by default.
        precisions: of every component, in order of preference: a runtime takes the first unless told; "llm=int4" is of
            one component, instead of those of every component.
        template: the prompt template, where the tokenizer does not tell.
        overwrite: replace a bundle that is there.
        starting: called with component, index from 1 and total before each component.
        finished: called after each precision of a component.

    Returns:
        What was written to manifest.json.

    Raises:
        CheckpointError: the checkpoint is incomplete, damaged or unsafe.
        ExportError: an unknown component or precision, the output exists, or the disk is full.
        ParityError: a graph's output is not torch's.
    """
    if unknown := [name for name in components if name not in COMPONENTS]:
        raise ExportError(f"unknown component {', '.join(unknown)}; one of {', '.join(COMPONENTS)}")
    writer = BundleWriter(out, overwrite=overwrite)
    chosen = [name for name in COMPONENTS if name in components]
    wanted = by_component(precisions, chosen)
    source.check(chosen)
    tokenizers = source.tokenizers()
    chosen_prompts = prompts(tokenizers.language, template)
    spoken = [tokenizers.language.encode(text).ids for text in PROMPTS]

    with writer, PeakMemory() as memory, torch.no_grad():
        writer.require(_expected_bytes(source, wanted))
        exported: dict[str, Component] = {}
        for index, name in enumerate(chosen, 1):
            starting(name, index, len(chosen))
            start = perf_counter()
            memory.take()

            def done(artifact: Artifact, name: str = name, index: int = index) -> None:
                nonlocal start
                start, began = perf_counter(), start
                finished(Progress(name, index, len(chosen), artifact, start - began, memory.take()))

            exported[name] = export_component(writer, source, name, wanted[name], done, prompts=spoken)
        manifest = Manifest(
            format=FORMAT,
            version=VERSION,
            vision=description.vision(source),
            preprocessing=source.preprocessing,
            prompts=chosen_prompts,
            text=Text(writer.text("tokenizers/text.json", tokenizers.text.to_str()), MAX_TEXT_TOKENS, QUESTION),
            language=description.language(writer, source, tokenizers, chosen),
            components=exported,
            provenance=description.provenance(source),
        )
        writer.finish(manifest)
    return manifest


def _expected_bytes(source: Source, precisions: Mapping[str, Collection[Precision]]) -> int:
    """Bytes on disk at most; `precisions`: by component."""
    parameters = dict.fromkeys(precisions, 0)
    table = 0
    for name, shape in source.reader.items():
        if name == EMBEDDINGS:
            table = math.prod(shape) if LANGUAGE_MODEL in precisions else 0
        elif (component := component_of(name)) in parameters:
            parameters[component] += math.prod(shape)
    size = _BYTES["fp32"] * table
    passing = 0.0
    for name, count in parameters.items():
        spoken = name == LANGUAGE_MODEL
        size += sum((_LANGUAGE_BYTES if spoken else _BYTES)[precision] * count for precision in precisions[name])
        if "fp32" not in precisions[name]:
            # One float32 graph at a time, until the others are made; of the language model's, a section.
            passing = max(passing, _BYTES["fp32"] * (min(count, SECTION) if spoken else count))
    return int(size + passing)
