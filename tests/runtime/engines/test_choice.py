"""Which backend and precision are chosen, on machines that this one is made to look like."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from mova_runtime.engines import abilities, backends, choice
from mova_runtime.engines.abilities import BACKENDS
from mova_runtime.engines.choice import Choice, choose, choose_in_order, meant_for
from mova_runtime.engines.loader import Loader
from mova_runtime.engines.memory import Memory, Need
from mova_runtime.engines.nvidia import Gpu
from mova_runtime.engines.trt import lookup
from mova_runtime.errors import BackendError

RTX = Gpu("NVIDIA RTX 4090", "sm_89", "13.0")


class FakeBundle:
    """`precisions` of its graphs; `engines`: by flavour, the precisions in which all of it was built for this GPU."""

    root = Path("bundle")
    manifest = SimpleNamespace(components={"base": None, "sam": None, "adapter": None})

    def __init__(self, *precisions, engines=None, own=None):
        """`own`: by component, the precisions it was exported in instead."""
        self.precisions, self.engines, self.own = precisions, engines or {}, own or {}

    def component(self, name):
        return SimpleNamespace(probes_sha256="")

    def has(self, name, precision):
        return precision in self.own.get(name, self.precisions)


@pytest.fixture
def machine(monkeypatch):
    """machine(modules, gpu, multiplies): what is installed here, and on what."""

    def become(*modules, gpu=None, multiplies=("fp32", "bf16"), packages=()):
        monkeypatch.setattr(abilities, "has_module", lambda name: name in modules)
        monkeypatch.setattr(abilities, "version", lambda package: "1" if package in packages else None)
        monkeypatch.setattr(abilities, "gpu", lambda: gpu)
        monkeypatch.setattr(abilities, "multiplies", lambda precision: precision in multiplies)
        monkeypatch.setattr(choice, "gpu", lambda: gpu)
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


# Backends of single components.


def test_a_component_has_a_backend_of_its_own(machine):
    machine("onnxruntime", "openvino")
    first, own, fallback = choose_in_order(FakeBundle("int8", "fp32"), "openvino, sam = ort:int8 ", fallback=["ort"])
    assert names((first, own, fallback)) == ["openvino:fp32", "ort:int8", "ort:int8"]
    assert (first.component, own.component, fallback.component) == ("", "sam", "")
    assert meant_for((first, own, fallback), "sam") == (own, fallback)
    assert meant_for((first, own, fallback), "base") == (first, fallback)
    assert str(choose(FakeBundle("fp32"), "ort,sam=openvino")) == "ort:fp32"
    assert str(choose_in_order(FakeBundle("fp32"), "auto,sam=openvino:bf16")[1]) == "openvino:bf16"


def test_a_components_own_backend_has_a_precision_of_its_own(machine):
    machine("onnxruntime", "openvino")
    choices = choose_in_order(FakeBundle("fp32", "int8"), "openvino,sam=ort", "bf16")
    assert names(choices) == ["openvino:bf16", "ort:fp32"]


def test_the_cuda_backend_beside_another(machine, tmp_path):
    machine("onnxruntime", "cuda.core", "nvmath", "cuda.bindings", gpu=RTX)
    bundle = FakeBundle("fp32")
    bundle.root = tmp_path
    choices = choose_in_order(bundle, "ort,adapter=cuda:fp16")
    assert names(choices) == ["ort:fp32", "cuda:fp16"]
    assert names(choose_in_order(bundle, "ort,adapter=cuda"))[1] == "cuda:bf16"
    weights = tmp_path / "kernels/weights/fp16.json"
    weights.parent.mkdir(parents=True)
    weights.write_text("{}")
    assert names(choose_in_order(bundle, "ort,adapter=cuda"))[1] == "cuda:fp16", "the weights that are packed"
    assert names(choose_in_order(bundle, "cuda", "fp16", components=["adapter"])) == ["cuda:fp16"]


def test_the_cuda_backend_as_a_fallback_is_one_for_the_adapter(machine):
    machine("onnxruntime", "cuda.core", "nvmath", "cuda.bindings", gpu=RTX)
    choices = choose_in_order(FakeBundle("fp32"), "ort", fallback=["cuda:bf16", "ort:fp32"])
    assert names(meant_for(choices, "adapter")) == ["ort:fp32", "cuda:bf16", "ort:fp32"]
    assert names(meant_for(choices, "base")) == ["ort:fp32", "ort:fp32"]
    with pytest.raises(BackendError, match=r"^backend openvino: pip install openvino \(extra `openvino`\)$"):
        choose_in_order(FakeBundle("fp32"), "openvino", fallback=["cuda:bf16"])


def test_auto_never_picks_the_cuda_backend(machine):
    machine("cuda.core", "nvmath", "cuda.bindings", gpu=RTX)
    with pytest.raises(BackendError, match=r"^nothing here runs bf16"):
        choose(FakeBundle("bf16"))


ALONE = "backend cuda has the adapter alone, no 'base'; write it beside another, as in ort-cuda,adapter=cuda:bf16"


@pytest.mark.parametrize(
    ("backend", "told"),
    [
        ("cuda", ALONE),
        ("ort,base=cuda:bf16", ALONE),
        ("ort,adaptor=cuda", "no component 'adaptor' in the bundle; it has base, sam, adapter"),
        ("ort,adapter=tpu", "adapter: unknown backend 'tpu'; one of ort, ort-cuda, openvino, tensorrt"),
        ("ort,adapter=auto", "adapter: unknown backend 'auto'"),
        ("ort,adapter=cuda:fp8", "adapter: unknown precision 'fp8'; one of fp32"),
        ("ort,adapter=cuda:fp32", "backend cuda: does not run fp32; it runs bf16, fp16"),
        ("ort,sam=ort,sam=openvino", "backend 'ort,sam=ort,sam=openvino': component 'sam' stands twice"),
        ("ort,openvino", "'openvino' is not COMPONENT=BACKEND[:PRECISION], as in ort-cuda,adapter=cuda:bf16"),
        ("ort,", "backend 'ort,': '' is not COMPONENT=BACKEND"),
        ("ort,sam=", "'sam=' is not COMPONENT"),
        ("ort,=ort", "'=ort' is not COMPONENT"),
        ("ort,sam=ort:", "'sam=ort:' is not COMPONENT"),
        ("sam=ort", "unknown backend 'sam=ort'; one of auto"),
        ("ort:fp32", "unknown backend 'ort:fp32'"),
    ],
)  # fmt: skip
def test_mistakes_in_backends_of_components(machine, backend, told):
    machine("onnxruntime", "cuda.core", "nvmath", "cuda.bindings", gpu=RTX)
    with pytest.raises(BackendError) as error:
        choose_in_order(FakeBundle("fp32"), backend)
    assert told in str(error.value)


def test_a_components_own_backend_that_cannot_run_here(machine):
    machine("onnxruntime")
    with pytest.raises(BackendError, match=r"^backend openvino: pip install openvino"):
        choose_in_order(FakeBundle("fp32"), "ort,sam=openvino")
    first, own, fallback = choose_in_order(FakeBundle("fp32"), "ort,sam=openvino", fallback=["ort:fp32"])
    assert [bool(one.obstacle) for one in (first, own, fallback)] == [False, True, False]
    with pytest.raises(BackendError, match=r"^backend ort: no fp16 in the bundle"):
        choose_in_order(FakeBundle("fp32"), "ort,sam=ort:fp16")


@pytest.mark.parametrize(
    ("modules", "gpu", "told"),
    [
        (("nvmath", "cuda.bindings"), RTX, "backend cuda: pip install cuda-core (extra `cuda`)"),
        (("cuda.core", "cuda.bindings"), RTX, "backend cuda: pip install nvmath-python (extra `cuda`)"),
        (("cuda.core", "nvmath", "cuda.bindings"), None, "backend cuda: no NVIDIA GPU, or no driver for it"),
        (("cuda.core", "nvmath"), RTX, "backend cuda: pip install cuda-bindings"),
    ],
)
def test_what_the_cuda_backend_needs(machine, modules, gpu, told):
    machine("onnxruntime", *modules, gpu=gpu)
    with pytest.raises(BackendError) as error:
        choose_in_order(FakeBundle("fp32"), "ort,adapter=cuda:bf16")
    assert str(error.value).startswith(told)


class Loads:
    """A backend that has some components and says so."""

    precision = "fp32"

    def __init__(self, name, *components):
        self.name, self.components = name, components

    def identity(self, bundle, component):
        if component not in self.components:
            raise BackendError(f"{self.name} has no {component}")
        return {"backend": self.name, "component": component}

    def need(self, bundle, component):
        return Need(Memory(len(self.name)))


def test_the_loader_asks_a_components_own_backend(machine, monkeypatch):
    machine("onnxruntime", "openvino")
    bundle = FakeBundle("fp32")
    has = {"openvino:fp32": ("base",), "ort:fp32": ("sam",), "openvino:bf16": ("adapter", "base", "sam")}
    monkeypatch.setattr(backends, "make", lambda choice, threads, keep_compiled: Loads(str(choice), *has[str(choice)]))
    loader = Loader(bundle, choose_in_order(bundle, "openvino,sam=ort"))
    assert loader.need("base").resident.host == len("openvino:fp32")
    assert loader.need("sam").resident.host == len("ort:fp32")
    strict = Loader(bundle, choose_in_order(bundle, "openvino,base=ort"))
    with pytest.raises(BackendError, match="ort:fp32 has no base"):  # and the first is no fallback
        strict.need("base")
    lenient = Loader(bundle, choose_in_order(bundle, "openvino,base=ort", fallback=["openvino:bf16"]))
    assert lenient.need("base").resident.host == len("openvino:bf16")


def test_every_backend_has_a_name_that_can_be_made():
    made = {name: backends.make(Choice(name, "fp32", "")) for name in ("ort", "openvino")}
    assert {name: backend.name for name, backend in made.items()} == {"ort": "ort", "openvino": "openvino"}
    assert set(made) < set(BACKENDS)


class TestExportedInPrecisionsOfTheirOwn:
    """Bundles whose components have no precision in common, as `mova export --precision fp32,sam=int4` makes them."""

    @pytest.mark.parametrize(
        ("backend", "expected"),
        [
            ("auto", ["ort:fp32", "ort:int4"]),
            ("ort", ["ort:fp32", "ort:int4"]),
            ("openvino", ["openvino:fp32", "ort:int4"]),
            ("openvino,sam=ort", ["openvino:fp32", "ort:int4"]),
        ],
    )
    def test_each_is_served_in_its_own(self, machine, backend, expected):
        machine("onnxruntime", "openvino")
        choices = choose_in_order(FakeBundle("fp32", own={"sam": ("int4",)}), backend)
        assert [str(one) for one in choices] == expected
        assert [str(one) for one in meant_for(choices, "sam")] == ["ort:int4"]
        assert [str(one) for one in meant_for(choices, "base")] == [expected[0]]

    def test_a_precision_that_is_asked_for_is_not_given_up(self, machine):
        machine("onnxruntime", "openvino")
        choices = choose_in_order(FakeBundle("fp32", own={"sam": ("int4",)}), "ort", "fp32")
        assert [str(one) for one in choices] == ["ort:fp32"]

    def test_openvino_makes_what_it_needs_of_float32(self, machine):
        machine("openvino")
        choices = choose_in_order(FakeBundle("bf16", own={"sam": ("fp32",)}), "openvino")
        assert [str(one) for one in choices] == ["openvino:bf16"]
