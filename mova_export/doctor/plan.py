"""What would run a bundle here: each component's backend and precision, what lacks, and the memory that it takes."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mova_runtime.bundle import Bundle
from mova_runtime.bundle.kernels import kernels_record, weights_record
from mova_runtime.bundle.manifest import Precision
from mova_runtime.bundle.schema import from_json
from mova_runtime.engines import abilities, backends
from mova_runtime.engines.abilities import BACKENDS, ONLY, RUNS
from mova_runtime.engines.choice import Choice, choose_in_order, meant_for
from mova_runtime.engines.needs.store import Needs, identity
from mova_runtime.engines.nvidia import gpu
from mova_runtime.engines.trt import library, lookup
from mova_runtime.errors import MovaError
from mova_runtime.language.prompt import PromptBuilder
from mova_runtime.language.tokenizer import Tokenizer
from mova_runtime.parity.gate import Gate


@dataclass(frozen=True)
class Part:
    """A component, and what serves it.

    precisions: that the bundle has it in; by: such as "ort:fp32", empty where nothing does; lacks: why it can't run;
    checked: it was seen here to compute what torch computed; measured: its memory is remembered, not guessed; held,
    run, loading: bytes of the host and of the GPU, while it is loaded, more in a run, and at most while it loads.
    """

    component: str
    precisions: tuple[str, ...]
    by: str = ""
    lacks: str = ""
    checked: bool = False
    measured: bool = False
    held: tuple[int, int] = (0, 0)
    run: tuple[int, int] = (0, 0)
    loading: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Plan:
    """backend: what to open the bundle with; why: it was chosen, or nothing could be; parts: one a component.

    ways: by backend, the precisions in which it would run the bundle here, with the components that were exported so
    where they are not all, or what it lacks; least_context: tokens that the shortest question and its routing take.
    """

    backend: str
    why: str
    parts: tuple[Part, ...]
    ways: dict[str, str]
    least_context: int = 0

    @property
    def runs(self) -> bool:
        """Whether every component can run."""
        return all(not part.lacks for part in self.parts)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Plan:
        """Of what `asdict` made of one, through JSON."""
        return from_json(cls, found, "plan")


def plan(bundle: Bundle, unusable: Collection[str] = ()) -> Plan:
    """What `mova run` would do, or, where that can't work, the first backend that would.

    Args:
        bundle: opened.
        unusable: backends that are installed and can't be used; "driver" where NVIDIA's does not answer: nobody asks it
            then.
    """
    ways = dict(_ways(bundle, unusable))
    first: Plan | None = None
    for backend in ("auto", *(name for name in BACKENDS if name not in ONLY)):
        if backend in unusable or ("driver" in unusable and backend not in ("ort", "openvino")):
            continue
        try:
            choices = choose_in_order(bundle, backend)
        except MovaError as error:
            lacking = tuple(Part(name, _precisions(bundle, name), lacks=str(error)) for name in _components(bundle))
            found = Plan(backend, str(error), lacking, ways)
        else:
            found = Plan(backend, choices[0].why, tuple(_parts(bundle, choices, unusable)), ways)
        if found.runs:
            return found
        first = first or found
    return first or Plan("auto", "nothing that is installed can be used", (), ways)


def _parts(bundle: Bundle, choices: Sequence[Choice], unusable: Collection[str]) -> Iterator[Part]:
    made: dict[Choice, Any] = {}
    for component in _components(bundle):
        choice = meant_for(choices, component)[0]
        precisions = _precisions(bundle, component)
        if choice.backend in unusable:
            yield Part(component, precisions, str(choice), f"what backend {choice.backend} needs can't be used")
            continue
        try:
            backend = made[choice] = made.get(choice) or backends.make(choice)
            checked = Gate(bundle).knows(backend, component)
            took = Needs().recall(identity(backend, bundle, component))
            need = took.need if took else backend.need(bundle, component)
        except MovaError as error:
            yield Part(component, precisions, str(choice), str(error))
        else:
            held, run, loading = ((one.host, one.device) for one in (need.resident, need.working, need.loading))
            yield Part(component, precisions, str(choice), "", checked, took is not None, held, run, loading)


def _ways(bundle: Bundle, unusable: Collection[str]) -> Iterator[tuple[str, str]]:
    for backend in BACKENDS:
        if backend in unusable:
            yield backend, "what it needs is installed and can't be used"
        elif "driver" in unusable and backend not in ("ort", "openvino"):
            yield backend, "NVIDIA's driver does not answer"
        else:
            lacks = {precision: _lack(bundle, backend, precision) for precision in RUNS[backend]}
            able = [f"{one}{_extent(bundle, backend, one)}" for one, lack in lacks.items() if not lack]
            nearest = [lack for precision, lack in lacks.items() if precision in bundle.precisions]
            yield backend, ", ".join(able) or str((nearest or list(lacks.values()))[0])


def _extent(bundle: Bundle, backend: str, precision: Precision) -> str:
    """Which components a backend runs in a precision, where it is not all that it could."""
    runs = abilities.runnable(bundle, backend, precision)
    others = [name for name in _components(bundle) if name not in runs]
    if not others or backend in ONLY:
        return ""
    return f" without {', '.join(others)}" if len(others) < len(runs) else f" for {', '.join(sorted(runs))} alone"


def _lack(bundle: Bundle, backend: str, precision: Precision) -> str | None:
    """What a backend lacks to run a bundle, or what of it was exported so, in a precision."""
    only = ONLY.get(backend, ())
    if lack := abilities.obstacle(bundle, backend, precision, *only):
        return lack
    found = gpu() if backend in (*library.FLAVOURS, "cuda") else None
    if found and backend in library.FLAVOURS:
        flavour = library.FLAVOURS[library.FLAVOURS.index(backend)]
        return None if lookup.is_complete(bundle, precision, flavour) else f"no engines for {found.capability}"
    if found and not all(
        (bundle.root / name).is_file()
        for name in (kernels_record(found.capability, precision), weights_record(precision))
    ):
        return f"no kernels for {found.capability}"
    return None


def _components(bundle: Bundle) -> tuple[str, ...]:
    return tuple(bundle.manifest.components)


def _precisions(bundle: Bundle, component: str) -> tuple[str, ...]:
    return tuple(artifact.precision for artifact in bundle.manifest.components[component].artifacts)


def in_a_process() -> dict[str, Any]:
    """`plan` of the bundle, of what is unusable, in JSON, and of the context that the process was given."""
    folder, unusable, context = sys.argv[1:]
    bundle = Bundle.open(folder).bounded(int(context))
    return asdict(replace(plan(bundle, json.loads(unusable)), least_context=least_context(bundle)))


def least_context(bundle: Bundle) -> int:
    """Tokens of prompt and answer together that the shortest question takes, where the language model routes it."""
    language, prompts, vision = bundle.manifest.language, bundle.manifest.prompts, bundle.manifest.vision
    tokenizer = Tokenizer(bundle.path(language.tokenizer), clean_up_spaces=language.clean_up_spaces)
    builder = PromptBuilder(prompts, tokenizer, language.bos)
    routed = builder.routing("?").text_tokens + vision.routing_tokens + prompts.routing_max_new_tokens
    return max(routed, builder.answer("?").text_tokens + vision.visual_tokens + 1)
