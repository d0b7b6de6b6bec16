"""What stays float32 in a component's graph of lower precision, beyond what holds for every graph.

Everywhere (see precision.py): softmax, norms, means, sums and powers; sines and cosines and the positions that lead to
them; masks and whatever else a narrow type can't hold; and the residual stream. A stream in float32 costs no more casts
than a narrow one (a norm reads float32 either way), while a narrow one is rounded at every layer, and in the large
towers leaves float16's range: single channels of DINOv2-giant's and Llama's streams grow to hundreds of times the rest
("massive activations", arXiv 2402.17762), and their sums of squares with them.
"""

from __future__ import annotations

from dataclasses import dataclass

from mova_runtime.bundle.manifest import Precision


@dataclass(frozen=True)
class Policy:
    """Parts of one component that stay float32.

    weights: part's name to what the names of its weights contain; what is computed from these weights' products stays
        float32 until it has been applied to something else.
    gated_outputs: matrices multiplied with a product of two activations: the second layer of a gated MLP.
    """

    weights: tuple[tuple[str, str], ...] = ()
    gated_outputs: bool = False


@dataclass(frozen=True)
class Kept:
    """What has more bits than its graph's precision says, in words for the manifest: float32, and int8 beside int4."""

    float32: tuple[str, ...] = ()
    int8: tuple[str, ...] = ()


# Seven numbers an image decide which experts count and how much: rounding could swap two of them.
_GATE = Policy(weights=(("gate", ".gate."),))

# T5's gated MLP overflows float16 in the product its second layer reads, so that layer is kept in float32 (`wo` in
# transformers' modeling_t5.py). Pix2Struct is built of the same layer and modeling_pix2struct.py provides for the same.
_T5 = Policy(gated_outputs=True)


def policy(component: str, precision: Precision) -> Policy:
    """What stays float32 in a component at a precision."""
    if component == "adapter":
        return _GATE
    if component in ("pix2struct", "deplot") and precision == "fp16":
        return _T5
    return Policy()
