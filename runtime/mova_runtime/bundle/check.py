"""A manifest whose fields have the right types can still contradict itself; then nothing could run."""

from __future__ import annotations

import math

from mova_runtime.bundle.manifest import LANGUAGE_MODEL, Manifest, PixelInput
from mova_runtime.errors import BundleError


def check(manifest: Manifest) -> None:
    """See that the parts of a manifest fit each other.

    Raises:
        BundleError: naming the first that does not.
    """
    for problem in (*_vision(manifest), *_preprocessing(manifest), *_language(manifest), *_components(manifest)):
        raise BundleError(f"manifest.json: {problem}")


def _vision(manifest: Manifest) -> list[str]:
    vision = manifest.vision
    problems = []
    if vision.grid < 2 or vision.visual_tokens != (vision.grid // 2) ** 2:
        problems.append(f"vision: {vision.visual_tokens} visual tokens do not come from a grid of {vision.grid}")
    elif not _is_square(vision.routing_tokens) or vision.grid // 2 % math.isqrt(vision.routing_tokens):
        problems.append(f"vision.routing_tokens: {vision.routing_tokens} do not divide a grid of {vision.grid // 2}")
    names = [expert.name for expert in vision.experts]
    letters = [expert.letter for expert in vision.experts]
    if len(set(names)) < len(names) or len(set(letters)) < len(letters):
        problems.append("vision.experts: two experts share a name or a letter")
    return problems


def _preprocessing(manifest: Manifest) -> list[str]:
    recipe = manifest.preprocessing
    problems = [
        f"preprocessing.{name}: sides and deviations must be positive"
        for name, spec in (("clip", recipe.clip), ("dinov2", recipe.dinov2), ("high", recipe.high))
        if not _is_possible(spec)
    ]
    if not _is_square(recipe.flattened.max_patches) or recipe.flattened.patch < 1:
        problems.append("preprocessing.flattened: max_patches must be a square number and patch positive")
    for name in ("clip", "dinov2", "high", "flattened"):
        if not all(0 <= value <= 255 for value in recipe.pad_colour.get(name, (-1,))):
            problems.append(f"preprocessing.pad_colour.{name}: missing or no 8-bit colour")
    return problems


def _language(manifest: Manifest) -> list[str]:
    language = manifest.language
    sizes = (language.hidden, language.layers, language.key_value_heads, language.head_dim, language.max_prompt)
    problems = [] if min(sizes) > 0 and language.context > 1 else ["language: sizes must be positive"]
    if manifest.text.max_tokens < 3 or "{question}" not in manifest.text.question:
        problems.append("text: no room for a question")
    if "{message}" not in manifest.prompts.user or manifest.prompts.routing_max_new_tokens < 1:
        problems.append("prompts: no room for a message or for the router's answer")
    llm = manifest.components.get("llm")
    cache = [spec for spec in llm.inputs if spec.name.startswith("past_key_values.")] if llm else []
    if llm and (len(cache) != 2 * language.layers or language.embeddings is None):
        problems.append(f"language: component llm does not have {language.layers} layers and an embedding table")
    return problems


def _components(manifest: Manifest) -> list[str]:
    problems = [] if manifest.components else ["components: there is none"]
    for name, component in manifest.components.items():
        for artifact in component.artifacts:
            if not artifact.files or {p.output for p in artifact.parity} != {o.name for o in component.outputs}:
                problems.append(f"components.{name}: an artifact lacks files or the parity of an output")
            elif artifact.in_place is not None and (
                name != LANGUAGE_MODEL or artifact.in_place not in [file.path for file in artifact.files[1:]]
            ):
                problems.append(f"components.{name}: {artifact.in_place!r} is no further file of a language model")
    adapter = manifest.components.get("adapter")
    if adapter and not any(spec.name == "keys" and len(spec.shape) == 4 for spec in adapter.inputs):
        problems.append("components.adapter: no input 'keys' [pairs, blocks, tokens, channels]")
    return problems


def _is_possible(spec: PixelInput) -> bool:
    return min(spec.resize, spec.side) > 0 and min(spec.std) > 0


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number
