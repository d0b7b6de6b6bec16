"""What a request sees: its image's features, and the image fused with those of the experts that were chosen."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

from mova_runtime.encoder import Pair
from mova_runtime.engines.prefetch import Plan
from mova_runtime.engines.protocol import Array
from mova_runtime.features import ExpertFeature
from mova_runtime.images import Inputs
from mova_runtime.model import Model
from mova_runtime.trace import Trace
from mova_runtime.types import Visual


class Fusion:
    """One image and one question. What is computed once serves the router and the answer."""

    def __init__(self, model: Model, inputs: Inputs, question: str, plan: Plan, trace: Trace) -> None:
        self._model = model
        self._inputs = inputs
        self._question = question
        self._plan = plan
        self._trace = trace

    def is_kept(self, component: str) -> bool:
        """Whether a feature that this request needs is in the cache, so that its engine is not needed."""
        content = self._question if component == "text" else self._inputs.digest
        return self._model.encoder.is_kept(component, content)

    @cached_property
    def without_experts(self) -> Visual:
        """The fused image before anybody is asked: the router sees it, and the answer if nobody is chosen."""
        encoder, base = self._model.encoder, self._base
        self._plan.due("adapter")
        tokens, gates = encoder.fuse([base], [encoder.no_text], (), self._trace, "adapter (no experts)")
        return Visual(tokens[0], gates[:, 0])

    def fuse(self, experts: Sequence[str]) -> Visual:
        """Run the selected experts and the adapter."""
        if not experts:
            visual = self.without_experts
            self._plan.done(("base", "adapter"))
            return visual
        encoder, base = self._model.encoder, self._base
        self._plan.due("text")
        text = encoder.text([self._question], self._trace)
        self._plan.done(("text",))
        pairs = [Pair(0, name, feature) for name, feature in zip(experts, self._run(experts), strict=True)]
        tokens, gates = encoder.fuse([base], text, pairs, self._trace)
        self._plan.done(("base", "adapter"))
        return Visual(tokens[0], gates[:, 0])

    @cached_property
    def _base(self) -> Array:
        self._plan.due("base")
        return self._model.encoder.base([self._inputs], self._trace)[0]

    def _run(self, experts: Sequence[str]) -> list[ExpertFeature]:
        """What each expert makes of the image: one after another, or at the same time as far as memory allows."""

        def one(name: str) -> ExpertFeature:
            self._plan.due(name)
            feature = self._model.encoder.expert(name, [self._inputs], self._trace)[0]
            self._plan.done((name,))
            return feature

        if len(experts) == 1 or not self._model.experts_at_once:
            return [one(name) for name in experts]
        with ThreadPoolExecutor(len(experts), thread_name_prefix="mova-expert") as workers:
            return list(workers.map(one, experts))
