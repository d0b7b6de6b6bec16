"""The one command that `mova doctor` tells to type, on machines that this one is made to look like."""

from dataclasses import replace

import pytest

from doctor_machines import GIB, MACHINE, ORIN, RTX, libraries, parts
from mova_export.doctor.advice import advise
from mova_export.doctor.plan import Part, Plan
from mova_export.doctor.report import lines

RUN = 'mova run /bundle --image photo.jpg --question "What is on the table?"'
LACKS = "backend ort: pip install onnxruntime (extra `cpu`)"


def nothing_runs(lacks):
    return Plan("auto", lacks, parts("", lacks=lacks), {})


def asked(found):
    """The command, which is also the last line of the report."""
    advice = advise(found)
    *_, why, last = lines(found, advice)
    assert (why, last) == (f"next: {advice.why}", f"  {advice.command}")
    return advice.command


def test_where_all_is_ready_it_is_run(found):
    assert asked(found()) == RUN
    assert found().runs


def test_what_was_not_checked_is_verified_first(found):
    once = Plan("auto", "", parts(checked=False), {})
    assert asked(found(plan=once)) == "mova verify /bundle"
    assert asked(found(plan=Plan("auto", "", parts(measured=False), {}))) == "mova verify /bundle"
    assert asked(found(plan=replace(once, backend="openvino"))) == "mova verify /bundle --backend openvino"
    assert asked(found(bundle="/my bundle", plan=once)) == "mova verify '/my bundle'"


def test_what_can_only_be_measured(found):
    plan = Plan("auto", "", tuple(part for part in parts() if part.component != "llm"), {})
    advice = advise(found(plan=plan))
    assert advice.command == "mova bench /bundle"
    assert "exported without llm" in advice.why


def test_without_a_bundle(found):
    assert asked(found(bundle="", plan=None)) == "mova demo"
    assert asked(found(bundle="", plan=None, missing=("torch",))) == "mova doctor BUNDLE"
    nothing = found(bundle="", plan=None, libraries=libraries(), able=())
    assert asked(nothing) == "pip install onnxruntime"
    assert not nothing.runs


def test_nothing_is_installed_for_a_bundle(found):
    lacking = found(libraries=libraries(), able=(), plan=nothing_runs(LACKS))
    assert asked(lacking) == "pip install onnxruntime"
    assert not lacking.runs


@pytest.mark.parametrize("bundle", ["", "/bundle"])
def test_a_library_that_cannot_be_used(found, bundle):
    broken = libraries(onnxruntime="ImportError: libgomp.so.1")
    one = found(bundle=bundle, libraries=broken, able=(), plan=nothing_runs("it") if bundle else None)
    assert asked(one) == "pip install --force-reinstall onnxruntime"
    assert "libgomp.so.1" in advise(one).why
    assert any("onnxruntime" in line and "libgomp.so.1" in line for line in lines(one, advise(one)))


def test_two_that_overwrite_each_other(found):
    both = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime"
    assert asked(found(twice=True)) == both
    assert asked(found(twice=True, gpu=RTX)) == f"{both}-gpu"


@pytest.mark.parametrize("name", ["numpy", "pillow", "tokenizers"])
def test_what_nothing_runs_without(found, name):
    without = found(libraries={**libraries("onnxruntime"), name: libraries()["openvino"]})
    assert asked(without) == f"pip install {name}"
    assert not without.runs
    broken = found(libraries=libraries("onnxruntime", **{name: "ended by SIGILL"}))
    assert asked(broken) == f"pip install --force-reinstall {name}"
    assert not broken.runs


def test_a_driver_that_does_not_answer(found):
    silent = found(driver_trouble="hangs", plan=nothing_runs("it"))
    assert asked(silent) == "nvidia-smi"
    openvino = Plan("openvino", "as asked", parts("openvino:fp32"), {})
    served = found(driver_trouble="hangs", plan=openvino)
    assert asked(served) == f"{RUN} --backend openvino"
    assert any("driver does not answer (hangs)" in line for line in lines(served, advise(served)))


def test_a_plan_that_was_not_found_out(found):
    crashed = found(plan=None, plan_trouble="ended by SIGSEGV")
    assert asked(crashed) == "mova verify /bundle --backend ort"
    assert "SIGSEGV" in advise(crashed).why
    assert not crashed.runs


def test_what_an_error_says_to_do(found):
    build = "mova build /bundle --backend tensorrt --target sm_87 --precision fp16 --only sam"
    assert asked(found(plan=nothing_runs(f"no engine of 'sam'; run `{build}`"))) == build
    wrong = "ort: cosine 0.4; remembered in FILE, `mova verify` checks again"
    assert asked(found(plan=nothing_runs(wrong))) == "mova verify /bundle"


def test_a_precision_that_nothing_here_runs(found):
    lacks = nothing_runs("nothing here runs bf16")
    with_bf16 = {"plan": lacks, "precisions": ("bf16",)}
    assert asked(found(**with_bf16)) == "pip install openvino"
    old = replace(MACHINE, instructions={"bf16": False, "fp16": False, "int8": False})
    assert asked(found(**with_bf16, machine=old)) == "mova export CHECKPOINT --out BUNDLE --precision fp32"


