"""One image and one question on their way to an answer, in the order things happen.

    preprocess → base → adapter without experts → route → text, experts → adapter with them → answer

Engines are announced as soon as it is known that they will be needed, and load beside what comes before them: an expert
from the moment the router has named it. The text feature only weighs experts, so without one it is not computed, and
the pass without experts is the answer's too.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from functools import cached_property
from types import TracebackType

import numpy as np

from mova_runtime.conversation import Conversation, Exchange
from mova_runtime.encoder import HIT, MISS
from mova_runtime.errors import MovaError, QuestionError
from mova_runtime.fusion import Fusion
from mova_runtime.given import by_router
from mova_runtime.images import Inputs
from mova_runtime.language.generation import Generation
from mova_runtime.language.kept import Slot
from mova_runtime.language.pace import Pace
from mova_runtime.language.prompt import Prompt
from mova_runtime.language.speech import Said, never, speech
from mova_runtime.model import Model
from mova_runtime.routing.listener import Listener
from mova_runtime.routing.parse import check, parse
from mova_runtime.trace import Trace
from mova_runtime.types import Routing, Visual

_ANSWERS_SHARE = 4
"""A conversation leaves its next answer room, but no more than one in so many of the context's tokens."""

CHOSEN = "chosen"
"""Mark in a trace, with the expert: the router has named it."""


NO_EXPERTS = Routing((), "", ())


