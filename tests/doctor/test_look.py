"""`mova doctor` asks libraries in processes of their own, whatever they do there."""

import json
import subprocess
import sys
import time

import pytest

from bundle_copy import copy_bundle, edited_manifest, rewrite
from mova_export.doctor import isolated, libraries
from mova_export.doctor.isolated import ask
from mova_export.doctor.look import look
from mova_export.doctor.plan import plan
from mova_runtime.bundle import Bundle
from mova_runtime.engines import abilities, choice
from mova_runtime.engines.nvidia import Gpu
from mova_runtime.engines.trt import library, lookup

CRASH = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
HANG = "import time; time.sleep(600)"


def test_each_question_has_its_own_end():
    replies = ask(
        {
            "well": ("print('noise'); answer({'sum': 1 + int(sys.argv[1])})", "2"),
            "raises": ("raise ImportError('libcudart.so.13: cannot open')",),
            "crashes": (CRASH,),
            "leaves": ("sys.exit(3)",),
        }
    )
    assert list(replies) == ["well", "raises", "crashes", "leaves"]
    assert replies["well"].found == {"sum": 3}
    assert replies["raises"].trouble == "ImportError: libcudart.so.13: cannot open"
    assert replies["crashes"].trouble == "ended by SIGSEGV"
    assert replies["leaves"].trouble == "no reason given"


def test_who_hangs_is_ended():
    assert ask({"hangs": (HANG,)}, patience=0.5)["hangs"].trouble == "hangs: it did not answer in time"
    with isolated.Question(HANG) as question:
        assert question.reply(time.monotonic()).trouble
        process = question._process
    assert process.poll() is not None


@pytest.fixture
def kinds(monkeypatch):
    """kinds(name=code): these libraries answer so."""

    def set_codes(**codes):
        for name, code in codes.items():
            kind = libraries.KINDS[name.replace("_", "-")]
            monkeypatch.setitem(libraries.KINDS, name.replace("_", "-"), libraries.Kind(*kind_parts(kind), code))

    def kind_parts(kind):
        return kind.module, kind.packages

    return set_codes


def test_a_broken_library_serves_nothing_and_openvino_takes_over(kinds, bundle):
    kinds(onnxruntime="raise OSError('libgomp.so.1: no such file')")
    found = look(bundle(2))
    assert found.broken == {"onnxruntime": "OSError: libgomp.so.1: no such file"}
    assert found.unusable == ("ort", "ort-cuda")
    assert "ort" not in found.able
    assert found.plan.backend == "openvino"
    assert {part.by for part in found.plan.parts} == {"openvino:fp32"}
    assert found.runs


def test_nothing_usable_is_told_with_status_1(kinds, bundle, mova_command):
    kinds(onnxruntime=CRASH, openvino=CRASH)
    done = mova_command("doctor", bundle(2))
    assert (done.status, done.error) == (1, "")
    assert "can't be used: ended by SIGSEGV" in done.output
    assert done.output.endswith("  pip install --force-reinstall onnxruntime\n")


@pytest.mark.parametrize("trouble", [CRASH, "raise OSError('no')"])
def test_a_broken_driver_is_asked_once(monkeypatch, bundle, trouble):
    monkeypatch.setattr(libraries, "_DRIVER", trouble)
    found = look(bundle(2))
    assert found.driver_trouble
    assert found.abilities["ort-cuda"] == found.plan.ways["tensorrt"] == "NVIDIA's driver does not answer"
    assert found.plan.backend == "ort", "auto would ask the driver"
    assert found.runs


def test_what_the_driver_says_of_its_gpu(kinds, monkeypatch):
    told = {"name": "Orin", "capability": "sm_87", "driver": "CUDA 12.6", "shares_memory": True, "memory": 8 << 30}
    monkeypatch.setattr(libraries, "_DRIVER", f"answer({told})")
    kinds(cuda_core="answer(['9.9', ''])", nvmath="raise ImportError('libcublas.so.12')")
    found = look()
    assert found.gpu == Gpu("Orin", "sm_87", "CUDA 12.6", shares_memory=True)
    assert found.gpu_memory == 8 << 30
    assert found.libraries["cuda-core"].version == "9.9"
    assert found.broken == {"nvmath": "ImportError: libcublas.so.12"}
    assert found.unusable == ("cuda",)


def test_the_systems_tensorrt_is_seen(monkeypatch, tmp_path):
    there = tmp_path / "python3.10" / "dist-packages" / "tensorrt"
    there.mkdir(parents=True)
    monkeypatch.setattr("mova_export.doctor.look.SYSTEM", tmp_path)
    assert look().system_tensorrt == str(there)


