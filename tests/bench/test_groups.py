"""Contenders in groups that fit into memory."""

from __future__ import annotations

import pytest

from mova_export.bench.groups import groups

PEAKS = {"a": 4, "b": 3, "c": 3, "torch bf16": 2}


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        (100, [["a", "b", "c", "torch bf16"]]),
        (9, [["a", "b", "torch bf16"], ["c", "torch bf16"]]),
        (8, [["a", "torch bf16"], ["b", "c", "torch bf16"]]),
        (6, [["a", "torch bf16"], ["b", "torch bf16"], ["c", "torch bf16"]]),
        (5, [["a"], ["b", "torch bf16"], ["c", "torch bf16"]]),
        (1, [["a"], ["b"], ["c"], ["torch bf16"]]),
    ],
)
def test_every_group_fits_and_has_the_reference_where_it_can(room: int, expected: list[list[str]]) -> None:
    assert groups(PEAKS, "torch bf16", room) == expected


def test_without_a_reference() -> None:
    assert groups(PEAKS, None, 7) == [["a", "b"], ["c", "torch bf16"]]


def test_a_reference_that_failed_is_in_no_group() -> None:
    assert groups({"a": 4, "b": 3}, "torch bf16", 10) == [["a", "b"]]


def test_a_reference_without_others_is_a_group() -> None:
    assert groups({"torch bf16": 4}, "torch bf16", 10) == [["torch bf16"]]


def test_nobody_is_no_group() -> None:
    assert groups({}, None, 10) == []
