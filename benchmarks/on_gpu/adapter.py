"""The whole adapter: the runtime's engines on a bundle, against torch's module on the same inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mova_export.bench.timing import Contender, Spread, interleave
from mova_export.modules.adapter.adapter import MovAdapter
from mova_runtime.engines.host import on_host
from mova_runtime.parity.bars import BARS
from on_gpu.agreement import agree
from on_gpu.bundle import make_adapter, write_bundle
from on_gpu.clock import Timed
from on_gpu.contest import OURS, compiled, outcome
from on_gpu.engines import compile_kernels, on_device, open_engines, without_graph
from on_gpu.report import Section
from on_gpu.sdpa import with_sdpa
from on_gpu.setting import NotThereError, Setting, count

DTYPE = torch.bfloat16
AT_MOST = 0.7
"""Of torch.compile's time."""

Inputs = Mapping[str, Tensor]


def run(setting: Setting, section: Section) -> None:
    """Make a bundle, compile kernels into it, load it as the runtime does, compare, time."""
    module = make_adapter(setting)
    bundle = write_bundle(module, setting.device, setting.work / "bundle")
    if setting.gpu:
        compile_kernels(bundle.root)
    engines = dict(open_engines(setting, section, bundle))
    module.to(setting.device)
    narrow = copy.deepcopy(module).to(DTYPE)
    for pairs in (0, *setting.pairs):
        _compare_and_time(setting, section, module, narrow, engines, pairs)
    for engine in engines.values():
        engine.close()
    if not any(name.startswith(OURS) for name in engines):
        raise NotThereError("no CUDA adapter; see above")


def _compare_and_time(
    setting: Setting,
    section: Section,
    module: MovAdapter,
    narrow: MovAdapter,
    engines: Mapping[str, Any],
    pairs: int,
) -> None:
    shape = setting.shape
    cache = (pairs, shape.blocks, shape.tokens, shape.channels)
    inputs = {
        "base": setting.draw(1, shape.tokens, shape.channels),
        "text": setting.draw(1, shape.text_channels),
        "keys": setting.draw(*cache),
        "values": setting.draw(*cache),
        "pair_image": torch.zeros(pairs, dtype=torch.int64, device=setting.device),
        "pair_expert": torch.arange(pairs, device=setting.device),
    }
    with torch.no_grad():
        visual, gates = module(*inputs.values())
    ways: dict[str, Callable[[], Any]] = {}
    for name, engine in engines.items():
        given = on_device(inputs) if setting.gpu else {key: one.numpy() for key, one in inputs.items()}
        found = engine.keep(given)
        bar = BARS["bf16"].relative_l2 if "bf16" in name else BARS["fp32"].relative_l2
        for output, wanted in (("visual", visual), ("gates", gates)):
            ours = torch.from_numpy(np.array(on_host(found[output])))
            check = agree(f"adapter, {count(pairs)}: {name}, {output}", ours, wanted.cpu(), DTYPE, bar)
            if not section.check(check):
                break
        else:
            ways[name] = lambda engine=engine, given=given: engine.keep(given)
            if name.startswith(OURS):
                ways[f"{name}, without CUDA graph"] = without_graph(engine, given)
    for name, way in _torch_ways(setting, narrow, inputs, pairs).items():
        label = f"adapter, {count(pairs)}: {name}"
        found = outcome(label, way, False, section)
        if found is not None and section.check(agree(label, found, visual, DTYPE, BARS["bf16"].relative_l2)):
            ways[name] = way
    if setting.timed:
        _time(setting, section, ways, pairs)


def _torch_ways(setting: Setting, narrow: MovAdapter, inputs: Inputs, pairs: int) -> dict[str, Callable[[], Any]]:
    """The module eager and compiled, with plain and with fused attention."""
    given = [tensor.to(DTYPE) if tensor.is_floating_point() else tensor for tensor in inputs.values()]
    ways: dict[str, Callable[..., Any]] = {"eager": narrow}
    if pairs:  # compiling takes minutes
        ways["torch.compile"] = compiled(setting, narrow)

    def waited(way: Callable[..., Any]) -> Callable[[], Any]:
        def call() -> Any:
            with torch.no_grad():
                found = way(*given)
            if setting.gpu:
                torch.cuda.synchronize()
            return found

        return call

    plain = {name: waited(way) for name, way in ways.items()}
    return plain | {f"{name} with SDPA": with_sdpa(way) for name, way in plain.items()}


def _time(setting: Setting, section: Section, ways: Mapping[str, Callable[[], Any]], pairs: int) -> None:
    """Calls as a request makes them: from the call until the GPU is done."""
    times = interleave(
        {name: Contender(lambda _, way=way: way()) for name, way in ways.items()}, setting.repeats, warmup=3, settle=0
    )
    spreads = {name: Spread.of(sample) for name, sample in times.items()}
    what = f"adapter, {count(pairs)}, called and waited for"
    section.time(what, {name: Timed(spread, graph=False) for name, spread in spreads.items()})
    ours = spreads.get(f"{OURS}, bf16")
    for other in ("torch.compile", "torch.compile with SDPA"):
        if ours and other in spreads:
            share = ours.median / spreads[other].median
            section.goal(f"adapter, {count(pairs)}: share of {other}'s time", share, AT_MOST)
