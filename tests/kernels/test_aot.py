"""Kernels ahead of time, with neither GPU nor torch. In processes of their own: in this one Triton interprets."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mova_kernels
from mova_kernels.aot import _check_parameters, compile_variant, environment, source_digest
from mova_kernels.assembler import addresses_as_always, assemble
from mova_kernels.errors import KernelError
from mova_kernels.targets import TARGETS
from mova_kernels.variants import AdapterShape, padded, problems, variants

PACKAGE = Path(mova_kernels.__file__).parent
FULL = AdapterShape(1024, 1024, 4096, 48, 3, 7, 3, 2730, 256)
TINY = replace(FULL, hidden=64, grid=8, blocks=1)
ODD = AdapterShape(192, 48, 4112, 6, 1, 7, 3, 512, 48)
ORIN = TARGETS["sm_87"]

# fmt: off
NAMES = [
    "cross_attention", "self_attention", "gate_partial", "gate_weights", "squeeze", "excite", "combine", "embed",
    "normalise", "swiglu", "norm_silu", "norm_residual", "convert", "bias_gelu", "bias", "average", "depthwise_norm",
    "scale_channels", "pool",
]
# fmt: on

COMPILE = """
import base64, json, sys
from dataclasses import asdict, replace
from mova_kernels.assembler import addresses_as_always, assemble
from mova_kernels.aot import compile_variant
from mova_kernels.errors import KernelError
from mova_kernels.targets import TARGETS
from mova_kernels.variants import AdapterShape, Variant, variants

def encoded(value):
    return base64.b64encode(value).decode()
"""


def run(script: str, *folders: Path, **variables: str) -> Any:
    """What a script prints as JSON: `folders` come first on its path, then what this process has."""
    path = os.pathsep.join([*map(str, folders), *filter(None, sys.path)])
    variables = environment() | variables | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", COMPILE + script], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def compiled(shape: AdapterShape, capability: str, names: tuple[str, ...], *folders: Path, **variables: str) -> Any:
    """Those variants of a shape, as `Compiled` has them, by name."""
    script = f"""
