"""What a component's graphs are held against: its probes, and what torch made of them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from mova_export.agreement import agreement
from mova_export.graphs.onnx import save
from mova_export.graphs.sections import sections
from mova_runtime.bundle.manifest import LANGUAGE_MODEL, Agreement, Precision
from mova_runtime.engines import ort
from mova_runtime.engines.protocol import Cache, Engine
from mova_runtime.parity.probe import Case, Verdict, differences

SECTION = 1 << 28
"""Weights of the language model that are in memory at once, a gigabyte of float32; every other component is, whole."""

_POSITIONS = ("attention_mask", "position_ids")
"""What an engine whose cache is shared tells the lengths of a probe from, in every section."""


def _is_no_cache(output: str) -> bool:
    """Many prompts' keys and values of every layer would be in memory together."""
    return not output.startswith("present.")


@dataclass(frozen=True)
class Reference:
    """A component's probes, and of the language model prompts, of whose outputs only logits count."""

    component: str
    cases: tuple[Case, ...]
    prompts: tuple[Case, ...] = ()

    def judge(self, model: ir.Model, folder: Path, precision: Precision, cache: Cache = "growing") -> Verdict:
        """Run a graph on the processor and compare.

        The language model runs section by section, each for all the probes. Weights are mapped from the files that they
        lie in, or read into one that goes when its section has run.

        Args:
            model: what runs; constants become initializers.
            folder: where the files lie that the model's weights are in, if they are in files.
            precision: whose bar it is held to.
            cache: "shared" if the graph is the language model's that keeps its cache in place.
        """
        found = self._run(model, folder, precision, self.cases, cache)
        outputs = [differences(case, values) for case, values in zip(self.cases, found, strict=True)]
        return Verdict(self.component, precision, tuple(itertools.chain.from_iterable(outputs)))

    def agreement(self, model: ir.Model, folder: Path, precision: Precision) -> Agreement | None:
        """How alike a graph goes on after the prompts; None where there are none. Arguments as of `judge`."""
        if not self.prompts:
            return None
        found = self._run(model, folder, precision, self.prompts, "growing", _is_no_cache)
        logits = [values["logits"] for values in found]
        return agreement([prompt.outputs["logits"] for prompt in self.prompts], logits)

    def _run(
        self,
        model: ir.Model,
        folder: Path,
        precision: Precision,
        cases: Sequence[Case],
        cache: Cache,
        wanted: Callable[[str], bool] = lambda output: True,
    ) -> list[dict[str, np.ndarray]]:
        """Inputs and outputs of every case, or those outputs that are wanted."""
        found: list[dict[str, np.ndarray]] = [dict(case.inputs) for case in cases]
        for section in self._sections(model):
            with self._loaded(section, folder, precision, cache) as engine:
                names = [str(value.name) for value in section.graph.inputs]
                names += _POSITIONS if cache == "shared" else ()
                outputs = [name for value in section.graph.outputs if wanted(name := str(value.name))]
                for values in found:
                    values.update(engine.run({name: values[name] for name in names if name in values}, outputs))
        return found

    def _sections(self, model: ir.Model) -> Iterable[ir.Model]:
        return sections(model, SECTION) if self.component == LANGUAGE_MODEL else [model]

    @contextlib.contextmanager
    def _loaded(self, section: ir.Model, folder: Path, precision: Precision, cache: Cache) -> Iterator[Engine]:
        path = folder / "section.onnx"
        files = [path]
        if any(isinstance(value.const_value, ir.LazyTensor) for value in section.graph.initializers.values()):
            files = save(section, path)
        else:
            ir.save(section, path)  # it refers to the files beside it
        try:
            packed = ort.prepacks(self.component, precision)  # as a request will run it
            engine = ort.open_engine(path, self.component, 0, prepack=packed, cache=cache)
            try:
                yield engine
            finally:
                engine.close()
        finally:
            for file in files:
                file.unlink()
