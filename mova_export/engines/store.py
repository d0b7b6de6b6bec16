"""Engines in a bundle: each is there whole, with its record, or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from mova_export import partial
from mova_export.errors import ExportError
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.engine import RECORD, EngineKey, EngineRecord
from mova_runtime.bundle.folder import ENGINES
from mova_runtime.bundle.manifest import File
from mova_runtime.bundle.schema import from_json, to_json
from mova_runtime.engines.memory import format_size
from mova_runtime.errors import BundleError

ENGINE = "engine.plan"

Write = Callable[[memoryview], None]

_CHUNK = 1 << 24


class EngineStore:
    """Writes engines beside their place and renames them into it: a reader never meets half of one.

    Two builds of the same engine don't disturb each other; one of theirs stays. A process killed without warning
    leaves a folder behind, which the next build removes. While a build is at work its folder is locked, so that no
    other takes it for abandoned.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._root = bundle.root / ENGINES
        # one level deeper than where engines are looked for
        self._partial = self._root / f".partial-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._lock: int | None = None

    def __enter__(self) -> EngineStore:
        self._bundle.path(File(ENGINES, 0, ""))  # it may be a link that leads out
        try:
            self._lock = partial.begin(self._partial, ".partial-*", self._bundle.root)
        except OSError as error:
            raise ExportError(f"{self._root}: can't be written ({_reason(error)})") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
        with contextlib.suppress(OSError), partial.turn(self._bundle.root):
            self._root.rmdir()  # where nothing was built, nothing is left

    @property
    def scratch(self) -> Path:
        """A folder for what a build needs for a while; it goes with the store."""
        return self._partial

    def find(self, key: EngineKey) -> EngineRecord | None:
        """The record of an engine that is there and whole; its bytes are read."""
        try:
            data = json.loads((self._root / key.name / RECORD).read_text(encoding="utf-8"))
            record = from_json(EngineRecord, data, RECORD)
            self._bundle.checked_path(record.file)
        except (OSError, ValueError, RecursionError, BundleError):
            return None
        return record if record.key == key else None

    def require(self, size: int) -> None:
        """See that the disk has room.

        Raises:
            ExportError: it has less than `size` bytes free.
        """
        free = shutil.disk_usage(self._root).free
        if free < size:
            raise ExportError(
                f"{self._root}: needs about {format_size(size)}, the disk has {format_size(free)} free; "
                "nothing was built; fewer --target or --only take less"
            )

    def put(self, key: EngineKey, build: Callable[[Write], None]) -> EngineRecord:
        """Build an engine into its place, replacing one of the same key.

        Args:
            key: what it is built from and for.
            build: is given a function that writes pieces of the engine, and calls it until all is written.

        Raises:
            ExportError: the disk is full, or the folder can't be written.
        """
        folder = self._partial / key.name
        started = time.perf_counter()
        try:
            folder.mkdir()
            with Hashed(folder / ENGINE) as engine:
                build(engine.write)
            file = File(f"{ENGINES}/{key.name}/{ENGINE}", engine.size, engine.sha256)
            record = EngineRecord(key, file, round(time.perf_counter() - started, 3))
            (folder / RECORD).write_text(json.dumps(to_json(record), indent=1) + "\n", encoding="utf-8")
            self._swap_in(folder)
        except BrokenPipeError:  # of whoever was told about it
            raise
        except OSError as error:
            raise ExportError(
                f"{self._root}: {key.component} for {key.capability} can't be written ({_reason(error)}); "
                "engines built before it stay"
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return record

    def _swap_in(self, folder: Path) -> None:
        place, replaced = self._root / folder.name, self._partial / f"{folder.name}.replaced"
        with contextlib.suppress(FileNotFoundError):
            place.rename(replaced)
        try:
            folder.rename(place)
        except BaseException as error:
            if replaced.exists() and not place.exists():
                replaced.rename(place)
            if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return  # another build put the same engine there just now
            raise
        shutil.rmtree(replaced, ignore_errors=True)


class Hashed:
    """A file that is written piece by piece, and its sha256, by which lost bytes are found out."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._digest = hashlib.sha256()
        self.size = 0

    def __enter__(self) -> Hashed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, data: memoryview) -> None:
        """Write all of it."""
        flat = data.cast("B")
        while flat.nbytes:
            written = self._file.write(flat[:_CHUNK])
            self._digest.update(flat[:written])
            self.size += written
            flat = flat[written:]

    @property
    def sha256(self) -> str:
        """Of what was written so far, hexadecimal."""
        return self._digest.hexdigest()


def _reason(error: OSError) -> str:
    return error.strerror.lower() if error.strerror else str(error)
