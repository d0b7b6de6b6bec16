"""Where a pass of backend `cuda` keeps what, and how much that is."""

from __future__ import annotations

import re
from dataclasses import astuple, fields, replace
from itertools import pairwise

import numpy as np
import pytest

from mova_runtime.bundle.kernels import AdapterShape
from mova_runtime.engines.cuda_adapter.layout import ALIGNMENT, WORKSPACE, lay_out
from mova_runtime.engines.cuda_adapter.layout import __doc__ as PAGE
from mova_runtime.engines.cuda_adapter.sizes import Sizes
from small_adapter import MINI

FULL = AdapterShape(
    channels=1024,
    text_channels=1024,
    hidden=4096,
    grid=48,
    blocks=3,
    experts=7,
    top_k=3,
    feed_forward=2730,
    squeezed=256,
)

MIB = 1 << 20


def sizes(shape=FULL, item=2):
    return Sizes(shape, item, token_chunk=8, map_chunk=8, gate_slices=64, squeeze_slices=32)


def ends(layout, batch, pairs, shape=FULL, item=2):
    """Name, first byte and last of every array of a layout that lives through a pass, and of each shared region."""
    tokens, c, f = shape.grid**2, shape.channels, 4
    visual, padded = tokens // 4, -(-shape.feed_forward // 64) * 64
    cache = pairs * shape.blocks * tokens * c * item

    def attention(name, at, rows, columns):
        return [
            (f"{name} projected", at.projected, rows * tokens * columns * item),
            (f"{name} attended", at.attended, rows * tokens * c * item),
            (f"{name} moments", at.moments, rows * c // 64 * tokens * 2 * f),
        ]

    lasting = [
        ("tables", layout.tables.start, layout.tables.bytes),
        ("base", layout.base, batch * tokens * c * f),
        ("x", layout.x, batch * tokens * c * f),
        ("text", layout.text, batch * shape.text_channels * f),
        ("normal", layout.normal, batch * tokens * c * item),
        ("sums", layout.sums, batch * tokens // 8 * c * f),
        ("partial", layout.partial, batch * 64 * c * f),
        ("gates", layout.gates, shape.blocks * batch * shape.experts * f),
        ("keys", layout.keys, cache),
        ("values", layout.values, cache),
        ("workspace", layout.workspace, WORKSPACE),
    ]
    in_turn = [
        [("staging", layout.staging, shape.blocks * tokens * c * f)],
        attention("experts", layout.experts, pairs, c),
        attention("itself", layout.itself, batch, 3 * c),
        [
            ("hidden", layout.feed_forward.hidden, batch * tokens * 2 * padded * item),
            ("activated", layout.feed_forward.activated, batch * tokens * padded * item),
        ],
        [
            ("left", layout.head.left, batch * tokens * c * item),
            ("right", layout.head.right, batch * tokens * c * item),
            ("scale", layout.head.scale, batch * c * f),
            ("wide", layout.head.wide, batch * visual * shape.hidden * item),
            ("visual", layout.head.visual, batch * visual * shape.hidden * f),
        ],
    ]
    return [lasting + stage for stage in in_turn]


@pytest.mark.parametrize(("batch", "pairs"), [(1, 0), (1, 3), (2, 5), (3, 21)])
@pytest.mark.parametrize("shape", [FULL, MINI.shape])
def test_nothing_lies_where_something_else_is_needed(batch, pairs, shape):
    start = 7 * ALIGNMENT
    layout = lay_out(sizes(shape), batch, pairs, start)
    for together in ends(layout, batch, pairs, shape):
        assert all(address % ALIGNMENT == 0 for _, address, _ in together)
        in_order = sorted(together, key=lambda one: one[1:])
        for (name, address, size), (other, begin, _) in pairwise(in_order):
            assert address + size <= begin, (name, other)
        assert in_order[0][1] == start
        assert in_order[-1][1] + in_order[-1][2] <= layout.end
    tables = layout.tables
    inside = [getattr(tables, field.name) for field in fields(tables) if field.name not in ("start", "bytes")]
    assert all(tables.start <= address <= tables.start + tables.bytes for address in inside)


def test_a_layout_moves_with_its_start():
    def addresses(start):
        layout = lay_out(sizes(), 1, 3, start)
        assert layout.tables.bytes == lay_out(sizes(), 1, 3).tables.bytes
        parts = astuple(replace(layout, tables=replace(layout.tables, bytes=start)))[2:]
        return np.array([value for part in parts for value in (part if isinstance(part, tuple) else [part])])

    assert (addresses(4096) - addresses(0) == 4096).all()


def test_the_bytes_that_the_page_tells():
    told = [[int(cell) for cell in re.findall(r"\d+", row[0])] for row in re.finditer(r"^\|(?: \d+ \|)+$", PAGE, re.M)]
    found = []
    for pairs in (0, 1, 3, 7):
        layout = lay_out(sizes(), 1, pairs)
        parts = (layout.keys, layout.staging - layout.keys, layout.workspace - layout.staging, WORKSPACE, layout.end)
        found.append([pairs, *(round(part / MIB) for part in parts)])
    assert told == found
