"""How a flat run of elements of rows of C columns is laid out, so that accesses are 16 bytes wide."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def flat_tile(count, C: tl.constexpr, BLOCK: tl.constexpr):
    """This program's BLOCK consecutive elements of `count`, a multiple of C, in groups that lie within a row.

    Returns:
        row [groups, 1] int32, column [groups, group] int32, element [groups, group] int64, inside [groups, 1]. A group
        has 16 elements, or fewer where 16 is no divisor of C: row, column and mask cost one operation a group, and a
        mask that is alike for a group leaves its loads wide.
    """
    width: tl.constexpr = 16 if C % 16 == 0 else C & -C
    first = tl.program_id(0).to(tl.int64) * (BLOCK // width)
    group = first + tl.arange(0, BLOCK // width)[:, None]
    within = tl.arange(0, width)[None, :]
    row = (group // (C // width)).to(tl.int32)
    column = (group % (C // width)).to(tl.int32) * width + within
    return row, column, group * width + within, group < count // width
