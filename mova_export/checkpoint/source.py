"""What a bundle is made from: sizes, tensors and tokenizers, and with them a module for every component.

A source gives the same whether its weights lie on disk (`load.py`) or are made up (`random_model.py`), so that both
become a bundle in the same way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from torch import Tensor, nn

from mova_export.checkpoint.blueprint import Blueprints
from mova_export.checkpoint.check import check_tensors
from mova_export.checkpoint.config import CheckpointConfig
from mova_export.checkpoint.infer import TowerSizes
from mova_export.checkpoint.layout import COMPONENTS, published_name
from mova_export.checkpoint.tensors import Tensors
from mova_export.checkpoint.tokenizer import Tokenizers
from mova_export.checkpoint.towers import Towers, preprocessing
from mova_export.modules import clip, dinov2
from mova_export.modules.expert import Expert

EMBEDDINGS = "model.embed_tokens.weight"
_OUTPUT = "lm_head.weight"

_POSITIONS: dict[str, tuple[str, Callable[[Tensor, int], Tensor]]] = {
    "base": ("vision_model.embeddings.position_embedding.weight", clip.resize_positions),
    "dinov2": ("tower.model.embeddings.position_embeddings", dinov2.resize_positions),
}


class Weights(Tensors):
    """A component's tensors under the names that its module gives them."""

    def __init__(self, reader: Tensors, published: Mapping[str, str]) -> None:
        """`published`: every name of the module's to the one that `reader` knows it by."""
        self._reader = reader
        self._published = published

    def __getitem__(self, name: str) -> tuple[int, ...]:
        return self._reader[self._published[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._published)

    def __len__(self) -> int:
        return len(self._published)

    def tensor(self, name: str) -> Tensor:
        """A tensor in float32 on the CPU."""
        return self._reader.tensor(self._published[name])


class Source(ABC):
    """A model to export.

    config: sizes of the whole; preprocessing: how its inputs are made; reader: its tensors by published name.
    """

    reader: Tensors

    def __init__(self, config: CheckpointConfig, towers: Towers) -> None:
        self.config = config
        self.preprocessing = preprocessing(towers, config)
        self._blueprints = Blueprints(config, towers, self.sizes)

    @property
    @abstractmethod
    def origin(self) -> str:
        """What the bundle's provenance calls it."""

    @property
    @abstractmethod
    def files(self) -> list[Path]:
        """The files that tell which weights these are; none where nothing was read."""

    @abstractmethod
    def sizes(self, component: str) -> TowerSizes:
        """Sizes of a tower that has no configuration file."""

    @abstractmethod
    def tokenizers(self) -> Tokenizers:
        """Of the language model and of the text encoder.

        Raises:
            CheckpointError: one is missing or damaged.
        """

    def check(self, components: Collection[str] = COMPONENTS) -> None:
        """See that every tensor of these components is there, and none besides.

        Raises:
            TensorMismatchError: naming each that is missing, unexpected or misshapen.
        """
        expected: dict[str, tuple[int, ...]] = {}
        for component in components:
            for key, tensor in self._blueprint(component).state_dict().items():
                if not self._is_tied(key):
                    expected[published_name(component, key)] = tuple(tensor.shape)
        resizable = {published_name(component, key) for component, (key, _) in _POSITIONS.items()}
        check_tensors(self.reader, expected, resizable, components)

    def load(self, component: str) -> nn.Module:
        """A component's module in float32 on the CPU, in evaluation mode, without parameters no output depends on."""
        module = self._blueprint(component)
        if isinstance(module, clip.ClipEncoder):
            module.drop_unused()
        elif isinstance(module, Expert) and isinstance(module.tower, dinov2.Dinov2Encoder):
            module.tower.drop_unused()
        weights = self._weights(component, module)
        state = {key: weights.tensor(key) for key in weights}
        if component in _POSITIONS:
            key, resize = _POSITIONS[component]
            state[key] = resize(state[key], self._position_grid(component))
        module.load_state_dict(state, strict=True, assign=True)
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        module.eval()
        return module

    def weights(self, component: str) -> Weights:
        """A component's tensors, each read when it is asked for: for one that is too large to be loaded."""
        return self._weights(component, self._blueprint(component))

    def _weights(self, component: str, module: nn.Module) -> Weights:
        return Weights(
            self.reader,
            {key: EMBEDDINGS if self._is_tied(key) else published_name(component, key) for key in module.state_dict()},
        )

    def _blueprint(self, component: str) -> nn.Module:
        return self._blueprints.make(component)

    def _is_tied(self, key: str) -> bool:
        """Whether the language model's output matrix is its embedding table, which a checkpoint then holds once."""
        return key == _OUTPUT and bool(self.config.llama.get("tie_word_embeddings")) and _OUTPUT not in self.reader

    def _position_grid(self, component: str) -> int:
        side = self.config.image_side if component == "base" else min(self.config.image_side, dinov2.MAX_SIDE)
        return side // 14
