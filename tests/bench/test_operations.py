"""Floating-point operations of what torch computes."""

from __future__ import annotations

import torch

from mova_export.operations import counted
from mova_runtime.bundle.manifest import Component
from mova_runtime.bundle.schema import from_json, to_json


def test_products_convolutions_and_attention_count() -> None:
    left, right = torch.ones(3, 5), torch.ones(5, 7)
    result, count = counted(lambda: left @ right)
    assert torch.equal(result, torch.full((3, 7), 5.0))
    assert count == 2 * 3 * 5 * 7
    image, kernel = torch.ones(1, 3, 8, 8), torch.ones(4, 3, 2, 2)
    assert counted(lambda: torch.nn.functional.conv2d(image, kernel, stride=2))[1] == 2 * 4 * 16 * 3 * 4
    assert counted(lambda: image + 1)[1] == 0


def test_the_processors_fused_attention_counts_like_its_products() -> None:
    query, key, value = torch.ones(1, 2, 5, 8), torch.ones(1, 2, 9, 8), torch.ones(1, 2, 9, 8)
    with torch.no_grad():
        _, fused = counted(lambda: torch.nn.functional.scaled_dot_product_attention(query, key, value))
        _, plain = counted(lambda: torch.softmax(query @ key.transpose(2, 3), -1) @ value)
    assert fused == plain == 2 * 2 * 2 * 5 * 9 * 8


def test_a_bundle_from_before_they_were_counted_opens(bundle) -> None:
    from mova_runtime.bundle import Bundle

    written = to_json(Bundle.open(bundle(2)).component("sam"))
    written.pop("operations", None)
    assert from_json(Component, written, "sam").operations is None
    assert from_json(Component, {**written, "operations": 12}, "sam").operations == 12
