"""What the published implementation returned for tiny checkpoints (float32, CPU, greedy), and the images it saw."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

REFERENCE = Path(__file__).parent / "reference"
IMAGES = REFERENCE / "images"
GOLDEN_SEEDS = (2, 6, 9, 0)
"""0 routes to no expert, 2 to three, 6 to four."""

EXPERTS = ("dinov2", "vary", "codetr", "pix2struct", "deplot", "biomedclip", "sam")


@dataclass(frozen=True)
class Case:
    """One question about one image, and everything the published implementation made of it."""

    seed: int
    index: int
    image: Path
    question: str
    routing_text: str
    routing_tokens: list[int]
    experts: tuple[str, ...]
    answer: str
    answer_tokens: list[int]
    max_new_tokens: int

    def array(self, name: str) -> np.ndarray:
        """A golden array of this case, such as `pixel_clip` or `visual`."""
        return arrays(self.seed)[f"{self.index}.{name}"]

    def has(self, name: str) -> bool:
        """Whether the golden file holds that array."""
        return f"{self.index}.{name}" in arrays(self.seed)


@cache
def arrays(seed: int) -> dict[str, np.ndarray]:
    """Every golden array of a seed."""
    with np.load(REFERENCE / "golden" / f"seed{seed}.npz") as file:
        return dict(file)


@cache
def cases(seed: int) -> tuple[Case, ...]:
    """The cases of a seed."""
    data = json.loads((REFERENCE / "golden" / f"seed{seed}.json").read_text())
    return tuple(
        Case(
            seed=seed,
            index=case["case"],
            image=IMAGES / f"{case['image']}.png",
            question=case["question"],
            routing_text=case["routing_text"],
            routing_tokens=case["routing_tokens"],
            experts=tuple(name for name, weight in zip(EXPERTS, case["weights"], strict=True) if weight),
            answer=case["answer"],
            answer_tokens=case["answer_tokens"],
            max_new_tokens=data["answer_max_new_tokens"],
        )
        for case in data["cases"]
    )


def relative_l2(found: np.ndarray, expected: np.ndarray) -> float:
    """‖found - expected‖₂ / ‖expected‖₂."""
    difference = found.astype(np.float64) - expected.astype(np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(expected.astype(np.float64)))


def cosine(found: np.ndarray, expected: np.ndarray) -> float:
    """Of the angle between two arrays."""
    x, y = found.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
