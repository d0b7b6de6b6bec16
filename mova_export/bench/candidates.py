"""Who computes a component here: our backends in the precisions that they run, and torch where it is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from mova_export.bench.options import Options
from mova_export.errors import BenchError
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.kernels import weights_record
from mova_runtime.bundle.manifest import PRECISIONS, Precision
from mova_runtime.engines import abilities
from mova_runtime.engines.abilities import BACKENDS, ONLY, RUNS

_TORCH: tuple[Precision, ...] = ("fp32", "bf16")
_BUILT = ("tensorrt", "tensorrt-rtx")


@dataclass(frozen=True)
class Candidate:
    """A backend in a precision; `backend` is one of ours, or "torch" or "torch.compile"."""

    backend: str
    precision: Precision

    @property
    def ours(self) -> bool:
        """Whether it is the runtime's."""
        return self.backend in BACKENDS

    @property
    def label(self) -> str:
        """Such as "openvino bf16"."""
        return f"{self.backend} {self.precision}"


def candidates(bundle: Bundle, component: str, options: Options) -> tuple[Candidate, ...]:
    """Ours, then torch's.

    Raises:
        BenchError: none of ours can run the component.
    """
    ours, obstacles = [], []
    for backend in options.backends or BACKENDS:
        for precision in _precisions(bundle, component, backend, options):
            if obstacle := _obstacle(bundle, component, backend, precision, named=options.backends is not None):
                obstacles.append(f"{backend}: {obstacle}")
            else:
                ours.append(Candidate(backend, precision))
    if not ours:
        raise BenchError(f"nothing asked for can run {component}: {'; '.join(dict.fromkeys(obstacles))}")
    return (*ours, *_theirs(options))


def reference(found: tuple[Candidate, ...]) -> Candidate | None:
    """Whom all others are timed beside: torch in bfloat16, or else its first form; None without torch."""
    theirs = [candidate for candidate in found if not candidate.ours]
    return next((one for one in theirs if one == Candidate("torch", "bf16")), theirs[0] if theirs else None)


def _theirs(options: Options) -> list[Candidate]:
    wanted = [precision for precision in _TORCH if precision in (options.precisions or _TORCH)]
    return [Candidate(backend, precision) for backend in options.against for precision in wanted or _TORCH]


def _precisions(bundle: Bundle, component: str, backend: str, options: Options) -> tuple[Precision, ...]:
    """Precisions to try."""
    if options.precisions is not None:
        return options.asked_precisions
    has = {artifact.precision for artifact in bundle.component(component).artifacts}
    if backend == "openvino" and "fp32" in has:  # one float32 graph serves every precision
        has.add("bf16")
    if backend == "cuda":
        return RUNS[backend]
    return tuple(precision for precision in PRECISIONS if precision in has and precision in RUNS[backend])


def _obstacle(bundle: Bundle, component: str, backend: str, precision: Precision, *, named: bool) -> str | None:
    """Why it is not measured. `named`: the backend was asked for, so what the bundle lacks for it is to be told."""
    if component not in ONLY.get(backend, (component,)):
        return f"has the {' and the '.join(ONLY[backend])} alone"
    if obstacle := abilities.obstacle(bundle, backend, precision, component):
        return obstacle
    if named:
        return None
    if backend in _BUILT:
        keys = [record.key for record in bundle.engines()]
        if (component, precision, backend) not in {(key.component, key.precision, key.flavour) for key in keys}:
            return f"no engine of {component} in {precision} in the bundle"
    if backend == "cuda" and not (bundle.root / weights_record(precision)).is_file():
        return f"no kernels for {precision} in the bundle"
    return None
