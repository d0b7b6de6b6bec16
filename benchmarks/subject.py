"""What is measured: a checkpoint's modules in eager torch, its bundle's engines, and inputs both get."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from checkpoints import write_checkpoint
from contenders import QUESTION, question_ids

from mova_export.checkpoint.layout import COMPONENTS, EXPERTS
from mova_export.checkpoint.load import Checkpoint
from mova_export.demo.checkpoint import IMAGE
from mova_export.export import export
from mova_runtime.bundle import Bundle
from mova_runtime.encoder import Pair
from mova_runtime.engines.choice import choose
from mova_runtime.engines.host import on_host
from mova_runtime.engines.loader import Loader
from mova_runtime.engines.pool import EnginePool, FeatureCache
from mova_runtime.engines.prefetch import Prefetcher
from mova_runtime.errors import BundleError
from mova_runtime.features import ExpertFeature
from mova_runtime.model import Model
from mova_runtime.trace import Trace

SELECTED = ("dinov2", "codetr", "sam")
"""Experts of the second pass: the selection is the benchmark's, so that every machine runs the same."""

Arrays = dict[str, np.ndarray]


class Subject:
    """One checkpoint and its bundle under a work folder, made where they are not there yet."""

    def __init__(self, name: str, work: Path, threads: int, say: Callable[[str], None]) -> None:
        self.name = name
        folder = work / name
        if not (folder / "checkpoint" / "model.safetensors.index.json").is_file():
            say(f"{name}: writing the checkpoint")
            write_checkpoint(name, folder / "checkpoint")
        self.bundle_path = folder / "bundle"
        if _is_readable(self.bundle_path):
            say(f"{name}: measuring the bundle that is there, {self.bundle_path}")
        else:
            tell = lambda component, *_: say(f"{name}: exporting {component}")  # noqa: E731
            export(Checkpoint(folder / "checkpoint"), self.bundle_path, overwrite=True, starting=tell)
        torch.set_num_threads(threads)
        checkpoint = Checkpoint(folder / "checkpoint")
        bundle = Bundle.open(self.bundle_path)
        self.trace = Trace()
        loader = Loader(bundle, (choose(bundle, "ort", "fp32"),), threads)
        self.pool = EnginePool(tuple(bundle.manifest.components), loader)
        nothing = FeatureCache(self.pool, 0)  # a feature that was kept would not be measured
        self.model = Model(bundle, self.pool, nothing, Prefetcher(self.pool, active=False))
        self.modules: dict[str, Any] = {component: checkpoint.load(component) for component in COMPONENTS}
        with resources.as_file(IMAGE) as image:
            self.inputs = self.model.preprocessor.decode(image)
        self.kinds = {expert.name: expert.input for expert in bundle.manifest.vision.experts}

    def input_of(self, component: str) -> Arrays:
        """What a vision component's graph takes, for the one image."""
        kind = "clip" if component == "base" else self.kinds[component]
        return {"patches" if kind == "flattened" else "pixels": self.inputs[kind][None]}

    def run(self, component: str, inputs: Arrays) -> Arrays:
        """A component's engine."""
        with self.pool.lease(component, self.trace) as engine:
            return engine.run(inputs)

    @cached_property
    def text_input(self) -> Arrays:
        """Ids and mask of the question, as the runtime makes them."""
        ids = np.array([question_ids(Bundle.open(self.bundle_path), QUESTION)], np.int64)
        return {"ids": ids, "mask": np.ones_like(ids)}

    def base(self) -> np.ndarray:
        """Base features [1, L, C], by the runtime."""
        return on_host(self.model.encoder.base([self.inputs], self.trace)[0])[None]

    def text(self) -> np.ndarray:
        """The text feature [1, hidden], by the runtime."""
        return on_host(self.model.encoder.text([QUESTION], self.trace)[0])[None]

    def pair(self, name: str) -> Pair:
        """An expert's feature, by the runtime."""
        return Pair(0, name, self.model.encoder.expert(name, [self.inputs], self.trace)[0])

    @cached_property
    def features(self) -> tuple[np.ndarray, np.ndarray, dict[str, Pair]]:
        """Base, text and the selected experts' features, computed once."""
        return self.base(), self.text(), {name: self.pair(name) for name in SELECTED}

    def adapter_input(self, experts: tuple[str, ...]) -> Arrays:
        """What the adapter's graph takes when one image chose these of the selected experts."""
        base, text, pairs = self.features
        features: list[ExpertFeature] = [pairs[name].feature for name in experts]
        blocks = self.modules["adapter"].config.blocks
        none = np.empty((0, blocks, *base.shape[1:]), np.float32)
        return {
            "base": base,
            "text": text,
            "keys": np.stack([feature.keys for feature in features]) if features else none,
            "values": np.stack([feature.values for feature in features]) if features else none,
            "pair_image": np.zeros(len(experts), np.int64),
            "pair_expert": np.array([EXPERTS.index(name) for name in experts], np.int64),
        }


def _is_readable(bundle: Path) -> bool:
    try:
        Bundle.open(bundle)
    except BundleError:
        return False
    return True