class Request:
    """Steps of one request, and what they have found so far.

    A context manager: at its end, whichever it is, nothing of what was announced is wanted any more.
    """

    def __init__(
        self,
        model: Model,
        inputs: Inputs,
        question: str,
        trace: Trace,
        wanted: Generation | None = None,
        conversation: Conversation | None = None,
    ) -> None:
        """Run nothing yet.

        Args:
            model: what requests share.
            inputs: the image.
            question: has passed `PromptBuilder.check`.
            trace: of this request.
            wanted: how the answer is to be, where there will be one.
            conversation: that the question belongs to; None for a question by itself.
        """
        self.trace = trace
        self.routing = NO_EXPERTS
        self.said = Said([])
        self.prompt_tokens = self.reused_tokens = self._dropped = 0
        self._wanted = wanted or Generation()
        self._conversation = conversation
        self._model = model
        self._inputs = inputs
        self._question = question
        self._plan = model.plan(trace)
        self._fusion = Fusion(model, inputs, question, self._plan, trace)

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

    def check_length(self, experts: Sequence[str] | None, *, answered: bool) -> None:
        """See that every prompt of this request fits, before anything runs.

        Args:
            experts: those to use; None asks the router, which reads a prompt if it is the language model.
            answered: there will be an answer.

        Raises:
            QuestionError: the question is too long, with the numbers.
            MovaError: so would any question be.
        """
        vision = self._model.manifest.vision
        if experts is None and self._model.router is None:  # first: it is the longer one
            room = self._model.manifest.prompts.routing_max_new_tokens
            self._fit(self._routing_prompt, vision.routing_tokens, room)
        if answered:
            self._fit(self._answer_prompt, vision.visual_tokens)

    def speak(self, experts: Sequence[str] | None) -> Generator[str, None, None]:
        """All of it: pieces of the answer's text; at the end `routing` and `said` hold the rest.

        `experts`: those to use; None asks the router. A request that is cancelled says no more, whatever it has said.
        """
        with self:
            self.expect(experts, answered=True)
            self.routing = self._chosen(experts)
            if self._cancelled():
                return
            visual = self._seen_before(self.routing.experts) or self.fuse(self.routing.experts)
            if self._cancelled():
                return
            prompt, images, slot = self._prompt(visual)
            self.prompt_tokens = prompt.text_tokens + sum(map(len, images))
            yield from self._generate(prompt, images, self._wanted, self.said, "answer", slot)
            if self._conversation is not None and self.said.finish != "cancelled":
                exchange = Exchange(self._question, self._inputs.digest, tuple(self.said.tokens), self.said.text)
                self._conversation.add(exchange, self.routing.experts, visual, self._dropped)

    def expect(self, experts: Sequence[str] | None, *, answered: bool) -> None:
        """Announce what the request needs as far as it is known: without `experts`, the router will say the rest."""
        features = ("base", *(("text", *experts) if experts else ()))
        asked = answered or (experts is None and self._model.router is None)
        rest = ("adapter", *(("llm",) if asked and self._model.language_model is None else ()))
        self._plan.add(*(name for name in features if not self._fusion.is_kept(name)), *rest)

    def route(self, *, ahead: bool = True) -> Routing:
        """Ask which experts suit the question; none runs.

        `ahead`: what is named begins to load, and the router is heard no longer than it can change its choice.
        """
        if self._model.router is not None:
            names = by_router(self._model.router, self._inputs.image, self._question)
            return Routing(check(names, self._model.manifest.vision.experts), "", ())
        visual = self._model.encoder.pool_for_routing(self.without_experts.tokens)
        prompts, said = self._model.manifest.prompts, Said([])
        if ahead:
            self._plan.guess(name for name in self._model.likely if not self._fusion.is_kept(name))
        wanted = Generation(prompts.routing_max_new_tokens, cancel=self._wanted.cancel)
        slot = Slot(("route", self._inputs.digest), self._routing_prompt.text_tokens + len(visual))
        enough = Listener(self._model.tokenizer, self._model.manifest.vision.experts, self._named) if ahead else never
        for _ in self._generate(self._routing_prompt, [visual], wanted, said, "route", slot, enough):
            pass
        experts = parse(said.text, self._model.manifest.vision.experts)
        self._model.remember_choice(experts)
        return Routing(experts, said.text, tuple(said.tokens))

    @property
    def without_experts(self) -> Visual:
        """The fused image before anybody is asked: what the router sees."""
        return self._fusion.without_experts

    def fuse(self, experts: Sequence[str]) -> Visual:
        """Run the selected experts and the adapter."""
        return self._fusion.fuse(experts)

    @cached_property
    def _answer_prompt(self) -> Prompt:
        return self._model.prompts.answer(self._question)

    @cached_property
    def _routing_prompt(self) -> Prompt:
        return self._model.prompts.routing(self._question)

    def _named(self, name: str) -> None:
        """The router has named an expert."""
        self.trace.mark(CHOSEN, component=name)
        self._plan.add(*(one for one in (name, "text") if not self._fusion.is_kept(one)))

    def _chosen(self, experts: Sequence[str] | None) -> Routing:
        return self.route() if experts is None else Routing(tuple(experts), "", ())

    def _cancelled(self) -> bool:
        cancelled = self._wanted.cancelled
        if cancelled:
            self.said.finish = "cancelled"
        return cancelled

    def _seen_before(self, experts: Sequence[str]) -> Visual | None:
        """The image as the conversation has it, if these experts were chosen then, too."""
        if self._conversation is None:
            return None
        found = self._conversation.fused(self._inputs.digest, experts)
        if found:
            self._plan.done(("base", "text", "adapter", *experts))
        return found

    def _prompt(self, visual: Visual) -> tuple[Prompt, list[np.ndarray], Slot]:
        """The answer's prompt, its images, and what is kept of it."""
        model = self._model
        if self._conversation is None:
            prompt = self._answer_prompt
            return prompt, [visual.tokens], Slot("text before the image", len(prompt.before))
        longest = model.longest_prompt(min(self._wanted.max_new_tokens, model.language.context // _ANSWERS_SHARE))
        prompt, images, self._dropped = self._conversation.prompt(
            model.prompts, self._question, self._inputs.digest, visual, model.stop, longest
        )
        if self._dropped:
            self.trace.mark("turns dropped", turns=self._dropped)
        return prompt, images, Slot(("conversation", id(self._conversation)), None)

    def _generate(
        self,
        prompt: Prompt,
        images: Sequence[np.ndarray],
        wanted: Generation,
        said: Said,
        stage: str,
        slot: Slot,
        enough: Callable[[Sequence[int]], bool] = never,
    ) -> Iterator[str]:
        model = self._model
        self._fit(prompt, sum(map(len, images)))
        if model.language_model is None:
            self._plan.due("llm")
        with model.speaker(self.trace, slot) as speaker, self.trace.stage(stage) as facts:
            pace = Pace()
            tokens = pace.heard(speaker.generate(prompt, images, wanted, model.stop))
            yield from speech(tokens, speaker, model.tokenizer, wanted.stop, said, enough)
            facts["reused_tokens"] = self.reused_tokens = speaker.reused
            facts |= pace.facts()

    def _fit(self, prompt: Prompt, visual_tokens: int, room: int = 1) -> None:
        """See that a prompt fits, and `room` tokens behind it."""
        longest = self._model.longest_prompt(room)
        total = prompt.text_tokens + visual_tokens
        if total <= longest:
            return
        if (beyond := total - longest) < len(self._model.tokenizer.encode(self._question)):
            raise QuestionError(
                f"the question is too long: its prompt takes {total} tokens, the model reads at most {longest}; "
                f"shorten it by {beyond} token{'s' * (beyond > 1)}"
            )
        raise MovaError(
            f"the context is too short for any question: a prompt takes {total} tokens, the model reads at most "
            f"{longest}; raise max_context by {beyond}"
        )
