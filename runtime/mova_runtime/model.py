"""What the requests of a runtime share: the bundle's parts that are not engines, and the way to its engines."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mova_runtime.bundle import Bundle
from mova_runtime.bundle.arrays import load_array
from mova_runtime.bundle.manifest import LANGUAGE_MODEL
from mova_runtime.encoder import Encoder
from mova_runtime.engines.pool import EnginePool, FeatureCache
from mova_runtime.engines.prefetch import Plan, Prefetcher
from mova_runtime.errors import BundleError
from mova_runtime.given import LanguageModel, Router
from mova_runtime.images import Preprocessor
from mova_runtime.language.decoder import Decoder
from mova_runtime.language.external import ExternalDecoder
from mova_runtime.language.kept import KeptPrompts, Memo, Slot
from mova_runtime.language.prompt import PromptBuilder
from mova_runtime.language.speech import Speaker
from mova_runtime.language.tokenizer import Tokenizer
from mova_runtime.trace import Trace
from mova_runtime.types import Served

if TYPE_CHECKING:
    import numpy as np


class Model:
    """Preprocessing, encoders, tokenizers and prompts of a bundle."""

    def __init__(
        self,
        bundle: Bundle,
        pool: EnginePool,
        features: FeatureCache,
        prefetcher: Prefetcher,
        served: Mapping[str, Served] | None = None,
        *,
        speculates: bool = False,
        experts_at_once: bool = False,
        language_model: LanguageModel | None = None,
        router: Router | None = None,
    ) -> None:
        """Read tokenizers.

        Args:
            bundle: of the model.
            pool: has its engines.
            features: those that are kept.
            prefetcher: loads ahead.
            served: see `Encoder`.
            speculates: experts are loaded that the router is only likely to choose.
            experts_at_once: the experts of a request run at the same time.
            language_model: speaks instead of the bundle's.
            router: chooses experts instead of the language model.
        """
        manifest, language = bundle.manifest, bundle.manifest.language
        self.language = language
        self.language_model = language_model
        self.router = router
        self._kept = KeptPrompts(features)
        self._served = served or {}
        self.manifest = manifest
        self.pool = pool
        self._speculates = speculates
        self.experts_at_once = experts_at_once
        self.preprocessor = Preprocessor(manifest.preprocessing)
        self.encoder = Encoder(bundle, pool, features, served)
        self.tokenizer = Tokenizer(bundle.checked_path(language.tokenizer), clean_up_spaces=language.clean_up_spaces)
        self.prompts = PromptBuilder(manifest.prompts, self.tokenizer, language.bos)
        self.stop = self.tokenizer.id_of(manifest.prompts.stop)
        self._bundle = bundle
        self._prefetcher = prefetcher
        # every name from the beginning: a dictionary that does not grow can be read beside a writer
        self._chosen = Counter({expert.name: 0 for expert in manifest.vision.experts})
        self._embeddings: np.ndarray | None = None

    @property
    def embeddings(self) -> np.ndarray:
        """The language model's table [vocabulary, hidden], memory-mapped."""
        if self._embeddings is None:
            file = self.manifest.language.embeddings
            if file is None:
                raise BundleError("the bundle was exported without the language model")
            self._embeddings = load_array(self._bundle.checked_path(file), mapped=True)
        return self._embeddings

    def longest_prompt(self, room: int = 1) -> int:
        """Tokens that a prompt may have, images' included, with `room` for as many behind it."""
        return min(self.language.max_prompt, self.language.context - room)

    @contextlib.contextmanager
    def speaker(self, trace: Trace, slot: Slot) -> Iterator[Speaker]:
        """The language model, leased as long as this takes; `slot`: what it keeps of the prompt."""
        if self.language_model is not None:
            yield ExternalDecoder(self.language_model, self.embeddings, self.language)
            return
        with self.pool.lease(LANGUAGE_MODEL, trace) as engine:
            served = self._served.get(LANGUAGE_MODEL)
            memo = Memo(self._kept, served.by if served else "", slot)
            yield Decoder(engine, self.embeddings, self.language, memo)

    def plan(self, trace: Trace) -> Plan:
        """A plan for a request's engines."""
        return Plan(self.pool, self._prefetcher, trace)

    def remember_choice(self, experts: Sequence[str]) -> None:
        """The router chose these."""
        self._chosen.update(experts)

    @property
    def likely(self) -> list[str]:
        """Experts that the router may choose: of those it chose before the most frequent; none without `speculates`."""
        if not self._speculates:
            return []
        return [name for name, times in self._chosen.most_common(self.manifest.vision.top_k) if times]
