"""What the language model says: text from tokens, in pieces, and why it ended."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mova_runtime.language.decoder import Finish
from mova_runtime.language.ending import Ending
from mova_runtime.language.generation import Generation
from mova_runtime.language.prompt import Prompt
from mova_runtime.language.stream import TextStream
from mova_runtime.language.tokenizer import Tokenizer


class Speaker(Protocol):
    """The bundle's language model, or another one: see `Decoder`."""

    finish: Finish
    reused: int

    def generate(
        self, prompt: Prompt, images: Sequence[np.ndarray], wanted: Generation, stop: int
    ) -> Generator[int, None, None]:
        """Token ids."""


def never(tokens: Sequence[int]) -> bool:
    """Nobody has heard enough."""
    return False


@dataclass
class Said:
    """What was said, growing while the model speaks; `text` is its pieces, joined."""

    tokens: list[int]
    text: str = ""
    finish: Finish = "length"


def speech(
    tokens: Generator[int, None, None],
    speaker: Speaker,
    tokenizer: Tokenizer,
    stops: Sequence[str],
    said: Said,
    enough: Callable[[Sequence[int]], bool] = never,
) -> Iterator[str]:
    """Tokens as text that never splits a character.

    Args:
        tokens: that `speaker` generates.
        speaker: says afterwards why they ended.
        tokenizer: of the language model.
        stops: texts that end the answer and are not part of it.
        said: is filled.
        enough: asked after each token, with all so far, whether to end here ("settled").
    """
    stream, ending, blanks = TextStream(tokenizer), Ending(stops), ""

    def passed(text: str) -> str:
        """What of it may leave; blanks stay until something follows them, for an answer ends without."""
        nonlocal blanks
        piece = blanks + text
        blanks = piece[len(piece.rstrip()) :]
        return piece.rstrip()

    settled = False
    with closing(tokens):  # which lets go of the engine, before its lease ends
        for token in tokens:
            said.tokens.append(token)
            settled = enough(said.tokens)
            if piece := passed(ending.add(stream.add(token))):
                said.text += piece
                yield piece
            if settled or ending.done:
                break
    said.finish = "settled" if settled and speaker.finish != "stop" else speaker.finish
    if piece := passed(ending.add(stream.end()) + ending.end()):
        said.text += piece
        yield piece
    if ending.done:
        said.finish = "stop"
