"""Kernels compiled ahead of time: a cubin, and everything that launching it takes. Needs neither a GPU nor torch."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from mova_kernels.assembler import assemble
from mova_kernels.errors import KernelError
from mova_kernels.targets import Target
from mova_kernels.variant import MULTIPLE, Variant

_HIDDEN = ("global", "profile")
"""Pointers to scratch memory that Triton appends to a kernel's arguments."""

_PTX_TYPES = {"i32": "u32", "i64": "u64", "fp32": "f32"}

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR")


@dataclass(frozen=True)
class Compiled:
    """A variant's machine code.

    name: the variant's; symbol: of the entry; arguments: (name, Triton's type), in order; scratch: the hidden pointers
    that follow them, with the bytes each needs, 0 being passed where that is 0; shared: bytes of dynamic shared memory;
    warps: a block has 32 · warps threads; constants: what it was compiled with; registers, spills: of a thread, and the
    bytes it spills; toolkit: version of the assembler, such as "12.8".
    """

    name: str
    symbol: str
    cubin: bytes
    arguments: tuple[tuple[str, str], ...]
    scratch: dict[str, int]
    shared: int
    warps: int
    constants: dict[str, int]
    registers: int
    spills: int
    ptx: str
    toolkit: str


def environment(of: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment to compile in: without the many variables that change what Triton, LLVM or ptxas make."""
    return {name: of[name] for name in _PASSED_ON if name in of}


def source_digest(variants: Sequence[Variant]) -> str:
    """Hexadecimal sha256 of what variants are compiled from: every source file of this package, and what they are."""
    digest = hashlib.sha256(repr(variants).encode())
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def compile_variant(variant: Variant, target: Target) -> Compiled:
    """Compile one kernel.

    Same source, same bytes: nothing is taken from Triton's cache, and no path or line goes into the cubin. Variables
    such as DISABLE_LLVM_OPT change code all the same; a process started with `environment` has none.

    Raises:
        KernelError: this Triton can't compile it for the target, the kernel's arguments are not the variant's, or it
            needs more shared memory than the target has.
    """
    kernel = _kernel(variant)
    names = [name for name, _ in variant.signature]
    source = ASTSource(
        fn=kernel,
        signature={**dict(variant.signature), **dict.fromkeys(variant.constants, "constexpr")},
        constexprs=dict(variant.constants),
        attrs={(names.index(name),): [["tt.divisibility", MULTIPLE]] for name in variant.aligned if name in names},
    )
    options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages, "enable_fp_fusion": True}
    assembler = get_ptxas(target.arch)
    try:
        with _to_ptx():
            made = triton.compile(source, target=GPUTarget("cuda", target.arch, 32), options=options)
        metadata, ptx = made.metadata, made.asm["ptx"]
        assembled = assemble(ptx, assembler.path)
    except OSError:
        raise
    except Exception as error:  # the front end's, a pass's, the assembler's
        version = triton.__version__
        raise KernelError(
            f"{variant.name}: Triton {version} can't compile it for {target} ({_reason(error)})"
        ) from error
    if metadata.shared > target.shared:
        raise KernelError(
            f"{variant.name}: needs {metadata.shared} bytes of shared memory, {target} has {target.shared}"
        )
    _check_parameters(variant, ptx)
    return Compiled(
        name=variant.name,
        symbol=metadata.name,
        cubin=assembled.cubin,
        arguments=variant.signature,
        scratch={"global": metadata.global_scratch_size, "profile": metadata.profile_scratch_size},
        shared=metadata.shared,
        warps=metadata.num_warps,
        constants={name: int(value) for name, value in variant.constants.items()},
        registers=assembled.registers,
        spills=assembled.spills,
        ptx=ptx,
        toolkit=assembler.version,
    )


def _kernel(variant: Variant) -> Any:
    module, _, function = variant.kernel.partition(":")
    kernel = getattr(importlib.import_module(module), function)
    if not isinstance(kernel, triton.JITFunction):
        raise KernelError(f"{variant.name}: TRITON_INTERPRET was set when {module} was imported: nothing to compile")
    wanted = [*(name for name, _ in variant.signature), *variant.constants]
    if list(kernel.arg_names) != wanted:
        raise KernelError(f"{variant.name}: {function} takes {', '.join(kernel.arg_names)}, not {', '.join(wanted)}")
    return kernel


@contextlib.contextmanager
def _to_ptx() -> Iterator[None]:
    """Triton with an empty cache, no line information, and no last step: assembling is ours."""

    def hook(*of: Any) -> tuple[str, str] | None:
        if not of:
            return "", ""  # for the cache's key
        _backend, stages, *_ = of
        stages["cubin"] = lambda ptx, metadata: b""
        return None

    with (
        tempfile.TemporaryDirectory() as cache,
        knobs.cache.scope(),
        knobs.compilation.scope(),
        knobs.runtime.scope(),
    ):
        knobs.cache.dir = cache
        knobs.compilation.always_compile = True
        knobs.compilation.disable_line_info = True
        knobs.runtime.add_stages_inspection_hook = hook
        yield


def _check_parameters(variant: Variant, ptx: str) -> None:
    """What the compiled entry takes is what it will be given, argument for argument.

    Raises:
        KernelError: it is not.
    """
    entry = re.search(r"\.visible \.entry \w+\((.*?)\)", ptx, re.DOTALL)
    taken = re.findall(r"\.param \.(\w+)", entry[1]) if entry else []
    given = [_PTX_TYPES.get(of, "u64") for _, of in variant.signature] + ["u64"] * len(_HIDDEN)
    if taken != given:
        raise KernelError(f"{variant.name}: its entry takes {', '.join(taken)}, not {', '.join(given)}")


def _reason(error: Exception) -> str:
    """The last line of an error, where Triton says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
