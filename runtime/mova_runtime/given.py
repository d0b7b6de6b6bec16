"""What a caller may give of his own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from mova_runtime.language.sampling import Sampling

Router: TypeAlias = "Callable[[Image, str], Sequence[str]]"
"""Names the experts that suit an image (RGB, upright) and a question."""


class LanguageModel(Protocol):
    """A language model that is not the bundle's: another server's or runtime's. Several threads may ask it at once."""

    def generate(self, embeddings: np.ndarray, *, max_new_tokens: int, stop: int, sampling: Sampling) -> Iterable[int]:
        """Token ids that follow a prompt, one after another; the caller stops asking when it has heard enough.

        Args:
            embeddings: the prompt [tokens, hidden] float32, images' visual tokens among the text's.
            max_new_tokens: at most so many.
            stop: the id that ends the answer; it may come as the last one, or not.
            sampling: how to choose tokens: `temperature` (0 takes the most likely), `top_p` and `seed`.
        """


class Cancel(Protocol):
    """Tells that an answer is not wanted any more, such as a `threading.Event`."""

    def is_set(self) -> bool:
        """Whether it is so."""
