"""Components as torch modules whose parameters have shapes and no memory."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations.accelerate import init_empty_weights
from transformers.modeling_utils import no_init_weights

from mova_export.checkpoint import towers
from mova_export.checkpoint.config import CheckpointConfig
from mova_export.checkpoint.infer import TowerSizes
from mova_export.checkpoint.layout import COMPONENTS, EXPERTS
from mova_export.errors import CheckpointError
from mova_export.modules import clip, dinov2
from mova_export.modules.adapter.adapter import AdapterConfig, MovAdapter
from mova_export.modules.adapter.attention import KeyValue
from mova_export.modules.biomedclip import BiomedClipEncoder
from mova_export.modules.codetr import CodetrConfig, CodetrEncoder
from mova_export.modules.expert import Expert
from mova_export.modules.pix2struct import Pix2StructEncoder
from mova_export.modules.sam import SamConfig, SamEncoder
from mova_export.modules.text import TextEncoder
from mova_runtime.errors import MovaError


class Blueprints:
    """Makes every component's module from a model's configuration and its towers' sizes."""

    def __init__(self, config: CheckpointConfig, found: towers.Towers, sizes: Callable[[str], TowerSizes]) -> None:
        """`found` gives the configurations of what transformers has, `sizes` those of the other towers."""
        self._config = config
        self._towers = found
        self._sizes = sizes

    def make(self, component: str) -> nn.Module:
        """A component under the published names, with every parameter that a checkpoint holds for it.

        Raises:
            CheckpointError: its configuration makes no model.
        """
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
        config = self._config
        if component == "base":
            return clip.ClipEncoder(towers.clip_config(self._towers, config), config.select_layer)
        if component in EXPERTS:
            return self._build_expert(component)
        if component == "text":
            return TextEncoder(towers.bert_config(self._towers))
        if component == "adapter":
            return MovAdapter(self.adapter_config)
        if component == "llm":
            llama: nn.Module = LlamaForCausalLM(llama_config(config))
            return llama
        raise CheckpointError(f"unknown component {component!r}; one of {', '.join(COMPONENTS)}")

    def _build_expert(self, name: str) -> Expert:
        config = self._config
        channels = config.expert_channels[EXPERTS.index(name)]
        blocks = [KeyValue(channels, config.channels, config.grid**2) for _ in range(config.blocks)]
        return Expert(self._build_tower(name), blocks, config.grid, aligned_features=name == "dinov2")

    def _build_tower(self, name: str) -> nn.Module:
        if name == "dinov2":
            side = min(self._config.image_side, dinov2.MAX_SIDE)
            return dinov2.Dinov2Encoder(towers.dinov2_config(self._towers, side), self._config.select_layer)
        if name in ("pix2struct", "deplot"):
            return Pix2StructEncoder(towers.pix2struct_config(self._towers, name))
        sizes = self._sizes(name)
        if isinstance(sizes, SamConfig):
            return SamEncoder(sizes)
        return CodetrEncoder(sizes) if isinstance(sizes, CodetrConfig) else BiomedClipEncoder(sizes)

    @property
    def adapter_config(self) -> AdapterConfig:
        """Sizes of the adapter."""
        config = self._config
        return AdapterConfig(
            channels=config.channels,
            text_channels=towers.bert_config(self._towers).hidden_size,
            hidden=config.hidden,
            grid=config.grid,
            blocks=config.blocks,
            experts=len(EXPERTS),
            top_k=config.top_k,
        )


def llama_config(config: CheckpointConfig) -> LlamaConfig:
    """The language model's configuration: config.json is a Llama's with MoVA's fields added."""
    known = LlamaConfig().to_dict().keys() - {
        "model_type",
        "architectures",
        "transformers_version",
        "torch_dtype",
        "dtype",
    }
    return LlamaConfig(**{key: value for key, value in config.llama.items() if key in known})
