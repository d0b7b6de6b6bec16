"""PTX whose entry takes what TensorRT passes, and no more."""

from __future__ import annotations

import re

from mova_kernels.errors import KernelError


def without_scratch(ptx: str, arguments: int) -> str:
    """PTX whose entry takes so many arguments: the unused pointers to scratch memory that Triton adds are taken off.

    Raises:
        KernelError: the entry takes fewer, or reads one that is to go.
    """
    entry = re.search(r"\.entry\s+\w+\s*\((.*?)\)", ptx, re.DOTALL)
    parameters = [] if entry is None else [text.strip() for text in entry[1].split(",")]
    kept, dropped = parameters[:arguments], parameters[arguments:]
    if entry is None or len(kept) < arguments:
        raise KernelError(f"the kernel's PTX takes {len(parameters)} arguments, {arguments} are passed")
    for parameter in dropped:
        name = parameter.split()[-1]
        if re.search(rf"\[{name}\b", ptx):
            raise KernelError(f"the kernel reads its hidden argument {name}: it can't be a plugin")
    return ptx[: entry.start(1)] + "\n\t" + ",\n\t".join(kept) + "\n" + ptx[entry.end(1) :]
