"""PTX to machine code by NVIDIA's assembler, so that the same text gives the same bytes.

ptxas breaks ties by where things lie in its memory: where kernels use tensor memory (sm_100, sm_110), two registers may
be swapped from run to run. So its memory is laid out alike every time: addresses are not randomised, and its arguments
have the same lengths.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mova_kernels.errors import KernelError

_ADDR_NO_RANDOMIZE = 0x0040000
_ASK = 0xFFFFFFFF
"""Of personality(2)."""


@dataclass(frozen=True)
class Assembled:
    """Machine code; registers of a thread, and the bytes it spills."""

    cubin: bytes
    registers: int
    spills: int


def assemble(ptx: str, ptxas: str) -> Assembled:
    """Assemble for the target that the text names.

    Args:
        ptx: one entry.
        ptxas: path of the assembler.

    Raises:
        KernelError: it does not know the target, or does not take the text.
        OSError: the disk is full, or the assembler can't be run.
    """
    target = re.search(r"^\.target (\w+)", ptx, re.MULTILINE)
    assert target is not None
    # regAllocOptLevel as Triton gives it, around a fault of CUDA 13's assembler
    command = ["ptxas", "-v", "--regAllocOptLevel=2", f"--gpu-name={target[1]}", "kernel.ptx", "-o", "kernel.cubin"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "kernel.ptx").write_text(ptx, encoding="utf-8")
        with addresses_as_always():
            done = subprocess.run(
                command, executable=ptxas, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        if done.returncode:
            raise KernelError(_complaint(done.stdout) or f"ptxas ended with status {done.returncode}")
        return Assembled((folder / "kernel.cubin").read_bytes(), *_resources(done.stdout))


@contextlib.contextmanager
def addresses_as_always() -> Iterator[bool]:
    """Processes started inside have their memory at fixed addresses; False where a container forbids that."""
    personality = getattr(ctypes.CDLL(None), "personality", None)
    before = personality(ctypes.c_ulong(_ASK)) if personality else -1
    if personality is None or before == -1:
        yield False
        return
    fixed = personality(ctypes.c_ulong(before | _ADDR_NO_RANDOMIZE)) != -1
    try:
        yield fixed
    finally:
        personality(ctypes.c_ulong(before))


def _resources(report: str) -> tuple[int, int]:
    registers = re.search(r"Used (\d+) registers", report)
    spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report)
    if not registers or not spills:
        raise KernelError(f"ptxas said nothing of registers and spills: {' '.join(report.split())!r}")
    return int(registers[1]), max(int(spills[1]), int(spills[2]))


def _complaint(report: str) -> str:
    """The line that says what is wrong."""
    lines = [line.strip() for line in report.splitlines() if line.strip()]
    return next((line for line in lines if "fatal" in line or "error" in line), "".join(lines[-1:]))
