"""Full-size towers with random weights: OpenVINO and ONNX Runtime against eager torch, side by side in one process.

    python benchmarks/towers.py [--only clip-l|sam-h|dinov2-giant] [--threads N] [--repeats N]

Each tower has a process of its own. Outputs are compared with float32 torch first. Beside the times stands the share
of the machine's bfloat16 matrix rate that they reach: floating-point operations of the tower's matrix products and
convolutions, over the time, over the rate of the quickest large matrix product that torch or OpenVINO does here.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matrix_rate import matrix_rates
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, Dinov2Config

from mova_export.bench.facts import cores, facts, load, short_name
from mova_export.bench.timing import Contender, Spread, interleave, ratios
from mova_export.checkpoint.presets import CONFIGS
from mova_export.graphs.graph import Graph
from mova_export.graphs.inputs import random
from mova_export.graphs.onnx import write_onnx
from mova_export.modules.clip import ClipEncoder
from mova_export.modules.dinov2 import MAX_SIDE, Dinov2Encoder
from mova_export.modules.sam import SamConfig, SamEncoder
from mova_runtime.engines import ort, ov
from mova_runtime.engines.machine import multiplies
from mova_runtime.parity.bars import BARS
from mova_runtime.parity.compare import compare

RESULTS = Path(__file__).resolve().parent / "results"
CLIP_SIDE = 672
SELECT_LAYER = -2
SAM_H = SamConfig(1280, 5120, 16, 16, 64, tuple(64 if i % 8 == 7 else 14 for i in range(32)), 256)
"""Published sizes of SAM's ViT-H (arXiv 2304.02643): every eighth block attends globally, the others in windows."""

OURS, THEIRS = "openvino bf16", "torch bf16"
FLOAT32_REPEATS = 2
"""Of what is slow and only there for comparison."""


def clip_l() -> nn.Module:
    return ClipEncoder(
        CLIPVisionConfig(**CONFIGS["clip-vit-large-patch14-336"] | {"image_size": CLIP_SIDE}), SELECT_LAYER
    )


def dinov2_giant() -> nn.Module:
    return Dinov2Encoder(Dinov2Config(**CONFIGS["dinov2-giant"] | {"image_size": MAX_SIDE}), SELECT_LAYER)


TOWERS = {
    "clip-l": (clip_l, CLIP_SIDE),
    "sam-h": (lambda: SamEncoder(SAM_H), SAM_H.image_side),
    "dinov2-giant": (dinov2_giant, MAX_SIDE),
}


def make(name: str) -> tuple[nn.Module, torch.Tensor]:
    """The tower in float32, and an image of noise."""
    torch.manual_seed(0)
    build, side = TOWERS[name]
    tower = build().eval()
    with torch.no_grad():
        for parameter in tower.parameters():  # some are made at zero or one, where nothing could go wrong
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)
            else:
                parameter.add_(0.02 * torch.randn_like(parameter))
    if hasattr(tower, "drop_unused"):
        tower.drop_unused()
    return tower, random(1, 3, side, side)


