"""Whether a language model of fewer bits would say the same: its next token after fixed prompts, beside float32's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mova_runtime.bundle.manifest import Agreement

PROMPTS = (
    "The title of the chart is", "There are three dogs in the", "The highest bar belongs to the year",
    "What is written on the sign? It says", "The total on the receipt comes to", "A man in a red jacket is riding a",
    "The X-ray shows a fracture of the", "In the background one can see a row of", "Which country has the lowest rate?",
    "The two lines cross in the month of", "This is a photograph of a kitchen with a", "The text in the box reads: \"",
    "How many people are wearing hats?", "The label on the bottle is", "On the left of the table there is a",
    "The arrow in the diagram points from", "The licence plate begins with the letters", "The sky above the harbour is",
    "According to the table, sales grew by", "The cat is lying next to a", "The form was signed on the",
    "The largest slice of the pie stands for", "She is holding an umbrella in her", "The clock on the tower shows",
    "Question: What sport is this?\nAnswer:", "The tissue sample is stained with", "Between 2010 and 2020 the share of",
    "The street is wet because", "The map shows that the river flows", "The second paragraph is about",
    "The bus that stops here goes to", "The price of the cheapest item on the menu is",
)  # fmt: skip
"""As questions about images are answered; the checkpoint's own tokenizer reads them."""


def agreement(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> Agreement:
    """Compare what two models expect to follow the same prompts.

    Args:
        expected: logits [..., vocabulary] of the float32 model, one array a prompt; the last axis counts.
        found: the other's.

    Returns:
        The share of prompts after which both find the same token most likely, and how far the distributions are apart:
        the mean of the Kullback-Leibler divergence Σ p·(ln p - ln q), in nats, where p is float32's. The perplexity of
        what the float32 model would say is larger for the other by the factor e to this power.
    """
    alike, divergences = 0, []
    for one, other in zip(expected, found, strict=True):
        p, q = (_log_softmax(logits.reshape(-1).astype(np.float64)) for logits in (one, other))
        alike += int(p.argmax() == q.argmax())
        divergences.append(float(np.sum(np.exp(p) * (p - q))))
    return Agreement(len(divergences), alike / len(divergences), float(f"{max(np.mean(divergences), 0):.2g}"))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    found: np.ndarray = shifted - np.log(np.exp(shifted).sum())
    return found
