"""MoVA's runtime: opens a bundle, routes a question, loads the experts it selects, fuses, answers.

import mova_runtime as mova

with mova.open("bundle") as rt:
    print(rt.answer("photo.jpg", "What is on the table?").text)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from mova_runtime.errors import (
    BackendError,
    BundleError,
    EngineKeyError,
    ExpertError,
    ImageError,
    IntegrityError,
    ManifestVersionError,
    MemoryBudgetError,
    MovaError,
    OutOfMemoryError,
    ParityError,
    QuestionError,
)
from mova_runtime.given import Cancel, LanguageModel, Router
from mova_runtime.options import FEATURE_CACHE, LEASE_SECONDS, PINNED, Options
from mova_runtime.runtime import Runtime
from mova_runtime.trace import KEPT_EVENTS
from mova_runtime.types import Answer, How, Routing, Served, Stats, Totals, Visual

__all__ = [
    "Answer",
    "BackendError",
    "BundleError",
    "Cancel",
    "EngineKeyError",
    "ExpertError",
    "How",
    "ImageError",
    "IntegrityError",
    "LanguageModel",
    "ManifestVersionError",
    "MemoryBudgetError",
    "MovaError",
    "OutOfMemoryError",
    "ParityError",
    "QuestionError",
    "Router",
    "Routing",
    "Runtime",
    "Served",
    "Stats",
    "Totals",
    "Visual",
    "open",
]


def open(  # `mova.open`, as one opens a file
    path: str | Path,
    *,
    backend: str = "auto",
    precision: str | None = None,
    fallback: Sequence[str] | None = (),
    threads: int | None = None,
    memory_budget: str | int | None = None,
    device_memory_budget: str | int | None = None,
    feature_cache: str | int = FEATURE_CACHE,
    pinned: Collection[str] = PINNED,
    lease_timeout: float | None = LEASE_SECONDS,
    prefetch: bool = True,
    speculate: bool = False,
    experts_at_once: bool = False,
    keep_compiled: bool = False,
    max_context: int | None = None,
    trace_events: int = KEPT_EVENTS,
    language_model: LanguageModel | None = None,
    router: Router | Sequence[str] | None = None,
) -> Runtime:
    """Open a bundle. Several threads may use the runtime at once.

    Args:
        path: the bundle's folder.
        backend: "ort", "ort-cuda", "openvino", "tensorrt" or "tensorrt-rtx"; "auto" picks by what is installed and
            what the device is (`Runtime.choice` tells what and why). After it, what single components have of their
            own, as in "ort-cuda,adapter=cuda:bf16": "cuda" has the adapter alone.
        precision: "fp32", "fp16", "bf16", "int8" or "int4"; None is the first the bundle was exported in.
        fallback: what may serve a component that the first choice can't, in order: "ort:fp32", a backend, or a
            precision. Those that can't run here are passed over. Without it nothing falls back.
        threads: threads of each engine; None is one a physical core.
        memory_budget: bound on what engines and cached features take of the host's memory, such as "6GiB"; where a GPU
            shares it (Jetson), of both. None is no bound.
        device_memory_budget: the same of the GPU's memory.
        feature_cache: bound on the features kept for further questions about an image, such as "512MiB"; 0 keeps none.
            With a budget it is a quarter of that at most.
        pinned: components that are unloaded for others only where these would not fit otherwise.
        lease_timeout: seconds that a request waits for memory that others use; None waits as long as it takes.
        prefetch: load engines before they are needed, beside what runs first.
        speculate: while the router decides, load the experts that were chosen most often so far, where room is free.
        experts_at_once: run a request's experts at the same time, as far as memory allows.
        keep_compiled: let OpenVINO keep what it compiled in the cache folder: loads are several times as fast, and take
            as much room on the disk as the engines.
        max_context: tokens of a prompt and its answer together at most, where that is less than what the model was made
            for: it bounds the memory of keys and values. None is the model's own bound.
        trace_events: the latest events that `Runtime.trace` tells, some 300 bytes each; 0 keeps none.
        language_model: speaks instead of the bundle's, given embeddings: see `LanguageModel`.
        router: chooses experts instead of the language model: a function of the image (PIL, RGB) and the question
            that returns names, or names that are taken for every question.

    Raises:
        BundleError: the folder is not a bundle, or its manifest is wrong.
        ManifestVersionError: the bundle is of a newer format.
        BackendError: a backend or precision is unknown, not installed, or can't run here.
        MemoryBudgetError: a budget or the cache's bound is not a size.
        MovaError: `pinned` names what the bundle does not have, `lease_timeout` is no time, or `max_context` or
            `trace_events` no number.
        ExpertError: `router` names an unknown expert.
    """
    options = Options(
        backend=backend,
        precision=precision,
        fallback=fallback,
        threads=threads,
        memory_budget=memory_budget,
        device_memory_budget=device_memory_budget,
        feature_cache=feature_cache,
        pinned=pinned,
        lease_timeout=lease_timeout,
        prefetch=prefetch,
        speculate=speculate,
        experts_at_once=experts_at_once,
        keep_compiled=keep_compiled,
        max_context=max_context,
        trace_events=trace_events,
        language_model=language_model,
        router=router,
    )
    return Runtime(path, options)
