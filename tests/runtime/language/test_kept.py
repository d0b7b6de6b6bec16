"""Beginnings of prompts that are not read again: same tokens, fewer runs, in both forms of the cache."""

from collections.abc import Callable

import numpy as np
import pytest

from arithmetic_language import EMBEDDINGS, HIDDEN, LANGUAGE, NEVER, PROMPT, VISUAL, ArithmeticEngine, foretold
from mova_runtime.engines.memory import Limits
from mova_runtime.engines.pool import EnginePool, FeatureCache
from mova_runtime.language.decoder import Decoder
from mova_runtime.language.generation import Generation
from mova_runtime.language.kept import MOST, KeptPrompts, Memo, Slot
from mova_runtime.language.prompt import Prompt

ALL = Slot("all", None)
Ask = Callable[..., tuple[list[int], int, list[int]]]


def kept_prompts(bound: int = 1 << 20) -> KeptPrompts:
    return KeptPrompts(FeatureCache(EnginePool((), None, Limits(bound)), bound))  # type: ignore[arg-type]


@pytest.fixture(params=["growing", "shared"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Asks an engine of its own; gives the tokens, how many of the prompt were reused, and what each run read."""

    def asked(
        kept: KeptPrompts,
        prompt: Prompt = PROMPT,
        visual: np.ndarray = VISUAL,
        slot: Slot = ALL,
        by: str = "ort",
    ) -> tuple[list[int], int, list[int]]:
        engine = ArithmeticEngine(request.param)
        decoder = Decoder(engine, EMBEDDINGS, LANGUAGE, Memo(kept, by, slot))
        tokens = list(decoder.generate(prompt, [visual], Generation(5), NEVER))
        assert tokens == foretold(prompt, visual, 5)
        return tokens, decoder.reused, engine.runs

    return asked


def test_the_same_prompt_is_read_but_for_its_last_token(ask: Ask) -> None:
    kept = kept_prompts()
    assert ask(kept)[1:] == (0, [9, 1, 1, 1, 1])
    assert ask(kept)[1:] == (8, [1, 1, 1, 1, 1])


def test_what_two_prompts_have_in_common(ask: Ask) -> None:
    kept = kept_prompts()
    ask(kept, slot=Slot("first", 9))
    assert ask(kept, Prompt(((1, 5), (7, 3, 3))))[1] == 7, "the image, and a token after it"
    assert ask(kept, PROMPT, VISUAL + 1)[1] == 2, "another image: the text before it"
    assert ask(kept, Prompt(((2, 5), (7, 2, 3))))[1] == 0


def test_an_image_is_compared_by_its_tokens_not_by_its_length(ask: Ask) -> None:
    kept = kept_prompts()
    ask(kept)
    longer = np.concatenate((VISUAL, VISUAL[:1]))
    assert ask(kept, PROMPT, longer)[1] == 2


def test_a_conversation_goes_on_after_the_answer(ask: Ask) -> None:
    kept = kept_prompts()
    said, _, _ = ask(kept)
    after = (*PROMPT.pieces[1], *said, 4, 4)
    assert ask(kept, Prompt((PROMPT.pieces[0], after)))[1:] == (13, [3, 1, 1, 1, 1]), "all but the last token was read"


def test_no_more_is_kept_than_was_asked_for(ask: Ask) -> None:
    kept = kept_prompts()
    ask(kept, slot=Slot("text", 2))
    assert ask(kept)[1] == 2


def test_another_engine_has_other_keys(ask: Ask) -> None:
    kept = kept_prompts()
    ask(kept, by="ort:fp32")
    assert ask(kept, by="ort:int4")[1] == 0


def test_a_slot_holds_its_last_prompt(ask: Ask) -> None:
    kept = kept_prompts()
    other = Prompt(((8, 8), (7, 2, 3)))
    ask(kept)
    ask(kept, other)
    assert ask(kept, slot=Slot("look", 0))[1] == 0
    assert ask(kept, other, slot=Slot("look", 0))[1] == 8


def test_what_the_cache_has_no_room_for_is_read_again(ask: Ask) -> None:
    kept = kept_prompts(bound=64)
    ask(kept)
    assert ask(kept)[1] == 0


def test_an_answer_given_up_early_keeps_the_prompt(ask: Ask) -> None:
    kept = kept_prompts()
    decoder = Decoder(ArithmeticEngine(), EMBEDDINGS, LANGUAGE, Memo(kept, "ort", ALL))
    answer = decoder.generate(PROMPT, [VISUAL], Generation(5), NEVER)
    next(answer)
    answer.close()
    assert ask(kept)[1] == 8


def test_a_failed_run_keeps_nothing(ask: Ask) -> None:
    class Failing(ArithmeticEngine):
        def bind(self):  # type: ignore[no-untyped-def]
            binding = super().bind()
            run = binding.run

            def failing() -> None:
                if self.runs:
                    raise RuntimeError("gone")
                run()

            binding.run = failing
            return binding

    kept = kept_prompts()
    decoder = Decoder(Failing(), EMBEDDINGS, LANGUAGE, Memo(kept, "ort", ALL))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="gone"):
        list(decoder.generate(PROMPT, [VISUAL], Generation(5), NEVER))
    assert ask(kept)[1] == 0


def test_so_many_are_looked_through(ask: Ask) -> None:
    kept = kept_prompts()
    for number in range(MOST + 1):
        ask(kept, Prompt(((number % 17, number // 17), (1,))), np.zeros((0, HIDDEN), np.float32), Slot(number, 2))
    assert len(kept._marks) == MOST
