"""What was said so far, as the next prompt has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mova_runtime.language.prompt import Prompt, PromptBuilder, Turn
from mova_runtime.types import Visual


@dataclass(frozen=True)
class Exchange:
    """A question that was answered.

    image: digest of the image that it was about; tokens: of the answer, also those of a text that ended it; answer: as
    it was given.
    """

    question: str
    image: str
    tokens: tuple[int, ...] = ()
    answer: str = ""


@dataclass(frozen=True)
class Fused:
    """An image as the conversation has it: fused with what was chosen for the first question that chose so."""

    experts: tuple[str, ...]
    visual: Visual


class Conversation:
    """Exchanges and images; an empty one is that of a single question.

    An image stands before the first question about it that is still there. It is fused once, for the question that
    brings it up; a later question whose experts are others has it fused anew, everywhere.
    """

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self._images: dict[str, Fused] = {}

    def fused(self, image: str, experts: Sequence[str]) -> Visual | None:
        """An image that is there, fused with these experts."""
        found = self._images.get(image)
        return found.visual if found and found.experts == tuple(experts) else None

    def prompt(
        self, builder: PromptBuilder, question: str, image: str, visual: Visual, stop: int, longest: int
    ) -> tuple[Prompt, list[np.ndarray], int]:
        """The prompt that asks a question after what is there.

        Args:
            builder: of prompts.
            question: the new one.
            image: digest of the image that it is about.
            visual: that image.
            stop: the id that ends an answer.
            longest: tokens that the prompt may have, unless the question alone has more. Where it would have more, the
                oldest exchanges are left out until a quarter is free: what was read of the prompt is lost then, and
                should not be with each question.

        Returns:
            The prompt, the visual tokens [tokens, hidden] of its images, and how many exchanges were left out.
        """
        asked, most = Exchange(question, image), longest
        for dropped in range(len(self.exchanges) + 1):
            turns, shown = _turns([*self.exchanges[dropped:], asked])
            prompt = builder.conversation(turns, stop)
            images = [visual.tokens if name == image else self._images[name].visual.tokens for name in shown]
            if prompt.text_tokens + sum(map(len, images)) <= most:
                break
            most = 3 * longest // 4
        return prompt, images, dropped

    def add(self, exchange: Exchange, experts: Sequence[str], visual: Visual, dropped: int) -> None:
        """A question was answered, by a prompt that left the oldest out: they are forgotten, with their images."""
        self.exchanges = [*self.exchanges[dropped:], exchange]
        there = {one.image for one in self.exchanges}
        images = {**self._images, exchange.image: Fused(tuple(experts), visual)}
        self._images = {name: fused for name, fused in images.items() if name in there}

    def clear(self) -> None:
        """Forget everything."""
        self.exchanges, self._images = [], {}


def _turns(exchanges: Sequence[Exchange]) -> tuple[list[Turn], list[str]]:
    """Turns, the first of an image with it, and the images in that order.

    A question about an image that was shown before, with another one between, brings it up again: the model reads the
    image that was shown last.
    """
    turns, images, current = [], [], ""
    for exchange in exchanges:
        shown = exchange.image != current
        turns.append(Turn(exchange.question, shown, exchange.tokens))
        images += [exchange.image] * shown
        current = exchange.image
    return turns, images
