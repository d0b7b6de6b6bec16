"""Tensors of a checkpoint, one at a time, from safetensors or pickled shards."""

from __future__ import annotations

import json
import pickle
import pickletools
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mova_export.checkpoint.tensors import Tensors
from mova_export.errors import CheckpointError, UnsafePickleError

_CALLS = {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "REDUCE", "NEWOBJ", "NEWOBJ_EX"}
_SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")


class CheckpointReader(Tensors):
    """Maps every tensor's name to its shape, and reads one when asked."""

    def __init__(self, folder: Path) -> None:
        """Find the shards and read their headers.

        Raises:
            CheckpointError: no shards, a shard missing, truncated, or corrupted.
            UnsafePickleError: a pickled shard holds more than tensors.
        """
        self._shards = [open_shard(file) for file in _shard_files(folder)]
        self._where: dict[str, Shard] = {}
        for shard in self._shards:
            for name in shard.shapes:
                if name in self._where:
                    raise CheckpointError(f"{shard.file}: tensor {name!r} is also in {self._where[name].file.name}")
                self._where[name] = shard
        _check_index(folder, self._where)

    @property
    def files(self) -> list[Path]:
        """The shards, in order."""
        return [shard.file for shard in self._shards]

    def __getitem__(self, name: str) -> tuple[int, ...]:
        return self._where[name].shapes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def tensor(self, name: str) -> Tensor:
        """A tensor in float32.

        Raises:
            CheckpointError: it can't be read, is not of a floating-point type, or holds NaN or infinity.
        """
        shard = self._where[name]
        tensor = shard.read(name)
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"{shard.file}: tensor {name!r} has dtype {tensor.dtype}, expected float32 or bfloat16"
            )
        tensor = tensor.to(torch.float32, copy=True)
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{shard.file}: tensor {name!r} holds NaN or infinity; the shard is damaged")
        return tensor


class Shard(ABC):
    """One file of a checkpoint."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.shapes: dict[str, tuple[int, ...]] = {}

    @abstractmethod
    def read(self, name: str) -> Tensor:
        """One tensor, as it is stored."""


class SafetensorsShard(Shard):
    """A shard whose header says where each tensor lies; reading maps the file."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        try:
            with safe_open(file, framework="pt") as shard:
                self.shapes = {name: tuple(shard.get_slice(name).get_shape()) for name in shard.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{file}: truncated or corrupted ({error})") from None

    def read(self, name: str) -> Tensor:
        """One tensor, as it is stored."""
        try:
            with safe_open(self.file, framework="pt") as shard:
                tensor: Tensor = shard.get_tensor(name)
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{self.file}: tensor {name!r} can't be read ({error})") from None
        return tensor


class PickledShard(Shard):
    """A shard that torch pickled, read by torch's restricted unpickler, which builds tensors and nothing else."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self._whole: dict[str, Tensor] | None = None
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self._load().items()}

    def read(self, name: str) -> Tensor:
        """One tensor, as it is stored."""
        return self._load()[name]

    def _load(self) -> dict[str, Tensor]:
        if self._whole is not None:
            return self._whole
        mapped = _is_zip(self.file)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                # Mapped, so that unpickling touches the tensors' names and shapes, and reading one touches that one.
                loaded = torch.load(self.file, map_location="cpu", weights_only=True, mmap=mapped)
        except Exception as error:  # noqa: BLE001  # on damaged bytes the unpickler raises whatever it trips over
            if "unsupported global" in str(error).lower() or (not mapped and _calls_something(self.file)):
                raise UnsafePickleError(
                    f"{self.file}: the pickle holds code, not only tensors; refused, nothing was executed"
                ) from None
            # torch's own message for an unpickling error advises to switch the restriction off
            told = type(error).__name__ if isinstance(error, pickle.UnpicklingError) else str(error).split("\n", 1)[0]
            raise CheckpointError(f"{self.file}: truncated or corrupted ({told or type(error).__name__})") from None
        if not isinstance(loaded, dict) or not all(
            isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in loaded.items()
        ):
            raise CheckpointError(f"{self.file}: expected a dictionary of tensors")
        if not mapped:
            self._whole = loaded  # torch's old format can only be read whole; not once a tensor
        return loaded


def open_shard(file: Path) -> Shard:
    """A shard by its suffix."""
    return SafetensorsShard(file) if file.suffix == ".safetensors" else PickledShard(file)


def _calls_something(file: Path) -> bool:
    """Whether a file is a pickle that names a function or class, told from its opcodes; nothing is executed.

    torch's old format starts with a pickle that holds only a number.
    """
    try:
        with file.open("rb") as opened:
            opcodes = [opcode.name for opcode, _, _ in pickletools.genops(opened)]
            return not _CALLS.isdisjoint(opcodes)
    except Exception:  # noqa: BLE001  # bytes that are no pickle
        return False


def _is_zip(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(2) == b"PK"


def _find_index(folder: Path) -> Path | None:
    """The index of the form of weights that is read; None where they are in a single file."""
    for single in _SINGLE_FILES:
        if (folder / f"{single}.index.json").is_file():
            return folder / f"{single}.index.json"
        if (folder / single).is_file():
            return None
    raise CheckpointError(f"{folder}: no weights ({' or '.join(_SINGLE_FILES)}, whole or with an index.json)")


def _shard_files(folder: Path) -> list[Path]:
    index = _find_index(folder)
    if index is None:
        return [next(folder / single for single in _SINGLE_FILES if (folder / single).is_file())]
    files = [folder / name for name in sorted(set(_weight_map(index).values()))]
    if missing := [file.name for file in files if not file.is_file()]:
        raise CheckpointError(f"{folder}: shards missing: {', '.join(missing)}")
    return files


def _weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError, OSError):
        raise CheckpointError(f"{index}: not an index of shards") from None
    names_files = isinstance(weight_map, dict) and all(isinstance(value, str) for value in weight_map.values())
    if not names_files or any(Path(value).name != value for value in weight_map.values()):
        raise CheckpointError(f"{index}: weight_map must name files of the same folder")
    return weight_map


def _check_index(folder: Path, where: dict[str, Shard]) -> None:
    index = _find_index(folder)
    if index is not None and (absent := sorted(set(_weight_map(index)) - set(where))):
        raise CheckpointError(f"{index}: the shards lack {', '.join(absent)}")
