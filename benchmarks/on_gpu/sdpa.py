"""The adapter's torch modules with torch's fused attention in the place of their plain one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch.nn.functional as F
from torch import Tensor

from mova_export.modules.adapter import attention as module


def fused(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """See `mova_kernels.cross_attention.reference.attention`."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def with_sdpa(way: Callable[..., Any]) -> Callable[..., Any]:
    """`way`, in whose time the modules' attention is `fused`."""

    def call(*arguments: Any) -> Any:
        with patch.object(module, "attention", fused):
            return way(*arguments)

    return call
