"""Peak memory of the adapter with three pairs: a fresh process for each contender, which loads nothing else.

python benchmarks/memory.py FOLDER ours|torch|paired PAIRS THREADS
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mova_export.bench.facts import process_memory

CONTENDERS = ("ours", "torch", "paired")


def adapter_memory(folder: Path, pairs: int, threads: int) -> dict[str, dict[str, float]]:
    """MiB by contender, `loaded` before the first run and `peak` after three; `folder` has both forms."""
    found = {}
    for contender in CONTENDERS:
        command = [sys.executable, __file__, str(folder), contender, str(pairs), str(threads)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        loaded, peak = map(float, done.stdout.split())
        found[contender] = {"loaded": loaded, "peak": peak}
    return found


def _measure(folder: Path, contender: str, pairs: int, threads: int) -> None:
    import numpy as np

    from mova_runtime.bundle import Bundle

    bundle = Bundle.open(folder / "bundle")
    generator = np.random.default_rng(0)
    length = bundle.manifest.vision.grid**2
    shapes = {spec.name: [n for n in spec.shape if isinstance(n, int)] for spec in bundle.component("adapter").inputs}
    rows = {"base": 1, "text": 1, "keys": pairs, "values": pairs}
    inputs = {n: generator.standard_normal((rows[n], *shapes[n]), dtype=np.float32) for n in rows}
    inputs |= {"pair_image": np.zeros(pairs, np.int64), "pair_expert": np.arange(pairs)}
    assert inputs["base"].shape[1] == length

    if contender == "ours":
        from mova_runtime.engines.ort import OrtBackend

        engine = OrtBackend("cpu", "fp32", threads).load(bundle, "adapter")
        run = lambda: engine.run(inputs)  # noqa: E731
    else:
        import torch

        from mova_export.checkpoint.load import Checkpoint
        from mova_export.graphs.pairs import AdapterGraph

        torch.set_num_threads(threads)
        module = Checkpoint(folder / "checkpoint").load("adapter")
        if contender == "paired":
            module = AdapterGraph(module)
        tensors = [torch.from_numpy(array) for array in inputs.values()]
        run = torch.inference_mode()(lambda: module(*tensors))
    loaded = process_memory("VmRSS")
    for _ in range(3):
        run()
    print(loaded, process_memory("VmHWM"))


if __name__ == "__main__":
    _measure(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
