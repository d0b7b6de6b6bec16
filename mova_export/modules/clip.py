"""CLIP's vision tower, the base encoder, from transformers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from mova_export.errors import CheckpointError


class ClipEncoder(nn.Module):
    """Pixels to the patch tokens of one hidden state.

    The last hidden layers that `select_layer` passes over are never built, and neither is the final norm.
    """

    def __init__(self, config: CLIPVisionConfig, select_layer: int) -> None:
        super().__init__()
        self.vision_model = CLIPVisionModel(config).vision_model
        self.select_layer = select_layer

    def drop_unused(self) -> None:
        """Leave out what no output depends on."""
        layers = self.vision_model.encoder.layers
        self.vision_model.encoder.layers = layers[: used_layers(len(layers), self.select_layer)]
        self.vision_model.post_layernorm = nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        """[batch, 3, side, side] to [batch, (side/patch)², width]."""
        x = self.vision_model.pre_layrnorm(self.vision_model.embeddings(pixels))
        hidden: Tensor = self.vision_model.encoder(inputs_embeds=x).last_hidden_state
        return hidden[:, 1:]


def used_layers(layers: int, select_layer: int) -> int:
    """How many layers come before hidden state `select_layer`, counted from the end; state 0 is the embeddings.

    Raises:
        CheckpointError: there is no such state.
    """
    used = layers + 1 + select_layer
    if not 0 < used <= layers:
        raise CheckpointError(f"mm_vision_select_layer {select_layer} of a tower with {layers} layers does not exist")
    return used


def resize_positions(table: Tensor, grid: int) -> Tensor:
    """A CLIP position table [1 + side², width] resized bicubically (float32) to [1 + grid², width], CLS kept."""
    side = round((table.shape[0] - 1) ** 0.5)
    if side == grid:
        return table
    square = table[1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    square = F.interpolate(square, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat((table[:1], square.flatten(2)[0].T.to(table.dtype)))
