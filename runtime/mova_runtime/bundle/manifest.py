"""What a bundle says about itself: the one contract between the exporter that writes it and the runtime that reads it.

Every class is a frozen dataclass and `manifest.json` is their JSON, field for field (see schema.py). Paths are
relative to the bundle, with forward slashes. Shapes name their dynamic axes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

FORMAT = "mova-bundle"
VERSION = 1

ImageInput = Literal["clip", "dinov2", "high", "flattened"]

Precision = Literal["fp32", "fp16", "bf16", "int8", "int4"]
"""fp16, bf16: strongly typed graphs. int8, int4: weights alone, the arithmetic stays in floating point."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

LANGUAGE_MODEL = "llm"
"""The component that decodes."""


@dataclass(frozen=True)
class File:
    """A file of the bundle: where it is, its size, and the hash of its bytes."""

    path: str
    bytes: int
    sha256: str


def _hash_of(files: Sequence[File]) -> str:
    return hashlib.sha256("\n".join(file.sha256 for file in files).encode()).hexdigest()


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of a graph's input or output; a string in the shape is a dynamic axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Parity:
    """How far an output was from torch's float32 on the probe when it was exported.

    relative_l2 = ‖x - y‖₂ / ‖y‖₂; max_abs = max |x - y|; cosine = x·y / (‖x‖₂ ‖y‖₂), null where not measured.
    """

    output: str
    relative_l2: float
    max_abs: float
    cosine: float | None = None


@dataclass(frozen=True)
class Agreement:
    """How alike a language model and its float32 form go on after fixed prompts.

    prompts: how many; tokens: the share of them after which the same token is the most likely; divergence: the mean
    Kullback-Leibler divergence of the next token's distribution from float32's, in nats.
    """

    prompts: int
    tokens: float
    divergence: float


@dataclass(frozen=True)
class Artifact:
    """One executable form of a component; the first file is the one to open, the others lie beside it.

    float32: what stays float32 in a graph of lower precision: operators, and parts of the model by name.
    int8: which weights of an int4 graph have 8 bits.
    in_place: of the language model, which of the files is the same graph in the form in which ONNX Runtime keeps keys
        and values in one buffer on a processor (com.microsoft.GroupQueryAttention), by its path; null where there is
        none. It refers to the same weights.
    agreement: of the language model.
    Inputs and outputs are float32 in every precision, so that components of different precisions meet.
    """

    format: Literal["onnx"]
    precision: Precision
    files: tuple[File, ...]
    parity: tuple[Parity, ...]
    float32: tuple[str, ...] = ()
    int8: tuple[str, ...] = ()
    in_place: str | None = None
    agreement: Agreement | None = None

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files)

    def files_of(self, cache: Literal["growing", "shared"]) -> tuple[File, ...]:
        """The files of one form, its graph first; `cache`: of the engine that it is opened for."""
        graph, *others = self.files
        weights = [file for file in others if file.path != self.in_place]
        in_place = [file for file in others if file.path == self.in_place]
        return (*(in_place if cache == "shared" else [graph]), *weights)

    @property
    def sha256(self) -> str:
        """One hash over all files, in order."""
        return _hash_of(self.files)


@dataclass(frozen=True)
class Probe:
    """Fixed inputs and the float32 outputs that torch gave for them, one `.npy` file a tensor.

    case: in words, what is special about the inputs; empty for the component's first probe.
    """

    inputs: dict[str, File]
    outputs: dict[str, File]
    case: str = ""


@dataclass(frozen=True)
class Component:
    """One graph: base, text, adapter, llm, or an expert by its name.

    probe: in the middle of what the graph takes, and what the artifacts' parity was measured on; more_probes: shapes of
    their own kind that requests have too, such as the adapter without any expert; operations: in floating point,
    of a run on `probe`, null where they were not counted.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: int
    artifacts: tuple[Artifact, ...]
    probe: Probe
    more_probes: tuple[Probe, ...] = ()
    operations: int | None = None

    @property
    def probes(self) -> tuple[Probe, ...]:
        """All of them."""
        return (self.probe, *self.more_probes)

    @property
    def probes_sha256(self) -> str:
        """One hash over every probe's files."""
        files = [file for probe in self.probes for file in (*probe.inputs.values(), *probe.outputs.values())]
        return _hash_of(files)


@dataclass(frozen=True)
class PixelInput:
    """A CLIP-style input: resize, centre crop, x/255, (x - mean)/std; [3, side, side] float32."""

    resize: int
    side: int
    resample: Literal["nearest", "bilinear", "bicubic", "lanczos"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class PatchInput:
    """Pix2Struct's input: [max_patches, 2 + 3·patch²] float32, the first two columns row and column (from 1)."""

    max_patches: int
    patch: int


@dataclass(frozen=True)
class Preprocessing:
    """The four inputs made from one image; `pad` first makes it square, `crop` leaves its shape.

    pad_colour: per input, the 8-bit RGB colour of the square.
    """

    aspect: Literal["pad", "crop"]
    clip: PixelInput
    dinov2: PixelInput
    high: PixelInput
    flattened: PatchInput
    pad_colour: dict[str, tuple[int, int, int]]


@dataclass(frozen=True)
class Expert:
    """A vision expert: its name, its letter in the routing prompt, and which of the four inputs it sees."""

    name: str
    letter: str
    input: ImageInput


@dataclass(frozen=True)
class Vision:
    """Sizes of the fused image: `tokens` = grid² before pooling, `visual_tokens` after, fewer for routing."""

    grid: int
    visual_tokens: int
    routing_tokens: int
    top_k: int
    experts: tuple[Expert, ...]


@dataclass(frozen=True)
class Prompts:
    """The prompt constants the checkpoint was trained with; `{message}` stands in `user`."""

    template: str
    system: str
    user: str
    assistant: str
    stop: str
    image_placeholder: str
    routing: str
    routing_max_new_tokens: int


@dataclass(frozen=True)
class Text:
    """The adapter's text encoder: its tokenizer, the tokens it reads at most, how a question is put to it."""

    tokenizer: File
    max_tokens: int
    question: str


@dataclass(frozen=True)
class Language:
    """The language model: its tokenizer, embedding table [vocabulary, hidden] and context in tokens.

    max_prompt: longest prompt in tokens, visual tokens included; context: prompt and answer together.
    embeddings: null where the bundle was exported without component "llm"; bos: the id the tokenizer calls BOS.
    """

    tokenizer: File
    bos: int | None
    embeddings: File | None
    hidden: int
    layers: int
    key_value_heads: int
    head_dim: int
    context: int
    max_prompt: int
    clean_up_spaces: bool


@dataclass(frozen=True)
class Provenance:
    """What the bundle was made from: sha256 of each checkpoint file, and the version of each tool."""

    model_type: str
    checkpoint: dict[str, str]
    tools: dict[str, str]


@dataclass(frozen=True)
class Manifest:
    """All of `manifest.json`."""

    format: str
    version: int
    vision: Vision
    preprocessing: Preprocessing
    prompts: Prompts
    text: Text
    language: Language
    components: dict[str, Component]
    provenance: Provenance
