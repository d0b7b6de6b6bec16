"""Kernels and packed weights in a bundle: a set is there whole, with its record, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from mova_export import partial
from mova_export.engines.interrupts import Interrupts
from mova_export.errors import ExportError
from mova_export.kernels.packing import Packing
from mova_export.kernels.weights import layout, write
from mova_kernels.aot import Compiled
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.kernels import (
    KERNELS,
    WEIGHTS,
    AdapterShape,
    AdapterWeights,
    Argument,
    Kernel,
    KernelSet,
    kernels_record,
    weights_record,
)
from mova_runtime.bundle.manifest import File, Precision
from mova_runtime.bundle.schema import to_json
from mova_runtime.engines.memory import format_size


class KernelStore:
    """Writes files beside their places; renames them all, and their record last, when every one is there.

    A process killed without warning leaves a folder behind, which the next one removes.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._root = bundle.root / KERNELS
        self._partial = self._root / f".partial-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._lock: int | None = None

    def __enter__(self) -> KernelStore:
        self._bundle.path(File(KERNELS, 0, ""))  # it may be a link that leads out
        with self._writing("kernels"):
            try:
                with Interrupts():  # what is begun must be known to end
                    self._lock = partial.begin(self._partial, ".partial-*", self._bundle.root)
            except BaseException:
                self._end()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
        with contextlib.suppress(OSError), partial.turn(self._bundle.root):
            self._root.rmdir()  # where nothing was made, nothing is left

    @property
    def folder(self) -> Path:
        """For temporary files: on the bundle's disk, and gone on leaving."""
        return self._partial

    def require(self, size: int) -> None:
        """See that the disk has room.

        Raises:
            ExportError: it has less than `size` bytes free.
        """
        if (free := shutil.disk_usage(self._root).free) < size:
            raise ExportError(
                f"{self._root}: needs about {format_size(size)}, the disk has {format_size(free)} free; "
                "nothing was written"
            )

    def put_weights(
        self, precision: Precision, shape: AdapterShape, graph: str, tensors: Sequence[Packing]
    ) -> AdapterWeights:
        """Pack weights into their place.

        Raises:
            ExportError: a tensor's type can't hold its values, the disk is full, or the folder can't be written.
        """
        place = f"{KERNELS}/{WEIGHTS}/{precision}.bin"
        with self._writing("the packed weights"):
            file = write(tensors, self._partial / "weights", place)
            record = AdapterWeights(precision, shape, graph, file, layout(tensors))
            self._swap_in(weights_record(precision), record, {place: self._partial / "weights"})
        return record

    def put_kernels(
        self,
        capability: str,
        precision: Precision,
        shape: AdapterShape,
        compiled: Sequence[Compiled],
        triton: str,
        source: str,
    ) -> KernelSet:
        """Put every kernel for a GPU into its place.

        Args:
            capability: such as "sm_87".
            precision: of the activations.
            shape: of the adapter.
            compiled: all kernels.
            triton: its version.
            source: hash of what they were compiled from.

        Raises:
            ExportError: the disk is full, or the folder can't be written.
        """
        record_place = kernels_record(capability, precision)
        stem = record_place.removesuffix(".json")
        with self._writing(f"kernels for {capability}"):
            written: dict[str, Path] = {}
            kernels: dict[str, Kernel] = {}
            for one in compiled:
                place = f"{stem}-{one.name}.cubin"
                written[place] = self._partial / place.replace("/", "-")
                written[place].write_bytes(one.cubin)
                kernels[one.name] = _kernel(one, place)
            (toolkit,) = {one.toolkit for one in compiled}
            record = KernelSet(capability, precision, shape, triton, toolkit, kernels, source)
            self._swap_in(record_place, record, written)
            for path in (self._bundle.root / record_place).parent.glob(f"{precision}-*.cubin"):
                if path.relative_to(self._bundle.root).as_posix() not in written:
                    path.unlink()  # of a kernel that there is no more
        return record

    def _swap_in(self, place: str, record: KernelSet | AdapterWeights, files: Mapping[str, Path]) -> None:
        new = self._partial / "record.json"
        new.write_text(json.dumps(to_json(record), indent=1) + "\n", encoding="utf-8")
        target = self._bundle.path(File(place, 0, ""))
        with partial.turn(self._bundle.root), Interrupts():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)  # files without a record count for nothing
            for file, path in files.items():
                path.replace(self._bundle.root / file)
            new.replace(target)

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror.lower() if error.strerror else str(error)
            raise ExportError(f"{self._root}: {what} can't be written ({reason})") from error


def _kernel(compiled: Compiled, place: str) -> Kernel:
    return Kernel(
        symbol=compiled.symbol,
        file=File(place, len(compiled.cubin), hashlib.sha256(compiled.cubin).hexdigest()),
        arguments=tuple(Argument(name, of) for name, of in compiled.arguments),
        scratch=compiled.scratch,
        shared=compiled.shared,
        warps=compiled.warps,
        constants=compiled.constants,
        registers=compiled.registers,
        spills=compiled.spills,
    )
