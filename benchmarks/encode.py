"""Image and question to visual tokens: every component, and the whole path of a routed request."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from subject import SELECTED, Arrays, Subject
from torch import Tensor

from mova_export.bench.timing import Contender
from mova_export.checkpoint.layout import EXPERTS
from mova_export.graphs.pairs import AdapterGraph

Case = tuple[str, dict[str, Contender]]
OURS, TORCH, PAIRED = "ours", "torch", "torch, pairs at once"
_OUTPUTS = {"base": ("features",), "text": ("text",), "adapter": ("visual", "gates")}


def encode_cases(subject: Subject) -> Iterator[Case]:
    """Cases in the order a request needs them; the whole path first."""
    adapter, paired = subject.modules["adapter"], AdapterGraph(subject.modules["adapter"]).eval()
    yield (
        f"encode, {len(SELECTED)} experts",
        {OURS: Contender(lambda _: _path_ours(subject)), TORCH: Contender(_path_torch(subject))},
    )
    for component in ("base", "text", *EXPERTS):
        inputs = subject.text_input if component == "text" else subject.input_of(component)
        yield component, _contenders(subject, component, inputs, {TORCH: subject.modules[component]})
    for count in range(len(SELECTED) + 1):
        if count == 2:
            continue
        inputs = subject.adapter_input(SELECTED[:count])
        name = f"adapter, {count} pair{'' if count == 1 else 's'}"
        yield name, _contenders(subject, "adapter", inputs, {TORCH: adapter, PAIRED: paired})


def _contenders(
    subject: Subject, component: str, inputs: Arrays, modules: dict[str, torch.nn.Module]
) -> dict[str, Contender]:
    tensors = [torch.from_numpy(np.array(array)) for array in inputs.values()]
    names = _OUTPUTS.get(component, ("features", "keys", "values"))
    contenders = {OURS: Contender(lambda _: subject.run(component, inputs))}
    for name, module in modules.items():
        contenders[name] = Contender(lambda _, module=module: _run_torch(module, tensors, names))
    return contenders


def _run_torch(module: torch.nn.Module, tensors: list[Tensor], names: tuple[str, ...]) -> Arrays:
    with torch.inference_mode():
        out = module(*tensors)
    outputs = out if isinstance(out, tuple) else (out,)
    return {name: tensor.numpy() for name, tensor in zip(names, outputs, strict=True)}


def _path_ours(subject: Subject) -> Arrays:
    encoder, trace = subject.model.encoder, subject.trace
    base, text = subject.base(), subject.text()
    routing, _ = encoder.fuse(base, text, [], trace)
    visual, gates = encoder.fuse(base, text, [subject.pair(name) for name in SELECTED], trace)
    return {"routing": encoder.pool_for_routing(routing[0]), "visual": visual, "gates": gates}


def _path_torch(subject: Subject) -> Callable[[object], Arrays]:
    """The same in eager torch; unlike ours, it gets the question as ids."""
    modules = subject.modules
    pixels = {name: torch.from_numpy(*subject.input_of(name).values()) for name in ("base", *SELECTED)}
    question = [torch.from_numpy(array) for array in subject.text_input.values()]
    routing_side = round(subject.model.manifest.vision.routing_tokens**0.5)
    image, none = torch.zeros(len(SELECTED), dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    expert = torch.tensor([EXPERTS.index(name) for name in SELECTED])

    def run(_: object) -> Arrays:
        with torch.inference_mode():
            base, text = modules["base"](pixels["base"]), modules["text"](*question)
            empty = base.new_empty(0, modules["adapter"].config.blocks, *base.shape[1:])
            routing, _gates = modules["adapter"](base, text, empty, empty, none, none)
            side = round(routing.shape[1] ** 0.5)
            square = routing.transpose(1, 2).unflatten(2, (side, side))
            pooled = torch.nn.functional.avg_pool2d(square, side // routing_side).flatten(2).transpose(1, 2)
            _features, keys, values = zip(*(modules[name](pixels[name]) for name in SELECTED), strict=True)
            visual, gates = modules["adapter"](base, text, torch.cat(keys), torch.cat(values), image, expert)
        return {"routing": pooled[0].numpy(), "visual": visual.numpy(), "gates": gates.numpy()}

    return run
