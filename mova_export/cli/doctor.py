"""mova doctor: what is installed, what can run, what is missing and how to get it."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
from dataclasses import dataclass

from mova_runtime.engines.abilities import BACKENDS, ONLY, RUNS, lacking
from mova_runtime.engines.installed import has_module, version
from mova_runtime.engines.machine import processor
from mova_runtime.engines.nvidia import gpu
from mova_runtime.engines.trt import library

_EXPORT = ("torch", "transformers", "optimum-onnx", "onnx", "onnxscript", "safetensors", "onnxruntime")
_RUNTIME = ("numpy", "pillow", "tokenizers")
_NVIDIA = ("onnxruntime-gpu", "tensorrt", "tensorrt-rtx-cu13", "cuda-bindings", "cuda-core", "nvmath-python")
_OTHERS = (*_NVIDIA, "openvino", "triton")


@dataclass(frozen=True)
class Ability:
    """Something this installation can or can't do, and why."""

    what: str
    able: bool
    why: str


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("doctor", help="show what is installed, what can run, and what is missing")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it."""
    system = f"{platform.system()} {platform.machine()}"
    print(f"Python {platform.python_version()} on {system}, {os.cpu_count()} CPUs, {_memory()}")
    print(f"disk: {shutil.disk_usage('.').free / 2**30:.1f} GiB free here")
    print(f"processor: {processor()}")
    print(f"GPU: {_gpu()}")
    print("\ninstalled")
    for package in ("mova-export", *_RUNTIME, *_EXPORT, *_OTHERS):
        print(f"  {package:<18} {version(package) or '-'}")
    print("\nwhat can run")
    abilities = diagnose()
    for ability in abilities:
        print(f"  {'yes' if ability.able else 'no ':<4} {ability.what}: {ability.why}")
    return 0


def diagnose() -> list[Ability]:
    """What this installation can do."""
    missing = [package for package in _EXPORT if version(package) is None]
    return [
        Ability(
            "export",
            not missing,
            "all there" if not missing else f"lacks {', '.join(missing)}; install the project with its `export` extra",
        ),
        _onnx_runtime(),
        *(_backend(name) for name in BACKENDS if name != "ort"),
        Ability(
            "compile kernels, for any of their GPUs",
            has_module("triton") and has_module("onnx_ir"),
            "no GPU needed" if has_module("triton") else "pip install triton onnx-ir (extra `kernels`)",
        ),
        Ability(
            "build engines with TensorRT-RTX, for any GPU it knows",
            has_module("tensorrt_rtx"),
            "no GPU needed" if has_module("tensorrt_rtx") else library.EXTRA["tensorrt-rtx"],
        ),
    ]


def _backend(name: str) -> Ability:
    what = f"run {'the ' + ', the '.join(ONLY[name]) + ' ' if name in ONLY else ''}on backend {name}"
    if lack := lacking(name):
        return Ability(what, False, lack)
    able = [precision for precision in RUNS[name] if not lacking(name, precision)]
    return Ability(what, True, f"in {', '.join(able)}")


def _onnx_runtime() -> Ability:
    what = "run on ONNX Runtime (backend ort, CPU)"
    if version("onnxruntime") and version("onnxruntime-gpu"):
        return Ability(
            what, True, "but onnxruntime and onnxruntime-gpu overwrite each other: pip uninstall both, then install one"
        )
    if lack := lacking("ort"):
        return Ability(what, False, lack)
    try:
        import onnxruntime
    except ImportError as error:
        return Ability(what, False, f"installed but broken ({error}); pip install --force-reinstall onnxruntime")

    return Ability(
        what, True, f"version {onnxruntime.__version__}, providers {', '.join(onnxruntime.get_available_providers())}"
    )


def _gpu() -> str:
    found = gpu()
    return f"{found.name}, {found.capability}, driver {found.driver}" if found else "none that CUDA shows"


def _memory() -> str:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return f"{pages * size / 2**30:.1f} GiB of memory"
