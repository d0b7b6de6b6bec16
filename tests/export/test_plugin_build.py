"""`mova build --plugins`: an adapter's engine with our kernels in it, up to where TensorRT itself would build it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from bundle_copy import copy_bundle, edited_manifest, rewrite
from command_line import MovaCommand
from mova_export.cli import build as command
from mova_export.engines import order
from mova_export.kernels import plugins
from mova_kernels.plugins import registration
from mova_kernels.targets import TARGETS
from mova_runtime.bundle import Bundle
from mova_runtime.engines.nvidia import Gpu
from mova_runtime.engines.trt import library

PLUGINS = ("--backend", "tensorrt", "--plugins", "--precision", "bf16", "--only", "adapter")

ORIN = Gpu("Orin", "sm_87", "540.4.0, CUDA 12.6")


@pytest.fixture
def halved(bundle: Any, tmp_path: Path) -> Path:
    """A bundle whose manifest calls its adapter's graph bf16."""
    root = copy_bundle(bundle(2), tmp_path / "bundle")
    with edited_manifest(root) as manifest:
        manifest["components"]["adapter"]["artifacts"][0]["precision"] = "bf16"
    for file in (root / "components" / "adapter" / "fp32").iterdir():
        rewrite(file, file.read_bytes())  # weights behind a hard link are not read
    return root


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """TensorRT with ahead-of-time plugins on an Orin: what it was given to parse, and what it knows."""
    told = SimpleNamespace(parsed=[], registered=[])
    real = library.load("tensorrt-rtx")
    stand_in = ModuleType("stand_in")
    stand_in.__dict__.update({name: getattr(real, name) for name in dir(real) if not name.startswith("__")})
    stand_in.__version__ = "10.13.0"
    plugin = ModuleType("stand_in.plugin")
    plugin.aot_impl = object()

    class Parser:
        """Keeps the operators of the graph it is given, and fails as a parser does that knows none of them."""

        def __init__(self, network: object, log: object) -> None:
            self.num_errors = 0

        def parse_from_file(self, path: str) -> bool:
            import onnx

            graph = onnx.load(path).graph
            told.parsed += [node.op_type for node in graph.node if node.domain == "mova"]
            return False

    stand_in.OnnxParser = Parser
    monkeypatch.setitem(sys.modules, "stand_in", stand_in)
    monkeypatch.setitem(sys.modules, "stand_in.plugin", plugin)
    monkeypatch.setattr(library, "load", lambda flavour: stand_in)
    monkeypatch.setattr(library, "version", lambda flavour: "10.13.0")
    monkeypatch.setattr(command, "gpu", lambda: ORIN)
    monkeypatch.setattr(plugins, "_registered", [])
    monkeypatch.setattr(registration, "register", lambda *of: told.registered.append(of))
    return told


def test_the_graph_that_is_built_holds_the_kernels(
    halved: Path, tensorrt: SimpleNamespace, mova_command: MovaCommand
) -> None:
    done = mova_command("build", halved, *PLUGINS)
    assert (done.status, done.error.count("\n")) == (2, 1)
    assert "adapter: TensorRT can't read its graph" in done.error
    assert sorted(tensorrt.parsed) == sorted(["combine", *(plugin.name for plugin in registration.PLUGINS)])
    ((shape, dtype, target, plugin, _),) = tensorrt.registered
    assert (shape.channels, shape.grid, dtype, target) == (1024, 8, "bf16", TARGETS["sm_87"])
    assert plugin.__name__ == "stand_in.plugin"
    assert not list(halved.glob("engines/**/*"))


def test_an_engine_with_plugins_has_a_key_of_its_own(halved: Path, tensorrt: SimpleNamespace) -> None:
    opened = Bundle.open(halved)
    target = command.targets_for("tensorrt", None, ORIN)
    plain, held = (
        order.order(opened, "tensorrt", "bf16", target, components=["adapter"], plugins=chosen).all[0]
        for chosen in (False, True)
    )
    assert held.flags == ("no-tf32", f"plugins-{plugins.plugin_version()}", "strongly-typed")
    assert (held.has_plugins, plain.has_plugins) == (True, False)
    assert plain.name != held.name


def test_one_adapter_a_process(halved: Path, tensorrt: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, trt = Bundle.open(halved), library.load("tensorrt")
    for _ in range(2):
        plugins.register_plugins(opened, "bf16", TARGETS["sm_87"], trt)
    assert len(tensorrt.registered) == 1
    with pytest.raises(plugins.ExportError, match="one adapter a process"):
        plugins.register_plugins(opened, "bf16", TARGETS["sm_89"], trt)


def test_a_tensorrt_without_plugins_is_told(halved: Path, tensorrt: SimpleNamespace) -> None:
    old = SimpleNamespace(__name__="older", __version__="10.3.0")
    with pytest.raises(plugins.ExportError, match=r"10\.3\.0 has no ahead-of-time plugins; 10\.8 and later have"):
        plugins.register_plugins(Bundle.open(halved), "bf16", TARGETS["sm_87"], old)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--backend", "tensorrt-rtx", "--target", "sm_86"), "tensorrt-rtx has no ahead-of-time plugins"),
        (("--backend", "tensorrt", "--only", "sam"), "they are the adapter's, which --only leaves out"),
        (("--backend", "tensorrt", "--precision", "fp32"), "kernels multiply in bf16, fp16, not fp32"),
    ],
)
def test_mistakes_are_told_in_one_line(
    options: tuple[str, ...], complaint: str, bundle: Any, tensorrt: SimpleNamespace, mova_command: MovaCommand
) -> None:
    done = mova_command("build", bundle(2), "--plugins", *options)
    assert (done.status, done.error.count("\n")) == (2, 1)
    assert complaint in done.error


def test_a_gpu_without_kernels_is_told(
    halved: Path, tensorrt: SimpleNamespace, mova_command: MovaCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "gpu", lambda: Gpu("T4", "sm_75", "580"))
    done = mova_command("build", halved, *PLUGINS)
    assert done.status == 2
    assert "there are no kernels for sm_75" in done.error