target = TARGETS[{capability!r}]
made = [compile_variant(one, target) for one in variants({shape!r}, "bf16", target) if one.name in {names!r}]
json.dump({{one.name: asdict(replace(one, cubin=encoded(one.cubin))) for one in made}}, sys.stdout)
"""
    return run(script, *folders, **variables)


# ---- what is compiled ----


def test_every_kernel_that_an_adapter_launches_has_a_variant() -> None:
    for target in TARGETS.values():
        for dtype in ("bf16", "fp16"):
            assert sorted(one.name for one in variants(FULL, dtype, target)) == sorted(NAMES)


@pytest.mark.parametrize("target", TARGETS.values(), ids=str)
def test_slices_agree_between_the_kernels_that_hand_them_on(target: Any) -> None:
    for shape in (FULL, ODD):
        sizes = {one.name: one.constants for one in variants(shape, "bf16", target)}
        for giver, taker in (("gate_partial", "gate_weights"), ("squeeze", "excite")):
            given = sizes[giver]
            assert sizes[taker]["SLICES"] == sum(-(-given[axis] // given["BLOCK_K"]) for axis in ("CT", "C"))
            assert sizes[taker]["HID"] == given["HID"]
        assert sizes["swiglu"]["FP"] == padded(shape.feed_forward) <= sizes["swiglu"]["BLOCK"]


def test_what_may_be_odd_is_not_promised_to_be_aligned() -> None:
    for one in variants(ODD, "bf16", ORIN):
        types = dict(one.signature)
        assert set(one.aligned) <= set(types)
        integers = {name for name in one.aligned if not types[name].startswith("*")}
        allowed = {"count"} if types.get("count") == "i64" else set()
        assert integers <= allowed | {"query_pair", "query_row", "key_pair", "key_row"}
        for name in ("gates", "selected", "pair_row", "pair_image", "pair_expert"):
            assert name not in one.aligned
        assert one.name != "gate_weights" or "out" not in one.aligned


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"channels": 1000}, "1000 channels are no whole number of heads of 64"),
        ({"channels": 0}, "0 channels"),
        ({"text_channels": 1025}, "text_channels 1025 is no multiple of 16"),
        ({"hidden": 100}, "hidden 100 is no multiple of 16"),
        ({"squeezed": 8}, "squeezed 8 is no multiple of 16"),
        ({"grid": 7}, "a grid of 7 can't be halved"),
        ({"top_k": 8}, "of 7 experts 8 can't be the largest"),
    ],
)
def test_sizes_that_have_no_kernels_are_told(change: dict[str, int], problem: str) -> None:
    shape = replace(FULL, **change)
    (found,) = problems(shape)
    assert problem in found
    with pytest.raises(ValueError, match=re.escape(problem)):
        variants(shape, "bf16", ORIN)


@pytest.mark.parametrize("target", TARGETS.values(), ids=str)
def test_attention_is_cut_so_that_nothing_is_masked_where_that_is_possible(target: Any) -> None:
    for grid, even in ((48, True), (24, True), (8, True), (6, False), (46, False)):
        for one in variants(replace(FULL, grid=grid), "bf16", target):
            if "BIASES" in one.constants:
                blocks = [one.constants[name] for name in ("BLOCK_M", "BLOCK_N")]
                assert one.constants["EVEN"] == even == (not any(grid**2 % block for block in blocks))
                assert grid > 8 or blocks[0] == 64


def test_the_digest_is_of_the_sources_and_of_what_is_compiled(tmp_path: Path) -> None:
    ours = variants(FULL, "bf16", ORIN)
    assert source_digest(ours) == source_digest(variants(FULL, "bf16", ORIN))
    assert source_digest(ours) != source_digest(variants(FULL, "fp16", ORIN))
    script = (
        "import sys; from mova_kernels.aot import source_digest; from mova_kernels.targets import TARGETS\n"
        "from mova_kernels.variants import AdapterShape, variants\n"
        f"print(source_digest(variants({FULL!r}, 'bf16', TARGETS['sm_87'])))"
    )
    digests = []
    for name, change in (("same", ""), ("other", "\n# changed\n")):
        copy = shutil.copytree(PACKAGE, tmp_path / name / "mova_kernels", ignore=shutil.ignore_patterns("__pycache__"))
        with (copy / "rows" / "norm.py").open("a", encoding="utf-8") as file:
            file.write(change)
        variables = environment() | {"PYTHONPATH": str(tmp_path / name)}
        done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=True)
        digests.append(done.stdout.strip())
    assert digests[0] == source_digest(ours) != digests[1]


# ---- the same bytes everywhere ----

SAMPLE = ("cross_attention", "combine", "gate_weights", "depthwise_norm", "embed", "convert")


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any], list[Path]]:
    """The sample from two copies of the package."""
    root = tmp_path_factory.mktemp("twice")
    folders = [root / "one", root / "elsewhere" / "two"]
    for folder in folders:
        shutil.copytree(PACKAGE, folder / "mova_kernels", ignore=shutil.ignore_patterns("__pycache__"))
    first = compiled(FULL, "sm_87", SAMPLE, folders[0], PYTHONHASHSEED="1", TRITON_CACHE_DIR=str(root / "cache"))
    assert not (root / "cache").exists()  # what is in there decides nothing
    second = compiled(FULL, "sm_87", SAMPLE, folders[1], PYTHONHASHSEED="2")
    return first, second, folders


def test_same_source_same_bytes(twice: Any) -> None:
    first, second, _ = twice
    assert set(first) == set(SAMPLE)
    for name in SAMPLE:
        assert first[name]["cubin"] == second[name]["cubin"], name
        assert first[name] == second[name]


def test_the_assembler_breaks_ties_alike() -> None:
    """Left alone it swaps two registers of this kernel every other time."""
    with addresses_as_always() as fixed:
        if not fixed:
            pytest.skip("this container forbids fixed addresses")
    script = f"""
