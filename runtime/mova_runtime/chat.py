"""A conversation: questions that know what was said before."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mova_runtime.conversation import Conversation
from mova_runtime.errors import MovaError, QuestionError
from mova_runtime.types import Answer, How

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from mova_runtime.images import ImageSource
    from mova_runtime.request import Request
    from mova_runtime.runtime import Runtime


class Chat:
    """Several questions on one image or on several, one after another; `Runtime.chat` begins it.

    Each question is routed by itself. The image stays as it was fused for the first question about it, as long as
    later ones choose the same experts; what the language model has read is not read again. Where a prompt becomes too
    long to leave the answer room, the oldest questions are left out with their answers, several at once, and an image
    that only they were about. A question whose answer was cancelled, failed, or was not read to its end is not part of
    the conversation, nor is an image that it brought.
    """

    def __init__(self, runtime: Runtime, image: ImageSource | None, experts: Sequence[str] | None) -> None:
        """See `Runtime.chat`."""
        self._runtime = runtime
        self._image = image
        self._experts = experts
        self._conversation = Conversation()
        self._turn = threading.Lock()

    @property
    def turns(self) -> tuple[tuple[str, str], ...]:
        """Questions and answers that the next prompt begins with, as far as they fit."""
        return tuple((one.question, one.answer) for one in self._conversation.exchanges)

    def ask(
        self,
        question: str,
        image: ImageSource | None = None,
        max_new_tokens: int = 128,
        **how: Unpack[How],
    ) -> Answer:
        """Answer the next question.

        Args:
            question: text.
            image: another one, which this question is about and, once it is answered, those after it; None stays with
                the last.
            max_new_tokens: the answer's length at most, in tokens.
            how: as in `Runtime.answer`.

        Raises:
            QuestionError: there is no image yet, or as `Runtime.answer`.
            MovaError: the last answer is still being given; and what `Runtime.answer` raises.
        """
        request, about = self._request(question, image, max_new_tokens, how)
        for _ in self._spoken(request, about):
            pass
        return self._runtime.answer_of(request)

    def stream(
        self,
        question: str,
        image: ImageSource | None = None,
        max_new_tokens: int = 128,
        **how: Unpack[How],
    ) -> Generator[str, None, None]:
        """Like `ask`, as pieces of text; the next question can be asked when they were read, or this is closed."""
        request, about = self._request(question, image, max_new_tokens, how)
        return self._spoken(request, about)

    def clear(self) -> None:
        """Forget what was said; the image stays."""
        with self._alone():
            self._conversation.clear()

    def _request(
        self, question: str, image: ImageSource | None, max_new_tokens: int, how: How
    ) -> tuple[Request, ImageSource]:
        """A request, and the image that it is about."""
        about = self._image if image is None else image
        if about is None:
            raise QuestionError("a conversation begins with an image: give it to chat(), or to the first question")
        request, _ = self._runtime.request(about, question, self._experts, max_new_tokens, how, self._conversation)
        return request, about

    def _spoken(self, request: Request, about: ImageSource) -> Generator[str, None, None]:
        with self._alone():
            yield from request.speak(self._experts)
            if request.said.finish != "cancelled":
                self._image = about

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._turn.acquire(blocking=False):
            raise MovaError("the conversation is still answering: read the stream to its end, or close it")
        try:
            yield
        finally:
            self._turn.release()
