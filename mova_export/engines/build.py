"""One component's graph to engines: parsed once, built for one GPU after the other.

One code for TensorRT 10 and 11 and TensorRT-RTX, whose libraries differ in what they no longer have. Networks are
strongly typed: a graph's own types say what is computed in which precision.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from mova_export.engines.interrupts import Interrupts
from mova_export.engines.output import Output, serialise
from mova_export.engines.progress import Progress, monitor
from mova_export.engines.timing import attach, keep, timing_file
from mova_export.errors import ExportError
from mova_runtime.bundle.engine import PLUGINS, EngineKey, Range

LEVELS = range(6)
"""Of optimisation: 0 builds fastest, 5 tries most. TensorRT-RTX takes them and builds the same engine."""

_LEVEL = "optimization-level="


def flags(level: int | None = None, *, plugins: str = "") -> tuple[str, ...]:
    """The builder's settings, as an engine's key has them.

    strongly-typed: precision is the graph's. no-tf32: what is float32 in a graph is multiplied as float32, not rounded
    to TF32's eleven bits, which a float32 engine's parity check would not let pass. plugins-…: it holds our
    kernels, of a source and a Triton that the digits tell apart.

    Raises:
        ExportError: `level` is none of LEVELS.
    """
    if level is not None and level not in LEVELS:
        raise ExportError(f"--optimization-level must be from {LEVELS[0]} to {LEVELS[-1]}, not {level}")
    asked = [f"{PLUGINS}{plugins}"] * bool(plugins) + [f"{_LEVEL}{level}"] * (level is not None)
    return tuple(sorted(["no-tf32", "strongly-typed", *asked]))


class Source:
    """A component's parsed graph. It holds the weights: let go of it before the next is parsed."""

    def __init__(self, library: Any, component: str, path: Path) -> None:
        """Parse a graph.

        Args:
            library: tensorrt or tensorrt_rtx.
            component: for messages.
            path: the .onnx file, its weights beside it.

        Raises:
            ExportError: TensorRT can't read it; the message names the node.
        """
        self._library = library
        self._component = component
        self._log = _log(library)
        with Interrupts():  # the log is a callback too
            self._builder = library.Builder(self._log)
            flag = getattr(library.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # gone where it is the rule
            self._network = self._builder.create_network(0 if flag is None else 1 << int(flag))
            self._parser = library.OnnxParser(self._network, self._log)
            self._log.errors.clear()
            parsed = self._parser.parse_from_file(str(path))
        if not parsed or not self._network.num_outputs:
            raise ExportError(f"{component}: TensorRT can't read its graph: {self._complaint()}")

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the graph's inputs."""
        return tuple(self._network.get_input(index).name for index in range(self._network.num_inputs))

    def build(self, key: EngineKey, write: Callable[[memoryview], None], tell: Callable[[float], None]) -> None:
        """Build an engine.

        Args:
            key: says for which GPU, in which profile, with which flags.
            write: is given the engine's bytes, piece by piece. May raise OSError.
            tell: is told the fraction that is done. May raise OSError, which stops the build.

        Raises:
            ExportError: TensorRT can't build it.
            OSError: what `write` or `tell` raised.
            KeyboardInterrupt, SystemExit: a signal stopped it, at the end of TensorRT's current step.
        """
        with Interrupts() as interrupts:
            progress = Progress(tell, stop=lambda: interrupts.pending is not None)
            output = Output(write)
            config = self._config(key)
            if hasattr(config, "progress_monitor"):
                config.progress_monitor = monitor(self._library, progress)
            timing = timing_file(key)
            timings = attach(config, timing) if timing else None
            self._log.errors.clear()
            built = serialise(self._library, self._builder, self._network, config, output)
            if timing and built:
                keep(config, timing)
            del timings
        if failure := progress.failure or output.failure:
            raise failure
        if not built:
            complaint = "; ".join(self._log.errors) or "it gives no reason"
            raise ExportError(f"{self._component}: TensorRT can't build it for {key.capability}: {complaint}")

    def _config(self, key: EngineKey) -> Any:
        library = self._library
        config = self._builder.create_builder_config()
        if hasattr(library.BuilderFlag, "TF32"):
            config.clear_flag(library.BuilderFlag.TF32)
        for flag in key.flags:
            if flag.startswith(_LEVEL):
                config.builder_optimization_level = int(flag.removeprefix(_LEVEL))
        if key.flavour == "tensorrt-rtx":
            number = key.capability.removeprefix("sm_")
            target = getattr(library.ComputeCapability, f"SM{number}", None)
            if target is None:
                raise ExportError(f"this TensorRT-RTX ({key.version}) has no target {key.capability}; a newer one may")
            config.num_compute_capabilities = 1
            config.set_compute_capability(target, 0)
        config.add_optimization_profile(self._profile(key.profile))
        return config

    def _profile(self, ranges: dict[str, Range]) -> Any:
        if set(self.inputs) != set(ranges):
            raise ExportError(
                f"{self._component}: its graph takes {', '.join(self.inputs)}, the manifest says {', '.join(ranges)}; "
                "export the bundle again"
            )
        profile = self._builder.create_optimization_profile()
        for name, shapes in ranges.items():
            profile.set_shape(name, shapes.minimum, shapes.optimum, shapes.maximum)
        return profile

    def _complaint(self) -> str:
        errors = [self._parser.get_error(index) for index in range(self._parser.num_errors)]
        told = [
            f"node {error.node_name() or error.node()} ({error.node_operator()}): {error.desc()}" for error in errors
        ]
        return "; ".join(told or self._log.errors) or "it gives no reason"


@cache
def _log(library: Any) -> Any:
    """The library's log, which keeps errors and no more; one a process, as TensorRT wants it."""
    severity = library.ILogger.Severity

    class Log(library.ILogger):  # type: ignore[misc]  # the library is loaded at run time
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, level: Any, message: str) -> None:
            if level in (severity.ERROR, severity.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))

    return Log()
