"""What a kernel is compiled with: the types of its arguments, its constants, and what may be promised of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

HEAD_DIM = 64
PADDING = 64
"""SwiGLU's hidden columns are padded to a multiple of it."""

MULTIPLE = 16
"""What aligned arguments are multiples of: pointers in bytes, integers as they are."""

_MULTIPLES = frozenset(("query_pair", "query_row", "key_pair", "key_row", "count i64"))
"""Integers that are whole rows of channels."""

_ANYWHERE = frozenset(("selected", "gates", "pair_row", "pair_image", "pair_expert", "out of gate_weights"))
"""Pointers into rows of as many numbers as there are experts or pairs."""


@dataclass(frozen=True)
class AdapterShape:
    """Sizes of an adapter.

    channels: C, of the tokens; text_channels: CT; hidden: of the language model; grid: side of the square of L = grid²
    tokens; feed_forward: F, of SwiGLU; squeezed: hidden channels of squeeze-and-excitation.
    """

    channels: int
    text_channels: int
    hidden: int
    grid: int
    blocks: int
    experts: int
    top_k: int
    feed_forward: int
    squeezed: int

    @property
    def tokens(self) -> int:
        """L, of one image."""
        return self.grid**2

    @property
    def padded(self) -> int:
        """FP: `feed_forward` up to a multiple of PADDING."""
        return padded(self.feed_forward)


def padded(columns: int) -> int:
    """Columns up to a multiple of PADDING."""
    return -(-columns // PADDING) * PADDING


def problems(shape: AdapterShape) -> list[str]:
    """Why there are no kernels for an adapter of these sizes; empty if there are."""
    found = []
    if shape.channels % HEAD_DIM or shape.channels < 1:
        found.append(f"{shape.channels} channels are no whole number of heads of {HEAD_DIM}")
    for name in ("text_channels", "hidden", "squeezed"):
        if getattr(shape, name) % MULTIPLE or getattr(shape, name) < 1:
            found.append(f"{name} {getattr(shape, name)} is no multiple of {MULTIPLE}")
    if shape.grid % 2 or shape.grid < 2:
        found.append(f"a grid of {shape.grid} can't be halved")
    if not 1 <= shape.top_k <= shape.experts:
        found.append(f"of {shape.experts} experts {shape.top_k} can't be the largest")
    return found


@dataclass(frozen=True)
class Variant:
    """A kernel as it is compiled.

    kernel: "module:function" of a function under `triton.jit`; signature: (name, Triton's type) of each argument, in
    order; constants: every `tl.constexpr`, by name; aligned: arguments that are multiples of MULTIPLE at every launch.
    """

    name: str
    kernel: str
    signature: tuple[tuple[str, str], ...]
    constants: dict[str, int | bool]
    num_warps: int
    num_stages: int
    aligned: tuple[str, ...] = ()


def variant(
    name: str,
    kernel: str,
    signature: str,
    dtype: str,
    constants: Mapping[str, int | bool],
    warps: int = 4,
    stages: int = 3,
) -> Variant:
    """A variant, its arguments written as "query *T, tokens i32" where T is `dtype`."""
    arguments = [(one, of.replace("*T", f"*{dtype}")) for one, of in (word.split() for word in signature.split(", "))]
    return Variant(
        name,
        f"mova_kernels.{kernel}",
        tuple(arguments),
        dict(constants),
        warps,
        stages,
        tuple(one for one, of in arguments if _is_aligned(name, one, of)),
    )


def _is_aligned(name: str, argument: str, of: str) -> bool:
    if of.startswith("*"):
        return not {argument, f"{argument} of {name}"} & _ANYWHERE
    return bool({argument, f"{argument} {of}"} & _MULTIPLES)
