"""Kernels as compiled ahead of time, launched through cuda.core, against the same compiled at run time."""

from __future__ import annotations

import hashlib
import importlib
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from mova_kernels.aot import Compiled, compile_variant
from mova_kernels.targets import TARGETS
from mova_kernels.variants import Variant, variants
from mova_runtime.bundle.kernels import Argument, Kernel
from mova_runtime.bundle.manifest import File
from mova_runtime.engines.nvidia import gpu
from on_gpu.agreement import Check, agree
from on_gpu.arguments import DTYPES, Launch, launches
from on_gpu.setting import NotThereError, Setting

PRECISIONS = ("bf16", "fp16")
WORKERS = 8


def check(setting: Setting) -> Iterator[Check]:
    """Every kernel of an adapter, as it is compiled for this GPU; without one, as the interpreter runs it."""
    here = gpu() if setting.gpu else None
    if here and here.capability not in TARGETS:
        raise NotThereError(f"kernels are not compiled for {here.capability}")
    target = TARGETS[here.capability] if here else TARGETS["sm_90"]
    for precision in PRECISIONS:
        wanted = {variant.name: variant for variant in variants(setting.shape, precision, target)}
        through_core = _load(setting, here.capability, wanted) if here else None
        for launch in launches(setting, precision, wanted):
            jit = launch.fresh()
            _function(launch.variant)[launch.grid](
                *jit.values(), **launch.variant.constants, **_options(launch, setting)
            )
            name = f"{launch.variant.name}, {precision}"
            yield from (_written(f"{name}: {output} is written", jit[output]) for output in launch.outputs)
            if through_core:
                yield from _same(name, launch, jit, through_core, DTYPES[precision])


def _same(name: str, launch: Launch, jit: dict[str, Any], through_core: Any, dtype: torch.dtype) -> Iterator[Check]:
    """Outputs of the cubin against those of the kernel compiled at run time."""
    ours = launch.fresh()
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    addresses = {
        argument: value.data_ptr() if isinstance(value, torch.Tensor) else value for argument, value in ours.items()
    }
    through_core.launch(through_core.stream(stream.cuda_stream), launch.variant.name, launch.grid, addresses)
    stream.synchronize()
    for output in launch.outputs:
        alike = "the same bytes" if torch.equal(ours[output], jit[output]) else "other bytes"
        yield agree(f"{name}: {output} of the cubin ({alike})", ours[output], jit[output], dtype)


def _load(setting: Setting, capability: str, wanted: dict[str, Variant]) -> Any:
    try:
        import cuda.core as core
        from cuda.bindings import driver
    except ImportError as error:
        raise NotThereError(f"cuda.core can't be imported ({error})") from error
    from mova_runtime.engines.cuda_adapter.kernels import Kernels
    from mova_runtime.engines.cuda_adapter.libraries import Libraries

    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as workers:
        compiled = list(workers.map(_compile, [capability] * len(wanted), wanted.values()))
    records, files = {}, {}
    for one in compiled:
        files[one.name] = setting.work / f"{one.name}.cubin"
        files[one.name].write_bytes(one.cubin)
        records[one.name] = _record(one, files[one.name])
    return Kernels(Libraries(core, driver, None), records, files)


def _compile(capability: str, variant: Variant) -> Compiled:
    return compile_variant(variant, TARGETS[capability])


def _record(compiled: Compiled, path: Path) -> Kernel:
    return Kernel(
        symbol=compiled.symbol,
        file=File(path.name, len(compiled.cubin), hashlib.sha256(compiled.cubin).hexdigest()),
        arguments=tuple(Argument(name, of) for name, of in compiled.arguments),
        scratch=compiled.scratch,
        shared=compiled.shared,
        warps=compiled.warps,
        constants=compiled.constants,
        registers=compiled.registers,
        spills=compiled.spills,
    )


def _function(variant: Variant) -> Any:
    module, _, name = variant.kernel.partition(":")
    return getattr(importlib.import_module(module), name)


def _options(launch: Launch, setting: Setting) -> dict[str, int]:
    options = {"num_warps": launch.variant.num_warps, "num_stages": launch.variant.num_stages}
    return options if setting.gpu else {}


def _written(name: str, output: torch.Tensor) -> Check:
    return Check(name, float(output.isnan().sum().item()), 0.0)
