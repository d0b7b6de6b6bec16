"""One image and one question on their way to an answer, in the order things happen.

    preprocess → base, text → adapter without experts → route → experts → adapter with them → answer

What both passes need is computed once: base features, the text feature, an expert's feature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from mova_runtime.bundle import Bundle
from mova_runtime.bundle.arrays import load_array
from mova_runtime.encoder import Encoder, ExpertFeature, Pair
from mova_runtime.engines.pool import EnginePool
from mova_runtime.errors import BundleError, QuestionError
from mova_runtime.images import Inputs, Preprocessor
from mova_runtime.language.decoder import Decoder, Finish
from mova_runtime.language.prompt import Prompt, PromptBuilder
from mova_runtime.language.stream import TextStream
from mova_runtime.language.tokenizer import Tokenizer
from mova_runtime.routing.parse import parse
from mova_runtime.trace import Trace
from mova_runtime.types import Routing, Visual

T = TypeVar("T")


class Model:
    """What requests share: the bundle's parts that are not engines."""

    def __init__(self, bundle: Bundle, pool: EnginePool) -> None:
        manifest, language = bundle.manifest, bundle.manifest.language
        self.manifest = manifest
        self.pool = pool
        self.preprocessor = Preprocessor(manifest.preprocessing)
        self.encoder = Encoder(bundle, pool)
        self.tokenizer = Tokenizer(bundle.checked_path(language.tokenizer), clean_up_spaces=language.clean_up_spaces)
        self.prompts = PromptBuilder(manifest.prompts, self.tokenizer, language.bos)
        self.stop = self.tokenizer.id_of(manifest.prompts.stop)
        self._bundle = bundle
        self._embeddings: np.ndarray | None = None

    @property
    def embeddings(self) -> np.ndarray:
        """The language model's table [vocabulary, hidden], memory-mapped."""
        if self._embeddings is None:
            file = self.manifest.language.embeddings
            if file is None:
                raise BundleError("the bundle was exported without the language model")
            self._embeddings = load_array(self._bundle.checked_path(file), mapped=True)
        return self._embeddings


@dataclass
class Generated:
    """What the language model said, growing while it speaks."""

    tokens: list[int]
    text: str = ""
    finish: Finish = "length"


class Request:
    """Steps of one request, and what they have computed so far."""

    def __init__(self, model: Model, inputs: Inputs, question: str) -> None:
        """`question` has passed `PromptBuilder.check`."""
        self.trace = Trace()
        self.hits = self.misses = 0
        self.prompt_tokens = 0
        self._model = model
        self._inputs = inputs
        self._question = question
        self._features: dict[str, object] = {}

    def check_length(self, routed: bool) -> None:
        """See that every prompt of this request fits, before anything runs.

        Raises:
            QuestionError: it does not, with the numbers.
        """
        vision = self._model.manifest.vision
        self._fit(self._answer_prompt, vision.visual_tokens)
        if routed:
            self._fit(self._routing_prompt, vision.routing_tokens)

    def route(self) -> Routing:
        """Ask the language model which experts suit the question; no expert runs."""
        visual = self._model.encoder.pool_for_routing(self.fuse((), stage="adapter (routing)").tokens)
        limit, said = self._model.manifest.prompts.routing_max_new_tokens, Generated([])
        for _ in self._generate(self._routing_prompt, visual, limit, said, "route"):
            pass
        experts = parse(said.text, self._model.manifest.vision.experts)
        return Routing(experts, said.text, tuple(said.tokens))

    def fuse(self, experts: Sequence[str], stage: str = "adapter") -> Visual:
        """Run the selected experts and the adapter."""
        encoder = self._model.encoder
        base = self._once("base", lambda: encoder.base([self._inputs], self.trace))
        text = self._once("text", lambda: encoder.text([self._question], self.trace))
        pairs = [Pair(0, name, self._expert(name)) for name in experts]
        tokens, gates = encoder.fuse(base, text, pairs, self.trace, stage)
        return Visual(tokens[0], gates[:, 0])

    def answer(self, visual: Visual, max_new_tokens: int, said: Generated) -> Iterator[str]:
        """Pieces of the answer's text; `said` has all of it at the end."""
        prompt = self._answer_prompt
        self.prompt_tokens = prompt.text_tokens + len(visual.tokens)
        return self._generate(prompt, visual.tokens, max_new_tokens, said, "answer")

    @cached_property
    def _answer_prompt(self) -> Prompt:
        return self._model.prompts.answer(self._question)

    @cached_property
    def _routing_prompt(self) -> Prompt:
        return self._model.prompts.routing(self._question)

    def _expert(self, name: str) -> ExpertFeature:
        return self._once(name, lambda: self._model.encoder.expert(name, [self._inputs], self.trace)[0])

    def _generate(self, prompt: Prompt, visual: np.ndarray, limit: int, said: Generated, stage: str) -> Iterator[str]:
        model = self._model
        self._fit(prompt, len(visual))
        stream = TextStream(model.tokenizer)
        with model.pool.lease("llm", self.trace) as engine:
            decoder = Decoder(engine, model.embeddings, model.manifest.language)
            with self.trace.stage(stage):
                for token in decoder.generate(prompt, visual, limit, model.stop):
                    said.tokens.append(token)
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

    def _once(self, key: str, compute: Callable[[], T]) -> T:
        if key in self._features:
            self.hits += 1
        else:
            self.misses += 1
            self._features[key] = compute()
        return self._features[key]  # type: ignore[return-value]  # stored under this key by the same call
