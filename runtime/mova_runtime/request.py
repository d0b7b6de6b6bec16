"""One image and one question on their way to an answer, in the order things happen.

    preprocess → base → adapter without experts → route → text, experts → adapter with them → answer

Engines are announced as soon as it is known that they will be needed, and load beside what comes before them: an expert
from the moment the router has named it. The text feature only weighs experts, so without one it is not computed, and
the pass without experts is the answer's too.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType

import numpy as np

from mova_runtime.encoder import HIT, MISS, Pair
from mova_runtime.engines.protocol import Array
from mova_runtime.errors import QuestionError
from mova_runtime.features import ExpertFeature
from mova_runtime.images import Inputs
from mova_runtime.language.decoder import Decoder, Finish
from mova_runtime.language.prompt import Prompt
from mova_runtime.language.stream import TextStream
from mova_runtime.model import Model
from mova_runtime.routing.parse import parse
from mova_runtime.trace import Trace
from mova_runtime.types import Routing, Visual

CHOSEN = "chosen"
"""Mark in a trace, with the expert: the router has named it."""


NO_EXPERTS = Routing((), "", ())


def _ignore(tokens: Sequence[int]) -> None:
    """Nobody waits for single tokens."""


@dataclass
class Generated:
    """What the language model said, growing while it speaks."""

    tokens: list[int]
    text: str = ""
    finish: Finish = "length"


class Request:
    """Steps of one request, and what they have found so far.

    A context manager: at its end, whichever it is, nothing of what was announced is wanted any more.
    """

    def __init__(self, model: Model, inputs: Inputs, question: str, trace: Trace) -> None:
        """`question` has passed `PromptBuilder.check`."""
        self.trace = trace
        self.routing = NO_EXPERTS
        self.said = Generated([])
        self.prompt_tokens = 0
        self._model = model
        self._inputs = inputs
        self._question = question
        self._plan = model.plan(trace)
        self._heard: set[str] = set()

    def __enter__(self) -> Request:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._plan.end()

    @property
    def cache(self) -> dict[str, int]:
        """Features that were found in the cache (`hits`) and that were computed (`misses`) so far."""
        return {"hits": self.trace.count(HIT), "misses": self.trace.count(MISS)}

    def check_length(self, routed: bool) -> None:
        """See that every prompt of this request fits, before anything runs.

        Raises:
            QuestionError: it does not, with the numbers.
        """
        vision = self._model.manifest.vision
        self._fit(self._answer_prompt, vision.visual_tokens)
        if routed:
            self._fit(self._routing_prompt, vision.routing_tokens)

    def speak(self, experts: Sequence[str] | None, max_new_tokens: int) -> Generator[str, None, None]:
        """All of it: pieces of the answer's text; at the end `routing` and `said` hold the rest.

        `experts`: those to use; None asks the router.
        """
        with self:
            self.expect(experts, answered=True)
            self.routing = self.route() if experts is None else Routing(tuple(experts), "", ())
            visual = self.fuse(self.routing.experts)
            prompt = self._answer_prompt
            self.prompt_tokens = prompt.text_tokens + len(visual.tokens)
            yield from self._generate(prompt, visual.tokens, max_new_tokens, self.said, "answer")

    def expect(self, experts: Sequence[str] | None, *, answered: bool) -> None:
        """Announce what the request needs as far as it is known: without `experts`, the router will say the rest."""
        features = ("base", *(("text", *experts) if experts else ()))
        rest = ("adapter", *(("llm",) if answered or experts is None else ()))
        self._plan.add(*(name for name in features if not self._is_kept(name)), *rest)

    def route(self, *, ahead: bool = True) -> Routing:
        """Ask the language model which experts suit the question.

        None runs; `ahead`: but what it names begins to load.
        """
        visual = self._model.encoder.pool_for_routing(self._without_experts.tokens)
        limit, said = self._model.manifest.prompts.routing_max_new_tokens, Generated([])
        if ahead:
            self._plan.guess(name for name in self._model.likely if not self._is_kept(name))
        listen = self._listen if ahead else _ignore
        for _ in self._generate(self._routing_prompt, visual, limit, said, "route", listen):
            pass
        experts = parse(said.text, self._model.manifest.vision.experts)
        self._model.remember_choice(experts)
        return Routing(experts, said.text, tuple(said.tokens))

    def fuse(self, experts: Sequence[str]) -> Visual:
        """Run the selected experts and the adapter."""
        if not experts:
            visual = self._without_experts
            self._plan.done(("base", "adapter"))
            return visual
        encoder, base = self._model.encoder, self._base
        self._plan.due("text")
        text = encoder.text([self._question], self.trace)
        self._plan.done(("text",))
        pairs = [Pair(0, name, feature) for name, feature in zip(experts, self._run(experts), strict=True)]
        tokens, gates = encoder.fuse([base], text, pairs, self.trace)
        self._plan.done(("base", "adapter"))
        return Visual(tokens[0], gates[:, 0])

    def _run(self, experts: Sequence[str]) -> list[ExpertFeature]:
        """What each expert makes of the image: one after another, or at the same time as far as memory allows."""

        def one(name: str) -> ExpertFeature:
            self._plan.due(name)
            feature = self._model.encoder.expert(name, [self._inputs], self.trace)[0]
            self._plan.done((name,))
            return feature

        if len(experts) == 1 or not self._model.experts_at_once:
            return [one(name) for name in experts]
        with ThreadPoolExecutor(len(experts), thread_name_prefix="mova-expert") as workers:
            return list(workers.map(one, experts))

    @cached_property
    def _answer_prompt(self) -> Prompt:
        return self._model.prompts.answer(self._question)

    @cached_property
    def _routing_prompt(self) -> Prompt:
        return self._model.prompts.routing(self._question)

    @cached_property
    def _base(self) -> Array:
        self._plan.due("base")
        return self._model.encoder.base([self._inputs], self.trace)[0]

    @cached_property
    def _without_experts(self) -> Visual:
        """The fused image before anybody is asked: the router sees it, and the answer if nobody is chosen."""
        encoder, base = self._model.encoder, self._base
        self._plan.due("adapter")
        tokens, gates = encoder.fuse([base], [encoder.no_text], (), self.trace, "adapter (no experts)")
        return Visual(tokens[0], gates[:, 0])

    def _listen(self, tokens: Sequence[int]) -> None:
        """The router has said one token more: experts that it names now, no later token takes back."""
        tokenizer = self._model.tokenizer
        if tokenizer.is_byte(tokens[-1]):  # what a run of bytes spells is not sure before its end
            return
        experts = parse(tokenizer.decode(tokens), self._model.manifest.vision.experts)
        for name in experts:
            if name not in self._heard:
                self._heard.add(name)
                self.trace.mark(CHOSEN, component=name)
                self._plan.add(*(one for one in (name, "text") if not self._is_kept(one)))

    def _is_kept(self, component: str) -> bool:
        """Whether a feature that this request needs is in the cache, so that its engine is not needed."""
        content = self._question if component == "text" else self._inputs.digest
        return self._model.encoder.is_kept(component, content)

    def _generate(
        self,
        prompt: Prompt,
        visual: np.ndarray,
        limit: int,
        said: Generated,
        stage: str,
        listen: Callable[[Sequence[int]], None] = _ignore,
    ) -> Iterator[str]:
        model = self._model
        self._fit(prompt, len(visual))
        stream = TextStream(model.tokenizer)
        self._plan.due("llm")
        with model.pool.lease("llm", self.trace) as engine:
            decoder = Decoder(engine, model.embeddings, model.manifest.language)
            with self.trace.stage(stage):
                for token in decoder.generate(prompt, visual, limit, model.stop):
                    said.tokens.append(token)
                    listen(said.tokens)
                    if piece := stream.add(token):
                        yield piece
        said.text, said.finish = stream.text, decoder.finish
        if piece := stream.end():
            yield piece

    def _fit(self, prompt: Prompt, visual_tokens: int) -> None:
        language = self._model.manifest.language
        longest = min(language.max_prompt, language.context - 1)
        if (total := prompt.text_tokens + visual_tokens) > longest:
            raise QuestionError(
                f"the question is too long: its prompt takes {total} tokens, the model reads at most {longest}; "
                f"shorten it by {total - longest} tokens"
            )
