"""What a component's graphs are held against: its probes, and what torch made of them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from mova_export.graphs.onnx import save
from mova_export.graphs.sections import sections
from mova_runtime.bundle.manifest import LANGUAGE_MODEL, Precision
from mova_runtime.engines import ort
from mova_runtime.engines.protocol import Engine
from mova_runtime.parity.probe import Case, Verdict, differences

SECTION = 1 << 28
"""Weights of the language model that are in memory at once, a gigabyte of float32; every other component is, whole."""


@dataclass(frozen=True)
class Reference:
    """A component's probes."""

    component: str
    cases: tuple[Case, ...]

    def judge(self, model: ir.Model, folder: Path, precision: Precision) -> Verdict:
        """Run a graph on the processor and compare.

        The language model runs section by section, each for all the probes. Weights are mapped from the files that they
        lie in, or read into one that goes when its section has run.

        Args:
            model: what runs; constants become initializers.
            folder: where the files lie that the model's weights are in, if they are in files.
            precision: whose bar it is held to.
        """
        found: list[dict[str, np.ndarray]] = [dict(case.inputs) for case in self.cases]
        for section in self._sections(model):
            with self._loaded(section, folder, precision) as engine:
                names = [str(value.name) for value in section.graph.inputs]
                for values in found:
                    values.update(engine.run({name: values[name] for name in names if name in values}))
        outputs = [differences(case, values) for case, values in zip(self.cases, found, strict=True)]
        return Verdict(self.component, precision, tuple(itertools.chain.from_iterable(outputs)))

    def _sections(self, model: ir.Model) -> Iterable[ir.Model]:
        return sections(model, SECTION) if self.component == LANGUAGE_MODEL else [model]

    @contextlib.contextmanager
    def _loaded(self, section: ir.Model, folder: Path, precision: Precision) -> Iterator[Engine]:
        path = folder / "section.onnx"
        files = [path]
        if any(isinstance(value.const_value, ir.LazyTensor) for value in section.graph.initializers.values()):
            files = save(section, path)
        else:
            ir.save(section, path)  # it refers to the files beside it
        try:
            packed = ort.prepacks(self.component, precision)  # as a request will run it
            engine = ort.open_engine(path, self.component, 0, prepack=packed)
            try:
                yield engine
            finally:
                engine.close()
        finally:
            for file in files:
                file.unlink()
