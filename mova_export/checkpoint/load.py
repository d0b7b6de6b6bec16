"""Components as torch modules: built without memory to know their tensors, then loaded one at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations.accelerate import init_empty_weights
from transformers.modeling_utils import no_init_weights

from mova_export.checkpoint import infer, towers
from mova_export.checkpoint.check import check_tensors
from mova_export.checkpoint.config import CheckpointConfig
from mova_export.checkpoint.layout import COMPONENTS, EXPERTS, published_name
from mova_export.checkpoint.reader import CheckpointReader
from mova_export.errors import CheckpointError
from mova_export.modules import clip, dinov2
from mova_export.modules.adapter.adapter import AdapterConfig, MovAdapter
from mova_export.modules.adapter.attention import KeyValue
from mova_export.modules.biomedclip import BiomedClipEncoder
from mova_export.modules.codetr import CodetrEncoder
from mova_export.modules.expert import Expert
from mova_export.modules.pix2struct import Pix2StructEncoder
from mova_export.modules.sam import SamEncoder
from mova_export.modules.text import TextEncoder
from mova_runtime.errors import MovaError

EMBEDDINGS = "model.embed_tokens.weight"
_OUTPUT = "lm_head.weight"

_POSITIONS: dict[str, tuple[str, Callable[[Tensor, int], Tensor]]] = {
    "base": ("vision_model.embeddings.position_embedding.weight", clip.resize_positions),
    "dinov2": ("tower.model.embeddings.position_embeddings", dinov2.resize_positions),
}


class Checkpoint:
    """A published checkpoint: configuration, tensors, and a module for every component."""

    def __init__(self, path: Path, tower_folders: Mapping[str, Path] | None = None) -> None:
        """Read configuration and headers; no weights yet.

        Raises:
            CheckpointError: it is not a MoVA checkpoint, incomplete or damaged.
        """
        self.path = path
        self.config = CheckpointConfig.read(path)
        self.folders = towers.TowerFolders(path, self.config, tower_folders or {})
        self.preprocessing = towers.preprocessing(self.folders, self.config)
        self.reader = CheckpointReader(path)

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
        stored = {
            key: EMBEDDINGS if self._is_tied(key) else published_name(component, key) for key in module.state_dict()
        }
        state = {key: self.reader.tensor(name) for key, name in stored.items()}
        if component in _POSITIONS:
            key, resize = _POSITIONS[component]
            state[key] = resize(state[key], self._position_grid(component))
        module.load_state_dict(state, strict=True, assign=True)
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        module.eval()
        return module

    def _is_tied(self, key: str) -> bool:
        """Whether the language model's output matrix is its embedding table, which a checkpoint then holds once."""
        return key == _OUTPUT and bool(self.config.llama.get("tie_word_embeddings")) and _OUTPUT not in self.reader

    def _position_grid(self, component: str) -> int:
        side = self.config.image_side if component == "base" else min(self.config.image_side, dinov2.MAX_SIDE)
        return side // 14

    def _blueprint(self, component: str) -> nn.Module:
        # Parameters without memory; buffers stay real, since some of them are computed and never loaded.
        try:
            with no_init_weights(), init_empty_weights(include_buffers=False):
                return self._build(component)
        except MovaError:
            raise
        except Exception as error:  # transformers and torch raise anything for a configuration that makes no model
            told = str(error).strip().split("\n")[0]
            raise CheckpointError(f"{component}: its configuration makes no model ({told})") from error

    def _build(self, component: str) -> nn.Module:
        config = self.config
        if component == "base":
            return clip.ClipEncoder(towers.clip_config(self.folders, config), config.select_layer)
        if component in EXPERTS:
            return self._build_expert(component)
        if component == "text":
            return TextEncoder(towers.bert_config(self.folders))
        if component == "adapter":
            return MovAdapter(self.adapter_config)
        if component == "llm":
            llama: nn.Module = LlamaForCausalLM(self.llama_config)
            return llama
        raise CheckpointError(f"unknown component {component!r}; one of {', '.join(COMPONENTS)}")

    def _build_expert(self, name: str) -> Expert:
        config, shapes = self.config, self.reader
        tower: nn.Module
        if name == "dinov2":
            side = min(config.image_side, dinov2.MAX_SIDE)
            tower = dinov2.Dinov2Encoder(towers.dinov2_config(self.folders, side), config.select_layer)
        elif name in ("vary", "sam"):
            tower = SamEncoder(infer.sam_config(shapes, name, self.preprocessing.high.side))
        elif name == "codetr":
            tower = CodetrEncoder(infer.codetr_config(shapes))
        elif name == "biomedclip":
            tower = BiomedClipEncoder(infer.biomedclip_config(shapes))
        else:
            tower = Pix2StructEncoder(towers.pix2struct_config(self.folders, name))
        channels = config.expert_channels[EXPERTS.index(name)]
        blocks = [KeyValue(channels, config.channels, config.grid**2) for _ in range(config.blocks)]
        return Expert(tower, blocks, config.grid, aligned_features=name == "dinov2")

    @property
    def adapter_config(self) -> AdapterConfig:
        """Sizes of the adapter."""
        config = self.config
        return AdapterConfig(
            channels=config.channels,
            text_channels=towers.bert_config(self.folders).hidden_size,
            hidden=config.hidden,
            grid=config.grid,
            blocks=config.blocks,
            experts=len(EXPERTS),
            top_k=config.top_k,
        )

    @property
    def llama_config(self) -> LlamaConfig:
        """The language model's configuration: config.json is a Llama's with MoVA's fields added."""
        known = LlamaConfig().to_dict().keys() - {
            "model_type",
            "architectures",
            "transformers_version",
            "torch_dtype",
            "dtype",
        }
        return LlamaConfig(**{key: value for key, value in self.config.llama.items() if key in known})
