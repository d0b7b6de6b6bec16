"""BERT (Devlin et al., arXiv 1810.04805), from transformers: the question's feature for the gate."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import BertConfig, BertModel


class TextEncoder(nn.Module):
    """Token ids to the last hidden state at CLS."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.bert = BertModel(config, add_pooling_layer=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Ids and mask [batch, tokens] int64 (mask 1 where a token is, 0 where padding) to [batch, hidden]."""
        hidden: Tensor = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden[:, 0]
