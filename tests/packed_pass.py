"""The adapter computed from packed weights alone, plainly, in numpy: what the kernels do, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from math import erf

import numpy as np

EPSILON, HEAD = 1e-5, 64

Array = np.ndarray
_erf = np.vectorize(erf)


def adapter(packed: Mapping[str, Array], inputs: Mapping[str, Array], top_k: int) -> tuple[Array, Array]:
    """visual and gates of the adapter's inputs, as in the bundle's probe.

    Args:
        packed: weights by name, float64.
        inputs: base, text, keys, values, pair_image, pair_expert.
        top_k: how many experts count.
    """
    base, text = (inputs[name].astype(np.float64) for name in ("base", "text"))
    image, expert = inputs["pair_image"], inputs["pair_expert"]
    x, every = base + packed["pos_embed"], []
    for b in count():
        w = {name.removeprefix(f"blocks.{b}."): t for name, t in packed.items() if name.startswith(f"blocks.{b}.")}
        if not w:
            break
        gates = _gates(w, x, text, image, expert, top_k)
        every.append(gates)
        start = _plain(x)
        for p, (i, e) in enumerate(zip(image, expert, strict=True)):
            query = start[i] @ w["query"][e].T + w["query_bias"][e]
            attended = _attend(packed, query, inputs["keys"][p, b], inputs["values"][p, b])
            x[i] += gates[i, e] * _projected(attended, w, "projection", e)
        qkv = _plain(x) @ w["qkv"].T + w["qkv_bias"][0]
        for i in range(len(x)):
            query, key, value = np.split(qkv[i], 3, axis=-1)
            attended = _attend(packed, query, _rotated(packed, key), value)
            x[i] += _projected(attended, w, "self_projection", 0)
        first, second = np.split(_plain(x) @ w["mlp_in"].T + w["mlp_in_bias"], 2, axis=-1)
        hidden = first / (1 + np.exp(-first)) * second
        x = x + _mlp_out(hidden, w)
    return _head(packed, (x + base) / 2), np.stack(every)


def _gates(w: Mapping[str, Array], x: Array, text: Array, image: Array, expert: Array, top_k: int) -> Array:
    hidden = np.concatenate((text, x.mean(axis=1)), axis=-1) @ w["gate1"] + w["gate1_bias"]
    hidden = hidden * (1 + _erf(hidden / np.sqrt(2))) / 2
    logits = hidden @ w["gate2"].T + w["gate2_bias"]
    chosen = np.zeros_like(logits)
    chosen[image, expert] = 1
    weights = np.exp(logits) * chosen
    weights[weights < np.sort(weights, axis=-1)[:, -top_k, None]] = 0
    return weights / np.maximum(weights.sum(axis=-1, keepdims=True), 1e-300)


def _projected(attended: Array, w: Mapping[str, Array], name: str, expert: int) -> Array:
    """The norm's mean leaves after the product, by the sums of the matrix's rows."""
    mean, variance = attended.mean(-1, keepdims=True), attended.var(-1, keepdims=True)
    product = attended @ w[name][expert].T - mean * w[f"{name}_sums"][expert]
    return product / np.sqrt(variance + EPSILON) + w[f"{name}_bias"][expert]


def _mlp_out(hidden: Array, w: Mapping[str, Array]) -> Array:
    real = np.flatnonzero(w["mlp_out"].any(axis=0))[-1] + 1  # the rest is padding
    assert not hidden[..., real:].any()
    normal = np.zeros_like(hidden)
    normal[..., :real] = _plain(hidden[..., :real])
    return normal @ w["mlp_out"].T + w["mlp_out_bias"]


def _attend(packed: Mapping[str, Array], query: Array, key: Array, value: Array) -> Array:
    q, k, v = (np.stack(np.split(x, x.shape[-1] // HEAD, axis=-1)) for x in (_rotated(packed, query), key, value))
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(HEAD)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.concatenate(weights @ v / weights.sum(axis=-1, keepdims=True), axis=-1)


def _rotated(packed: Mapping[str, Array], x: Array) -> Array:
    heads = x.shape[-1] // HEAD
    turned = x.reshape(len(x), heads, HEAD // 2, 2)
    cosine, sine = packed["cosine"][:, None], packed["sine"][:, None]
    even, odd = turned[..., 0], turned[..., 1]
    return np.stack((even * cosine - odd * sine, odd * cosine + even * sine), axis=-1).reshape(x.shape)


def _head(packed: Mapping[str, Array], x: Array) -> Array:
    side = round(x.shape[1] ** 0.5)
    image = x.reshape(len(x), side, side, -1)
    image = _stage(packed, image, "stages.0.")
    image = sum(image[:, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
    x = _stage(packed, image, "stages.1.").reshape(len(x), -1, x.shape[-1])
    x = x @ packed["head.0"].T + packed["head.0_bias"]
    return x * (1 + _erf(x / np.sqrt(2))) / 2 @ packed["head.2"].T + packed["head.2_bias"]


def _stage(packed: Mapping[str, Array], image: Array, name: str) -> Array:
    def norm(x: Array, number: int) -> Array:
        return _plain(x) * packed[f"{name}norm{number}_weight"] + packed[f"{name}norm{number}_bias"]

    x = _silu(norm(image @ packed[f"{name}conv1"].T, 1))
    wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    side = x.shape[1]
    taps = packed[f"{name}depthwise"]
    x = sum(wide[:, t // 3 : t // 3 + side, t % 3 : t % 3 + side] * taps[t] for t in range(9))
    x = _silu(norm(x, 2))
    squeezed = _silu(x.mean(axis=(1, 2)) @ packed[f"{name}squeeze"] + packed[f"{name}squeeze_bias"])
    scale = 1 / (1 + np.exp(-(squeezed @ packed[f"{name}excite"] + packed[f"{name}excite_bias"])))
    return image + norm((x * scale[:, None, None]) @ packed[f"{name}conv3"].T, 3)


def _plain(x: Array) -> Array:
    """LayerNorm without its affine part."""
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + EPSILON)


def _silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))
