"""Writes a bundle so that it is there whole or not at all."""

from __future__ import annotations

import glob
import json
import os
import shutil
import uuid
from pathlib import Path
from types import TracebackType

import numpy as np
from torch import Tensor

from mova_export import partial
from mova_export.errors import ExportError
from mova_runtime.bundle import MANIFEST, Manifest, sha256_of
from mova_runtime.bundle.manifest import FORMAT, File
from mova_runtime.bundle.schema import to_json
from mova_runtime.engines.memory import format_size

_TOP_LEVEL = {MANIFEST, "components", "tokenizers", "kernels", "engines"}


class BundleWriter:
    """A folder beside the wanted one, renamed to it when everything is written, removed when anything fails.

    A process killed without warning leaves that folder behind; the next export to the same place removes it. While
    the folder is written it is locked, so that no other export takes it for abandoned.
    """

    def __init__(self, out: Path, *, overwrite: bool = False) -> None:
        """See that a bundle may be written.

        Raises:
            ExportError: `out` exists (and is not to be overwritten, or is no bundle), or is no possible path.
        """
        self._overwrite = overwrite
        try:
            self.out = out.resolve()  # a link to a bundle is written through
            self._check_replaceable()
        except (OSError, ValueError, RuntimeError) as error:
            raise ExportError(f"{out}: no place for a bundle ({_reason(error)})") from None
        mark = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._partial = self.out.with_name(f".{self.out.name}.partial-{mark}")
        self._replaced = self.out.with_name(f".{self.out.name}.replaced-{mark}")
        self._lock: int | None = None

    def __enter__(self) -> BundleWriter:
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            siblings = f".{glob.escape(self.out.name)}.partial-*"
            self._lock = partial.begin(self._partial, siblings, self.out.parent)
        except OSError as error:
            raise ExportError(f"{self.out}: can't be written ({_reason(error)})") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise ExportError(f"{self.out}: can't be written ({_reason(error)}); nothing was written") from error

    def path(self, relative: str) -> Path:
        """Where to write a file of the bundle; its folder is made."""
        path = self._partial / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def record(self, path: Path) -> File:
        """The manifest's entry for a file that was written."""
        return File(path.relative_to(self._partial).as_posix(), path.stat().st_size, sha256_of(path))

    def array(self, relative: str, tensor: Tensor) -> File:
        """Write a tensor as `.npy`."""
        path = self.path(relative)
        np.save(path, tensor.contiguous().numpy(), allow_pickle=False)
        return self.record(path)

    def text(self, relative: str, text: str) -> File:
        """Write text."""
        path = self.path(relative)
        path.write_text(text, encoding="utf-8")
        return self.record(path)

    def require(self, size: int) -> None:
        """See that the disk has room.

        Raises:
            ExportError: it has less than `size` bytes free.
        """
        free = shutil.disk_usage(self._partial).free
        if free < size:
            raise ExportError(
                f"{self.out}: needs {format_size(size)}, the disk has {format_size(free)} free; nothing was written"
            )

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest and put the bundle in its place."""
        path = self.path(MANIFEST)
        with path.open("w", encoding="utf-8") as file:
            json.dump(to_json(manifest), file, indent=1, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        self._check_replaceable()
        replaces = self.out.exists()
        if replaces:
            self.out.rename(self._replaced)
        try:
            self._partial.rename(self.out)
        except BaseException:
            if replaces:
                self._replaced.rename(self.out)
            raise
        shutil.rmtree(self._replaced, ignore_errors=True)

    def _check_replaceable(self) -> None:
        if not self.out.exists():
            return
        if not self._overwrite:
            raise ExportError(f"{self.out}: exists; choose another folder or pass --overwrite")
        if not self.out.is_dir() or (any(self.out.iterdir()) and not _is_bundle(self.out)):
            raise ExportError(f"{self.out}: exists and is not a bundle; it is not overwritten")


def _is_bundle(folder: Path) -> bool:
    """Whether a folder holds a bundle and nothing else at its top."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    own = isinstance(manifest, dict) and manifest.get("format") == FORMAT
    return own and {entry.name for entry in folder.iterdir()} <= _TOP_LEVEL


def _reason(error: Exception) -> str:
    if not isinstance(error, OSError):
        return str(error)
    # numpy reports a full disk without its number
    return error.strerror.lower() if error.strerror else f"{error}; is the disk full?"
