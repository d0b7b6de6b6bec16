"""What compiled kernels and the weights packed for them say about themselves: `kernels/` in a bundle.

They are made after the export, so the manifest doesn't know them. A record is written last: what it names is there.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from mova_runtime.bundle.manifest import File, Manifest, Precision
from mova_runtime.bundle.schema import from_json
from mova_runtime.errors import BundleError, EngineKeyError, IntegrityError

if TYPE_CHECKING:
    from mova_runtime.bundle.folder import Bundle

ADAPTER = "adapter"
"""The component that kernels are for."""

KERNELS = "kernels"
WEIGHTS = "weights"

Record = TypeVar("Record", "KernelSet", "AdapterWeights")


@dataclass(frozen=True)
class AdapterShape:
    """Sizes of an adapter.

    channels: C, of the tokens; text_channels: CT; hidden: of the language model; grid: side of the square of L = grid²
    tokens; feed_forward: F, of SwiGLU; squeezed: hidden channels of squeeze-and-excitation.
    """

    channels: int
    text_channels: int
    hidden: int
    grid: int
    blocks: int
    experts: int
    top_k: int
    feed_forward: int
    squeezed: int


@dataclass(frozen=True)
class Argument:
    """A kernel's argument: its name, and its type as Triton writes it, such as "*bf16", "i32", "fp32"."""

    name: str
    type: str


@dataclass(frozen=True)
class Kernel:
    """A cubin and what launching it takes.

    symbol: of the entry in the cubin; arguments: in order; scratch: bytes of the hidden pointers that follow them, in
    order, which are 0 where their bytes are; shared: bytes of dynamic shared memory; warps: a block has 32 · warps
    threads;
    constants: what it was compiled with, tile sizes among it; registers, spills: of a thread, and its spilled bytes.
    """

    symbol: str
    file: File
    arguments: tuple[Argument, ...]
    scratch: dict[str, int]
    shared: int
    warps: int
    constants: dict[str, int]
    registers: int
    spills: int


@dataclass(frozen=True)
class KernelSet:
    """Every kernel of an adapter for one GPU, by name: `kernels/<capability>/<precision>.json`.

    toolkit: CUDA version of the assembler, such as "12.8": a driver of an older major version can't load its cubins.
    source: hash of what the kernels were compiled from.
    """

    capability: str
    precision: Precision
    shape: AdapterShape
    triton: str
    toolkit: str
    kernels: dict[str, Kernel]
    source: str = ""


@dataclass(frozen=True)
class PackedTensor:
    """A tensor of the weights file: "bf16", "fp16" or "fp32", C-contiguous from `offset`, a multiple of 256."""

    dtype: str
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class AdapterWeights:
    """The adapter's weights in the form that the kernels read: `kernels/weights/<precision>.json`.

    graph: sha256 of the adapter artifact that they were taken from.
    """

    precision: Precision
    shape: AdapterShape
    graph: str
    file: File
    tensors: dict[str, PackedTensor]


def read_kernels(bundle: Bundle, capability: str, precision: Precision) -> KernelSet:
    """The kernels compiled for a GPU, every cubin's bytes checked.

    Args:
        bundle: where they may be.
        capability: such as "sm_87".
        precision: of the activations, "bf16" or "fp16".

    Raises:
        EngineKeyError: there are none for it, or they are of an adapter of other sizes; it says what compiles them.
        IntegrityError: a cubin or the record is damaged.
        BundleError: the bundle was exported without the adapter.
    """
    way = f"run `{command(bundle, precision, capability)}`"
    name = kernels_record(capability, precision)
    record = _read(KernelSet, bundle, name, f"no kernels for {capability} in {precision}", way)
    if (record.capability, record.precision) != (capability, precision):
        found = f"{record.capability} in {record.precision}"
        raise IntegrityError(f"{bundle.root}/{name}: holds kernels for {found}; {way}")
    for kernel in record.kernels.values():
        _check_bytes(bundle, kernel.file, way)
    return record


