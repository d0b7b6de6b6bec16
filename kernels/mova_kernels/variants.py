"""Which kernels an adapter needs, under the names that they are launched by, with what each is compiled."""

from __future__ import annotations

from mova_kernels.blocks import FLAT, INPUTS, ROWS, power
from mova_kernels.targets import Target, Tile
from mova_kernels.variant import HEAD_DIM, AdapterShape, Variant, padded, problems, variant

__all__ = ["HEAD_DIM", "AdapterShape", "Variant", "padded", "problems", "variants"]

_GATE_PARTIAL = "rows *fp32, text *fp32, weight *T, partial *fp32, count i32, scale fp32"


def variants(shape: AdapterShape, dtype: str, target: Target) -> tuple[Variant, ...]:
    """Every kernel of an adapter.

    Args:
        shape: the adapter's sizes.
        dtype: T, of activations and matrices: "bf16", "fp16" or "fp32".
        target: decides the tiles.

    Raises:
        ValueError: `problems` has some.
    """
    if found := problems(shape):
        raise ValueError("; ".join(found))
    return (
        _attention("cross_attention", shape, dtype, target.tiles.attention, BIASES=1, ROTATE_KEYS=False),
        _attention("self_attention", shape, dtype, target.tiles.self_attention, BIASES=3, ROTATE_KEYS=True),
        *_gate(shape, dtype),
        _combine(shape, dtype, target.tiles.combine),
        *_rows(shape, dtype),
        *_downsample(shape, dtype),
    )


def _attention(name: str, shape: AdapterShape, dtype: str, tile: Tile, **constants: int | bool) -> Variant:
    def even(one: Tile) -> bool:
        return shape.tokens % one.m == 0 and shape.tokens % one.n == 0

    if not even(tile) and (even(tile.half()) or shape.tokens < tile.m):
        tile = tile.half()
    sizes = {"HEADS": shape.channels // HEAD_DIM, "HEAD_DIM": HEAD_DIM, "BLOCK_M": tile.m, "BLOCK_N": tile.n}
    return variant(
        name,
        "cross_attention.kernel:cross_attention",
        "query *T, key *T, value *T, out *T, moments *fp32, bias *fp32, pair_row *i32, cosine *fp32, sine *fp32, "
        "tokens i32, keys i32, query_pair i32, query_row i32, key_pair i32, key_row i32",
        dtype,
        {**sizes, **constants, "MOMENTS": True, "EVEN": even(tile)},
        tile.warps,
        tile.stages,
    )


def _gate(shape: AdapterShape, dtype: str) -> tuple[Variant, ...]:
    c, ct, experts = shape.channels, shape.text_channels, shape.experts
    blocks = {"BLOCK_K": INPUTS, "BLOCK_R": 64, "BLOCK_H": 256}
    return (
        variant(
            "gate_partial", "gate.kernel:gate_partial", _GATE_PARTIAL, dtype, {"CT": ct, "C": c, "HID": c, **blocks}
        ),
        variant(
            "gate_weights",
            "gate.kernel:gate_weights",
            "partial *fp32, bias1 *fp32, weight2 *T, bias2 *fp32, selected *i32, out *fp32",
            dtype,
            {
                "SLICES": _cdiv(ct, INPUTS) + _cdiv(c, INPUTS),
                "HID": c,
                "EXPERTS": experts,
                "TOP_K": shape.top_k,
                "BLOCK_H": min(power(c), 1024),
                "BLOCK_E": power(experts),
            },
            warps=8,
        ),
        variant(
            "squeeze",
            "gate.kernel:gate_partial",
            _GATE_PARTIAL,
            dtype,
            {"CT": 0, "C": c, "HID": shape.squeezed, **blocks},
        ),
        variant(
            "excite",
            "downsample.kernel:excite",
            "partial *fp32, bias1 *fp32, weight2 *T, bias2 *fp32, out *fp32",
            dtype,
            {"SLICES": _cdiv(c, INPUTS), "HID": shape.squeezed, "C": c, "BLOCK_H": 64, "BLOCK_N": 64},
        ),
    )


def _combine(shape: AdapterShape, dtype: str, tile: Tile) -> Variant:
    c, heads = shape.channels, shape.channels // HEAD_DIM
    return variant(
        "combine",
        "combine.kernel:combine",
        "attended *T, moments *fp32, weight *T, column_sums *fp32, bias *fp32, gates *fp32, pair_image *i32, "
        "pair_expert *i32, x *fp32, pairs i32, tokens i32, gate_row i32",
        dtype,
        {
            "C": c,
            "HEADS": heads,
            "BLOCK_HEADS": power(heads),
            "BLOCK_M": tile.m,
            "BLOCK_N": min(tile.n, c & -c),
            "BLOCK_K": min(tile.k, c & -c),
            "EVEN": shape.tokens % tile.m == 0,
        },
        tile.warps,
        tile.stages,
    )


def _rows(shape: AdapterShape, dtype: str) -> tuple[Variant, ...]:
    row = {"C": shape.channels, "BLOCK_C": power(shape.channels)}

    def normalise(name: str, first: bool) -> Variant:
        return variant(
            name,
            "rows.kernel:normalise",
            "source *fp32, addend *fp32, x *fp32, normal *T, sums *fp32, tokens i32, addend_rows i32",
            dtype,
            {**row, "ROWS": ROWS, "ADD": first, "SUMS": first},
            warps=8,
        )

    def norm(name: str, **constants: bool) -> Variant:
        signature = "x *T, weight *fp32, bias *fp32, residual *T, out *T"
        return variant(name, "rows.kernel:layer_norm", signature, dtype, {**row, **constants})

    def bias(name: str, of: str, gelu: bool) -> Variant:
        constants = {"COLUMNS": shape.hidden, "BLOCK": FLAT, "GELU": gelu}
        return variant(name, "rows.kernel:bias_act", "x *T, bias *fp32, out *T, count i64", of, constants)

    return (
        normalise("embed", True),
        normalise("normalise", False),
        variant(
            "swiglu",
            "rows.kernel:swiglu",
            "hidden *T, bias *fp32, out *T",
            dtype,
            {"F": shape.feed_forward, "FP": shape.padded, "BLOCK": power(shape.padded)},
            warps=8,
        ),
        norm("norm_silu", SILU=True, RESIDUAL=False),
        norm("norm_residual", SILU=False, RESIDUAL=True),
        variant("convert", "rows.kernel:convert", "source *fp32, target *T, count i64", dtype, {"BLOCK": 2 * FLAT}),
        bias("bias_gelu", dtype, True),
        bias("bias", "fp32", False),
    )


def _downsample(shape: AdapterShape, dtype: str) -> tuple[Variant, ...]:
    c = shape.channels

    def flat(name: str, signature: str) -> Variant:
        return variant(name, f"downsample.kernel:{name}", signature, dtype, {"C": c, "BLOCK": FLAT})

    return (
        flat("average", "x *fp32, addend *fp32, base *fp32, out *T, count i64"),
        variant(
            "depthwise_norm",
            "downsample.kernel:depthwise_norm",
            "x *T, weight *fp32, norm_weight *fp32, norm_bias *fp32, out *T, sums *fp32, side i32",
            dtype,
            {"C": c, "BLOCK_C": power(c), "ROWS": ROWS},
            warps=8,
        ),
        flat("scale_channels", "x *T, scale *fp32, out *T, count i64, tokens i32"),
        flat("pool", "x *T, out *T, count i64, side i32"),
    )


def _cdiv(a: int, b: int) -> int:
    return -(-a // b)