def test_a_copy_that_lacks_files(found):
    half = found(damaged=("components/sam/fp32/model.onnx",))
    assert asked(half) == "mova verify /bundle"
    assert advise(half).why.startswith("components/sam/fp32/model.onnx is missing or cut off: copy the bundle again")
    assert not half.runs
    assert "cut off, and 2 more: copy" in advise(found(damaged=("a", "b", "c"))).why


def test_a_bundle_that_can_not_be_opened(found):
    broken = found(bundle_trouble="/bundle/manifest.json: not valid JSON (line 1)", plan=None)
    assert asked(broken) == "mova verify /bundle"
    assert "copy or export it again" in advise(broken).why
    newer = found(bundle_trouble="/bundle: bundle format 9 is newer than this; upgrade mova-export", plan=None)
    assert asked(newer) == "pip install --upgrade mova-export"
    assert not broken.runs


def test_a_gpu_that_nothing_uses(found):
    abilities = {"ort": "fp32", "ort-cuda": "pip install onnxruntime-gpu (extra `gpu`), without onnxruntime beside it"}
    bare = found(gpu=RTX, abilities=abilities)
    assert asked(bare) == "pip uninstall -y onnxruntime && pip install onnxruntime-gpu 'cuda-bindings<14'"
    bindings = found(gpu=RTX, libraries=libraries("onnxruntime", "tensorrt"))
    assert asked(bindings) == "pip install 'cuda-bindings<14'"
    served = Plan("auto", "", parts("ort-cuda:fp32", held=(0, GIB), run=(0, GIB)), {})
    assert asked(found(gpu=RTX, gpu_memory=24 * GIB, plan=served)) == RUN


def test_engines_to_build(found):
    here = {"libraries": libraries("onnxruntime", "tensorrt-rtx", "cuda-bindings"), "able": ("ort", "tensorrt-rtx")}
    assert asked(found(gpu=RTX, **here)) == "mova build /bundle --backend tensorrt-rtx --target sm_89"
    assert asked(found(gpu=RTX, **here, precisions=("int8",))) == RUN, "TensorRT takes no int8 graphs"
    built = Plan("auto", "", parts("tensorrt-rtx:fp32"), {})
    assert asked(found(gpu=RTX, **here, plan=built)) == RUN


def test_a_jetson(found):
    bindings = libraries("onnxruntime", "cuda-bindings")
    assert asked(found(gpu=ORIN)) == "pip install 'cuda-bindings<13'"
    assert asked(found(gpu=ORIN, libraries=bindings)) == "sudo apt-get install nvidia-jetpack python3-libnvinfer"
    unseen = found(gpu=ORIN, libraries=bindings, system_tensorrt="/usr/lib/python3.10/dist-packages/tensorrt")
    assert asked(unseen) == "python3 -m venv --system-site-packages ~/mova"
    assert "/usr/lib/python3.10/dist-packages/tensorrt" in advise(unseen).why
    here = {"libraries": {**bindings, "tensorrt": bindings["numpy"]}, "able": ("ort", "tensorrt")}
    assert asked(found(gpu=ORIN, **here)) == "mova build /bundle --backend tensorrt"


def with_memory(available):
    return replace(MACHINE, available=int(available * GIB))


def test_memory_for_one_engine_at_a_time(found):
    """Five of 1 GiB, and half a GiB more for the one that runs: 5.5 at once, 1.5 in turn."""
    assert asked(found(machine=with_memory(5.5))) == RUN
    tight = found(machine=with_memory(5))
    assert asked(tight) == f"{RUN} --memory-budget 4096MiB"
    assert tight.runs
    assert any("fits one engine at a time" in line for line in lines(tight, advise(tight)))


def test_memory_for_nothing(found):
    small = found(machine=with_memory(1))
    assert asked(small) == "mova export CHECKPOINT --out BUNDLE --precision int4"
    assert not small.runs
    assert asked(found(machine=with_memory(1), precisions=("fp32", "int8"))) == "mova verify /bundle --precision int8"


def test_memory_of_a_gpu(found):
    on_gpu = Plan("auto", "", parts("ort-cuda:fp32", held=(0, GIB), run=(0, GIB // 2), loading=(0, GIB)), {})
    tight = found(gpu=RTX, gpu_memory=5 * GIB, plan=on_gpu)
    assert asked(tight) == f"{RUN} --device-memory-budget 4096MiB"
    shared = found(gpu=replace(RTX, shares_memory=True), gpu_memory=99 * GIB, plan=on_gpu, machine=with_memory(5))
    assert asked(shared) == f"{RUN} --memory-budget 4096MiB", "one memory for both"


def test_the_report_tells_what_it_was_asked_for(found):
    part = Part("sam", ("fp32",), "ort:fp32", "", False, False, (GIB, 0), (0, 0), (GIB, 0))
    lacking = Part("llm", ("int4",), "ort:int4", "is missing")
    one = found(plan=Plan("auto", "why", (part, lacking), {"ort": "fp32"}), gpu=RTX, gpu_memory=24 * GIB)
    text = "\n".join(lines(one, advise(one)))
    told = ("NVIDIA RTX 4090, sm_89, 24.0 GiB", "~1.0 GiB", "can't run: is missing", "int8: yes", "guessed")
    for word in told:
        assert word in text
