"""Images and questions to features, and features to visual tokens. Everything here takes a batch.

What an encoder made of an image is kept in the feature cache: a second question about the image runs no tower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

import numpy as np

from mova_runtime.bundle import Bundle
from mova_runtime.engines.pool import EnginePool, FeatureCache
from mova_runtime.engines.protocol import Array, Inputs
from mova_runtime.features import ExpertFeature, own, size_of
from mova_runtime.images import Inputs as ImageInputs
from mova_runtime.language.tokenizer import Tokenizer
from mova_runtime.trace import Trace
from mova_runtime.types import Served

Feature = TypeVar("Feature", bound="Array | ExpertFeature")

HIT, MISS = "cache hit", "cache miss"
"""Marks in a trace, with the component."""


@dataclass(frozen=True)
class Pair:
    """An expert that an image of the batch selected."""

    image: int
    expert: str
    feature: ExpertFeature


class Encoder:
    """Runs the engines up to the visual tokens."""

    def __init__(
        self, bundle: Bundle, pool: EnginePool, features: FeatureCache, served: Mapping[str, Served] | None = None
    ) -> None:
        """`served`: by what each component was loaded so far; features of another backend or precision are others."""
        manifest = bundle.manifest
        self._bundle = bundle
        self._pool = pool
        self._features = features
        self._served = {} if served is None else served  # still empty when requests begin
        self._vision = manifest.vision
        self._inputs = {expert.name: expert.input for expert in manifest.vision.experts}
        self._indices = {expert.name: index for index, expert in enumerate(manifest.vision.experts)}
        self._text = manifest.text
        self._tokenizer = Tokenizer(bundle.checked_path(manifest.text.tokenizer))

    def is_kept(self, component: str, content: str) -> bool:
        """Whether a feature is in the cache: of a question's text, or of an image by its digest."""
        return self._features.has(self._key(component, self._asked(content) if component == "text" else content))

    def base(self, images: Sequence[ImageInputs], trace: Trace) -> list[Array]:
        """Each image's base features [L, C], where they were computed."""

        def compute(missing: list[int]) -> list[Array]:
            with trace.stage("preprocess clip"):
                pixels = np.stack([images[i]["clip"] for i in missing])
            with self._pool.lease("base", trace, runs=len(missing)) as engine, trace.stage("base"):
                return own(engine.keep({"pixels": pixels})["features"])

        return self._kept("base", [image.digest for image in images], compute, trace)

    def text(self, questions: Sequence[str], trace: Trace) -> list[Array]:
        """Each question's feature [hidden] for the gate."""
        asked = [self._asked(question) for question in questions]

        def compute(missing: list[int]) -> list[Array]:
            rows = [self._tokenizer.encode(asked[i], max_tokens=self._text.max_tokens) for i in missing]
            ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
            mask = np.zeros_like(ids)
            for i, row in enumerate(rows):
                ids[i, : len(row)], mask[i, : len(row)] = row, 1
            with self._pool.lease("text", trace, runs=len(missing)) as engine, trace.stage("text"):
                return own(engine.run({"ids": ids, "mask": mask})["text"])

        return self._kept("text", asked, compute, trace)

    def expert(self, name: str, images: Sequence[ImageInputs], trace: Trace) -> list[ExpertFeature]:
        """One expert's feature of each image."""
        kind = self._inputs[name]

        def compute(missing: list[int]) -> list[ExpertFeature]:
            with trace.stage(f"preprocess {kind}"):
                batch = np.stack([images[i][kind] for i in missing])
            with self._pool.lease(name, trace, runs=len(missing)) as engine, trace.stage(name):
                out = engine.keep({"patches" if kind == "flattened" else "pixels": batch})
                parts = (own(out[part]) for part in ("features", "keys", "values"))
                return [ExpertFeature(*of_image) for of_image in zip(*parts, strict=True)]

        return self._kept(name, [image.digest for image in images], compute, trace)

    def fuse(
        self, base: Sequence[Array], text: Sequence[Array], pairs: Sequence[Pair], trace: Trace, stage: str = "adapter"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Visual tokens [batch, T, H] and gates [blocks, batch, 7]; any number of pairs, also none.

        Without a pair no gate opens, and the text feature has no influence: see `no_text`.
        """
        nothing = np.empty((0, self._blocks, *base[0].shape), np.float32)
        inputs: Inputs = {
            "base": base,
            "text": text,
            "keys": [pair.feature.keys for pair in pairs] or nothing,
            "values": [pair.feature.values for pair in pairs] or nothing,
            "pair_image": np.array([pair.image for pair in pairs], np.int64),
            "pair_expert": np.array([self._indices[pair.expert] for pair in pairs], np.int64),
        }
        # The adapter's memory grows with images and pairs; it was measured on one image with so many as count.
        runs = max(len(base), -(-len(pairs) // self._vision.top_k))
        with self._pool.lease("adapter", trace, runs=runs) as engine, trace.stage(stage):
            out = engine.run(inputs)
        return out["visual"], out["gates"]

    @property
    def no_text(self) -> np.ndarray:
        """A text feature [hidden] for a pass without any expert, whose result does not depend on it."""
        text = next(spec for spec in self._bundle.component("adapter").inputs if spec.name == "text")
        return np.zeros(int(text.shape[1]), np.float32)

    def pool_for_routing(self, visual: np.ndarray) -> np.ndarray:
        """Average [T, H] visual tokens down to the [routing tokens, H] that the router sees."""
        side, hidden = round(self._vision.visual_tokens**0.5), visual.shape[-1]
        pooled_side = round(self._vision.routing_tokens**0.5)
        step = side // pooled_side
        square = visual.reshape(pooled_side, step, pooled_side, step, hidden)
        pooled: np.ndarray = square.mean(axis=(1, 3)).reshape(-1, hidden)
        return pooled

    def _asked(self, question: str) -> str:
        """A question as the text encoder reads it."""
        return self._text.question.replace("{question}", self._tokenizer.as_plain_text(question.lower()))

    def _kept(
        self, component: str, contents: Sequence[str], compute: Callable[[list[int]], list[Feature]], trace: Trace
    ) -> list[Feature]:
        """A component's features of each content: from the cache, and those that are missing computed in one batch."""
        keys = [self._key(component, content) for content in contents]
        found: list[Feature | None] = [self._features.get(key) for key in keys]
        missing = [i for i, feature in enumerate(found) if feature is None]
        for feature in found:
            trace.mark(MISS if feature is None else HIT, component=component)
        if missing:
            start = perf_counter()
            computed = compute(missing)
            seconds = (perf_counter() - start) / len(missing)
            for i, feature in zip(missing, computed, strict=True):
                found[i] = feature
                key = self._key(component, contents[i])
                if key == keys[i] or not keys[i][-1]:  # else it was loaded with another backend meanwhile
                    self._features.put(key, feature, size_of(feature), seconds, name=component, trace=trace)
        return [feature for feature in found if feature is not None]

    def _key(self, component: str, content: str) -> tuple[str, str, str]:
        served = self._served.get(component)
        return component, content, served.by if served else ""

    @property
    def _blocks(self) -> int:
        keys = next(spec for spec in self._bundle.component("adapter").inputs if spec.name == "keys")
        return int(keys.shape[1])
