"""Options that several commands read alike."""

from __future__ import annotations

import argparse
from typing import Any

from mova_runtime import MovaError

RUNTIME = ("backend", "precision", "threads", "memory_budget", "device_memory_budget", "max_context")
"""What `add_runtime_options` declares besides `--experts`, as `mova_runtime.open` names it."""


def add_runtime_options(parser: argparse.ArgumentParser) -> None:
    """Declare how a bundle is opened and which experts are used."""
    parser.add_argument(
        "--experts", metavar="NAME,…", help="use these experts instead of asking the model; `none` for none"
    )
    parser.add_argument(
        "--backend",
        metavar="NAME",
        help="auto (the default), ort, ort-cuda, openvino, tensorrt, tensorrt-rtx; ort,adapter=cuda:bf16 gives a "
        "component its own",
    )
    parser.add_argument("--precision", metavar="NAME", help="fp32, fp16, bf16, int8 or int4 (default: the bundle's)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of an engine (default: one a core)")
    parser.add_argument("--memory-budget", metavar="SIZE", help="bound on the memory of engines and features, as 6GiB")
    parser.add_argument("--device-memory-budget", metavar="SIZE", help="the same of the GPU's memory")
    parser.add_argument(
        "--max-context", type=int, metavar="N", help="tokens of prompt and answer at most, whose caches take memory"
    )


def runtime_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was given of it, as arguments of `mova_runtime.open`."""
    return {name: value for name in RUNTIME if (value := getattr(arguments, name)) is not None}


def names(option: str, value: str) -> list[str]:
    """The names in a comma-separated value.

    Raises:
        MovaError: it names nothing.
    """
    found = [name.strip() for name in value.split(",") if name.strip()]
    if not found:
        raise MovaError(f"{option} {value!r} names nothing")
    return found


def chosen_experts(option: str | None) -> list[str] | None:
    """What `--experts` says: names, `none` for none, or nothing: then the model is asked.

    Raises:
        MovaError: it names nothing.
    """
    if option is None:
        return None
    return [] if option == "none" else names("--experts", option)
