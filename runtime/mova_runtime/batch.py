"""Several images at once, each with its own question and its own experts."""

from __future__ import annotations

from collections.abc import Sequence

from mova_runtime.encoder import Pair
from mova_runtime.errors import ExpertError
from mova_runtime.images import ImageSource
from mova_runtime.model import Model
from mova_runtime.routing import parse
from mova_runtime.trace import Trace
from mova_runtime.types import Visual


def encode(
    model: Model,
    images: Sequence[ImageSource],
    questions: Sequence[str],
    experts: Sequence[Sequence[str]],
    trace: Trace,
) -> list[Visual]:
    """See `Runtime.encode_batch`: each expert runs once, over the images that chose it."""
    if isinstance(experts, str) or not isinstance(experts, Sequence):
        raise ExpertError(f"experts are a sequence of choices, one an image, not {experts!r}")
    if not len(images) == len(questions) == len(experts):
        raise ExpertError(f"{len(images)} images, {len(questions)} questions and {len(experts)} choices of experts")
    if len(images) == 0:
        return []
    encoder, known = model.encoder, model.manifest.vision.experts
    choices = [parse.check(names, known) for names in experts]
    inputs = [model.preprocessor.decode(image) for image in images]
    texts = [model.prompts.check(question) for question in questions]
    pairs: list[Pair] = []
    for expert in known:
        if members := [i for i, names in enumerate(choices) if expert.name in names]:
            features = encoder.expert(expert.name, [inputs[i] for i in members], trace)
            pairs += [Pair(i, expert.name, feature) for i, feature in zip(members, features, strict=True)]
    base = encoder.base(inputs, trace)
    text = encoder.text(texts, trace) if pairs else [encoder.no_text] * len(images)
    tokens, gates = encoder.fuse(base, text, pairs, trace)
    return [Visual(tokens[i], gates[:, i]) for i in range(len(images))]
