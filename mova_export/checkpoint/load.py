"""A checkpoint on disk, in the published layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mova_export.checkpoint.config import CheckpointConfig
from mova_export.checkpoint.infer import TowerSizes, tower_sizes
from mova_export.checkpoint.reader import CheckpointReader
from mova_export.checkpoint.source import Source
from mova_export.checkpoint.tokenizer import Tokenizers
from mova_export.checkpoint.towers import TowerFolders


class Checkpoint(Source):
    """A published checkpoint: its folder, and the folders of its towers."""

    reader: CheckpointReader

    def __init__(self, path: Path, tower_folders: Mapping[str, Path] | None = None) -> None:
        """Read configuration and headers; no weights yet.

        Args:
            path: folder with config.json, weights and tokenizer.
            tower_folders: folders of towers (base, an expert, text) that are not where config.json says.

        Raises:
            CheckpointError: it is not a MoVA checkpoint, incomplete or damaged.
        """
        config = CheckpointConfig.read(path)
        self.path = path
        self.folders = TowerFolders(path, config, tower_folders or {})
        super().__init__(config, self.folders)
        self.reader = CheckpointReader(path)

    @property
    def origin(self) -> str:
        """The model type that config.json gives."""
        return self.config.model_type

    @property
    def files(self) -> list[Path]:
        """config.json and the shards."""
        return [self.path / "config.json", *self.reader.files]

    def sizes(self, component: str) -> TowerSizes:
        """What the tensors' shapes tell.

        Raises:
            TensorMismatchError: the tensors that would tell are missing.
        """
        return tower_sizes(self.reader, component, self.preprocessing.high.side)

    def tokenizers(self) -> Tokenizers:
        """See `Source.tokenizers`."""
        return Tokenizers.read(self.path, self.folders.folder("text"))
