"""Where everything of one pass lies, in one allocation.

First what lives through the pass: inputs, tables, residual stream, gates, keys and values. Then one region that the
stages take in turn, since none needs what the one before left there: the experts' attention, self-attention,
feed-forward, and the end; before all of them float32 keys and values on their way to T pass through it. Last, cuBLAS's
workspace.

Bytes at full size (2304 tokens, 1024 channels, 3 blocks, 4096 hidden, one image, bf16), in MiB:

| pairs | inputs and residual | keys and values | shared region | workspace | in all |
|---|---|---|---|---|---|
| 0 | 24 | 0 | 36 | 32 | 92 |
| 1 | 24 | 27 | 36 | 32 | 119 |
| 3 | 24 | 81 | 36 | 32 | 173 |
| 7 | 24 | 189 | 65 | 32 | 310 |
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from mova_runtime.engines.cuda_adapter.sizes import Sizes, cdiv

ALIGNMENT = 256
"""Bytes: everything begins at a multiple."""

WORKSPACE = 32 << 20
"""Bytes for cuBLAS: what its documentation recommends for the GPUs that take most."""

FLOAT32 = INT32 = 4
ADDRESS = 8


@dataclass(frozen=True)
class Tables:
    """What a run says about its pairs, and constants; uploaded in one piece from `start`, `bytes` long.

    pair_image, pair_expert: [P] int32; selected: [B, E] int32, 1 where an image has a pair of an expert; itself: [B]
    int32, 0 to B-1; zeros: [B] int32; ones: [B] float32; normals, queries: [P] addresses of each pair's normalised
    tokens and of its queries; matrices: [blocks, P] addresses of its expert's query matrices.
    """

    start: int
    bytes: int
    pair_image: int
    pair_expert: int
    selected: int
    itself: int
    zeros: int
    ones: int
    normals: int
    queries: int
    matrices: int


@dataclass(frozen=True)
class Attention:
    """projected: queries [P, L, C], or queries, keys and values [B, L, 3C]; attended: [P or B, L, C]; all T.

    moments: [P or B, H, L, 2] float32.
    """

    projected: int
    attended: int
    moments: int


@dataclass(frozen=True)
class FeedForward:
    """hidden: [B, L, 2·FP] T; activated: [B, L, FP] T."""

    hidden: int
    activated: int


@dataclass(frozen=True)
class Head:
    """left, right: maps [B, L, C] T that a stage's steps take turns on; scale: [B, C] float32; wide: [B, V, hidden] T;
    visual: [B, V, hidden] float32.
    """

    left: int
    right: int
    scale: int
    wide: int
    visual: int


@dataclass(frozen=True)
class Layout:
    """Addresses. T is the activations' type; V = L/4.

    batch, pairs: B and P; end: the first byte after it all; base, x: [B, L, C] float32; text: [B, CT] float32; normal:
    [B, L, C] T, at the end the map that a stage begins with; sums: partial sums over tokens, [B, chunks, C] float32;
    partial: [B, slices, HID] float32; gates: [blocks, B, E] float32; keys, values: [P, blocks, L, C] T; staging:
    [blocks, L, C] float32; workspace: WORKSPACE bytes.
    """

    batch: int
    pairs: int
    end: int
    tables: Tables
    base: int
    text: int
    x: int
    normal: int
    sums: int
    partial: int
    gates: int
    keys: int
    values: int
    staging: int
    experts: Attention
    itself: Attention
    feed_forward: FeedForward
    head: Head
    workspace: int


class _Cursor:
    """Hands out addresses one after another."""

    def __init__(self, start: int) -> None:
        self.at = start

    def take(self, item: int, *lengths: int) -> int:
        """The address of an array with items of so many bytes."""
        size = item
        for length in lengths:
            size *= length
        address, self.at = self.at, cdiv(self.at + size, ALIGNMENT) * ALIGNMENT
        return address


@lru_cache(maxsize=32)
def lay_out(sizes: Sizes, batch: int, pairs: int, start: int = 0) -> Layout:
    """The layout of a pass over `batch` images with `pairs` pairs.

    Args:
        sizes: of the adapter and its kernels.
        batch: B, at least 1.
        pairs: P.
        start: the allocation's address, a multiple of ALIGNMENT.
    """
    shape, item, tokens, channels = sizes.shape, sizes.item, sizes.tokens, sizes.shape.channels
    image = (tokens, channels)
    chunks = max(sizes.token_chunks, cdiv(tokens, sizes.map_chunk))
    partial = max(sizes.gate_slices * channels, sizes.squeeze_slices * shape.squeezed)
    here = _Cursor(start)
    tables = _tables(here, sizes, batch, pairs)
    base, x = (here.take(FLOAT32, batch, *image) for _ in range(2))
    text = here.take(FLOAT32, batch, shape.text_channels)
    normal = here.take(item, batch, *image)
    sums, partials = here.take(FLOAT32, batch, chunks, channels), here.take(FLOAT32, batch, partial)
    gates = here.take(FLOAT32, shape.blocks, batch, shape.experts)
    keys, values = (here.take(item, pairs, shape.blocks, *image) for _ in range(2))

    shared = [_Cursor(here.at) for _ in range(5)]
    staging = shared[0].take(FLOAT32, shape.blocks, *image)
    experts = _attention(shared[1], sizes, pairs, channels)
    itself = _attention(shared[2], sizes, batch, 3 * channels)
    feed_forward = FeedForward(
        hidden=shared[3].take(item, batch, tokens, 2 * sizes.padded),
        activated=shared[3].take(item, batch, tokens, sizes.padded),
    )
    head = _head(shared[4], sizes, batch)
    here.at = max(cursor.at for cursor in shared)
    workspace = here.take(1, WORKSPACE)
    return Layout(
        batch=batch,
        pairs=pairs,
        end=here.at,
        tables=tables,
        base=base,
        text=text,
        x=x,
        normal=normal,
        sums=sums,
        partial=partials,
        gates=gates,
        keys=keys,
        values=values,
        staging=staging,
        experts=experts,
        itself=itself,
        feed_forward=feed_forward,
        head=head,
        workspace=workspace,
    )


def _tables(here: _Cursor, sizes: Sizes, batch: int, pairs: int) -> Tables:
    start = here.at
    return Tables(
        start=start,
        pair_image=here.take(INT32, pairs),
        pair_expert=here.take(INT32, pairs),
        selected=here.take(INT32, batch, sizes.shape.experts),
        itself=here.take(INT32, batch),
        zeros=here.take(INT32, batch),
        ones=here.take(FLOAT32, batch),
        normals=here.take(ADDRESS, pairs),
        queries=here.take(ADDRESS, pairs),
        matrices=here.take(ADDRESS, sizes.shape.blocks, pairs),
        bytes=here.at - start,
    )


def _attention(here: _Cursor, sizes: Sizes, rows: int, columns: int) -> Attention:
    return Attention(
        projected=here.take(sizes.item, rows, sizes.tokens, columns),
        attended=here.take(sizes.item, rows, sizes.tokens, sizes.shape.channels),
        moments=here.take(FLOAT32, rows, sizes.heads, sizes.tokens, 2),
    )


def _head(here: _Cursor, sizes: Sizes, batch: int) -> Head:
    channels, hidden = sizes.shape.channels, sizes.shape.hidden
    return Head(
        left=here.take(sizes.item, batch, sizes.tokens, channels),
        right=here.take(sizes.item, batch, sizes.tokens, channels),
        scale=here.take(FLOAT32, batch, channels),
        wide=here.take(sizes.item, batch, sizes.visual_tokens, hidden),
        visual=here.take(FLOAT32, batch, sizes.visual_tokens, hidden),
    )
