"""Which shapes an engine takes: a range for each input, from the axes that the manifest names and the model's limits.

Axes: `batch` images; `pairs` of an image and an expert it selected; `tokens` of a question; `past` tokens that the
language model has read and `new` ones that it reads now; sums of these, such as `past + new`.
"""

from __future__ import annotations

from dataclasses import dataclass

from mova_export.errors import ExportError
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.arrays import load_array
from mova_runtime.bundle.engine import Range
from mova_runtime.bundle.manifest import Manifest
from mova_runtime.language.decoder import PREFILL_CHUNK

LANGUAGE = "llm"
USUAL_QUESTION = 32
USUAL_PROMPT = 128
"""Tokens of a question, and of a prompt without its image, that engines are made fastest for."""

MAX_BATCH = 64


@dataclass(frozen=True)
class Axis:
    """Lengths of a named axis: least, the one to be fastest at, greatest."""

    minimum: int
    optimum: int
    maximum: int

    def __add__(self, other: Axis) -> Axis:
        return Axis(self.minimum + other.minimum, self.optimum + other.optimum, self.maximum + other.maximum)

    def reaching(self, length: int) -> Axis:
        """The same with a maximum of at least `length`."""
        return Axis(self.minimum, self.optimum, max(self.maximum, length))


def profile(bundle: Bundle, component: str, max_batch: int = 1) -> dict[str, Range]:
    """The range of each of a component's inputs; its probe is always within, so that every engine can be checked.

    Args:
        bundle: has the component.
        component: its name.
        max_batch: images at once. The language model reads one prompt at a time, whatever this is.

    Raises:
        ExportError: `max_batch` is not from 1 to MAX_BATCH, or an input has an axis that nothing is known about.
        IntegrityError: the probe is damaged.
    """
    if not 1 <= max_batch <= MAX_BATCH:
        raise ExportError(f"--max-batch must be from 1 to {MAX_BATCH}, not {max_batch}")
    axes = _axes(bundle.manifest, 1 if component == LANGUAGE else max_batch)
    shapes = {spec.name: spec.shape for spec in bundle.component(component).inputs}
    for name, length in _probed(bundle, component, shapes).items():
        if name in axes:
            axes[name] = axes[name].reaching(length)
    ranges = {}
    for name, shape in shapes.items():
        lengths = [_axis(component, name, axis, axes) for axis in shape]
        ranges[name] = Range(
            minimum=tuple(axis.minimum for axis in lengths),
            optimum=tuple(axis.optimum for axis in lengths),
            maximum=tuple(axis.maximum for axis in lengths),
        )
    return ranges


def _axes(manifest: Manifest, max_batch: int) -> dict[str, Axis]:
    vision, language = manifest.vision, manifest.language
    longest_past = max(language.context - 1, 0)
    return {
        "batch": Axis(1, 1, max_batch),
        # none in the pass that routes; an image may select every expert, though only top_k have weight
        "pairs": Axis(0, min(vision.top_k, len(vision.experts)), len(vision.experts) * max_batch),
        "tokens": Axis(1, min(USUAL_QUESTION, manifest.text.max_tokens), manifest.text.max_tokens),
        # one token at a time is what takes an answer's time
        "new": Axis(1, 1, min(PREFILL_CHUNK, language.max_prompt)),
        "past": Axis(0, min(vision.visual_tokens + USUAL_PROMPT, longest_past), longest_past),
    }


def _axis(component: str, tensor: str, axis: int | str, axes: dict[str, Axis]) -> Axis:
    if isinstance(axis, int):
        return Axis(axis, axis, axis)
    terms = [name.strip() for name in axis.split("+")]
    if unknown := [name for name in terms if name not in axes]:
        raise ExportError(f"{component}: input {tensor!r} has an axis {unknown[0]!r}; known: {', '.join(axes)}")
    first, *others = (axes[name] for name in terms)
    return sum(others, start=first)


def _probed(bundle: Bundle, component: str, shapes: dict[str, tuple[int | str, ...]]) -> dict[str, int]:
    """The greatest length of each named axis in the probes."""
    lengths: dict[str, int] = {}
    for probe in bundle.component(component).probes:
        for name, file in probe.inputs.items():
            array = load_array(bundle.checked_path(file), mapped=True)
            for axis, length in zip(shapes.get(name, ()), array.shape, strict=False):
                if isinstance(axis, str):
                    lengths[axis] = max(length, lengths.get(axis, 0))
    return lengths
