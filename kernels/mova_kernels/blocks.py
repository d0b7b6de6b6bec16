"""How work is cut, alike for what operators launch and for what is compiled ahead of time."""

from __future__ import annotations

ROWS = 4
"""Tokens whose column sums are taken together: a program's."""

FLAT = 1024
"""Elements of a program that works on elements one by one; `convert` takes twice as many."""

INPUTS = 32
"""Inputs of the gate's first layer that one program takes."""


def power(number: int) -> int:
    """The least power of two that is not less."""
    return 1 << (number - 1).bit_length()
