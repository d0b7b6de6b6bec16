"""Pix2Struct's encoder (Lee et al., arXiv 2210.03347), from transformers; DePlot (arXiv 2212.10505) is one too."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import Pix2StructVisionConfig, Pix2StructVisionModel


class Pix2StructEncoder(nn.Module):
    """Flattened patches to the last hidden state; rows of zeros are padding, which transformers masks by itself."""

    def __init__(self, config: Pix2StructVisionConfig) -> None:
        super().__init__()
        self.model = Pix2StructVisionModel(config)

    def forward(self, patches: Tensor) -> Tensor:
        """[batch, max_patches, 2 + 3·patch²] to [batch, max_patches, width]."""
        hidden: Tensor = self.model(flattened_patches=patches).last_hidden_state
        return hidden
