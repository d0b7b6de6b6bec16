"""What a run takes before any was measured: a guess, so that the first load has something to go by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mova_runtime.bundle.manifest import LANGUAGE_MODEL

if TYPE_CHECKING:
    from mova_runtime.bundle import Bundle
    from mova_runtime.bundle.manifest import Language

FLOAT32 = 4
"""Bytes: components exchange float32, a language model's cache too."""

_SHARE = 4
"""A run's activations are guessed at one in so many of the weights' bytes. Of DINOv2-giant they were 0.6 to 1.2 GB
beside 4.4 GB."""


def working(bundle: Bundle, component: str, size: int) -> int:
    """Bytes that a run takes beside an engine's weights.

    Args:
        bundle: of the component.
        component: its name.
        size: bytes of the weights.
    """
    if component == LANGUAGE_MODEL:
        return caches(bundle.manifest.language)
    return size // _SHARE


def caches(language: Language) -> int:
    """Bytes of one answer's two caches of keys and values at their longest: the one read, and the one written."""
    one = language.layers * language.key_value_heads * language.head_dim * language.context * FLOAT32
    keys_and_values = 2 * one
    return 2 * keys_and_values
