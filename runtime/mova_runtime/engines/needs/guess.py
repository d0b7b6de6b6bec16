"""What a run takes: guessed before any was measured, and of the longest run also after, for probes are short."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mova_runtime.bundle.manifest import LANGUAGE_MODEL
from mova_runtime.engines.installed import version

if TYPE_CHECKING:
    from mova_runtime.bundle import Bundle
    from mova_runtime.bundle.manifest import Language
    from mova_runtime.engines.protocol import Cache

FLOAT32 = 4
"""Bytes: components exchange float32, a language model's cache too."""

_SHARE = 4
"""A run's activations are guessed at one in so many of the weights' bytes. Of DINOv2-giant they were 0.6 to 1.2 GB
beside 4.4 GB."""

_TEXT = "text"

_SMALLEST = 4 << 20
"""Bytes of a run: one that is over between two readings of the memory seems to take none."""

_READING, _READING_TOKENS, _READING_WIDTH = 69_000_000, 512, 1024
"""Bytes that BERT-large took for 512 tokens, its width being 1024."""

_HIDDEN_ARRAYS = 16
"""Of [tokens, hidden] at once, in a layer: what is added to, its norm, queries, keys, values, what attention gives, and
the two halves of the feed-forward part and their product, each up to four times as wide."""

_SCORES = 3
"""Of [heads, tokens, context] at once."""

_SCORES_IN_PLACE, _WITHOUT_SCORES = 2, (1, 31)
"""The same of ONNX Runtime where the cache is in place: 1.22 was seen to hold one, 1.23 two, and 1.31 none."""


def working(bundle: Bundle, component: str, size: int, cache: Cache = "growing") -> int:
    """Bytes that a run takes beside an engine's weights, where none was measured.

    Args:
        bundle: of the component.
        component: its name.
        size: bytes of the weights.
        cache: the engine's.
    """
    return longest(bundle, component, 0 if component == LANGUAGE_MODEL else size // _SHARE, cache)


def longest(bundle: Bundle, component: str, probed: int, cache: Cache = "growing") -> int:
    """Bytes that the longest run takes, where `probed` were taken on the probes.

    Towers and the adapter read what probes have the shape of. A question is longer than the text encoder's probe, and
    an answer's caches and the pieces that a prompt is read in are larger than the language model's.
    """
    if component == LANGUAGE_MODEL:
        language = bundle.manifest.language
        return caches(language, cache) + max(probed, prefill(language, cache))
    return max(probed, _reading(bundle) if component == _TEXT else 0, _SMALLEST)


def caches(language: Language, cache: Cache = "growing") -> int:
    """Bytes of one answer's caches of keys and values at their longest.

    Where they grow there are two, the one read and the one written; else the one is both.
    """
    one = language.layers * language.key_value_heads * language.head_dim * language.context * FLOAT32
    keys_and_values = 2 * one
    return keys_and_values if cache == "shared" else 2 * keys_and_values


def prefill(language: Language, cache: Cache = "growing") -> int:
    """Bytes of the activations while the last piece of the longest prompt is read.

    One layer's are there at once: arrays of [tokens, hidden], and attention's scores of each of the piece's tokens
    against all of the context, in every head. ONNX Runtime was seen to hold three of the latter: as multiplied, masked,
    and after softmax.
    """
    from mova_runtime.language.decoder import PREFILL_CHUNK  # noqa: PLC0415  # imports numpy

    heads = language.hidden // language.head_dim
    hidden = _HIDDEN_ARRAYS * language.hidden
    scores = (_SCORES if cache == "growing" else _scores_in_place()) * heads * language.context
    return PREFILL_CHUNK * (hidden + scores) * FLOAT32


def _scores_in_place() -> int:
    found = re.match(r"(\d+)\.(\d+)", version("onnxruntime") or "")
    return 0 if found and (int(found[1]), int(found[2])) >= _WITHOUT_SCORES else _SCORES_IN_PLACE


def _reading(bundle: Bundle) -> int:
    """Bytes of the text encoder's activations for as many tokens as it reads, by its output's width."""
    width = bundle.component(_TEXT).outputs[0].shape[-1]
    scaled = _READING * bundle.manifest.text.max_tokens // _READING_TOKENS
    return scaled * width // _READING_WIDTH if isinstance(width, int) else scaled
