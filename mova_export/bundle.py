"""Writes a bundle so that it is there whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path
from types import TracebackType

from mova_export.errors import ExportError
from mova_runtime.bundle import MANIFEST, Manifest, sha256_of
from mova_runtime.bundle.manifest import File
from mova_runtime.bundle.schema import to_json
from mova_runtime.engines.budget import format_size


class BundleWriter:
    """A folder beside the wanted one, renamed to it when everything is written, removed when anything fails.

    A process killed without warning leaves that folder behind; the next export to the same place removes it.
    """

    def __init__(self, out: Path, *, overwrite: bool = False) -> None:
        """See that a bundle may be written.

        Raises:
            ExportError: `out` exists (and is not to be overwritten, or is no bundle), or its parent can't be made.
        """
        self.out = out.absolute()
        self._overwrite = overwrite
        if self.out.exists():
            self._check_replaceable()
        self._partial = self.out.with_name(f".{self.out.name}.partial-{os.getpid()}-{uuid.uuid4().hex[:8]}")

    def __enter__(self) -> BundleWriter:
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self._remove_abandoned()
            self._partial.mkdir()
        except OSError as error:
            raise ExportError(f"{self.out}: can't be written ({error.strerror})") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)
        if isinstance(error, OSError):
            # numpy reports a full disk without its number
            reason = error.strerror.lower() if error.strerror else f"{error}; is the disk full?"
            raise ExportError(f"{self.out}: can't be written ({reason}); nothing was written") from error

    def path(self, relative: str) -> Path:
        """Where to write a file of the bundle; its folder is made."""
        path = self._partial / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def record(self, path: Path) -> File:
        """The manifest's entry for a file that was written."""
        return File(path.relative_to(self._partial).as_posix(), path.stat().st_size, sha256_of(path))

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
        if self.out.exists():
            self._check_replaceable()
            replaced = self._partial.with_name(self._partial.name + "-replaced")
            self.out.rename(replaced)
            self._partial.rename(self.out)
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            self._partial.rename(self.out)

    def _check_replaceable(self) -> None:
        if not self._overwrite:
            raise ExportError(f"{self.out}: exists; choose another folder or pass --overwrite")
        is_bundle = (self.out / MANIFEST).is_file()
        if not self.out.is_dir() or not (is_bundle or not any(self.out.iterdir())):
            raise ExportError(f"{self.out}: exists and is not a bundle; it is not overwritten")

    def _remove_abandoned(self) -> None:
        for folder in self.out.parent.glob(f".{self.out.name}.partial-*"):
            process = folder.name.removeprefix(f".{self.out.name}.partial-").split("-")[0]
            if process.isdigit() and not Path(f"/proc/{process}").exists():
                shutil.rmtree(folder, ignore_errors=True)
