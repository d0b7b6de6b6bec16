"""What tests of kernels share: where they run, what they draw, how far apart is the same, outputs of NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mova_runtime.engines.nvidia import gpu

Draw = Callable[..., Tensor]
Same = Callable[[Tensor, Tensor], None]

TOLERANCES = {
    # Sums of hundreds of numbers of size 1, in another order: some hundred roundings of 2^-24, of random sign.
    torch.float32: 2e-5,
    # A result is rounded to 11 bits, and before it what goes into the last product, query and weights: three halves of
    # 2^-10, and room for as many again where an output is smaller than what it was summed from.
    torch.float16: 3e-3,
    # Likewise with 8 bits, but Triton's interpreter cuts bits off where a GPU rounds: three times 2^-7.
    torch.bfloat16: 2.4e-2,
}
"""Relative, and absolute for numbers of size 1, by the type of the result."""


@pytest.fixture
def device() -> torch.device:
    """Kernels run here: on the GPU if there is one, else on the CPU in Triton's interpreter."""
    return torch.device("cuda" if gpu() else "cpu")


@pytest.fixture
def draw(device: torch.device) -> Draw:
    """draw(*shape, dtype=float32): normal numbers, the same in every run."""
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    return numbers


@pytest.fixture
def same() -> Same:
    """same(found, wanted): shape and dtype alike, and numbers as far as that dtype's tolerance."""

    def compare(found: Tensor, wanted: Tensor) -> None:
        tolerance = TOLERANCES[found.dtype]
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)

    return compare


@pytest.fixture(autouse=True)
def _outputs_of_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that torch gives out uninitialised is full of NaN, so that what a kernel leaves out shows."""

    def poisoned(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*arguments: Any, **options: Any) -> Tensor:
            tensor = allocate(*arguments, **options)
            if tensor.is_floating_point() and tensor.device.type != "meta":
                tensor.fill_(torch.nan)
            return tensor

        return call

    for owner, name in ((torch, "empty"), (torch, "empty_like"), (Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))
