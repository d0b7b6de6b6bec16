"""Amounts of memory, bounds, and how they are written."""

import pytest

from mova_runtime.engines.memory import Limits, Memory, Need, format_size, parse_size
from mova_runtime.errors import MemoryBudgetError

GIB = 2**30


def test_arithmetic():
    one, other = Memory(5, 1), Memory(2, 3)
    assert one + other == Memory(7, 4)
    assert one - other == Memory(3, -2)
    assert one * 3 == Memory(15, 3)
    assert one.most(other) == Memory(5, 3)
    assert one.total == 6
    assert Memory(5, 0).within(one)
    assert not one.within(other)
    assert not other.within(one)


@pytest.mark.parametrize(
    ("memory", "text"),
    [
        (Memory(), "0 B"),
        (Memory(5 * GIB // 2), "2.5 GiB"),
        (Memory(GIB, 2 * GIB), "1.0 GiB and 2.0 GiB on the GPU"),
        (Memory(0, 2 * GIB), "2.0 GiB on the GPU"),
    ],
)
def test_memory_is_written(memory, text):
    assert str(memory) == text


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (Limits(), "unlimited"),
        (Limits(6 * GIB), "6.0 GiB"),
        (Limits(6 * GIB, 2 * GIB), "6.0 GiB and 2.0 GiB on the GPU"),
        (Limits(None, 2 * GIB), "2.0 GiB on the GPU"),
        (Limits(8 * GIB, shared=True), "8.0 GiB shared with the GPU"),
        (Limits(0, 0), "0 B and 0 B on the GPU"),
    ],
)
def test_limits_are_written(limits, text):
    assert str(limits) == text


@pytest.mark.parametrize(
    ("limits", "used", "excess"),
    [
        (Limits(), Memory(10**18, 10**18), Memory()),
        (Limits(10), Memory(10, 99), Memory()),
        (Limits(10), Memory(11, 0), Memory(1)),
        (Limits(10, 5), Memory(12, 8), Memory(2, 3)),
        (Limits(None, 5), Memory(99, 5), Memory()),
        (Limits(10, shared=True), Memory(4, 6), Memory()),
        (Limits(10, shared=True), Memory(5, 6), Memory(1)),
        (Limits(10, 5, shared=True), Memory(3, 6), Memory(0, 1)),
    ],
)
def test_limits_hold(limits, used, excess):
    assert limits.excess(used) == excess
    assert limits.hold(used) == (excess == Memory())


@pytest.mark.parametrize(
    ("limits", "cover"),
    [(Limits(10), Memory(100, 80)), (Limits(10, shared=True), Memory(20, 80)), (Limits(), Memory(100, 80))],
)
def test_what_covers_two(limits, cover):
    """A GPU that shares the host's memory is held against the sum, which is 100 for both, not 180."""
    assert limits.cover(Memory(100, 0), Memory(0, 80)) == limits.cover(Memory(0, 80), Memory(100, 0)) == cover


def test_the_peak_of_a_need():
    assert Need(Memory(5, 1), Memory(2, 2), Memory(6, 9)).peak == Memory(7, 9)
    assert Need(Memory(5)).peak == Memory(5)


@pytest.mark.parametrize(
    ("size", "parsed"),
    [
        (1, 1), (123456, 123456), ("123456", 123456), ("6GiB", 6 * 2**30), ("6gib", 6 * 2**30), ("800 MB", 800_000_000),
        ("1.5GB", 1_500_000_000), (" 2 KiB ", 2048), ("3B", 3), ("0.5KiB", 512), ("1kb", 1000), ("2MiB", 2 * 2**20),
    ],
)  # fmt: skip
def test_sizes(size, parsed):
    assert parse_size(size) == parsed


@pytest.mark.parametrize(
    "size",
    [
        "", "GiB", "6 apples", "-1", -1, 0, "0", "0.1", "1e9", "6 Gi B", "6,5GB", True, "nan", "inf", None, "9" * 400,
    ],
)  # fmt: skip
def test_what_is_no_size(size):
    with pytest.raises(MemoryBudgetError, match="memory budget"):
        parse_size(size)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536 * 2**20, "1.5 GiB"), (5 * 2**40, "5120.0 GiB")],
)
def test_sizes_are_written_with_binary_units(size, text):
    assert format_size(size) == text
