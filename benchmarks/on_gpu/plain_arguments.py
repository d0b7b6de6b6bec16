"""Arguments of the kernels over rows and maps."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from on_gpu.drawing import BATCH, Arguments, Drawing, cdiv


class PlainArguments(Drawing):
    """A method a variant."""

    def embed(self, constants: Mapping[str, int]) -> Arguments:
        tokens, c = self.shape.tokens, self.shape.channels
        chunks = cdiv(tokens, constants["ROWS"])
        return (chunks, BATCH), {
            "source": self.draw(BATCH, tokens, c),
            "addend": self.draw(tokens, c),
            "x": self.empty(BATCH, tokens, c, dtype=torch.float32),
            "normal": self.empty(BATCH, tokens, c),
            "sums": self.empty(BATCH, chunks, c, dtype=torch.float32),
            "tokens": tokens,
            "addend_rows": tokens,
        }

    normalise = embed

    def swiglu(self, constants: Mapping[str, int]) -> Arguments:
        rows, padded = BATCH * self.shape.tokens, constants["FP"]
        arguments = {"hidden": self.narrow(rows, 2 * padded), "bias": self.draw(2 * padded)}
        return (rows,), {**arguments, "out": self.empty(rows, padded)}

    def norm_silu(self, constants: Mapping[str, int]) -> Arguments:
        rows, c = BATCH * self.shape.tokens, constants["C"]
        arguments = {"x": self.narrow(rows, c), "weight": self.draw(c), "bias": self.draw(c)}
        return (rows,), {**arguments, "residual": self.narrow(rows, c), "out": self.empty(rows, c)}

    norm_residual = norm_silu

    def convert(self, constants: Mapping[str, int]) -> Arguments:
        source = self.draw(self.shape.blocks, self.shape.tokens, self.shape.channels)
        arguments = {"source": source, "target": self.empty(*source.shape), "count": source.numel()}
        return (cdiv(source.numel(), constants["BLOCK"]),), arguments

    def bias_gelu(self, constants: Mapping[str, int]) -> Arguments:
        columns = constants["COLUMNS"]
        dtype = self.dtype if constants["GELU"] else torch.float32
        x = self.draw(BATCH * self.shape.tokens // 4, columns, dtype=dtype)
        arguments = {"x": x, "bias": self.draw(columns), "out": self.empty(*x.shape, dtype=dtype), "count": x.numel()}
        return (cdiv(x.numel(), constants["BLOCK"]),), arguments

    bias = bias_gelu

    def average(self, constants: Mapping[str, int]) -> Arguments:
        rows, c = BATCH * self.shape.tokens, constants["C"]
        arguments = {"x": self.draw(rows, c), "addend": self.draw(c), "base": self.draw(rows, c)}
        return (cdiv(rows * c, constants["BLOCK"]),), {**arguments, "out": self.empty(rows, c), "count": rows * c}

    def depthwise_norm(self, constants: Mapping[str, int]) -> Arguments:
        side, c = self.shape.grid, constants["C"]
        chunks = cdiv(side**2, constants["ROWS"])
        return (chunks, BATCH), {
            "x": self.narrow(BATCH, side, side, c),
            "weight": self.draw(9, c),
            "norm_weight": self.draw(c),
            "norm_bias": self.draw(c),
            "out": self.empty(BATCH, side, side, c),
            "sums": self.empty(BATCH, chunks, c, dtype=torch.float32),
            "side": side,
        }

    def scale_channels(self, constants: Mapping[str, int]) -> Arguments:
        tokens, c = self.shape.tokens, constants["C"]
        x = self.narrow(BATCH, tokens, c)
        arguments = {"x": x, "scale": self.draw(BATCH, c), "out": self.empty(*x.shape)}
        return (cdiv(x.numel(), constants["BLOCK"]),), {**arguments, "count": x.numel(), "tokens": tokens}

    def pool(self, constants: Mapping[str, int]) -> Arguments:
        side, c = self.shape.grid, constants["C"]
        out = self.empty(BATCH, side // 2, side // 2, c)
        arguments = {"x": self.narrow(BATCH, side, side, c), "out": out, "count": out.numel(), "side": side}
        return (cdiv(out.numel(), constants["BLOCK"]),), arguments
