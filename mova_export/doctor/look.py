"""Asks everything: libraries, the driver and the bundle's plan in processes of their own, the rest here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from mova_export.doctor.findings import Findings, unusable
from mova_export.doctor.isolated import PATIENCE, Reply, ask
from mova_export.doctor.libraries import DRIVER, EXPORT, libraries, questions, questions_on_a_gpu
from mova_export.doctor.machine import machine
from mova_export.doctor.plan import Plan
from mova_runtime.bundle import MANIFEST, Bundle
from mova_runtime.engines.installed import version
from mova_runtime.engines.nvidia import Gpu
from mova_runtime.errors import MovaError

SYSTEM = Path("/usr/lib")
"""Where Debian's Pythons have their packages."""

_ABILITIES = """
from mova_runtime.engines.abilities import BACKENDS, RUNS, lacking
skip = set(sys.argv[1].split(","))
def told(name):
    if name in skip: return [False, "what it needs is installed and can't be used"]
    if "driver" in skip and name not in ("ort", "openvino"): return [False, "NVIDIA's driver does not answer"]
    able = [precision for precision in RUNS[name] if not lacking(name, precision)]
    return [bool(able), ", ".join(able) or lacking(name)]
answer({name: told(name) for name in BACKENDS})
"""

_PLAN = "from mova_export.doctor.plan import in_a_process; answer(in_a_process())"


def look(folder: Path | None = None, patience: float = PATIENCE, max_context: int | None = None) -> Findings:
    """What this machine can do; nothing that is broken ends it.

    Args:
        folder: the bundle that is to be run here; None asks of the machine alone.
        patience: seconds that each of three rounds of questions may take.
        max_context: of requests to come.

    Raises:
        BundleError: the folder is not there, or has no manifest.
        MovaError: `max_context` is no number of tokens.
    """
    bundle, trouble = _opened(folder)
    if bundle:
        bundle = bundle.bounded(max_context)
    replies = ask(questions(), patience)
    driver = replies.pop(DRIVER)
    gpu, gpu_memory = _gpu(driver)
    if gpu:
        replies.update(ask(questions_on_a_gpu(), patience))
    found = libraries(replies)
    skip = unusable(found, driver.trouble)
    asked: dict[str, tuple[str, ...]] = {"abilities": (_ABILITIES, ",".join(skip))}
    if bundle:
        asked["plan"] = (_PLAN, str(bundle.root), json.dumps(skip), str(bundle.manifest.language.context))
    told = ask(asked, patience)
    abilities: dict[str, tuple[bool, str]] = told["abilities"].found or {}
    plan = told.get("plan", Reply())
    return Findings(
        machine=machine(bundle.root if bundle else None),
        libraries=found,
        gpu=gpu,
        gpu_memory=gpu_memory,
        driver_trouble=driver.trouble,
        abilities={name: text for name, (_, text) in abilities.items()},
        able=tuple(name for name, (able, _) in abilities.items() if able),
        twice=bool(version("onnxruntime") and version("onnxruntime-gpu")),
        missing=tuple(package for package in EXPORT if version(package) is None),
        system_tensorrt=next(map(str, SYSTEM.glob("python3*/dist-packages/tensorrt")), ""),
        bundle=str(folder or ""),
        max_context=max_context,
        bundle_trouble=trouble,
        precisions=bundle.precisions if bundle else (),
        damaged=tuple(_damaged(bundle)) if bundle else (),
        plan=Plan.from_json(plan.found) if plan.found else None,
        plan_trouble=plan.trouble,
    )


def _opened(folder: Path | None) -> tuple[Bundle | None, str]:
    """The bundle, or what is wrong with its manifest. A folder without one is the caller's mistake, and raises."""
    try:
        return (Bundle.open(folder) if folder else None), ""
    except MovaError as error:
        if not folder or not (folder / MANIFEST).is_file():
            raise
        return None, str(error)


def _damaged(bundle: Bundle) -> Iterator[str]:
    """Files that a copy left out or cut off; their bytes are looked at when they are loaded, and by `mova verify`."""
    for file in bundle.files():
        path = bundle.path(file)
        if not path.is_file() or path.stat().st_size != file.bytes:
            yield file.path


def _gpu(reply: Reply) -> tuple[Gpu | None, int]:
    if not reply.found:
        return None, 0
    facts = dict(reply.found)
    memory = facts.pop("memory")
    return Gpu(**facts), memory or 0
