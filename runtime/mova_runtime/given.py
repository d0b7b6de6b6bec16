"""What a caller may give of his own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from mova_runtime.errors import BackendError, MovaError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from mova_runtime.language.sampling import Sampling

Router: TypeAlias = "Callable[[Image, str], Sequence[str]]"
"""Names the experts that suit an image (RGB, upright; a copy) and a question."""


def by_router(router: Router, image: Image, question: str) -> Sequence[str]:
    """What a router names.

    Raises:
        BackendError: it failed.
    """
    try:
        return router(image, question)
    except MovaError:
        raise
    except Exception as error:  # whatever it is built of
        raise failed("router", error) from error


def failed(what: str, error: Exception) -> BackendError:
    """A failure of something from outside as ours, in one line."""
    return BackendError(f"the {what} from outside failed ({' '.join(f'{type(error).__name__}: {error}'.split())})")


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
