"""The runtime: a bundle opened, ready for questions.

Opening reads the manifest and nothing else. numpy, Pillow, the tokenizers and the engine backend are imported, and
engines loaded, when a first request needs them.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mova_runtime.bundle import Bundle, Manifest
from mova_runtime.engines.choice import Choice, choose_in_order
from mova_runtime.engines.limits import cache_bound, limits
from mova_runtime.engines.loader import Loader
from mova_runtime.engines.pool import EnginePool, FeatureCache
from mova_runtime.engines.pool.activity import PROCESS
from mova_runtime.engines.prefetch import THREAD, Prefetcher
from mova_runtime.errors import ExpertError, MovaError
from mova_runtime.given import Router
from mova_runtime.options import Options, check
from mova_runtime.routing import parse
from mova_runtime.trace import Recorder, Trace, loading
from mova_runtime.types import Answer, How, Routing, Stats, Totals, Visual

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Unpack

    from mova_runtime.chat import Chat
    from mova_runtime.conversation import Conversation
    from mova_runtime.engines.protocol import Array
    from mova_runtime.images import ImageSource
    from mova_runtime.language.generation import Generation
    from mova_runtime.model import Model
    from mova_runtime.request import Request


UNCHANGED = "unchanged"


class Runtime:
    """Answers questions about images from a bundle. Use it as a context manager, or close it."""

    def __init__(self, path: str | Path, options: Options = Options()) -> None:
        """See `mova_runtime.open`."""
        bundle = Bundle.open(path)
        components = tuple(bundle.manifest.components)
        check(options, components)
        self._bundle = bundle.bounded(options.max_context)
        choices = choose_in_order(self._bundle, options.backend, options.precision, options.fallback)
        self._choice = choices[0]
        self._loader = Loader(self._bundle, choices, options.threads, keep_compiled=options.keep_compiled)
        bounds = limits(options.memory_budget, options.device_memory_budget)
        self._pool = EnginePool(
            components,
            self._loader,
            bounds,
            pinned=options.pinned,
            timeout=options.lease_timeout,
            activity=PROCESS,
        )
        self._features = FeatureCache(self._pool, cache_bound(options.feature_cache, bounds))
        self._prefetcher = Prefetcher(self._pool, active=options.prefetch)
        self._options = options
        self._router = self._router_of(options.router)
        self._recorder = Recorder(options.trace_events)
        self._lock = threading.Lock()
        self._shared: Model | None = None
        self._closed = False

    @property
    def manifest(self) -> Manifest:
        """What the bundle says about itself, its language model's context being `max_context` where that is less."""
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
        self,
        image: ImageSource,
        question: str,
        experts: Sequence[str] | None = None,
        max_new_tokens: int = 128,
        **how: Unpack[How],
    ) -> Answer:
        """Answer a question about an image.

        Args:
            image: path, bytes, PIL image, or uint8 array [height, width, channels].
            question: text.
            experts: names of the experts to use; None lets the language model choose, () uses none.
            max_new_tokens: the answer's length at most, in tokens.
            how: temperature, top_p, seed, stop, cancel: see `How`.

        Raises:
            ImageError: the image can't be read.
            QuestionError: the question is empty or too long, max_new_tokens is not positive, or `how` makes no sense.
            ExpertError: an expert is unknown.
            BundleError, BackendError, MemoryBudgetError: an engine can't be loaded or failed.
        """
        request, chosen = self.request(image, question, experts, max_new_tokens, how)
        for _ in request.speak(chosen):
            pass
        return self.answer_of(request)

    def stream(
        self,
        image: ImageSource,
        question: str,
        experts: Sequence[str] | None = None,
        max_new_tokens: int = 128,
        **how: Unpack[How],
    ) -> Generator[str, None, None]:
        """Like `answer`, as pieces of text that never split a character; joined they are the answer's text.

        Mistakes are raised here; engines load and run as the pieces are asked for. Between two pieces the language
        model stays leased: read to the end, or close what this returns, in the thread that reads it. Another thread
        ends it by `cancel`.
        """
        request, chosen = self.request(image, question, experts, max_new_tokens, how)
        return request.speak(chosen)

    def chat(self, image: ImageSource | None = None, experts: Sequence[str] | None = None) -> Chat:
        """Begin a conversation: several questions on an image, or on several. See `Chat`.

        Args:
            image: that the first question is about; None where that question brings it.
            experts: those to use for every question; None lets the language model choose for each.

        Raises:
            ExpertError: an expert is unknown.
        """
        from mova_runtime.chat import Chat  # noqa: PLC0415  # imports numpy

        return Chat(self, image, self._check_experts(experts))

    def route(self, image: ImageSource, question: str) -> Routing:
        """Ask which experts suit the question; no expert is loaded. Raises like `answer`."""
        with self._request(image, question) as request:
            request.check_length(None, answered=False)
            if self._router is None:
                request.expect(None, answered=False)
            return request.route(ahead=False)

    def encode(self, image: ImageSource, question: str, experts: Sequence[str] | None = None) -> Visual:
        """The fused image: tokens [T, H] float32 and gates [blocks, 7]. Raises like `answer`.

        `experts` as in `answer`. A question beyond the text encoder's 512 tokens counts by its beginning.
        """
        chosen = self._check_experts(experts)
        with self._request(image, question) as request:
            request.check_length(chosen, answered=False)
            request.expect(chosen, answered=False)
            return request.fuse(request.route().experts if chosen is None else chosen)

    def encode_batch(
        self, images: Sequence[ImageSource], questions: Sequence[str], experts: Sequence[Sequence[str]]
    ) -> list[Visual]:
        """`encode` for several images at once, each with its own question and its own experts.

        Raises:
            ExpertError: the three sequences differ in length, or an expert is unknown.
            And what `answer` raises.
        """
        from mova_runtime import batch  # noqa: PLC0415  # imports numpy

        return batch.encode(self._model, images, questions, experts, Trace(self._recorder))

    def features(self, image: ImageSource, name: str) -> np.ndarray:
        """One encoder's features [n, Ce] float32; `name` is "base" or an expert's. Raises like `answer`."""
        import numpy as np  # noqa: PLC0415  # slow to import

        from mova_runtime.engines.host import on_host  # noqa: PLC0415

        return np.array(on_host(self.features_in_place(image, name)))  # the caller's own: the other one is kept

    def features_in_place(self, image: ImageSource, name: str) -> Array:
        """Like `features`, where they were computed: in a GPU's memory, or on the host, where they are read-only.

        They stay while somebody refers to them, also when the feature cache has let them go or the runtime is closed.
        """
        model, trace = self._model, Trace(self._recorder)
        experts = self.manifest.vision.experts
        if name != "base" and name not in [expert.name for expert in experts]:
            known = ", ".join(expert.name for expert in experts)
            raise ExpertError(f"no encoder {name!r}; one of base, {known}")
        inputs = model.preprocessor.decode(image)
        if name == "base":
            return model.encoder.base([inputs], trace)[0]
        return model.encoder.expert(name, [inputs], trace)[0].features

    def preprocess(self, image: ImageSource) -> dict[str, np.ndarray]:
        """The four inputs of the graphs: "clip", "dinov2", "high", "flattened"; float32, without a batch axis."""
        return {str(name): array for name, array in self._model.preprocessor(image).items()}

    def stats(self) -> Totals:
        """What the runtime has done since it was opened, and what is in memory now."""
        features = self._features
        return Totals(
            pool=self._pool.totals(),
            cache={"hits": features.hits, "misses": features.misses, "bytes": features.bytes},
            served=dict(self._loader.served),
        )

    def trace(self) -> dict[str, Any]:
        """The latest events of all requests in Chrome's format, which Perfetto opens; write it as JSON."""
        return self._recorder.chrome()

    def set_memory_budget(self, host: str | int | None, device: str | int | None = UNCHANGED) -> None:
        """Change the bounds that `open` was given; what they don't leave room for goes now, or when it comes back.

        Args:
            host: as `memory_budget`.
            device: as `device_memory_budget`; without it that bound stays.

        Raises:
            MemoryBudgetError: one is not a size.
            MovaError: the runtime is closed.
        """
        if self._closed:
            raise MovaError("the runtime is closed")
        bounds = limits(host, self._pool.limits.device if device == UNCHANGED else device)
        trace = Trace(self._recorder)
        self._pool.resize(bounds, trace)
        self._features.resize(cache_bound(self._options.feature_cache, bounds), trace)

    def close(self) -> None:
        """Unload every engine. The runtime can't be used afterwards; a stream that is being read goes on to its end."""
        self._closed = True
        self._prefetcher.close()
        self._features.clear()
        self._pool.close()

    def __enter__(self) -> Runtime:
        if self._closed:
            raise MovaError("the runtime is closed")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def request(
        self,
        image: ImageSource,
        question: str,
        experts: Sequence[str] | None,
        max_new_tokens: int,
        how: How,
        conversation: Conversation | None = None,
    ) -> tuple[Request, tuple[str, ...] | None]:
        """What `answer` and the like begin with: everything that can be found wrong before an engine is loaded."""
        from mova_runtime.language.generation import generation  # noqa: PLC0415  # imports numpy

        if unknown := [name for name in how if name not in How.__annotations__]:
            raise TypeError(f"an answer has no option {unknown[0]!r}; it has {', '.join(How.__annotations__)}")
        wanted = generation(max_new_tokens, **how)
        chosen = self._check_experts(experts)
        request = self._request(image, question, wanted, conversation)
        request.check_length(chosen, answered=True)
        return request, chosen

    def answer_of(self, request: Request) -> Answer:
        """The answer of a request that has spoken."""
        said = request.said
        return Answer(said.text, tuple(said.tokens), request.routing, self._stats(request))

    def _stats(self, request: Request) -> Stats:
        stages = request.trace.stages()
        return Stats(
            backend=self._choice.backend,
            precision=self._choice.precision,
            why=self._choice.why,
            served=dict(self._loader.served),
            stages=stages,
            engines_loaded=self._pool.loaded,
            cache=request.cache,
            loading=loading(stages, THREAD),
            prompt_tokens=request.prompt_tokens,
            reused_tokens=request.reused_tokens,
            finish=request.said.finish,
        )

    def _request(
        self,
        image: ImageSource,
        question: str,
        wanted: Generation | None = None,
        conversation: Conversation | None = None,
    ) -> Request:
        from mova_runtime.request import Request  # noqa: PLC0415  # imports numpy

        model = self._model
        question = model.prompts.check(question)
        inputs = model.preprocessor.decode(image)
        return Request(model, inputs, question, Trace(self._recorder), wanted, conversation)

    def _router_of(self, given: Router | Sequence[str] | None) -> Router | None:
        """A router from outside: a function, or experts that are the same for every question."""
        if given is None or callable(given):
            return given
        fixed = parse.check(given, self.manifest.vision.experts)
        return lambda image, question: fixed

    def _check_experts(self, experts: Sequence[str] | None) -> tuple[str, ...] | None:
        return None if experts is None else parse.check(experts, self.manifest.vision.experts)

    @property
    def _model(self) -> Model:
        from mova_runtime.model import Model  # noqa: PLC0415  # imports numpy

        if self._closed:
            raise MovaError("the runtime is closed")
        with self._lock:
            if self._shared is None:
                self._shared = Model(
                    self._bundle,
                    self._pool,
                    self._features,
                    self._prefetcher,
                    self._loader.served,
                    speculates=self._options.speculate,
                    experts_at_once=self._options.experts_at_once,
                    language_model=self._options.language_model,
                    router=self._router,
                )
        return self._shared
