"""Who is compared from an image and a question to visual tokens: a bundle in the runtime, its model in torch.

Each has a process of its own, see `stand_by.py`. torch is imported where torch is measured, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import mova_runtime as mova
from mova_export.bench.facts import process_memory
from mova_export.bench.torch_origin import Origin
from mova_runtime.bundle import Bundle
from mova_runtime.language.tokenizer import Tokenizer

IMAGE = resources.files("mova_export.demo") / "chart.png"
QUESTION = "Which bar of the chart is the tallest, and what is its value?"
ANSWER_TOKENS = 8

Tokens = dict[str, np.ndarray]


def question_ids(bundle: Bundle, question: str) -> list[int]:
    """A question for the text encoder, as the runtime makes it."""
    text = bundle.manifest.text
    tokenizer = Tokenizer(bundle.checked_path(text.tokenizer))
    asked = text.question.replace("{question}", tokenizer.as_plain_text(question.lower()))
    return tokenizer.encode(asked, max_tokens=text.max_tokens)


@dataclass
class Way:
    """What both have: a bundle, whose preprocessing both get, and the experts that are chosen."""

    bundle: Path
    experts: tuple[str, ...]
    threads: int

    def memory(self) -> dict[str, float]:
        """MiB of this process, now and at its peak."""
        return {"now": process_memory("VmRSS"), "peak": process_memory("VmHWM")}


@dataclass
class Ours(Way):
    """The runtime with nothing remembered between requests; `options` as `mova_runtime.open` takes them."""

    options: dict[str, Any]

    def fresh(self) -> float:
        """Seconds of opening the bundle and of the first request, with all that is loaded for it."""
        start = perf_counter()
        self._runtime = mova.open(self.bundle, threads=self.threads, feature_cache=0, **self.options)
        self.named()
        return perf_counter() - start

    def named(self) -> None:
        """A request whose caller names the experts: the adapter runs once."""
        self._runtime.encode(IMAGE.read_bytes(), QUESTION, self.experts)

    def routed(self) -> None:
        """A request as it is when the router chooses: the adapter runs for it, too."""
        self.tokens()

    def tokens(self) -> Tokens:
        """Visual tokens [T, H] of both passes."""
        with self._runtime._request(IMAGE.read_bytes(), QUESTION) as request:
            request.expect(self.experts, answered=False)
            return {"routing": request.without_experts.tokens, "visual": request.fuse(self.experts).tokens}

    def everything(self) -> tuple[str, ...]:
        """Have every engine in memory, each having run; their names. What the first request did not use runs now."""
        for expert in self._runtime.manifest.vision.experts:
            if expert.name not in self._runtime.engines_loaded:
                self._runtime.features(IMAGE.read_bytes(), expert.name)
        return self._runtime.engines_loaded

    def answer(self) -> None:
        """A request to the end, a few tokens long, with the named experts."""
        self._runtime.answer(IMAGE.read_bytes(), QUESTION, self.experts, max_new_tokens=ANSWER_TOKENS)

    def choice(self) -> dict[str, Any]:
        """Backend and precision, and by what each component is served."""
        choice, served = self._runtime.choice, self._runtime.stats().served
        return {
            "backend": choice.backend,
            "precision": choice.precision,
            "served": {name: one.by for name, one in served.items()},
        }


@dataclass
class Theirs(Way):
    """The published pipeline in torch. Image and question come preprocessed and tokenized, which is not timed."""

    origin: Origin
    precision: str

    def fresh(self) -> float:
        """Load everything; seconds of the first request after that. Making random weights is nobody's load."""
        import torch
        from published import Published

        torch.set_num_threads(self.threads)
        dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[self.precision]
        self._published = Published(self.origin.source(), dtype)
        with mova.open(self.bundle) as runtime:
            images, manifest = runtime.preprocess(IMAGE.read_bytes()), runtime.manifest
        kinds = {"base": "clip", **{expert.name: expert.input for expert in manifest.vision.experts}}
        self._inputs = {name: torch.from_numpy(images[kinds[name]][None]) for name in ("base", *self.experts)}
        self._ids = torch.tensor([question_ids(Bundle.open(self.bundle), QUESTION)])
        start = perf_counter()
        self.run()
        return perf_counter() - start

    def run(self) -> None:
        """One request."""
        self._run()

    def tokens(self) -> Tokens:
        """Visual tokens [T, H] of both passes."""
        return {name: tensor[0].float().numpy() for name, tensor in vars(self._run()).items()}

    def _run(self) -> Any:
        return self._published(self._inputs, self._ids, self._ids.new_ones(self._ids.shape), self.experts)
