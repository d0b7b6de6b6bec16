"""Kernels and the CUDA adapter on an NVIDIA GPU: checked first, then timed at MoVA-8B's size in bfloat16.

    python benchmarks/gpu.py [--only kernels,attention,…] [--pairs 1,3] [--repeats N] [--check-only] [--out FILE]

What is wrong is not timed. Without a GPU, --check-only runs all that can be run on tiny sizes by Triton's interpreter.
Sections stand by themselves: one that lacks something, or breaks, says so, and the others go on. Exit status 1 where
anything was wrong. The project must be installed, or its folders be on PYTHONPATH: .:kernels:runtime

kernels     every kernel against its reference
cubins      kernels compiled ahead of time, launched through cuda.core, against the same compiled at run time
ceilings    the rates that bound the others: a copy, and a large matrix product
attention   cross-attention against SDPA's flash and cuDNN, eager torch, torch.compile; keys rotated inside or before
fusion      gate and combination
block       a block of the adapter made of our operators
adapter     the CUDA adapter as the runtime loads it from a bundle, with and without CUDA graph, and ONNX Runtime's
            CUDA provider
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mova_runtime.engines.nvidia import gpu

if not gpu():
    os.environ["TRITON_INTERPRET"] = "1"  # before any kernel is imported

import torch
from on_gpu.report import Section, attempt, table
from on_gpu.setting import PAIRS, NotThereError, Setting

from mova_export.bench.facts import cores, short_name

RESULTS = Path(__file__).resolve().parent / "results"
REPEATS = 30
COMPILED = 64
"""How often torch.compile may compile one function: contests are many."""


def _kernels(setting: Setting, section: Section) -> None:
    from on_gpu.kernels import check

    _each(section, check(setting))


def _cubins(setting: Setting, section: Section) -> None:
    from on_gpu.cubins import check

    _each(section, check(setting))


def _ceilings(setting: Setting, section: Section) -> None:
    from on_gpu.facts import ceilings

    if not setting.timed:
        raise NotThereError("nothing is timed")
    section.facts |= ceilings(setting.draw, setting.repeats)


def _attention(setting: Setting, section: Section) -> None:
    from on_gpu.attention import run

    run(setting, section)


def _fusion(setting: Setting, section: Section) -> None:
    from on_gpu.fusion import run

    run(setting, section)


def _block(setting: Setting, section: Section) -> None:
    from on_gpu.block import run

    run(setting, section)


def _adapter(setting: Setting, section: Section) -> None:
    from on_gpu.adapter import run

    run(setting, section)


SECTIONS: dict[str, Callable[[Setting, Section], None]] = {
    "kernels": _kernels,
    "cubins": _cubins,
    "ceilings": _ceilings,
    "attention": _attention,
    "fusion": _fusion,
    "block": _block,
    "adapter": _adapter,
}


def main() -> int:
    """Check, time, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, by name")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="timed regions of each contender")
    parser.add_argument("--pairs", default=",".join(map(str, PAIRS)), help="numbers of pairs to try, 1 to 7")
    parser.add_argument("--check-only", action="store_true", help="time nothing, write nothing unless --out says where")
    parser.add_argument("--seed", type=int, help="of the random inputs; another one each time unless given")
    parser.add_argument("--out", type=Path, help="the results file")
    parser.add_argument("--commit", help="of the sources, where they are not in a repository")
    given = parser.parse_args()
    names = given.only.split(",")
    if unknown := [name for name in names if name not in SECTIONS]:
        parser.error(f"unknown section {', '.join(unknown)}; one of {', '.join(SECTIONS)}")
    if not re.fullmatch("[1-7](,[1-7])*", given.pairs):
        parser.error(f"--pairs {given.pairs}: expected numbers from 1 to 7")
    here = gpu()
    if not here and not given.check_only:
        parser.error("no NVIDIA GPU, or no driver for it; --check-only runs without")
    pairs = tuple(map(int, given.pairs.split(",")))
    seed = int.from_bytes(os.urandom(4), "little") if given.seed is None else given.seed
    print(f"{here or 'no GPU'}; seed {seed}", file=sys.stderr, flush=True)
    torch._dynamo.config.recompile_limit = COMPILED
    torch.backends.cudnn.allow_tf32 = False  # references are float32

    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        os.environ.setdefault("MOVA_CACHE", folder)
        generator = torch.Generator("cuda" if here else "cpu").manual_seed(seed)
        setting = Setting(here is not None, not given.check_only, pairs, given.repeats, Path(folder), generator)
        sections: dict[str, Section] = {}
        for name in names:
            sections[name] = attempt(name, lambda section, name=name: SECTIONS[name](setting, section))
            _write(given, seed, sections)
    print("\n".join(table(sections)))
    return 0 if all(section.sound for section in sections.values()) else 1


def _each(section: Section, checks: Iterator[Any]) -> None:
    for check in checks:
        section.check(check)


def _write(given: argparse.Namespace, seed: int, sections: dict[str, Section]) -> None:
    """Write what there is so far: a run may be cut off."""
    from on_gpu.facts import describe

    here = gpu()
    name = re.sub(r"[^a-z0-9]+", "-", here.name.lower()).strip("-") if here else short_name()
    out = given.out or (None if given.check_only else RESULTS / f"gpu-{name}.json")
    if out:
        found = describe(cores()) | ({"commit": given.commit} if given.commit else {}) | {"seed": seed}
        found |= {name: section.to_json() for name, section in sections.items()}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
