"""What `mova bench` writes, made up: plausible figures of a full-size bundle on a CPU of two cores."""

from __future__ import annotations

from typing import Any

GIB = 2**30

_SIZES = {  # parameters, operations of a run, host bytes that a run needs
    "base": (304_293_888, 384e9, 120e6),
    "dinov2": (1_136_480_768, 3.3e12, 420e6),
    "vary": (95_000_000, 740e9, 900e6),
    "codetr": (304_000_000, 8.9e12, 2.4e9),
    "pix2struct": (282_000_000, 1.36e12, 500e6),
    "deplot": (282_000_000, 1.36e12, 500e6),
    "biomedclip": (86_000_000, 34e9, 40e6),
    "sam": (308_000_000, 2.98e12, 1.9e9),
    "text": (109_000_000, 9.6e9, 20e6),
    "adapter": (1_050_000_000, 690e9, 300e6),
}
_CONTENDERS = {  # floating-point operations a second, bytes a parameter that stay resident
    "ort fp32": (88e9, 4.0),
    "openvino fp32": (96e9, 5.2),
    "openvino bf16": (181e9, 4.6),
    "torch fp32": (79e9, 4.1),
    "torch bf16": (118e9, 2.1),
}
_UNEVEN = {"base": 1.0, "text": 0.62, "biomedclip": 0.7, "sam": 0.74, "vary": 0.8, "codetr": 0.86, "adapter": 0.9}
"""How well a component keeps the machine busy."""


def full_size() -> dict[str, Any]:
    """Ten components, five contenders each, of which one failed; nine routes."""
    return {
        "format": "mova-bench",
        "version": 1,
        "date": "2026-11-22T18:04:11+00:00",
        "machine": {
            "cpu": "AMD EPYC 9R14",
            "cores": 2,
            "memory_bytes": 24 * GIB,
            "system": "Linux 6.1.0 x86_64, glibc 2.36",
            "gpu": None,
        },
        "versions": {
            "python": "3.11.7",
            "mova-export": "0.1.0",
            "onnxruntime": "1.31.1",
            "openvino": "2026.4.1",
            "torch": "2.13.0",
        },
        "commit": "37ab81865ae1",
        "command": "mova bench mova-8b --against torch --json bench.json --html bench.html",
        "load": {"start": 0.12, "end": 2.04},
        "bundle": {
            "name": "mova-8b",
            "sha256": "3f6b0d5a" * 8,
            "origin": "mova_llama, random weights",
            "components": 10,
            "parameters": sum(size for size, *_ in _SIZES.values()),
        },
        "options": {
            "warmup": 1,
            "repeats": 5,
            "seconds": 20.0,
            "threads": None,
            "backends": ["ort", "openvino"],
            "precisions": ["fp32", "bf16"],
            "against": ["torch"],
        },
        "matrix_rate": {"ort fp32": 97.2e9, "openvino fp32": 103.4e9, "openvino bf16": 201.7e9},
        "components": {name: _component(name) for name in _SIZES},
        "routes": [_route(experts) for experts in _ROUTES],
        "everything": {
            "memory": {"peak": int(16.4 * GIB)},
            "measured": True,
            "one_expert_mean": int(5.1 * GIB),
            "one_expert_share": 0.311,
        },
    }


def _component(name: str) -> dict[str, Any]:
    parameters, operations, _ = _SIZES[name]
    contenders = [_contender(name, label) for label in _CONTENDERS]
    if name == "codetr":
        contenders[1] = {
            "label": "openvino fp32",
            "ours": True,
            "backend": "openvino",
            "precision": "fp32",
            "error": "openvino: can't load 'codetr': there is no room for it (7.9 GiB are needed, 6.2 GiB are free)",
        }
    torch = {run["label"]: run["run"]["median"] for run in contenders if not run.get("ours", True)}
    ours = {run["label"]: run["run"]["median"] for run in contenders if run["ours"] and not run["error"]}
    return {
        "parameters": parameters,
        "operations": operations,
        "contenders": contenders,
        "ratios": {
            label: {
                theirs: {"median": mine / other, "p10": 0.97 * mine / other, "p90": 1.04 * mine / other, "count": 5}
                for theirs, other in torch.items()
            }
            for label, mine in ours.items()
        },
        "fastest": min(ours, key=lambda label: ours[label]),
    }


