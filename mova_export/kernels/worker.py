"""A process that compiles: pairs of variant and target come in by standard input, what they became goes out."""

from __future__ import annotations

import os
import pickle
import sys

from mova_kernels.aot import compile_variant
from mova_kernels.errors import KernelError


def main() -> None:
    """Compile until the input ends; whoever closes it has gone or needs no more."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # Triton prints what failed
        while True:
            try:
                variant, target = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            try:
                answer: object = compile_variant(variant, target)
            except (KernelError, OSError) as error:
                answer = error
            pickle.dump(answer, answers)
            answers.flush()