def test_the_command_on_this_machine(mova_command, bundle):
    done = mova_command("doctor")
    assert (done.status, done.error) == (0, "")
    for word in ("Python", "onnxruntime", "tokenizers", "OpenVINO", "bf16", "disk of the cache", "next: "):
        assert word in done.output
    done = mova_command("doctor", bundle(2), "--json")
    told = json.loads(done.output)
    assert (done.status, told["runs"]) == (0, True)
    assert {part["component"] for part in told["plan"]["parts"]} == set(Bundle.open(bundle(2)).manifest.components)
    assert told["next"]["command"].startswith("mova ")
    assert told["room"]["together"][0] >= told["room"]["least"][0] > 0


def test_a_half_copied_bundle(mova_command, bundle, tmp_path):
    copied = copy_bundle(bundle(2), tmp_path / "bundle")
    file = next(file for file in Bundle.open(copied).files() if file.path.endswith(".npy"))
    (copied / file.path).unlink()
    done = mova_command("doctor", copied)
    assert done.status == 1
    assert f"missing or cut off: {file.path}" in done.output
    assert done.output.endswith(f"  mova verify {copied}\n")


def test_a_manifest_that_can_not_be_read(mova_command, bundle, tmp_path):
    copied = copy_bundle(bundle(2), tmp_path / "bundle")
    file = copied / "manifest.json"
    rewrite(file, file.read_bytes()[:1000])
    done = mova_command("doctor", copied)
    assert (done.status, done.error) == (1, "")
    assert f"can't be opened: {file}: not valid JSON (" in done.output
    assert "what can run here" in done.output
    assert done.output.endswith(f"  mova verify {copied}\n")
    told = json.loads(mova_command("doctor", copied, "--json").output)
    assert "not valid JSON" in told["bundle_trouble"]
    assert told["runs"] is False


def test_a_language_model_in_a_precision_of_its_own(bundle, tmp_path):
    copied = copy_bundle(bundle(2), tmp_path / "bundle")
    with edited_manifest(copied) as manifest:
        for name, component in manifest["components"].items():
            wanted = "int4" if name == "llm" else "fp32"
            component["artifacts"] = [component["artifacts"][0] | {"precision": wanted}]
    ways = plan(Bundle.open(copied)).ways
    assert ways["ort"] == "fp32 without llm, int4 for llm alone"
    assert ways["openvino"].startswith("fp32 without llm")


def test_what_is_no_bundle(mova_command, tmp_path):
    done = mova_command("doctor", tmp_path)
    assert (done.status, done.output) == (2, "")
    assert "not a bundle" in done.error


def test_torch_is_never_imported():
    code = "".join(f"{text}\n" for kind in libraries.KINDS.values() for text in kind.code.splitlines())
    assert "torch" not in code
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from mova_export.cli import main\n"
        "status = main(['doctor'])\n"
        "assert sys.modules['torch'] is None\n"
        "sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


RTX = Gpu("NVIDIA RTX 4090", "sm_89", "580.65.06, CUDA 13.0")


@pytest.fixture
def machine(monkeypatch):
    """machine(*modules, gpu): what is installed here, and on what; asked in this process."""

    def become(*modules, gpu=None):
        monkeypatch.setattr(abilities, "has_module", lambda name: name in modules)
        monkeypatch.setattr(abilities, "version", lambda package: "1" if package == "onnxruntime-gpu" else None)
        for module in (abilities, choice, lookup):
            monkeypatch.setattr(module, "gpu", lambda: gpu)
        monkeypatch.setattr("mova_export.doctor.plan.gpu", lambda: gpu)
        monkeypatch.setattr(library, "version", lambda flavour: "1.7.1.116")

    return become


def test_the_plan_of_a_machine_with_a_gpu_and_no_engines(machine, bundle):
    machine("onnxruntime", "tensorrt_rtx", "cuda.bindings", "cuda.core", "nvmath", gpu=RTX)
    found = plan(Bundle.open(bundle(2)))
    assert {part.by for part in found.parts} == {"ort-cuda:fp32"}
    assert found.ways["tensorrt-rtx"] == "no engines for sm_89"
    assert found.ways["cuda"] == "no kernels for sm_89"
    assert found.runs
    assert all(part.held[1] > 0 for part in found.parts), "on the GPU"


def test_the_plan_of_a_machine_with_nothing(machine, bundle):
    machine()
    found = plan(Bundle.open(bundle(2)))
    assert not found.runs
    assert all("pip install onnxruntime" in part.lacks for part in found.parts)


def test_a_shorter_context_takes_less(mova_command, bundle):
    def run_of_the_language_model(*more):
        told = json.loads(mova_command("doctor", bundle(2), "--json", *more).output)
        (part,) = [part for part in told["plan"]["parts"] if part["component"] == "llm"]
        return sum(part["run"]), told["next"]["command"]

    assert "--max-context 1" in run_of_the_language_model("--max-context", 300)[1]
    (whole, _), (half, command) = run_of_the_language_model(), run_of_the_language_model("--max-context", 1500)
    assert half < whole
    assert command.endswith(" --max-context 1500")
