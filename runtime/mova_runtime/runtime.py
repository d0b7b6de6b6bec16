"""The runtime: a bundle opened, ready for questions.

Opening reads the manifest and nothing else. numpy, Pillow, the tokenizers and the engine backend are imported, and
engines loaded, when a first request needs them.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from mova_runtime.bundle import Bundle, Manifest
from mova_runtime.engines.budget import parse_size
from mova_runtime.engines.choice import Choice, choose_in_order
from mova_runtime.engines.loader import Loader
from mova_runtime.engines.pool import EnginePool
from mova_runtime.errors import ExpertError, MovaError, QuestionError
from mova_runtime.routing import parse
from mova_runtime.trace import Trace
from mova_runtime.types import Answer, Routing, Stats, Visual

if TYPE_CHECKING:
    import numpy as np

    from mova_runtime.images import ImageSource
    from mova_runtime.request import Model, Request


class Runtime:
    """Answers questions about images from a bundle. Use it as a context manager, or close it."""

    def __init__(
        self,
        path: str | Path,
        *,
        backend: str = "auto",
        precision: str | None = None,
        fallback: Sequence[str] | None = (),
        memory_budget: str | int | None = None,
        threads: int | None = None,
    ) -> None:
        """See `mova_runtime.open`."""
        self._bundle = Bundle.open(path)
        choices = choose_in_order(self._bundle, backend, precision, fallback)
        self._choice = choices[0]
        self._loader = Loader(self._bundle, choices, threads)
        budget = None if memory_budget is None else parse_size(memory_budget)
        self._pool = EnginePool(self._bundle, self._loader, budget)
        self._lock = threading.Lock()
        self._shared: Model | None = None
        self._closed = False

    @property
    def manifest(self) -> Manifest:
        """What the bundle says about itself."""
        return self._bundle.manifest

    @property
    def choice(self) -> Choice:
        """The backend and precision that run this bundle, and why."""
        return self._choice

    @property
    def engines_loaded(self) -> tuple[str, ...]:
        """Names of the engines in memory."""
        return self._pool.loaded

    def answer(
        self, image: ImageSource, question: str, experts: Sequence[str] | None = None, max_new_tokens: int = 128
    ) -> Answer:
        """Answer a question about an image.

        Args:
            image: path, bytes, PIL image, or uint8 array [height, width, channels].
            question: text.
            experts: names of the experts to use; None lets the language model choose, () uses none.
            max_new_tokens: the answer's length at most, in tokens.

        Raises:
            ImageError: the image can't be read.
            QuestionError: the question is empty or too long, or max_new_tokens is not positive.
            ExpertError: an expert is unknown.
            BundleError, BackendError, MemoryBudgetError: an engine can't be loaded or failed.
        """
        *_, answer = self._speak(*self._prepare(image, question, experts, max_new_tokens))
        assert isinstance(answer, Answer)
        return answer

    def stream(
        self, image: ImageSource, question: str, experts: Sequence[str] | None = None, max_new_tokens: int = 128
    ) -> Iterator[str]:
        """Like `answer`, as pieces of text that never split a character; joined they are the answer's text.

        Mistakes are raised here; engines load and run as the pieces are asked for.
        """
        prepared = self._prepare(image, question, experts, max_new_tokens)
        return (piece for piece in self._speak(*prepared) if isinstance(piece, str))

    def route(self, image: ImageSource, question: str) -> Routing:
        """Ask which experts suit the question; no expert is loaded. Raises like `answer`."""
        request = self._request(image, question)
        request.check_length(routed=True)
        return request.route()

    def encode(self, image: ImageSource, question: str, experts: Sequence[str] | None = None) -> Visual:
        """The fused image: tokens [T, H] float32 and gates [blocks, 7]. Raises like `answer`.

        `experts` as in `answer`. A question beyond the text encoder's 512 tokens counts by its beginning.
        """
        chosen = self._check_experts(experts)
        request = self._request(image, question)
        if chosen is None:
            request.check_length(routed=True)
            chosen = request.route().experts
        return request.fuse(chosen)

    def encode_batch(
        self, images: Sequence[ImageSource], questions: Sequence[str], experts: Sequence[Sequence[str]]
    ) -> list[Visual]:
        """`encode` for several images at once, each with its own question and its own experts.

        Raises:
            ExpertError: the three sequences differ in length, or an expert is unknown.
            And what `answer` raises.
        """
        from mova_runtime.encoder import Pair  # noqa: PLC0415  # imports numpy

        if isinstance(experts, str) or not isinstance(experts, Sequence):
            raise ExpertError(f"experts are a sequence of choices, one an image, not {experts!r}")
        if not len(images) == len(questions) == len(experts):
            raise ExpertError(f"{len(images)} images, {len(questions)} questions and {len(experts)} choices of experts")
        if len(images) == 0:
            return []
        choices = [parse.check(names, self.manifest.vision.experts) for names in experts]
        model, trace = self._model, Trace()
        inputs = [model.preprocessor.decode(image) for image in images]
        texts = [model.prompts.check(question) for question in questions]
        pairs: list[Pair] = []
        for expert in self.manifest.vision.experts:
            if members := [i for i, names in enumerate(choices) if expert.name in names]:
                features = model.encoder.expert(expert.name, [inputs[i] for i in members], trace)
                pairs += [Pair(i, expert.name, feature) for i, feature in zip(members, features, strict=True)]
        base, text = model.encoder.base(inputs, trace), model.encoder.text(texts, trace)
        tokens, gates = model.encoder.fuse(base, text, pairs, trace)
        return [Visual(tokens[i], gates[:, i]) for i in range(len(images))]

    def features(self, image: ImageSource, name: str) -> np.ndarray:
        """One encoder's features [n, Ce] float32; `name` is "base" or an expert's. Raises like `answer`."""
        from mova_runtime.engines.host import on_host  # noqa: PLC0415  # imports numpy

        model, trace = self._model, Trace()
        if name != "base":
            parse.check((name,), self.manifest.vision.experts)
        inputs = model.preprocessor.decode(image)
        if name == "base":
            return on_host(model.encoder.base([inputs], trace)[0])
        return on_host(model.encoder.expert(name, [inputs], trace)[0].features)

    def preprocess(self, image: ImageSource) -> dict[str, np.ndarray]:
        """The four inputs of the graphs: "clip", "dinov2", "high", "flattened"; float32, without a batch axis."""
        return {str(name): array for name, array in self._model.preprocessor(image).items()}

    def close(self) -> None:
        """Unload every engine. The runtime can't be used afterwards."""
        self._closed = True
        self._pool.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(
        self, image: ImageSource, question: str, experts: Sequence[str] | None, max_new_tokens: int
    ) -> tuple[Request, tuple[str, ...] | None, int]:
        """Everything that can be found wrong before an engine is loaded."""
        try:
            limit = 0 if isinstance(max_new_tokens, bool) else operator.index(max_new_tokens)
        except TypeError:
            limit = 0
        if limit < 1:
            raise QuestionError(f"max_new_tokens must be a positive whole number, not {max_new_tokens!r}")
        chosen = self._check_experts(experts)
        request = self._request(image, question)
        request.check_length(routed=chosen is None)
        return request, chosen, limit

    def _speak(self, request: Request, chosen: tuple[str, ...] | None, limit: int) -> Iterator[str | Answer]:
        """Pieces of text, then the answer."""
        from mova_runtime.request import Generated  # noqa: PLC0415  # imports numpy

        routing = request.route() if chosen is None else Routing(chosen, "", ())
        visual = request.fuse(routing.experts)
        said = Generated([])
        yield from request.answer(visual, limit, said)
        yield Answer(
            text=said.text,
            tokens=tuple(said.tokens),
            routing=routing,
            stats=Stats(
                backend=self._choice.backend,
                precision=self._choice.precision,
                why=self._choice.why,
                served=dict(self._loader.served),
                stages=request.trace.stages(),
                engines_loaded=self._pool.loaded,
                cache={"hits": request.hits, "misses": request.misses},
                prompt_tokens=request.prompt_tokens,
                finish=said.finish,
            ),
        )

    def _request(self, image: ImageSource, question: str) -> Request:
        from mova_runtime.request import Request  # noqa: PLC0415  # imports numpy

        model = self._model
        question = model.prompts.check(question)
        return Request(model, model.preprocessor.decode(image), question)

    def _check_experts(self, experts: Sequence[str] | None) -> tuple[str, ...] | None:
        return None if experts is None else parse.check(experts, self.manifest.vision.experts)

    @property
    def _model(self) -> Model:
        from mova_runtime.request import Model  # noqa: PLC0415  # imports numpy

        if self._closed:
            raise MovaError("the runtime is closed")
        with self._lock:
            if self._shared is None:
                self._shared = Model(self._bundle, self._pool)
        return self._shared
