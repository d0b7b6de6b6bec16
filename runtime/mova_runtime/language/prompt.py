"""A question as the token ids before and after the image."""

from __future__ import annotations

from dataclasses import dataclass

from mova_runtime.bundle.manifest import Prompts
from mova_runtime.errors import QuestionError
from mova_runtime.language.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """Token ids before and after the visual tokens."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def text_tokens(self) -> int:
        """Tokens besides the visual ones."""
        return len(self.before) + len(self.after)


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

    def _build(self, instruction: str, question: str) -> Prompt:
        prompts = self._prompts
        user_head, _, user_tail = prompts.user.partition("{message}")
        question = self._tokenizer.as_plain_text(question)
        before = self._tokenizer.encode(prompts.system + user_head)
        after = self._tokenizer.encode("\n" + instruction + question + user_tail + prompts.assistant)
        # Where the first piece starts with BOS, whoever put it there, every piece loses its first id and one BOS is put
        # in front: with a tokenizer that begins each piece with BOS, this leaves one. Checkpoints were trained so.
        if self._bos is not None and before[:1] == [self._bos]:
            return Prompt((self._bos, *before[1:]), tuple(after[1:]))
        return Prompt(tuple(before), tuple(after))
