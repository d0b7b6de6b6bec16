"""How fast this machine reads memory: what a step of decoding, which reads every weight once, is held against."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np

ARRAY_BYTES = 1 << 28
"""Of each thread, far beyond any processor's caches."""
_REPEATS = 7


def read_bandwidth(threads: int, array_bytes: int = ARRAY_BYTES) -> float:
    """Bytes a second that so many threads read together, each an array of its own; the best of a few times."""
    arrays = [np.ones(array_bytes // 4, np.float32) for _ in range(threads)]
    times = []
    with ThreadPoolExecutor(threads) as workers:
        for _ in range(_REPEATS):
            start = perf_counter()
            list(workers.map(np.max, arrays))  # numpy lets other threads run meanwhile
            times.append(perf_counter() - start)
    return sum(array.nbytes for array in arrays) / min(times)
