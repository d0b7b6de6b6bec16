"""Images and questions to features, and features to visual tokens. Everything here takes a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mova_runtime.bundle import Bundle
from mova_runtime.engines.pool import EnginePool
from mova_runtime.engines.protocol import Array, Inputs
from mova_runtime.images import Inputs as ImageInputs
from mova_runtime.language.tokenizer import Tokenizer
from mova_runtime.trace import Trace


@dataclass(frozen=True)
class ExpertFeature:
    """What an expert made of one image: features [n, Ce]; keys and values [blocks, L, C]; all float32.

    They are where the expert ran: on the host, or in a GPU's memory.
    """

    features: Array
    keys: Array
    values: Array


@dataclass(frozen=True)
class Pair:
    """An expert that an image of the batch selected."""

    image: int
    expert: str
    feature: ExpertFeature


class Encoder:
    """Runs the engines up to the visual tokens."""

    def __init__(self, bundle: Bundle, pool: EnginePool) -> None:
        manifest = bundle.manifest
        self._bundle = bundle
        self._pool = pool
        self._vision = manifest.vision
        self._inputs = {expert.name: expert.input for expert in manifest.vision.experts}
        self._indices = {expert.name: index for index, expert in enumerate(manifest.vision.experts)}
        self._text = manifest.text
        self._tokenizer = Tokenizer(bundle.checked_path(manifest.text.tokenizer))

    def base(self, images: Sequence[ImageInputs], trace: Trace) -> Array:
        """Base features [batch, L, C], where they were computed."""
        with trace.stage("preprocess clip"):
            pixels = np.stack([image["clip"] for image in images])
        with self._pool.lease("base", trace) as engine, trace.stage("base"):
            return engine.keep({"pixels": pixels})["features"]

    def text(self, questions: Sequence[str], trace: Trace) -> np.ndarray:
        """Text features [batch, hidden] for the gate."""
        rows = []
        for question in questions:
            text = self._text.question.replace("{question}", self._tokenizer.as_plain_text(question.lower()))
            rows.append(self._tokenizer.encode(text, max_tokens=self._text.max_tokens))
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        with self._pool.lease("text", trace) as engine, trace.stage("text"):
            return engine.run({"ids": ids, "mask": mask})["text"]

    def expert(self, name: str, images: Sequence[ImageInputs], trace: Trace) -> list[ExpertFeature]:
        """One expert's feature of each image."""
        kind = self._inputs[name]
        with trace.stage(f"preprocess {kind}"):
            batch = np.stack([image[kind] for image in images])
        with self._pool.lease(name, trace) as engine, trace.stage(name):
            out = engine.keep({"patches" if kind == "flattened" else "pixels": batch})
        features, keys, values = out["features"], out["keys"], out["values"]
        return [ExpertFeature(features[i], keys[i], values[i]) for i in range(len(images))]

    def fuse(
        self, base: Array, text: np.ndarray, pairs: Sequence[Pair], trace: Trace, stage: str = "adapter"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Visual tokens [batch, T, H] and gates [blocks, batch, 7]; any number of pairs, also none."""
        nothing = np.empty((0, self._blocks, *base.shape[1:]), np.float32)
        inputs: Inputs = {
            "base": base,
            "text": text,
            "keys": [pair.feature.keys for pair in pairs] or nothing,
            "values": [pair.feature.values for pair in pairs] or nothing,
            "pair_image": np.array([pair.image for pair in pairs], np.int64),
            "pair_expert": np.array([self._indices[pair.expert] for pair in pairs], np.int64),
        }
        with self._pool.lease("adapter", trace) as engine, trace.stage(stage):
            out = engine.run(inputs)
        return out["visual"], out["gates"]

    def pool_for_routing(self, visual: np.ndarray) -> np.ndarray:
        """Average [T, H] visual tokens down to the [routing tokens, H] that the router sees."""
        side, hidden = round(self._vision.visual_tokens**0.5), visual.shape[-1]
        pooled_side = round(self._vision.routing_tokens**0.5)
        step = side // pooled_side
        square = visual.reshape(pooled_side, step, pooled_side, step, hidden)
        pooled: np.ndarray = square.mean(axis=(1, 3)).reshape(-1, hidden)
        return pooled

    @property
    def _blocks(self) -> int:
        keys = next(spec for spec in self._bundle.component("adapter").inputs if spec.name == "keys")
        return int(keys.shape[1])
