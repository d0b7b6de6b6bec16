"""Windows of a token map by constant indices: cut out and put back in one gathering of rows each."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Windows(nn.Module):
    """A side×side map of tokens in windows; what hangs over its edges is one token more, which the caller provides.

    The same order as `modules.window.partition`, where each window is padded with zeros right and below.
    """

    cut: Tensor
    put: Tensor

    def __init__(self, side: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.padded = side % window != 0
        across = -(-side // window)
        places = torch.full((across * window, across * window), side * side, device="cpu")
        places[:side, :side] = torch.arange(side * side, device="cpu").reshape(side, side)
        cut = places.reshape(across, window, across, window).transpose(1, 2).flatten()
        self.register_buffer("cut", cut, persistent=False)
        self.register_buffer("put", cut.argsort(stable=True)[: side * side], persistent=False)

    def partition(self, x: Tensor) -> Tensor:
        """[batch, side² (and the token that pads, if `padded`), channels] to [batch·windows, window², channels]."""
        return x.index_select(1, self.cut).reshape(-1, self.window**2, x.shape[-1])

    def merge(self, windows: Tensor) -> Tensor:
        """The inverse: back to [batch, side², channels], padding dropped."""
        return windows.reshape(-1, self.cut.shape[0], windows.shape[-1]).index_select(1, self.put)
