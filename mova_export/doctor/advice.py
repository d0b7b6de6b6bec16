"""The one command to type next."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from mova_export.doctor.findings import Findings
from mova_export.doctor.libraries import KINDS, PACKAGES
from mova_export.doctor.room import NEEDED
from mova_export.engines.targets import BUILDS, TARGETS

_SMALL = ("int4", "int8")
"""Precisions that ask for less memory, the smallest first."""

_QUESTION = 512
"""Tokens of context that are advised beside what the shortest question takes: for a longer one, and the answer."""

_UPGRADE = "upgrade mova-export"
"""How a `ManifestVersionError` ends."""

_BUDGET_SHARE = 0.8
"""Of the memory that is available: libraries, images and features in use take theirs beside a budget."""


@dataclass(frozen=True)
class Advice:
    """A command, and why it is the next."""

    command: str
    why: str


def advise(found: Findings) -> Advice:
    """What brings the bundle, or without one the installation, a step further: the first that applies."""
    return next(_steps(found))


def _steps(found: Findings) -> Iterator[Advice]:
    if found.twice:
        wanted = "onnxruntime-gpu" if found.gpu else "onnxruntime"
        yield Advice(
            f"pip uninstall -y onnxruntime onnxruntime-gpu && pip install {wanted}",
            "onnxruntime and onnxruntime-gpu are installed over each other",
        )
    for name in PACKAGES:
        if not found.libraries[name].installed:
            yield Advice(f"pip install {name}", f"nothing runs without {name}")
        elif found.libraries[name].trouble:
            yield _reinstall(name, f"nothing runs without {name}, which can't be used")
    if found.driver_trouble and not found.runs:
        yield Advice("nvidia-smi", f"NVIDIA's driver does not answer: {found.driver_trouble}")
    yield from _with_bundle(found) if found.bundle else _without(found)


def _without(found: Findings) -> Iterator[Advice]:
    if not found.able:
        yield _install(found)
    if found.missing:
        lacks = (
            f"bundles are made elsewhere (exporting lacks {', '.join(found.missing)}); copy one here, then ask again"
        )
        yield Advice("mova doctor BUNDLE", lacks)
    yield Advice("mova demo", "everything is there: a tiny checkpoint, exported and asked a question")


def _with_bundle(found: Findings) -> Iterator[Advice]:
    bundle, plan, room = shlex.quote(found.bundle), found.plan, found.room
    if found.bundle_trouble.endswith(_UPGRADE):
        yield Advice(f"pip install --upgrade {_UPGRADE.split()[-1]}", "the bundle was made by a newer release")
    if found.bundle_trouble:
        yield Advice(
            f"mova verify {bundle}", "its manifest can't be read: copy or export it again; this tells when it can"
        )
    if found.damaged:
        first, *others = found.damaged
        told = f"{first} is missing or cut off{f', and {len(others)} more' if others else ''}"
        yield Advice(f"mova verify {bundle}", f"{told}: copy the bundle again; this tells when it is whole")
    if plan is None or not plan.runs:
        yield _repair(found)
        return
    if found.max_context is not None and found.max_context < plan.least_context:
        why = (
            f"no question fits {found.max_context} tokens of context: an image, the instructions and routing take more"
        )
        yield Advice(f"mova doctor {bundle} --max-context {plan.least_context + _QUESTION}", why)
    if room and not room.suffices_in_turn:
        yield _smaller(found)
    yield from _for_gpu(found)
    options = "" if plan.backend == "auto" else f" --backend {plan.backend}"
    options += "" if found.max_context is None else f" --max-context {found.max_context}"
    unchecked = [part.component for part in plan.parts if not part.checked or not part.measured]
    if unchecked:
        yield Advice(
            f"mova verify {bundle}{options}",
            f"checks and measures {', '.join(unchecked)}, once on this machine; requests then begin at once",
        )
    if lacking := [name for name in NEEDED if name not in [part.component for part in plan.parts]]:
        yield Advice(f"mova bench {bundle}", f"exported without {', '.join(lacking)}: it measures, it does not answer")
    if room and not room.suffices:
        options += _budgets(found)
    ready = "all is ready, as far as files' sizes tell (`mova verify` reads every byte)"
    yield Advice(f'mova run {bundle} --image photo.jpg --question "What is on the table?"{options}', ready)


def _repair(found: Findings) -> Advice:
    """Where the bundle can't run."""
    bundle = shlex.quote(found.bundle)
    if not found.able:
        return _install(found)
    if found.plan is None:
        why = f"what would run it was not found out ({found.plan_trouble}); this asks the processor alone"
        return Advice(f"mova verify {bundle} --backend ort", why)
    lacks = next((part.lacks for part in found.plan.parts if part.lacks), found.plan.why)
    if "`mova verify` checks again" in lacks:
        return Advice(f"mova verify {bundle}", lacks)
    if told := re.search(r"`(mova (?:build|kernels) [^`]+)`", lacks):
        return Advice(told[1], lacks)
    if "bf16" in found.precisions and not found.libraries["openvino"].installed and found.machine.instructions["bf16"]:
        return Advice("pip install openvino", lacks)
    return Advice("mova export CHECKPOINT --out BUNDLE --precision fp32", f"{lacks}; on the machine that exports")