def _contender(name: str, label: str) -> dict[str, Any]:
    parameters, operations, working = _SIZES[name]
    speed, resident = _CONTENDERS[label]
    backend, precision = label.split()
    ours = backend != "torch"
    speed *= _UNEVEN.get(name, 0.93)
    if name == "text" and label == "openvino bf16":
        speed *= 0.45
    median = operations / speed
    loaded = int(parameters * resident)
    best = 201.7e9
    return {
        "label": label,
        "ours": ours,
        "backend": backend,
        "precision": precision,
        "engine_bytes": 4 * parameters + 300_000 if ours else None,
        "load_cold": parameters * 4 / 0.6e9 if ours else None,
        "load_warm": parameters * (4 / 9e9 if backend == "ort" else 4 / 1.5e9) if ours else None,
        "first_run": median * 1.2,
        "run": {
            "median": median,
            "p10": median * 0.975,
            "p90": median * 1.05,
            "p95": median * 1.09,
            "count": max(5, int(20 / median)),
        },
        "per_second": 1 / median,
        "memory": {"loaded": loaded, "peak": loaded + int(working * (1.6 if ours else 2.0))},
        "device_memory": None,
        "rate": speed,
        "share": speed / best,
        "parity": {"cosine": 0.99998, "relative_l2": 3.1e-6 if precision == "fp32" else 6.4e-3, "worst_row": 0.02}
        | {"passed": True}
        if ours
        else None,
        "energy": None,
        "group": 1,
        "error": None,
    }


_ROUTES = (
    (),
    ("dinov2",),
    ("vary",),
    ("codetr",),
    ("pix2struct",),
    ("biomedclip",),
    ("sam",),
    ("dinov2", "sam"),
    ("dinov2", "codetr", "sam"),
)


def _route(experts: tuple[str, ...]) -> dict[str, Any]:
    def run(name: str) -> float:
        return _contender(name, "openvino bf16")["run"]["median"]

    def load(name: str) -> float:
        return _contender(name, "openvino bf16")["load_warm"]

    begin = 0.06
    stages: list[dict[str, Any]] = []

    def add(name: str, start: float, duration: float, ahead: bool = False) -> float:
        thread = "mova-prefetch_0" if ahead else "MainThread"
        stages.append({"name": name, "start": start, "duration": duration, "thread": thread})
        return start + duration

    now = add("preprocess clip", 0.0, begin)
    now = add("load base", now, load("base"))
    ahead = now
    now = add("base", now, run("base"))
    order = ["text", *experts, "adapter"]
    ready = {}
    for name in order:
        ahead = ready[name] = add(f"load {name}", ahead, load(name), ahead=True)
        ahead = ready[name] = add(f"check {name}", ahead, 0.3 * load(name), ahead=True)
    waited = 0.0
    for name in order:
        if name in ("dinov2", "sam", "codetr"):
            now = add(f"preprocess {name}", now, 0.11)
        if ready[name] > now:
            waited += ready[name] - now
            now = add(f"wait for {name}", now, ready[name] - now)
        now = add(name, now, run(name))
    loading = sum(stage["duration"] for stage in stages if stage["name"].split()[0] in ("load", "check"))
    loading_base = load("base")
    resident = begin + run("base") + sum(map(run, order))
    return {
        "experts": list(experts),
        "kind": ("none", "single", "pair", "triple")[len(experts)],
        "backend": "openvino:bf16",
        "first_visual_token": {"fresh": now, "resident": resident},
        "first_answer_token": None,
        "tokens_per_second": None,
        "second_question": run("text") + run("adapter"),
        "memory": {"peak": int(4.2 * GIB + 0.9 * GIB * len(experts))},
        "hidden": {"loading": loading, "waited": waited + loading_base, "hidden": loading - waited - loading_base},
        "stages": stages,
        "error": None,
    }
