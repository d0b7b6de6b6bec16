"""The record of ways taken, checks of tensors, tiles: what every operator relies on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from mova_kernels import launches
from mova_kernels.checks import check_contiguous, check_device, check_dtype, check_shape
from mova_kernels.errors import KernelError
from mova_kernels.tiling import tiles


class Kernel:
    """Launched as Triton's are; remembers with what."""

    __name__ = "multiply"

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def run(*arguments: object, **options: object) -> None:
            self.launched = (grid, arguments, options)

        return run


def test_records_nest_and_end() -> None:
    kernel, x = Kernel(), torch.zeros(1)
    launches.reference("before")
    with launches.recorded() as outer:
        launches.launch(kernel, (2,), 5, x, BLOCK=4)
        with launches.recorded() as inner:
            launches.reference("combine")
    launches.reference("after")
    assert outer == ["multiply", "combine (reference)"]
    assert inner == ["combine (reference)"]
    assert kernel.launched == ((2,), (5, x), {"BLOCK": 4})


@pytest.mark.parametrize("grid", [(0,), (3, 0)])
def test_nothing_to_do_launches_nothing(grid: tuple[int, ...]) -> None:
    kernel = Kernel()
    with launches.recorded() as names:
        launches.launch(kernel, grid, torch.zeros(0))
    assert names == []
    assert not hasattr(kernel, "launched")


@pytest.mark.parametrize(("interpret", "way"), [("1", True), ("0", False), (None, False)])
def test_on_the_cpu_the_interpreter_decides(interpret: str | None, way: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if interpret is None:
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    else:
        monkeypatch.setenv("TRITON_INTERPRET", interpret)
    assert launches.by_kernel(torch.zeros(1)) is way


def test_references_need_no_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch\n"
        "from mova_kernels.combine.op import combine\n"
        "from mova_kernels.cross_attention.op import cross_attention\n"
        "from mova_kernels.gate.op import gate\n"
        "x, table = torch.randn(1, 5, 16), torch.ones(5, 8)\n"
        "assert cross_attention(x, x, x, table, 0 * table, 1)[0].shape == x.shape\n"
        "assert 'mova_kernels.cross_attention.kernel' not in sys.modules\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_all_operators_are_registered() -> None:
    from mova_kernels import operators

    mova = torch.ops.mova
    registered = [name for name in operators.__all__ if hasattr(mova, name)]
    assert {"cross_attention", "gate", "combine", "combine_"} <= set(registered)
    assert set(operators.__all__) - set(registered) <= {"convert"}  # torch's own is as good


def test_there_are_no_gradients() -> None:
    from mova_kernels.operators import gate

    x = torch.randn(1, 5, 16, requires_grad=True)
    weight1, weight2 = torch.randn(24, 8), torch.randn(2, 8)
    out = gate(x, torch.randn(1, 8), weight1, torch.randn(8), weight2, torch.randn(2), torch.ones(1, 2).int(), 1)
    with pytest.raises(RuntimeError, match="autograd"):
        out.sum().backward()


def test_shapes_are_returned_and_told_apart() -> None:
    x = torch.zeros(2, 3)
    assert check_shape("x", x, batch=2, channels=None) == (2, 3)
    for axes, needed in (
        ({"batch": None}, "[batch]"),
        ({"batch": 2, "channels": 4}, "[batch=2, channels=4]"),
        ({"batch": None, "tokens": None, "channels": 3}, "[batch, tokens, channels=3]"),
    ):
        with pytest.raises(KernelError) as refused:
            check_shape("x", x, **axes)
        assert str(refused.value) == f"x: shape [2, 3], needed {needed}"


def test_the_rest_is_told_in_one_line_too() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(KernelError, match=r"^x: dtype float32, needed float16 or bfloat16$"):
        check_dtype("x", x, torch.float16, torch.bfloat16)
    with pytest.raises(KernelError, match=r"^y: strides \[1, 3\], needed contiguous; pass y.contiguous\(\)$"):
        check_contiguous(x=x, y=x.t())
    with pytest.raises(KernelError, match=r"^x: device meta, needed cuda or cpu$"):
        check_device(x=x.to("meta"))
    with pytest.raises(KernelError, match=r"^y: device meta, needed cpu, as x$"):
        check_device(x=x, y=x.to("meta"))
    check_dtype("x", x, torch.float32)
    check_contiguous(x=x)
    check_device(x=x, y=x)


@pytest.mark.parametrize(
    ("capability", "as_of"),
    [((7, 5), (8, 0)), ((8, 8), (8, 7)), ((9, 0), (9, 0)), ((12, 1), (12, 0)), ((13, 0), (12, 0))],
)
def test_a_gpu_that_is_no_target_gets_the_tiles_of_the_one_before(
    capability: tuple[int, int], as_of: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mova_kernels import tiling
    from mova_kernels.targets import TARGETS

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    tiling._of_gpu.cache_clear()
    found = tiling._of_gpu(torch.device("cuda", 0))
    tiling._of_gpu.cache_clear()
    assert found is TARGETS["sm_{}{}".format(*as_of)].tiles
    assert tiles(torch.zeros(1)) is tiling._INTERPRETED
