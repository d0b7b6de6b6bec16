"""A prompt and its images as the language model reads them: embeddings, and what each of them stands for."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from mova_runtime.errors import BundleError
from mova_runtime.language.prompt import Prompt


@dataclass(frozen=True)
class Passage:
    """What is read before an answer.

    embeddings: [tokens, hidden] float32; marks: one a token, equal where two passages have the same token at the same
    place: its id, or the digest of the image it is part of.
    """

    embeddings: np.ndarray
    marks: tuple[Hashable, ...]

    def __len__(self) -> int:
        return len(self.marks)


def passage(prompt: Prompt, images: Sequence[np.ndarray], table: np.ndarray) -> Passage:
    """Put images where a prompt has them.

    Args:
        prompt: token ids around the images.
        images: visual tokens [tokens, hidden] float32 of each.
        table: embeddings [vocabulary, hidden], may be memory-mapped: only the rows of tokens that occur are read.

    Raises:
        BundleError: a token is not in the table.
    """
    parts, marks = [embed(prompt.pieces[0], table)], [*prompt.pieces[0]]  # type: tuple[list[np.ndarray], list[Hashable]]
    for image, piece in zip(images, prompt.pieces[1:], strict=True):
        parts += [image, embed(piece, table)]
        marks += [_digest(image)] * len(image) + [*piece]
    return Passage(np.concatenate(parts), tuple(marks))


def embed(tokens: Sequence[int], table: np.ndarray) -> np.ndarray:
    """Tokens' embeddings [tokens, hidden] float32.

    Raises:
        BundleError: a token is not in the table.
    """
    if max(tokens, default=0) >= len(table):
        raise BundleError(
            f"the tokenizer gave token {max(tokens)}, the language model knows {len(table)}; "
            "the checkpoint's tokenizer and weights don't belong together"
        )
    rows: np.ndarray = table[list(tokens)]
    return np.asarray(rows, np.float32)


def in_common(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """How many tokens two passages begin alike with, by their marks."""
    for count, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return count
    return min(len(one), len(other))


def _digest(image: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image).data).digest()
