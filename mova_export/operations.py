"""Floating-point operations of what torch computes: of matrix products, convolutions and attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

T = TypeVar("T")


def counted(run: Callable[[], T]) -> tuple[T, int]:
    """What `run` returns, and how many floating-point operations it took: a product and a sum are two."""
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={fused: _attention}) as counter:
        result = run()
    return result, counter.get_total_flops()


def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """Torch counts every fused attention but the CPU's."""
    return int(sdpa_flop_count(query, key, value))