import hashlib
from mova_kernels.assembler import assemble
from triton.backends.nvidia.compiler import get_ptxas
target = TARGETS["sm_110"]
one = compile_variant(variants({TINY!r}, "bf16", target)[0], target)
cubins = [one.cubin, *(assemble(one.ptx, get_ptxas(110).path).cubin for _ in range(5))]
json.dump([hashlib.sha256(cubin).hexdigest() for cubin in cubins], sys.stdout)
"""
    assert len({*run(script), *run(script, LONG="x" * 999)}) == 1


def test_no_path_and_no_line_is_in_a_cubin(twice: Any) -> None:
    import base64

    first, _, folders = twice
    for name, one in first.items():
        cubin = base64.b64decode(one["cubin"])
        assert cubin.startswith(b"\x7fELF")
        for secret in (str(folders[0]).encode(), b"kernel.py", b"mova_kernels", b"/tmp", b".debug_line"):
            assert secret not in cubin, (name, secret)
        assert "\t.loc" not in one["ptx"]
        assert "kernel.py" not in one["ptx"]


def test_variables_that_change_code_are_not_passed_on() -> None:
    hostile = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "TRITON_DISABLE_LINE_INFO": "0",
        "DISABLE_LLVM_OPT": "1",
        "DISABLE_PTXAS_OPT": "1",
        "PTXAS_OPTIONS": "-O0",
        "LLVM_PASS_PLUGIN_PATH": "x",
        "PYTHONPATH": "x",
    }
    assert set(environment(hostile)) <= {"PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR"}
    assert environment(hostile)["PATH"] == os.environ["PATH"]


def test_compiling_needs_neither_torch_nor_a_gpu() -> None:
    script = f"""
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "numpy", "mova_export", "mova_runtime"):
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Blocker())
made = [compile_variant(one, TARGETS["sm_87"]) for one in variants({FULL!r}, "bf16", TARGETS["sm_87"])
        if one.name in ("convert", "gate_partial", "pool")]
json.dump([len(one.cubin) for one in made], sys.stdout)
"""
    assert len(run(script)) == 3


# ---- what launching takes ----


def test_loads_and_stores_are_wide(twice: Any) -> None:
    first, _, _ = twice
    for name in ("convert", "depthwise_norm", "embed"):
        accesses = re.findall(r"\b(?:ld|st)\.global[\w.:]*", first[name]["ptx"])
        assert accesses
        assert all(".v4.b32" in access for access in accesses), (name, accesses)
    for name in ("cross_attention", "combine"):
        copies = re.findall(r"cp\.async\.c[ag]\.shared\.global \[[^]]*\], \[[^]]*\], (\w+)", first[name]["ptx"])
        assert copies
        assert {int(size, 0) for size in copies} == {16}, name


TOYS = """
import triton
import triton.language as tl


