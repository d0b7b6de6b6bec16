"""Questions as the token ids around images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from mova_runtime.bundle.manifest import Prompts
from mova_runtime.errors import QuestionError
from mova_runtime.language.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """Token ids, in pieces: between each two of them the visual tokens of an image."""

    pieces: tuple[tuple[int, ...], ...]

    @property
    def before(self) -> tuple[int, ...]:
        """What is before the first image."""
        return self.pieces[0]

    @property
    def after(self) -> tuple[int, ...]:
        """What is behind the last one."""
        return self.pieces[-1]

    @property
    def text_tokens(self) -> int:
        """Tokens besides the visual ones."""
        return sum(map(len, self.pieces))


@dataclass(frozen=True)
class Turn:
    """A question of a conversation, which begins with an image or does not, and the answer's tokens.

    The answer is empty where it is being asked for.
    """

    question: str
    with_image: bool
    answer: tuple[int, ...] = ()


class PromptBuilder:
    """Puts questions into the template a checkpoint was trained with."""

    def __init__(self, prompts: Prompts, tokenizer: Tokenizer, bos: int | None) -> None:
        self._prompts = prompts
        self._tokenizer = tokenizer
        self._bos = bos

    def check(self, question: str) -> str:
        """The question as it is asked.

        An image placeholder at its start or end, as LLaVA-style question files have it, is dropped: the image is put
        in front anyway. Anywhere else it is text, and so is anything that looks like a special token.

        Raises:
            QuestionError: it is not text, or empty.
        """
        if not isinstance(question, str):
            raise QuestionError(f"a question is text, not {type(question).__name__}")
        placeholder = self._prompts.image_placeholder
        if question.lstrip().startswith(placeholder):
            question = question.lstrip().removeprefix(placeholder).lstrip()
        if question.rstrip().endswith(placeholder):
            question = question.rstrip().removesuffix(placeholder).rstrip()
        if not question.strip():
            raise QuestionError("the question is empty")
        try:
            question.encode("utf-8")
        except UnicodeEncodeError:
            raise QuestionError("the question is not valid Unicode (it holds half of a surrogate pair)") from None
        return question

    def routing(self, question: str) -> Prompt:
        """The prompt that asks which experts suit the question."""
        return self._build(self._prompts.routing, question)

    def answer(self, question: str) -> Prompt:
        """The prompt that asks the question."""
        return self._build("", question)

    def conversation(self, turns: Sequence[Turn], stop: int) -> Prompt:
        """The prompt that asks the last turn's question after the others; the first turn has an image.

        A conversation of one turn is `answer`'s prompt. `stop` follows each answer, where it does not end with it.
        """
        pieces = list(self.answer(turns[0].question).pieces)
        for before, turn in pairwise(turns):
            said = before.answer if before.answer[-1:] == (stop,) else (*before.answer, stop)
            first, *second = self._turn(turn)
            pieces[-1] = (*pieces[-1], *said, *first)
            pieces += second
        return Prompt(tuple(pieces))

    def _turn(self, turn: Turn) -> list[tuple[int, ...]]:
        """A turn behind others: one piece, or those around its image."""
        user_head, user_tail = self._user
        rest = self._tokenizer.as_plain_text(turn.question) + user_tail + self._prompts.assistant
        if turn.with_image:
            return [self._behind_text(user_head), self._behind_image(rest)]
        return [self._behind_text(user_head + rest)]

    def _build(self, instruction: str, question: str) -> Prompt:
        user_head, user_tail = self._user
        question = self._tokenizer.as_plain_text(question)
        before = self._tokenizer.encode(self._prompts.system + user_head)
        after = self._behind_image(instruction + question + user_tail + self._prompts.assistant)
        return Prompt((tuple(before), after))

    def _behind_image(self, text: str) -> tuple[int, ...]:
        """Where the prompt starts with BOS, whoever put it there, every piece loses its first id and one BOS is put in
        front: with a tokenizer that begins each piece with BOS, this leaves one. Checkpoints were trained so.
        """
        ids = self._tokenizer.encode("\n" + text)
        return tuple(ids[1:] if self._begins_with_bos else ids)

    def _behind_text(self, text: str) -> tuple[int, ...]:
        """Text of a later turn, where training has no break: it loses a BOS, and nothing else."""
        ids = self._tokenizer.encode(text)
        return tuple(ids[1:] if ids[:1] == [self._bos] else ids)

    @cached_property
    def _begins_with_bos(self) -> bool:
        first = self._tokenizer.encode(self._prompts.system + self._user[0])[:1]
        return self._bos is not None and first == [self._bos]

    @property
    def _user(self) -> tuple[str, str]:
        """What stands before and after a user's message."""
        head, _, tail = self._prompts.user.partition("{message}")
        return head, tail