def _smaller(found: Findings) -> Advice:
    """Where not even one engine fits."""
    assert found.plan, "it does not fit"
    bundle = shlex.quote(found.bundle)
    why = "its largest engine needs more memory than is available"
    for precision in _SMALL:
        if precision in found.precisions and not all(part.by.endswith(precision) for part in found.plan.parts):
            return Advice(f"mova verify {bundle} --precision {precision}", f"{why}; the bundle has {precision}, too")
    return Advice("mova export CHECKPOINT --out BUNDLE --precision int4", f"{why}; on the machine that exports")


def _for_gpu(found: Findings) -> Iterator[Advice]:
    """Where there is a GPU that does less than it could."""
    gpu, plan = found.gpu, found.plan
    if not gpu or not plan or found.driver_trouble:
        return
    bundle, backends = shlex.quote(found.bundle), {part.by.partition(":")[0] for part in plan.parts}
    if backends & {"tensorrt", "tensorrt-rtx"} or not set(found.precisions) & set(BUILDS):
        return
    target = TARGETS.get(gpu.capability)
    has = {name for name in ("tensorrt", "tensorrt-rtx") if found.libraries[name].installed and name in found.able}
    if "tensorrt-rtx" in has and target and target.rtx:
        build = f"mova build {bundle} --backend tensorrt-rtx --target {gpu.capability}"
        yield Advice(build, f"engines for this {gpu.name}; TensorRT-RTX is here, the bundle has none for it")
    elif "tensorrt" in has:
        yield Advice(f"mova build {bundle} --backend tensorrt", f"engines for this {gpu.name}, built on it")
    elif "ort-cuda" not in backends:
        yield _install_for_gpu(found)


def _install(found: Findings) -> Advice:
    """Where no backend works."""
    for name in ("onnxruntime", "openvino"):
        if found.libraries[name].trouble:
            return _reinstall(name, f"{name} is installed and can't be used: {found.libraries[name].trouble}")
    return Advice("pip install onnxruntime", "no backend is installed (extra `cpu`; docs/backends.md has the others)")


def _install_for_gpu(found: Findings) -> Advice:
    gpu = found.gpu
    assert gpu, "it was asked for one's sake"
    why = f"this {gpu.name} is not used: nothing that could is installed"
    major = gpu.driver.rpartition("CUDA ")[2].partition(".")[0]
    bindings = f"'cuda-bindings<{int(major) + 1}'" if major.isdigit() else "cuda-bindings"
    if not found.libraries["cuda-bindings"].installed and ("tensorrt" in _installed(found) or gpu.shares_memory):
        return Advice(f"pip install {bindings}", why)
    if gpu.shares_memory:
        if found.system_tensorrt:
            seen = f"this environment does not see the system's TensorRT, {found.system_tensorrt} (docs/jetson.md)"
            return Advice("python3 -m venv --system-site-packages ~/mova", seen)
        return Advice("sudo apt-get install nvidia-jetpack python3-libnvinfer", f"{why} (docs/jetson.md)")
    if "onnxruntime-gpu" in found.abilities.get("ort-cuda", ""):
        return Advice(f"pip uninstall -y onnxruntime && pip install onnxruntime-gpu {bindings}", why)
    return Advice(f"pip install {bindings}", why)


def _installed(found: Findings) -> list[str]:
    return [name for name, one in found.libraries.items() if one.installed]


def _reinstall(name: str, why: str) -> Advice:
    return Advice(f"pip install --force-reinstall {KINDS[name].packages[0]}", why)


def _budgets(found: Findings) -> str:
    room = found.room
    assert room, "it does not suffice"
    names = ("--memory-budget", "--device-memory-budget")
    return "".join(
        f" {name} {max(int(_BUDGET_SHARE * there), 1 << 20) >> 20}MiB"
        for name, need, there in zip(names, room.together, room.available, strict=True)
        if there and need > there
    )
