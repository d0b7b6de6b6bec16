"""Images and questions that no golden file holds: the runtime against the torch modules, run the way the paper says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertTokenizerFast, DynamicCache

import mova_runtime
from mova_export.checkpoint.load import Checkpoint
from reference_data import EXPERTS, relative_l2

MakePath = Callable[[int], Path]

QUESTIONS = ("Which colour is it?", "How many?\nAnswer with a number.", "ÇA VA? 什么 🙂 " + "long " * 150)
CHOICES: tuple[tuple[str, ...], ...] = ((), ("biomedclip", "deplot"), EXPERTS)


def image(number: int) -> np.ndarray:
    """Shapes on noise, wide, tall and square."""
    height, width = ((60, 200), (301, 77), (128, 128))[number]
    pixels = np.random.RandomState(number).randint(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[height // 4 : height // 2, width // 3 : width // 2] = (255, 40 * number, 0)
    return pixels


class Torch:
    """The modules of a checkpoint, and the two passes through them."""

    def __init__(self, folder: Path) -> None:
        opened = Checkpoint(folder)
        self.modules = {name: opened.load(name) for name in ("base", *EXPERTS, "text", "adapter", "llm")}
        self.tokenizer = BertTokenizerFast.from_pretrained(folder / "bert")

    @torch.inference_mode()
    def visuals(self, inputs: dict[str, np.ndarray], question: str) -> list[torch.Tensor]:
        """Visual tokens of each choice of experts, each expert having looked once."""
        kinds = {"dinov2": "dinov2", "pix2struct": "flattened", "deplot": "flattened", "biomedclip": "clip"}
        batch = {name: torch.from_numpy(array)[None] for name, array in inputs.items()}
        text = f"question 0: {question.lower()}\n\n"
        encoded = self.tokenizer(text, return_tensors="pt", truncation=True, max_length=512)
        base = self.modules["base"](batch["clip"])
        asked = self.modules["text"](encoded["input_ids"], encoded["attention_mask"])
        cached = {name: self.modules[name](batch[kinds.get(name, "high")])[1:] for name in EXPERTS}
        none, found = torch.zeros(0, 1, 64, 1024), []
        for experts in CHOICES:
            visual, _ = self.modules["adapter"](
                base,
                asked,
                torch.cat([none, *(cached[name][0] for name in experts)]),
                torch.cat([none, *(cached[name][1] for name in experts)]),
                torch.zeros(len(experts), dtype=torch.long),
                torch.tensor([EXPERTS.index(name) for name in experts], dtype=torch.long),
            )
            found.append(visual[0])
        return found

    @torch.inference_mode()
    def tokens(self, before: tuple[int, ...], visual: torch.Tensor, after: tuple[int, ...], count: int) -> list[int]:
        llama, found = self.modules["llm"], []
        table = llama.get_input_embeddings()
        x = torch.cat((table(torch.tensor(before)), visual, table(torch.tensor(after))))[None]
        cache = DynamicCache()
        for _ in range(count):
            logits = llama(inputs_embeds=x, past_key_values=cache, use_cache=True).logits
            found.append(int(logits[0, -1].argmax()))
            x = table(torch.tensor([[found[-1]]]))
        return found


@pytest.fixture(scope="module")
def expected(checkpoint: MakePath) -> Torch:
    return Torch(checkpoint(2))


@pytest.fixture(scope="module")
def rt(bundle: MakePath) -> Iterator[mova_runtime.Runtime]:
    with mova_runtime.open(bundle(2)) as opened:
        yield opened


@pytest.mark.parametrize("number", range(3))
def test_other_images_and_questions(number: int, expected: Torch, rt: mova_runtime.Runtime) -> None:
    question, count = QUESTIONS[number], 12
    visuals = expected.visuals(rt.preprocess(image(number)), question)
    for experts, visual in zip(CHOICES, visuals, strict=True):
        assert relative_l2(rt.encode(image(number), question, experts).tokens, visual.numpy()) < 1e-4
        answer = rt.answer(image(number), question, experts, max_new_tokens=count)
        prompt = rt._model.prompts.answer(question)
        wanted = expected.tokens(prompt.before, visual, prompt.after, count)
        assert list(answer.tokens) == wanted[: len(answer.tokens)]
