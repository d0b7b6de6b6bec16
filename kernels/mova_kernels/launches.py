"""Which way an operator goes, the kernel or its torch reference, and a record of the way taken."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

_records: ContextVar[tuple[list[str], ...]] = ContextVar("records", default=())


@contextmanager
def recorded() -> Iterator[list[str]]:
    """The names of what runs inside, in order: "combine" for a kernel, "combine (reference)" for its reference."""
    names: list[str] = []
    token = _records.set((*_records.get(), names))
    try:
        yield names
    finally:
        _records.reset(token)


def by_kernel(tensor: Tensor) -> bool:
    """Whether a kernel serves this tensor: on CUDA always, on the CPU where Triton interprets (TRITON_INTERPRET=1)."""
    return tensor.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Queue a kernel on the current stream of its first tensor's GPU, and record it under the function's name.

    Args:
        kernel: a function under `triton.jit`.
        grid: number of programs along one to three axes; where one is 0 nothing is launched or recorded.
        *arguments: the kernel's runtime arguments, in order.
        **options: its constants, and Triton's num_warps and num_stages.
    """
    if 0 in grid:
        return
    first = next(argument for argument in arguments if isinstance(argument, Tensor))
    with torch.cuda.device(first.device) if first.is_cuda else nullcontext():
        kernel[grid](*arguments, **options)
    _record(kernel.__name__)


def reference(name: str) -> None:
    """Record that an operator's reference computes it."""
    _record(f"{name} (reference)")


def _record(name: str) -> None:
    for names in _records.get():
        names.append(name)
