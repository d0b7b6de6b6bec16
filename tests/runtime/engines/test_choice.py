"""Which backend and precision are chosen, on machines that this one is made to look like."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from mova_runtime.engines import backends, choice
from mova_runtime.engines.choice import BACKENDS, Choice, choose, choose_in_order
from mova_runtime.engines.loader import Loader
from mova_runtime.engines.nvidia import Gpu
from mova_runtime.engines.trt import lookup
from mova_runtime.errors import BackendError

RTX = Gpu("NVIDIA RTX 4090", "sm_89", "13.0")


class FakeBundle:
    """`precisions` of its graphs; `engines`: by flavour, the precisions in which all of it was built for this GPU."""

    root = Path("bundle")
    manifest = SimpleNamespace(components={"base": None, "sam": None})

    def __init__(self, *precisions, engines=None):
        self.precisions, self.engines = precisions, engines or {}

    def has(self, name, precision):
        return precision in self.precisions


@pytest.fixture
def machine(monkeypatch):
    """machine(modules, gpu, multiplies): what is installed here, and on what."""

    def become(*modules, gpu=None, multiplies=("fp32", "bf16"), packages=()):
        monkeypatch.setattr(choice, "has_module", lambda name: name in modules)
        monkeypatch.setattr(choice, "version", lambda package: "1" if package in packages else None)
        monkeypatch.setattr(choice, "gpu", lambda: gpu)
        monkeypatch.setattr(choice, "multiplies", lambda precision: precision in multiplies)
        monkeypatch.setattr(
            lookup,
            "is_complete",
            lambda bundle, precision, flavour: precision in bundle.engines.get(flavour, ()),
        )

    return become


@pytest.mark.parametrize(
    ("modules", "precisions", "asked", "expected"),
    [
        (("onnxruntime", "openvino"), ("fp32",), None, "ort:fp32"),
        (("openvino",), ("fp32",), None, "openvino:fp32"),
        (("onnxruntime", "openvino"), ("fp32",), "bf16", "openvino:bf16"),
        (("onnxruntime", "openvino"), ("bf16", "fp32"), None, "openvino:bf16"),
        (("onnxruntime",), ("bf16", "fp32"), None, "ort:fp32"),
        (("onnxruntime", "openvino"), ("fp16", "fp32"), None, "ort:fp16"),
        (("onnxruntime", "openvino"), ("int8", "fp32"), None, "ort:int8"),
        (("onnxruntime",), ("fp32", "int4"), "int4", "ort:int4"),
    ],
)
def test_auto_on_a_cpu(machine, modules, precisions, asked, expected):
    machine(*modules)
    assert str(choose(FakeBundle(*precisions), "auto", asked)) == expected


def test_a_processor_with_float16_takes_it(machine):
    machine("onnxruntime", "openvino", multiplies=("fp32", "bf16", "fp16"))
    assert str(choose(FakeBundle("fp16"))) == "openvino:fp16"


def test_auto_on_a_gpu(machine):
    built = FakeBundle("fp32", "fp16", engines={"tensorrt-rtx": ("fp16",)})
    machine("onnxruntime", "tensorrt_rtx", "tensorrt", "cuda.bindings", gpu=RTX, packages=("onnxruntime-gpu",))
    assert str(choose(built)) == "tensorrt-rtx:fp16"
    assert "NVIDIA RTX 4090" in choose(built).why
    assert str(choose(FakeBundle("fp16", "fp32"))) == "ort-cuda:fp16", "no engines were built"
    assert str(choose(built, precision="fp32")) == "ort-cuda:fp32", "no engines of this precision"
    assert str(choose(FakeBundle("fp32"), "auto", "fp32")) == "ort-cuda:fp32"
    with pytest.raises(BackendError, match="no int8 in the bundle"):
        choose(FakeBundle("fp32"), "auto", "int8")
    machine("onnxruntime", "tensorrt_rtx", gpu=RTX)
    assert str(choose(FakeBundle("fp32"))) == "ort:fp32"
    assert "nothing that could use the NVIDIA RTX 4090" in choose(FakeBundle("fp32")).why


def test_why(machine):
    machine("onnxruntime", "openvino")
    assert choose(FakeBundle("fp32")).why == "fp32 (the bundle's first that runs here) on the CPU, rather than openvino"
    assert choose(FakeBundle("fp32"), "openvino").why == "as asked"


@pytest.mark.parametrize(
    ("backend", "precision", "message"),
    [
        ("tpu", None, "unknown backend 'tpu'; one of auto, ort, ort-cuda, openvino, tensorrt, tensorrt-rtx"),
        ("auto", "fp8", "unknown precision 'fp8'; one of fp32, fp16, bf16, int8, int4"),
        ("ort", "bf16", "backend ort: does not run bf16; it runs fp32, fp16, int8, int4"),
        ("openvino", "int8", "backend openvino: does not run int8"),
        ("ort", None, r"backend ort: pip install onnxruntime \(extra `cpu`\)"),
        ("openvino", None, r"backend openvino: pip install openvino \(extra `openvino`\)"),
        ("ort-cuda", None, r"pip install onnxruntime-gpu \(extra `gpu`\)"),
        ("tensorrt", None, r"extra `tensorrt`\).*JetPack"),
        ("tensorrt-rtx", None, r"tensorrt-rtx-cu13 \(extra `tensorrt-rtx`\)"),
        ("auto", None, r"nothing here runs fp32; ort: pip install onnxruntime .*; openvino: pip install openvino"),
    ],
)
def test_mistakes_where_nothing_is_installed(machine, backend, precision, message):
    machine()
    with pytest.raises(BackendError, match=message):
        choose(FakeBundle("fp32", "bf16"), backend, precision)


def test_a_backend_for_a_gpu_needs_what_speaks_to_it(machine):
    machine("tensorrt_rtx", gpu=RTX)
    with pytest.raises(BackendError, match="backend tensorrt-rtx: pip install cuda-bindings"):
        choose(FakeBundle("fp32"), "tensorrt-rtx")


def test_a_backend_for_a_gpu_needs_one(machine):
    machine("tensorrt", "tensorrt_rtx", packages=("onnxruntime-gpu",))
    for backend in ("ort-cuda", "tensorrt", "tensorrt-rtx"):
        with pytest.raises(BackendError, match=f"backend {backend}: no NVIDIA GPU"):
            choose(FakeBundle("fp32"), backend)


def test_a_processor_without_the_precision(machine):
    machine("onnxruntime", "openvino", multiplies=("fp32",))
    with pytest.raises(BackendError, match="this processor does not multiply bf16"):
        choose(FakeBundle("fp32"), "openvino", "bf16")
    with pytest.raises(BackendError, match="nothing here runs bf16; openvino: this processor does not multiply bf16"):
        choose(FakeBundle("fp32"), "auto", "bf16")


@pytest.mark.parametrize("backend", ["auto", "ort"])
def test_a_precision_that_the_bundle_lacks(machine, backend):
    machine("onnxruntime", "openvino")
    with pytest.raises(
        BackendError, match=r"ort: no fp16 in the bundle \(it has fp32\); export it with `--precision fp16`"
    ):
        choose(FakeBundle("fp32"), backend, "fp16")


def names(choices):
    return [str(one) for one in choices]


def test_fallbacks(machine):
    machine("onnxruntime", "openvino")
    bundle = FakeBundle("int8", "fp32")
    listed = ("fp32", "openvino", "openvino:bf16", "ort:int8", "ort:")
    assert names(choose_in_order(bundle, fallback=listed)) == [
        "ort:int8", "ort:fp32", "openvino:fp32", "openvino:bf16", "ort:int8", "ort:int8",
    ]  # fmt: skip
    assert names(choose_in_order(bundle)) == ["ort:int8"]


def test_a_first_choice_that_cannot_run_here_stays_first_with_its_obstacle(machine):
    machine("onnxruntime", "openvino")
    first, *others = choose_in_order(FakeBundle("fp32"), "tensorrt-rtx", fallback=("openvino", "ort:fp32"))
    assert names((first, *others)) == ["tensorrt-rtx:fp32", "openvino:fp32", "ort:fp32"]
    assert first.obstacle.startswith("backend tensorrt-rtx: pip install tensorrt-rtx-cu13")
    assert not any(choice.obstacle for choice in others)


def test_fallbacks_from_auto(machine):
    machine("onnxruntime", "openvino")
    first, *others = choose_in_order(FakeBundle("fp32"), precision="fp16", fallback=("ort:fp32", "bf16"))
    assert names((first, *others)) == ["auto:fp16", "ort:fp32", "openvino:bf16"]
    assert first.obstacle.startswith("nothing here runs fp16")


def test_fallbacks_that_cannot_run_here_are_passed_over(machine):
    machine("onnxruntime")
    choices = choose_in_order(FakeBundle("fp32"), fallback=("ort-cuda", "tensorrt", "ort:fp16"))
    assert [bool(one.obstacle) for one in choices] == [False, True, True, True]


def test_where_nothing_can_run_every_reason_is_told(machine):
    machine()
    with pytest.raises(BackendError, match=r"ort: pip .*; fallback: backend openvino: pip install openvino"):
        choose_in_order(FakeBundle("fp32"), "ort", fallback=("openvino",))


def test_the_first_precision_that_a_named_backend_runs_here(machine):
    machine("openvino", multiplies=("fp32",))
    assert str(choose(FakeBundle("fp16", "int8", "fp32"), "openvino")) == "openvino:fp32"


@pytest.mark.parametrize("text", ["tpu", "ort:fp8", "auto", "", 3])
def test_what_is_no_fallback(machine, text):
    machine("onnxruntime")
    with pytest.raises(BackendError):
        choose_in_order(FakeBundle("fp32"), fallback=(text,))


@pytest.mark.parametrize(("backend", "precision"), [("tpu", None), ("ort", "fp8")])
def test_a_misspelt_first_choice_is_not_fallen_back_from(machine, backend, precision):
    machine("onnxruntime")
    with pytest.raises(BackendError, match="unknown"):
        choose_in_order(FakeBundle("fp32"), backend, precision, ("ort:fp32",))


def test_fallbacks_are_a_sequence(machine):
    machine("onnxruntime")
    with pytest.raises(BackendError, match="fallback is a sequence"):
        choose_in_order(FakeBundle("fp32"), fallback="ort:fp32")


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True, backends.MAX_THREADS + 1])
def test_what_is_no_number_of_threads(threads):
    with pytest.raises(BackendError, match="threads must be a whole number from 1 to 256"):
        Loader(FakeBundle("fp32"), (Choice("ort", "fp32", ""),), threads)


def test_every_backend_has_a_name_that_can_be_made():
    made = {name: backends.make(Choice(name, "fp32", "")) for name in ("ort", "openvino")}
    assert {name: backend.name for name, backend in made.items()} == {"ort": "ort", "openvino": "openvino"}
    assert set(made) < set(BACKENDS)
