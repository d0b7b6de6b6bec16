"""Engines that are unloaded give their memory back to the system, whoever still refers to them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mova_runtime.bundle import Bundle
from mova_runtime.engines.choice import choose_in_order
from mova_runtime.engines.loader import Loader
from mova_runtime.engines.needs.watch import resident
from mova_runtime.engines.ort import open_engine
from mova_runtime.engines.release import release
from mova_runtime.parity.probe import verify
from mova_runtime.trace import Trace
from reference_data import EXPERTS

UNLOADING = Path(__file__).parents[3] / "benchmarks" / "unloading.py"
CYCLES = 50
MOST = 1.02
"""How much larger a process may be after half of the cycles than before."""

AT_ONCE = 64
"""Answers, of a megabyte each: what else this process takes goes up and down by a few, for the system reclaims it."""


@pytest.mark.parametrize(
    ("backend", "component"),
    [("ort", "biomedclip"), ("ort", "text"), ("ort", "llm"), ("openvino", "deplot")],
)
def test_fifty_lives_of_an_engine_leave_nothing(bundle, backend, component):
    """Weights that are mapped, weights that are packed, and the language model; all others by the benchmark."""
    command = [sys.executable, str(UNLOADING), str(bundle(2)), "--inside", backend, component, str(CYCLES)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sizes = [int(line) for line in done.stdout.split()]
    assert len(sizes) == CYCLES
    # The least of many: OpenVINO's threads free some of what they had only a while after.
    assert min(sizes[CYCLES // 2 :]) < MOST * min(sizes[: CYCLES // 2])


def test_a_closed_engine_that_is_held_takes_nothing(bundle):
    opened = Bundle.open(bundle(2))
    loader = Loader(opened, choose_in_order(opened, "ort", "fp32"))
    first = loader.load("adapter", Trace()).engine
    verify(opened, "adapter", first, "fp32")
    release()
    there = resident()
    first.close()
    size = opened.artifact("adapter", "fp32").bytes
    assert there - resident() > 0.7 * size


@pytest.mark.parametrize("cache", ["growing", "shared"])
def test_an_answers_memory_goes_when_its_binding_does(bundle, cache):
    """The session keeps what decoding takes between two steps, and not between two answers."""
    opened = Bundle.open(bundle(2))
    language = opened.manifest.language
    graph, *_ = opened.artifact("llm", "fp32").files_of(cache)
    engine = open_engine(opened.path(graph), "llm", 0, 1, prepack=True, cache=cache)
    past = min(language.context, 1 << 16) - 1
    shape = (1, language.key_value_heads, past, language.head_dim)
    read = np.zeros(shape, np.float32)

    def step():
        binding = engine.bind()
        for layer in range(language.layers):
            for part in ("key", "value"):
                name = f"past_key_values.{layer}.{part}"
                if cache == "growing":
                    binding.set(name, read)
                else:
                    binding.share(f"present.{layer}.{part}", name, np.ones(shape, np.float32))
        binding.set("inputs_embeds", np.zeros((1, 1, language.hidden), np.float32))
        if cache == "growing":
            binding.set("attention_mask", np.ones((1, past + 1), np.int64))
            binding.set("position_ids", np.array([[past]]))
        else:
            binding.set("seqlens_k", np.array([past - 1], np.int32))
            binding.set("total_sequence_length", np.array(past, np.int32))
        binding.run()
        return binding

    step().close()
    release()
    before = resident()
    for _ in range(3):
        bindings = [step() for _ in range(AT_ONCE)]
        during = resident()
        del bindings
    taken = AT_ONCE * 2 * language.layers * read.nbytes
    assert during - before > 0.5 * taken
    assert resident() - before < 0.25 * taken
    engine.close()


@pytest.mark.gpu("mova_runtime.engines.cuda.session")
@pytest.mark.parametrize("component", ["base", *EXPERTS, "text", "adapter", "llm"])
def test_fifty_lives_on_a_gpu_leave_nothing(bundle, component):
    from mova_runtime.engines.cuda.memory import device

    opened = Bundle.open(bundle(2))
    loader = Loader(opened, choose_in_order(opened, "ort-cuda", "fp32"))
    here, sizes = device(), []
    for _ in range(5 + CYCLES):
        engine = loader.load(component, Trace()).engine
        verify(opened, component, engine, "fp32")
        engine.close()
        here.trim()
        sizes.append(here.used())
    half = 5 + CYCLES // 2
    assert min(sizes[half:]) < MOST * min(sizes[5:half])