def measure(name: str, threads: int, repeats: int) -> dict[str, Any]:
    """Times and errors of one tower; of what takes gigabytes, only what is being measured is in memory."""
    torch.set_num_threads(threads)
    tower, pixels = make(name)
    # The counter does not know the CPU's fused attention; in plain products it counts attention too.
    with FlopCounterMode(display=False) as counter, torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        expected = tower(pixels).numpy()
    inputs = {"pixels": pixels.numpy()}
    times, errors = {}, {}

    def time_together(contenders: dict[str, Contender], repeats: int) -> None:
        for label, contender in contenders.items():
            difference = compare("features", contender()["features"], expected)
            if label != THEIRS and not BARS["bf16" if "bf16" in label else "fp32"].passes(difference):
                raise SystemExit(f"{name}: {label} computes something else: {difference}")
            errors[label] = {"cosine": difference.cosine, "relative_l2": difference.relative_l2}
        times.update(interleave(contenders, repeats, warmup=0))

    with tempfile.TemporaryDirectory() as folder:
        time_together({"torch fp32": Contender(lambda _, tower=tower: _run(tower, pixels))}, FLOAT32_REPEATS)
        axes = {0: "batch"}
        example = {"pixels": pixels.expand(2, -1, -1, -1)}
        graph = Graph(tower, tower, example, {"pixels": pixels}, {"pixels": axes}, {"features": axes})
        model, *_ = write_onnx(graph, Path(folder) / "model.onnx")
        del graph
        halved = tower.bfloat16()
        engine: Any = ov.open_engine(model, name, 0, "bf16", threads)
        pair = {
            OURS: Contender(lambda _, engine=engine: engine.run(inputs)),
            THEIRS: Contender(lambda _, halved=halved: _run(halved, pixels.bfloat16())),
        }
        time_together(pair, repeats)
        del pair, halved, tower, engine
        for label, opened in (
            ("openvino fp32", lambda: ov.open_engine(model, name, 0, "fp32", threads)),
            ("ort fp32", lambda: ort.open_engine(model, name, 0, threads)),
        ):
            gc.collect()
            engine = opened()
            time_together({label: Contender(lambda _, engine=engine: engine.run(inputs))}, FLOAT32_REPEATS)
            del engine
    return {
        "operations": counter.get_total_flops(),
        "seconds": {label: asdict(Spread.of(sample)) for label, sample in times.items()},
        "ratio_to_torch_bf16": {
            OURS: asdict(Spread.of(ratios(times[OURS], times[THEIRS]))),
            **{
                label: {"median": Spread.of(sample).median / Spread.of(times[THEIRS]).median}
                for label, sample in times.items()
                if label != OURS
            },
        },
        "errors": errors,
    }


@torch.inference_mode()
def _run(tower: nn.Module, pixels: torch.Tensor) -> dict[str, np.ndarray]:
    return {"features": tower(pixels).float().numpy()}


def main() -> int:
    """Measure each tower in a process of its own, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(TOWERS), action="append")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        print(json.dumps(measure(given.only[0], given.threads, given.repeats)))
        return 0
    if not multiplies("bf16"):
        print("this processor has no bfloat16 instructions: nothing to compare", file=sys.stderr)
        return 1
    if (busy := load()) > cores():
        print(f"others keep this machine busy (load {busy:.1f}): times will mean little", file=sys.stderr)
    results = {**facts(given.threads), "matrix_rate": matrix_rates(given.threads), "towers": {}}
    best = max(rate for label, rate in results["matrix_rate"].items() if "bf16" in label)
    print("matrix rates, GFLOP/s: " + ", ".join(f"{k} {v / 1e9:.0f}" for k, v in results["matrix_rate"].items()))
    for name in given.only or TOWERS:
        command = [sys.executable, __file__, "--inside", "--only", name]
        options = ["--threads", str(given.threads), "--repeats", str(given.repeats)]
        done = subprocess.run(command + options, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            return done.returncode
        found = json.loads(done.stdout.splitlines()[-1])
        found["share_of_matrix_rate"] = {
            label: found["operations"] / spread["median"] / best for label, spread in found["seconds"].items()
        }
        results["towers"][name] = found
        print(f"{name}: {found['operations'] / 1e9:.0f} GFLOP")
        for label, spread in found["seconds"].items():
            print(
                f"  {label:14} {spread['median']:7.3f} s ({spread['p10']:.3f} to {spread['p90']:.3f})"
                f"  ratio to {THEIRS} {found['ratio_to_torch_bf16'][label]['median']:.2f}"
                f"  {found['share_of_matrix_rate'][label]:4.0%} of the bf16 rate"
                f"  cosine {found['errors'][label]['cosine']:.6f}",
                flush=True,
            )
    if not given.only:
        RESULTS.mkdir(exist_ok=True)
        file = RESULTS / f"towers-{short_name()}.json"
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(f"written: {file}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