@triton.jit
def partly(x, unused, one, out, count, scale, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    tl.store(out + i, tl.load(x + i, mask=i < count) * scale, mask=i < count)


@triton.jit
def described(x, out, rows, B: tl.constexpr):
    blocks = tl.make_tensor_descriptor(x, [rows, B], [B, 1], [16, B])
    i = tl.arange(0, 16)[:, None] * B + tl.arange(0, B)[None, :]
    tl.store(out + i, blocks.load([tl.program_id(0) * 16, 0]))
"""


def toy(name: str, signature: dict[str, str], aligned: tuple[str, ...] = (), target: str = "TARGETS['sm_90']") -> str:
    variant = f"Variant('toy', 'toys:{name}', {tuple(signature.items())!r}, {{'B': 64}}, 4, 2, {aligned!r})"
    return f"compile_variant({variant}, {target})"


PARTLY = {"x": "*fp32", "unused": "*bf16", "one": "i32", "out": "*fp32", "count": "i64", "scale": "fp32"}

COMPILED = {
    "partly": toy("partly", PARTLY),
    "described": toy("described", {"x": "*fp32", "out": "*fp32", "rows": "i32"}, ("x",)),
    "another order": toy("partly", {"unused": "*bf16", "x": "*fp32", **PARTLY}),
    "an unknown target": toy(
        "partly", PARTLY, target="replace(TARGETS['sm_90'], capability='sm_199', devices='RTX 99')"
    ),
    "a number to store to": toy("partly", {**PARTLY, "out": "fp32"}),
    "little shared memory": f"""compile_variant(
        variants({FULL!r}, 'bf16', TARGETS['sm_87'])[0], replace(TARGETS['sm_87'], shared=9999)
    )""",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each became, or how it was refused; one process compiles them one after another."""
    folder = tmp_path_factory.mktemp("toys")
    (folder / "toys.py").write_text(TOYS, encoding="utf-8")
    script = f"""
def made(compiled):
    try:
        return asdict(replace(compiled(), cubin=''))
    except KernelError as error:
        return str(error)

cases = {{{", ".join(f"{name!r}: lambda: {code}" for name, code in COMPILED.items())}}}
json.dump({{name: made(compiled) for name, compiled in cases.items()}}, sys.stdout)
"""
    found: dict[str, Any] = run(script, folder)
    return found


def test_no_argument_vanishes(made: dict[str, Any]) -> None:
    partly = made["partly"]
    assert partly["symbol"] == "partly"
    assert [tuple(argument) for argument in partly["arguments"]] == list(PARTLY.items())
    (taken,) = re.findall(r"\.entry partly\((.*?)\)", partly["ptx"], re.DOTALL)
    assert re.findall(r"\.param \.(\w+)", taken) == ["u64", "u64", "u32", "u64", "u64", "f32", "u64", "u64"]
    assert partly["scratch"] == {"global": 0, "profile": 0}
    assert partly["constants"] == {"B": 64}
    assert (partly["warps"], partly["shared"], partly["spills"]) == (4, 0, 0)
    assert re.fullmatch(r"\d+\.\d+", partly["toolkit"])
    assert partly["registers"] > 8


def test_an_entry_that_takes_something_else_is_refused() -> None:
    (convert,) = [one for one in variants(FULL, "bf16", ORIN) if one.name == "convert"]
    entry = (
        ".visible .entry convert(\n.param .u64 .ptr .global .align 1 a,\n.param .u64 b,\n{}.param .u32 d\n)\n{{ret;}}"
    )
    with pytest.raises(KernelError, match="its entry takes u64, u64, u32, not u64, u64, u64, u64, u64"):
        _check_parameters(convert, entry.format(""))
    with pytest.raises(KernelError, match="its entry takes , not u64"):
        _check_parameters(convert, "")


def test_scratch_memory_that_a_kernel_needs_is_told(made: dict[str, Any]) -> None:
    assert made["described"]["scratch"]["global"] >= 128
    assert made["described"]["scratch"]["profile"] == 0


def test_arguments_of_another_order_are_refused(made: dict[str, Any]) -> None:
    assert made["another order"] == (
        "toy: partly takes x, unused, one, out, count, scale, B, not unused, x, one, out, count, scale, B"
    )


def test_spills_are_counted() -> None:
    script = f"""
(one,) = [one for one in variants({FULL!r}, "bf16", TARGETS["sm_87"]) if one.name == "embed"]
made = compile_variant(replace(one, num_warps=1, constants={{**one.constants, "ROWS": 8}}), TARGETS["sm_87"])
json.dump([made.registers, made.spills, made.warps], sys.stdout)
"""
    registers, spills, warps = run(script)
    assert (registers <= 255, warps) == (True, 1)
    assert spills > 100


def test_too_much_shared_memory_is_refused(made: dict[str, Any]) -> None:
    wanted = r"cross_attention: needs \d+ bytes of shared memory, sm_87 \(Jetson Orin\) has 9999"
    assert re.fullmatch(wanted, made["little shared memory"])


def test_a_target_that_triton_does_not_know_is_told_with_its_version(made: dict[str, Any]) -> None:
    import triton

    told = made["an unknown target"]
    assert told.startswith(f"toy: Triton {triton.__version__} can't compile it for sm_199 (RTX 99) (")
    assert "'sm_199a' is not defined" in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("sm_87", "sm_199"), "'sm_199' is not defined"),
        (("ret;", "return;"), "error"),
        ((".entry", ".func"), "ptxas said nothing of registers and spills"),
    ],
)
def test_what_the_assembler_does_not_take_is_told(change: tuple[str, str], complaint: str, tmp_path: Path) -> None:
    from triton.backends.nvidia.compiler import get_ptxas

    ptx = ".version 8.0\n.target sm_87\n.address_size 64\n.visible .entry k(.param .u64 x)\n{\nret;\n}\n"
    path = get_ptxas(87).path
    assert assemble(ptx, path).registers > 0
    with pytest.raises(KernelError, match=complaint) as told:
        assemble(ptx.replace(*change), path)
    assert "\n" not in str(told.value)
    with pytest.raises(FileNotFoundError):
        assemble(ptx, str(tmp_path / "ptxas"))


def test_what_the_compiler_does_not_take_is_told(made: dict[str, Any]) -> None:
    told = made["a number to store to"]
    assert told.startswith("toy: Triton ")
    assert "\n" not in told


def test_an_interpreted_kernel_can_not_be_compiled() -> None:
    script = f"""
try:
    compile_variant(variants({FULL!r}, "bf16", TARGETS["sm_87"])[0], TARGETS["sm_87"])
except KernelError as error:
    json.dump(str(error), sys.stdout)
"""
    told = run(script, TRITON_INTERPRET="1")
    assert "TRITON_INTERPRET was set when mova_kernels.cross_attention.kernel was imported" in told
    if os.environ.get("TRITON_INTERPRET") == "1":
        with pytest.raises(KernelError, match="TRITON_INTERPRET was set"):
            compile_variant(variants(FULL, "bf16", ORIN)[0], ORIN)
