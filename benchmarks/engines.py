"""Engines of a full-size expert, SAM ViT-H at 1024 px with random weights, for GPUs that this machine need not have.

    python benchmarks/engines.py [--work DIR] [--target SM]...

Each target is built in a process of its own, by the code behind `mova build --backend tensorrt-rtx`. The graph was
compared with torch when it was exported; what an engine computes can only be checked on its GPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mova_export.bench.facts import cores, facts, load, process_memory, short_name

RESULTS = Path(__file__).resolve().parent / "results"
FLAVOUR = "tensorrt-rtx"
EXPERT = "sam"
TARGETS = ("sm_86", "sm_89", "sm_120")
SIDE, PATCH, GRID, BLOCKS = 1024, 16, 48, 3
"""Pixels and patch of the image encoder; side of MoVA's grid, and blocks of its adapter."""


def main() -> int:
    """Export, build, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="keep checkpoint and bundle here, and use those that are there")
    parser.add_argument("--target", action="append", help=f"may be given again (default: {', '.join(TARGETS)})")
    parser.add_argument("--build", nargs=2, metavar=("BUNDLE", "SM"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.build:
        print(json.dumps(_build(Path(given.build[0]), given.build[1])))
        return 0
    if (busy := load()) > cores():
        _say(f"others keep this machine busy (load {busy:.1f}, {cores()} cores): times will mean little")
    results = facts(cores())
    with tempfile.TemporaryDirectory() as temporary:
        bundle = _bundle(given.work or Path(temporary))
        results["expert"] = _described(bundle)
        results["engines"] = {}
        for target in given.target or TARGETS:
            command = [sys.executable, __file__, "--build", str(bundle), target]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            results["engines"][target] = found = json.loads(done.stdout)
            print(
                f"{EXPERT} for {target:<7}{found['seconds']:7.1f} s  engine {found['bytes'] / 2**20:8.1f} MiB  "
                f"peak memory {found['peak_mib']:8.0f} MiB",
                flush=True,
            )
    file = RESULTS / f"engines-{short_name()}.json"
    RESULTS.mkdir(exist_ok=True)
    file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    _say(f"written: {file}")
    return 0


def _build(path: Path, target: str) -> dict[str, Any]:
    """What a build took, in a process that does nothing else."""
    from mova_export.engines.order import build, order
    from mova_export.engines.targets import targets_for
    from mova_runtime.bundle import Bundle

    class Quiet:
        def starting(self, key: object, index: int, total: int) -> None: ...
        def fraction(self, done: float) -> None: ...
        def finished(self, record: object, *, built: bool) -> None: ...

    bundle = Bundle.open(path)
    before = process_memory("VmHWM")
    wanted = order(bundle, FLAVOUR, "fp32", targets_for(FLAVOUR, [target], None), components=[EXPERT])
    (record,) = build(bundle, wanted, Quiet(), rebuild=True)
    return {
        "library": f"{FLAVOUR} {record.key.version}",
        "seconds": record.seconds,
        "bytes": record.file.bytes,
        "peak_mib": process_memory("VmHWM"),
        "peak_mib_before": before,
    }


def _bundle(work: Path) -> Path:
    """A bundle with the expert alone, made where it is not there yet."""
    from mova_export.checkpoint.load import Checkpoint
    from mova_export.export import export

    bundle = work / "bundle"
    if not (bundle / "manifest.json").is_file():
        _say(f"{EXPERT}: writing a checkpoint of random weights")
        _write_checkpoint(work / "checkpoint")
        _say(f"{EXPERT}: exporting")
        export(Checkpoint(work / "checkpoint"), bundle, components=(EXPERT,))
    return bundle


def _write_checkpoint(out: Path) -> None:
    """The tiny checkpoint's configuration around a full-size expert; no other tower's tensors."""
    import torch

    from mova_export.demo.checkpoint import write_shards, write_tiny_checkpoint
    from mova_export.demo.weights import random_tensor

    write_tiny_checkpoint(out)
    for shard in out.glob("*.safetensors"):
        shard.unlink()
    _change(out / "config.json", {"image_feat_size": GRID, "num_projector_layers": BLOCKS, "num_routing_tokens": 144})
    _change(
        out / "towers/clip/preprocessor_config.json",
        {"crop_size": {"height": 14 * GRID, "width": 14 * GRID}, "size": {"shortest_edge": 14 * GRID}},
    )
    processor = out / "towers/vary/preprocessor_config.json"
    _change(processor, {key: _sides(value) for key, value in json.loads(processor.read_text(encoding="utf-8")).items()})

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for name, shape in _shapes().items():
            yield name, torch.from_numpy(random_tensor(name, shape, 0))

    write_shards(out, tensors())


def _shapes() -> dict[str, tuple[int, ...]]:
    """SAM ViT-H (Kirillov et al., arXiv 2304.02643) and its part of MoVA's adapter, by published names."""
    from transformers.integrations.accelerate import init_empty_weights

    from mova_export.checkpoint.layout import published_name
    from mova_export.modules.adapter.attention import KeyValue
    from mova_export.modules.expert import Expert
    from mova_export.modules.sam import SamConfig, SamEncoder

    whole = SIDE // PATCH
    windows = tuple(whole if block in (7, 15, 23, 31) else 14 for block in range(32))
    config = SamConfig(
        width=1280, hidden=5120, heads=16, patch=PATCH, grid=whole, windows=windows, out_channels=256
    )  # fmt: skip
    with init_empty_weights(include_buffers=False):
        blocks = [KeyValue(config.out_channels, 1024, GRID**2) for _ in range(BLOCKS)]
        module = Expert(SamEncoder(config), blocks, GRID, aligned_features=False)
    return {published_name(EXPERT, key): tuple(tensor.shape) for key, tensor in module.state_dict().items()}


def _sides(value: Any) -> Any:
    """A processor's sizes at full size."""
    return dict.fromkeys(value, SIDE) if isinstance(value, dict) else value


def _change(file: Path, changes: dict[str, Any]) -> None:
    data = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(data | changes, indent=2), encoding="utf-8")


def _described(path: Path) -> dict[str, Any]:
    from mova_runtime.bundle import Bundle

    component = Bundle.open(path).component(EXPERT)
    return {
        "name": "SAM ViT-H, 1024 px",
        "parameters": component.parameters,
        "graph_bytes": component.artifacts[0].bytes,
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
