"""The gate against its reference and against the module that it replaces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mova_kernels import launches
from mova_kernels.errors import KernelError
from mova_kernels.gate.op import gate
from mova_kernels.gate.reference import gate as of_logits
from mova_kernels.gate.reference import weigh_experts

Draw = Callable[..., Tensor]
Same = Callable[[Tensor, Tensor], None]
Arguments = dict[str, Any]

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
CHANNELS, TEXT, HIDDEN, EXPERTS = 48, 40, 80, 7
KERNELS = ["gate_partial", "gate_weights"]


def inputs(draw: Draw, batch: int, tokens: int, dtype: torch.dtype = torch.float32) -> Arguments:
    """Random experts selected in every image: of the first none, of the second all."""
    selected = (draw(batch, EXPERTS) > 0).int()
    selected[0] = 0
    selected[1:2] = 1
    return {
        "x": draw(batch, tokens, CHANNELS) + draw(batch, 1, CHANNELS),
        "text": draw(batch, TEXT),
        "weight1": (draw(TEXT + CHANNELS, HIDDEN) / 8).to(dtype),
        "bias1": draw(HIDDEN),
        "weight2": (draw(EXPERTS, HIDDEN) / 4).to(dtype),
        "bias2": draw(EXPERTS),
        "selected": selected,
        "top_k": 3,
    }


def check(arguments: Arguments, same: Same) -> Tensor:
    with launches.recorded() as names:
        found = gate(**arguments)
    assert names == KERNELS
    same(found, weigh_experts(**arguments))
    return found


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 144])
def test_tokens(tokens: int, dtype: torch.dtype, draw: Draw, same: Same) -> None:
    found = check(inputs(draw, 3, tokens, dtype), same)
    assert ((found > 0).sum(dim=1) <= 3).all()
    assert (found[0] == 0).all()
    assert found[1].sum().item() == pytest.approx(1)


@pytest.mark.parametrize("top_k", [1, 2, 7])
def test_top_k(top_k: int, draw: Draw, same: Same) -> None:
    found = check({**inputs(draw, 3, 5), "top_k": top_k}, same)
    assert (found[1] > 0).sum() == top_k


def test_an_expert_that_is_not_selected_never_counts(draw: Draw, same: Same) -> None:
    arguments = inputs(draw, 3, 5)
    arguments["bias2"] += 1e5 * (1 - arguments["selected"][2])
    assert (check(arguments, same)[2][arguments["selected"][2] == 0] == 0).all()


@pytest.mark.parametrize("sizes", [(1, 1, 16, 1), (3, 33, 32, 2), (600, 64, 1025, 8)], ids=str)
def test_sizes_beside_the_blocks(sizes: tuple[int, int, int, int], draw: Draw, same: Same) -> None:
    text, channels, hidden, experts = sizes
    check(
        {
            "x": draw(2, 3, channels),
            "text": draw(2, text),
            "weight1": draw(text + channels, hidden) / (text + channels) ** 0.5,
            "bias1": draw(hidden),
            "weight2": draw(experts, hidden) / hidden**0.5,
            "bias2": draw(experts),
            "selected": torch.ones_like(draw(2, experts), dtype=torch.int32),
            "top_k": min(3, experts),
        },
        same,
    )


@pytest.mark.parametrize("interpreted", [True, False])
def test_of_experts_that_weigh_the_same_the_first_count(
    interpreted: bool, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    selected = [[1, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 0, 1, 1], [0, 1, 0, 0, 0, 1, 1], [1, 0, 1, 0, 1, 0, 1], [0] * 7]
    arguments = inputs(draw, 5, 4)
    arguments["weight2"].zero_()
    arguments["bias2"].copy_(torch.tensor([1.0, 2.0, 1.0, 1.0, 2.0, 1.0, 1.0]))
    arguments["selected"].copy_(torch.tensor(selected))
    if not interpreted:
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        arguments |= {name: part.cpu() for name, part in arguments.items() if isinstance(part, Tensor)}
    with launches.recorded() as names:
        found = gate(**arguments)
    assert names == (KERNELS if interpreted else ["gate (reference)"])
    kept = [row.nonzero().flatten().tolist() for row in found]
    assert kept == [[0, 1, 4], [2, 3, 5], [1, 5, 6], [0, 2, 4], []]


def test_it_is_the_module(draw: Draw, same: Same) -> None:
    """Its two layers as torch computes them, and the gate of logits that is exported."""
    arguments = inputs(draw, 3, 65)
    layers = nn.Sequential(nn.Linear(TEXT + CHANNELS, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, EXPERTS))
    layers.to(arguments["x"].device)
    with torch.no_grad():
        layers[0].weight.copy_(arguments["weight1"].t())
        layers[0].bias.copy_(arguments["bias1"])
        layers[2].weight.copy_(arguments["weight2"])
        layers[2].bias.copy_(arguments["bias2"])
        logits = layers(torch.cat((arguments["text"], arguments["x"].mean(dim=1)), dim=1))
    same(gate(**arguments), of_logits(logits, arguments["selected"], 3))


def test_every_output_is_written(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gate(**inputs(draw, 2, 5)).isfinite().all()
    monkeypatch.setattr("mova_kernels.gate.op.launch", lambda *_arguments, **_options: None)
    assert gate(**inputs(draw, 2, 5)).isnan().all()


def test_no_images(draw: Draw) -> None:
    arguments = inputs(draw, 1, 5)
    with launches.recorded() as names:
        found = gate(**{**arguments, **{name: arguments[name][:0] for name in ("x", "text", "selected")}})
    assert found.shape == (0, EXPERTS)
    assert names == []


def test_as_torch_operator(draw: Draw) -> None:
    torch.library.opcheck(torch.ops.mova.gate.default, (), inputs(draw, 2, 5, torch.float16))


def test_compiled(draw: Draw) -> None:
    arguments = inputs(draw, 2, 5)

    @torch.compile(backend="eager", fullgraph=True)
    def twice(x: Tensor) -> Tensor:
        return 2 * torch.ops.mova.gate(**{**arguments, "x": x})

    assert torch.equal(twice(arguments["x"]), 2 * gate(**arguments))


def wrong(name: str, change: Callable[[Any], Any]) -> Callable[[Arguments], Arguments]:
    return lambda arguments: {name: change(arguments[name])}


WRONG: dict[str, tuple[Callable[[Arguments], Arguments], str]] = {
    "dtype of x": (wrong("x", lambda x: x.half()), "x: dtype float16, needed float32"),
    "integers": (wrong("weight1", lambda x: x.int()), "weight1: dtype int32, needed float16 or bfloat16 or float32"),
    "dtype of weight2": (wrong("weight2", lambda x: x.half()), "weight2: dtype float16, needed float32"),
    "dtype of bias1": (wrong("bias1", lambda x: x.half()), "bias1: dtype float16, needed float32"),
    "dtype of selected": (wrong("selected", lambda x: x.bool()), "selected: dtype bool, needed int32"),
    "axes": (wrong("x", lambda x: x[0]), "x: shape [5, 48], needed [batch, tokens, channels]"),
    "images": (wrong("text", lambda x: x[:1]), "text: shape [1, 40], needed [batch=2, channels]"),
    "inputs": (wrong("weight1", lambda x: x[:87]), "weight1: shape [87, 80], needed [inputs=88, hidden]"),
    "hidden": (wrong("bias1", lambda x: x[:79]), "bias1: shape [79], needed [hidden=80]"),
    "experts": (
        wrong("selected", lambda x: x[:, :6].contiguous()),
        "selected: shape [2, 6], needed [batch=2, experts=7]",
    ),
    "bias2": (wrong("bias2", lambda x: x[:6]), "bias2: shape [6], needed [experts=7]"),
    "strides": (wrong("weight1", lambda x: x.t().contiguous().t()), "weight1: strides [1, 88], needed contiguous"),
    "no tokens": (wrong("x", lambda x: x[:, :0]), "x: shape [2, 0, 48], needed at least one token"),
    "top_k": (wrong("top_k", lambda _: 8), "top_k: 8, needed 1 to 7, the number of experts"),
    "no top_k": (wrong("top_k", lambda _: 0), "top_k: 0, needed 1 to 7"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_suit_is_refused(case: str, draw: Draw) -> None:
    change, message = WRONG[case]
    arguments = inputs(draw, 2, 5)
    with pytest.raises(KernelError) as refused:
        gate(**{**arguments, **change(arguments)})
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@pytest.mark.gpu("mova_kernels.gate.kernel")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch", [1, 5])
def test_full_size(batch: int, dtype: torch.dtype, draw: Draw, same: Same) -> None:
    check(
        {
            "x": draw(batch, 2304, 1024) + 1,
            "text": draw(batch, 1024),
            "weight1": (draw(2048, 1024) / 32).to(dtype),
            "bias1": draw(1024),
            "weight2": (draw(7, 1024) / 32).to(dtype),
            "bias2": draw(7),
            "selected": (draw(batch, 7) > 0).int(),
            "top_k": 3,
        },
        same,
    )