def read_weights(bundle: Bundle, precision: Precision) -> AdapterWeights:
    """The weights packed for kernels, their bytes checked; they lie at `bundle.path(record.file)`.

    Args:
        bundle: where they may be.
        precision: of the matrices, "bf16" or "fp16".

    Raises:
        EngineKeyError: there are none, or they were taken from another export; it says what packs them.
        IntegrityError: the weights or their record are damaged.
        BundleError: the bundle was exported without the adapter.
    """
    way = f"run `{command(bundle, precision)}`"
    name = weights_record(precision)
    record = _read(AdapterWeights, bundle, name, f"no adapter weights packed in {precision}", way)
    if record.precision != precision:
        raise IntegrityError(f"{bundle.root}/{name}: holds weights in {record.precision}; {way}")
    if not is_current(bundle, record):
        raise EngineKeyError(f"{bundle.root}/{name}: packed from another export's adapter; {way}")
    _check_bytes(bundle, record.file, way)
    return record


def records(bundle: Bundle) -> tuple[KernelSet | AdapterWeights, ...]:
    """Every set of kernels and of weights in a bundle, by name, bytes unchecked. A damaged record counts as none."""
    found: list[KernelSet | AdapterWeights] = []
    for path in sorted((bundle.root / KERNELS).glob("*/*.json")):
        with contextlib.suppress(OSError, ValueError, RecursionError, BundleError):
            data = json.loads(path.read_text(encoding="utf-8"))
            kind: type[KernelSet | AdapterWeights] = AdapterWeights if path.parent.name == WEIGHTS else KernelSet
            found.append(from_json(kind, data, path.name))
    return tuple(found)


def is_current(bundle: Bundle, record: KernelSet | AdapterWeights) -> bool:
    """Whether a record was made for the bundle's adapter as it is now, and not before another export."""
    adapter = bundle.manifest.components.get(ADAPTER)
    if adapter is None or not fits(record.shape, bundle.manifest):
        return False
    return isinstance(record, KernelSet) or record.graph in [artifact.sha256 for artifact in adapter.artifacts]


def kernels_record(capability: str, precision: Precision) -> str:
    """Where a `KernelSet` lies in a bundle."""
    return f"{KERNELS}/{capability}/{precision}.json"


def weights_record(precision: Precision) -> str:
    """Where an `AdapterWeights` lies in a bundle."""
    return f"{KERNELS}/{WEIGHTS}/{precision}.json"


def command(bundle: Bundle, precision: Precision, capability: str = "SM") -> str:
    """The command that compiles kernels and packs weights."""
    return f"mova kernels {bundle.root} --target {capability} --precision {precision}"


def fits(shape: AdapterShape, manifest: Manifest) -> bool:
    """Whether an adapter of these sizes can be the manifest's."""
    vision, inputs = manifest.vision, {spec.name: spec.shape for spec in manifest.components[ADAPTER].inputs}
    keys, text = inputs["keys"], inputs.get("text", ())
    return (
        (shape.blocks, shape.grid**2, shape.channels) == keys[1:]
        and (shape.text_channels,) == text[1:]
        and (shape.grid, shape.top_k, shape.experts) == (vision.grid, vision.top_k, len(vision.experts))
        and shape.hidden == manifest.language.hidden
    )


def _read(kind: type[Record], bundle: Bundle, name: str, lacking: str, way: str) -> Record:
    bundle.component(ADAPTER)
    path = bundle.path(File(name, 0, ""))
    try:
        record = from_json(kind, json.loads(path.read_text(encoding="utf-8")), name)
    except (FileNotFoundError, NotADirectoryError):
        raise EngineKeyError(f"{bundle.root} has {lacking}; {way}") from None
    except OSError as error:
        raise IntegrityError(f"{path}: can't be read ({error.strerror})") from None
    except (ValueError, RecursionError, BundleError) as error:
        raise IntegrityError(f"{path}: damaged ({error}); {way}") from None
    if not fits(record.shape, bundle.manifest):
        raise EngineKeyError(f"{path}: made for an adapter of other sizes; {way}")
    return record


def _check_bytes(bundle: Bundle, file: File, way: str) -> None:
    try:
        bundle.checked_path(file)
    except IntegrityError as error:
        reason = str(error).removesuffix("; copy or export the bundle again").replace("the manifest", "its record")
        raise IntegrityError(f"{reason}; copy it again or {way}") from None
