"""Threads that ask one runtime, under a budget that holds two experts; what came of it, as JSON.

python tests/crowd.py BUNDLE THREADS REQUESTS
"""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mova_runtime as mova
from reference_data import EXPERTS, IMAGES

ALWAYS = ("base", "text", "adapter", "llm")
CHOICES = (("dinov2",), ("vary", "sam"), (), ("pix2struct", "deplot"), ("biomedclip",), ("sam",), None)
"""Not the tiny Co-DETR, which alone takes longer than all others; the router may choose it."""
ASKED = [
    (IMAGES / f"{image}.png", question, experts)
    for experts in CHOICES
    for image, question in (("chart", "What is the title?"), ("photo", "Where is this?"), ("document", "Who signed?"))
]
TOKENS = 2
SAMPLE_SECONDS = 0.002


def budget_of(path: str, threads: int) -> tuple[int, list[tuple[int, ...]]]:
    """Bytes for what every request needs, the two largest experts, and a run of the neediest; and every answer."""
    with mova.open(path, feature_cache=0) as runtime:
        answers = [runtime.answer(*one, max_new_tokens=TOKENS).tokens for one in ASKED]
        runtime.encode(ASKED[0][0], "Why?", experts=EXPERTS)
        needs = {use.name: use.need for use in runtime.stats().pool.engines}
    experts = sorted(needs[name].resident.host for name in EXPERTS)[-2:]
    always = sum(needs[name].resident.host for name in ALWAYS)
    return always + sum(experts) + max((need.peak - need.resident).host for need in needs.values()), answers


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def main(path: str, threads: int, requests: int) -> None:
    """Ask, compare, print."""
    with ThreadPoolExecutor(1) as apart:
        budget, expected = apart.submit(budget_of, path, threads).result()
    before, peak, done = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(SAMPLE_SECONDS):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    with mova.open(path, memory_budget=budget, feature_cache="2MiB", lease_timeout=None) as runtime:

        def ask(thread: int) -> list[str]:
            wrong = []
            for number in range(requests):
                which = (thread * 5 + number * 11) % len(ASKED)
                found = runtime.answer(*ASKED[which], max_new_tokens=TOKENS).tokens
                if found != expected[which]:
                    wrong.append(f"thread {thread}, request {number}: {found}, not {expected[which]}")
            return wrong

        with ThreadPoolExecutor(threads) as workers:
            wrong = [line for lines in workers.map(ask, range(threads)) for line in lines]
        totals = runtime.stats().pool
    done.set()
    watcher.join()
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - start,
                "wrong": wrong,
                "budget": budget,
                "peak_reserved": totals.peak.host,
                "resident_before": before,
                "peak_resident": peak,
                "evictions": totals.evictions,
                "loads": totals.loads,
                "waits": totals.waits,
                "leased": [use.name for use in totals.engines if use.users],
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
