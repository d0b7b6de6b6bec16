"""The findings for people."""

from __future__ import annotations

from collections.abc import Iterator

from mova_export.doctor.advice import Advice
from mova_export.doctor.findings import Findings
from mova_export.doctor.libraries import KINDS
from mova_export.doctor.room import Room
from mova_runtime.engines.abilities import BACKENDS, ONLY
from mova_runtime.engines.memory import format_size
from mova_runtime.engines.nvidia import Gpu


def lines(found: Findings, advice: Advice) -> Iterator[str]:
    """The report, its last line the command to type."""
    yield from _machine(found)
    yield from ("", "libraries")
    for name in KINDS:
        one = found.libraries[name]
        told = f"can't be used: {one.trouble}" if one.trouble else one.offers
        yield f"  {name:<14} {one.version or '-':<14} {told}".rstrip()
    if found.twice:
        yield "  onnxruntime and onnxruntime-gpu overwrite each other: uninstall both, then install one"
    yield from ("", "what can run here")
    for name in BACKENDS:
        whose = f" ({', '.join(ONLY[name])} alone)" if name in ONLY else ""
        yield _row(name in found.able, f"{name}{whose}", found.abilities.get(name, "was not found out"))
    export = f"lacks {', '.join(found.missing)}; extra `export`" if found.missing else "all there"
    yield _row(not found.missing, "mova export", export)
    yield _row(
        _usable(found, "triton"),
        "mova kernels",
        "for any GPU, without one" if _usable(found, "triton") else "extra `kernels`",
    )
    rtx = _usable(found, "tensorrt-rtx")
    yield _row(
        rtx, "mova build", "with TensorRT-RTX, for any GPU it knows, without one" if rtx else "extra `tensorrt-rtx`"
    )
    if found.bundle:
        yield from _bundle(found)
    yield from ("", f"next: {advice.why}", f"  {advice.command}")


def _machine(found: Findings) -> Iterator[str]:
    machine = found.machine
    memory = f"{format_size(machine.memory)} of memory, {format_size(machine.available)} available"
    yield f"Python {machine.python} on {machine.system}, {machine.cores} cores, {memory}"
    yield f"processor: {machine.processor}"
    yield from (f"  {line}" for line in machine.meaning())
    yield f"GPU: {_gpu(found.gpu, found.gpu_memory, found.driver_trouble)}"
    for disk in machine.disks:
        held = "" if disk.writable else "; can't be written" + (_FORGETS if disk.what == "cache" else "")
        yield f"disk of the {disk.what}: {format_size(disk.free)} free at {disk.path}{held}"


_FORGETS = ": every engine is checked at each load, set MOVA_CACHE to a folder that can"


def _gpu(gpu: Gpu | None, memory: int, trouble: str) -> str:
    if trouble:
        return f"NVIDIA's driver does not answer ({trouble}): --backend ort and openvino run without asking it"
    if not gpu:
        return "none that CUDA shows"
    size = f", {format_size(memory)}" if memory else ""
    shared = " shared with the host" if gpu.shares_memory else ""
    return f"{gpu.name}, {gpu.capability}{size}{shared}, driver {gpu.driver}"


def _bundle(found: Findings) -> Iterator[str]:
    yield from ("", f"bundle {found.bundle}")
    if found.bundle_trouble:
        yield f"  can't be opened: {found.bundle_trouble}"
        return
    if not found.plan:
        yield f"  what would run it was not found out: {found.plan_trouble}"
        return
    if found.damaged:
        yield f"  missing or cut off: {', '.join(found.damaged)}"
    yield f"  --backend {found.plan.backend}: {found.plan.why}"
    yield f"  {'component':<12}{'in the bundle':<24}{'runs by':<20}{'checked here':<14}{'holds':>11}{'run':>11}"
    for part in found.plan.parts:
        has = ", ".join(part.precisions)
        if part.lacks:
            yield f"  {part.component:<12}{has:<24}can't run: {part.lacks}"
            continue
        sign = "" if part.measured else "~"
        sizes = "".join(f"{sign + format_size(sum(size)):>11}" for size in (part.held, part.run))
        yield f"  {part.component:<12}{has:<24}{part.by:<20}{'yes' if part.checked else 'not yet':<14}{sizes}"
    yield "  precisions by each backend:"
    yield from (f"    {name:<13}{text}" for name, text in found.plan.ways.items())
    if found.room:
        yield from _room(found.room)


def _room(room: Room) -> Iterator[str]:
    how = "measured here" if room.measured else "guessed from file sizes, until `mova verify` has measured"
    verdict = (
        "fits"
        if room.suffices
        else "fits one engine at a time, with a budget"
        if room.suffices_in_turn
        else "does not fit"
    )
    for name, least, together, there in zip(("host", "GPU"), room.least, room.together, room.available, strict=True):
        if together:
            yield (
                f"  memory of the {name}, {how}: a request with the largest expert {format_size(together)}, "
                f"its largest engine alone {format_size(least)}, available {format_size(there)}"
            )
    yield f"  so a request {verdict}"


def _usable(found: Findings, name: str) -> bool:
    return found.libraries[name].installed and not found.libraries[name].trouble


def _row(able: bool, what: str, why: str) -> str:
    return f"  {'yes' if able else 'no':<4} {what:<24} {why}"
