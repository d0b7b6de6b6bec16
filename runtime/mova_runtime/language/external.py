"""A language model that is not the bundle's: another server's or runtime's, given embeddings."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import numpy as np

from mova_runtime.bundle.manifest import Language
from mova_runtime.errors import BackendError, MovaError
from mova_runtime.given import LanguageModel, failed
from mova_runtime.language.decoder import Finish
from mova_runtime.language.generation import Generation
from mova_runtime.language.passage import passage
from mova_runtime.language.prompt import Prompt
from mova_runtime.language.sampling import Sampling


class ExternalDecoder:
    """One answer of such a model; the same door as `Decoder`."""

    reused = 0

    def __init__(self, model: LanguageModel, table: np.ndarray, language: Language) -> None:
        """`table`: embeddings [vocabulary, hidden] of the text's tokens."""
        self._model = model
        self._table = table
        self._language = language
        self.finish: Finish = "length"

    def generate(
        self, prompt: Prompt, images: Sequence[np.ndarray], wanted: Generation, stop: int
    ) -> Generator[int, None, None]:
        """See `Decoder.generate`.

        Raises:
            BackendError: the model failed, or gave something else than ids of the text's tokens.
        """
        read = passage(prompt, images, self._table)
        room = self._language.context - len(read)
        self.finish = "length" if wanted.max_new_tokens <= room else "context"
        most = min(wanted.max_new_tokens, room)
        if wanted.cancelled:
            self.finish = "cancelled"
            return
        told = _told(self._model, read.embeddings, most, stop, wanted.sampling, len(self._table))
        for count, token in enumerate(told, 1):
            if token == stop:
                self.finish = "stop"
            yield token
            if token == stop or count == most:
                return
            if wanted.cancelled:
                self.finish = "cancelled"
                return
        self.finish = "stop"  # it had no more to say


def _told(
    model: LanguageModel, embeddings: np.ndarray, most: int, stop: int, sampling: Sampling, vocabulary: int
) -> Iterator[int]:
    """What the model says, with its failures as ours."""
    try:
        tokens = iter(model.generate(embeddings, max_new_tokens=most, stop=stop, sampling=sampling))
    except MovaError:
        raise
    except Exception as error:  # whatever it is built of
        raise failed("language model", error) from error
    while True:
        try:
            token = next(tokens)
        except StopIteration:
            return
        except MovaError:
            raise
        except Exception as error:
            raise failed("language model", error) from error
        if isinstance(token, bool) or not isinstance(token, int | np.integer) or not 0 <= token < vocabulary:
            what = f"which is no token id (0 to {vocabulary - 1})"
            raise BackendError(f"the language model from outside gave {token!r}, {what}")
        yield int(token)
