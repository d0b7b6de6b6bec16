"""What engines take: watched while they load and run, remembered, and guessed before."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from mova_runtime.bundle import Bundle
from mova_runtime.engines.first_load import load_first
from mova_runtime.engines.memory import Memory, Need
from mova_runtime.engines.needs.bounds import is_believed
from mova_runtime.engines.needs.guess import caches, longest, prefill, working
from mova_runtime.engines.needs.store import Needs, Took, identity
from mova_runtime.engines.needs.watch import Watch, Watched, resident
from mova_runtime.engines.ort import OrtBackend
from mova_runtime.errors import BackendError
from mova_runtime.language.decoder import PREFILL_CHUNK, Decoder
from mova_runtime.language.generation import Generation
from mova_runtime.language.prompt import Prompt
from mova_runtime.trace import Trace

MIB = 1 << 20
IDENTITY = {"engine": "a" * 64, "backend": "ort"}
TOOK = Took(Need(Memory(3, 4), Memory(5, 6), Memory(7, 8)), 0.25)


def touched(size):
    return np.ones(size, np.uint8)


class Gpu:
    """10 MiB that others use, and what is asked for."""

    def __init__(self):
        self.taken, self.trims = 10 * MIB, 0

    def used(self):
        return self.taken

    def trim(self):
        self.trims += 1


class Greedy:
    """Keeps 64 MiB; a run takes 96 more on the host and 30 on the GPU for a while."""

    name, least, cache = "greedy", Memory(), "growing"

    def __init__(self, gpu):
        self.gpu = gpu
        transient = touched(128 * MIB)
        time.sleep(0.02)
        del transient
        self.kept = touched(64 * MIB)
        self.gpu.taken += 20 * MIB

    def run(self, inputs, outputs=None):
        self.gpu.taken += 30 * MIB
        taken = touched(96 * MIB)
        time.sleep(0.02)
        self.gpu.taken -= 30 * MIB
        return {"sum": taken[:1].copy()}

    keep = run

    def bind(self):
        return SimpleNamespace(set=None, carry=None, share=None, get=None, close=None, run=lambda: self.run({}))


def watched_once(way):
    gpu = Gpu()
    with Watch(gpu) as watch:
        engine = Greedy(gpu)
        watch.loaded()
        not_the_engines = touched(200 * MIB)
        del not_the_engines
        watched = Watched(engine, watch)
        if way == "bind":
            watched.bind().run()
        else:
            getattr(watched, way)({})
    assert gpu.trims == 2
    return watch.need()


@pytest.mark.parametrize("way", ["run", "keep", "bind"])
def test_what_is_watched(way):
    """Threads that earlier tests left behind may take memory, too: of three times one has to be right."""
    found = [watched_once(way) for _ in range(3)]
    for need in found:
        assert (need.resident.device, need.working.device, need.loading.device) == (20 * MIB, 30 * MIB, 20 * MIB)

    def is_right(need):
        pairs = ((need.resident, 64), (need.working, 96), (need.loading, 128))
        return all(abs(memory.host / MIB - expected) < 16 for memory, expected in pairs)

    assert any(is_right(need) for need in found), found


def test_freed_memory_that_the_process_keeps_is_no_runs():
    """A library may have told the C library to keep what is freed."""
    kept = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{__file__}::test_what_is_watched"]
    done = subprocess.run(command, env={**os.environ, **kept}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "3 passed" in done.stdout


def test_a_gpu_that_does_not_tell_takes_nothing():
    def refuse():
        raise BackendError("no")

    with Watch(SimpleNamespace(used=refuse, trim=refuse)) as watch:
        watch.loaded()
    assert watch.need().resident.device == 0


def test_watching_leaves_no_thread():
    before = threading.active_count()
    with pytest.raises(ValueError, match="no"), Watch():
        raise ValueError("no")
    assert threading.active_count() == before
    assert resident() > MIB


def test_remembered(tmp_path):
    needs = Needs(tmp_path / "new" / "folder")
    assert needs.recall(IDENTITY) is None
    needs.remember(IDENTITY, TOOK)
    assert Needs(tmp_path / "new" / "folder").recall(IDENTITY) == TOOK
    assert needs.recall({**IDENTITY, "threads": "2"}) is None


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{}",
        b"null",
        b"\xff",
        {"seconds": "x"},
        {"seconds": float("nan")},
        {"seconds": -1},
        {"need": {}},
        {"need": {name: {"host": -1, "device": 0} for name in ("resident", "working", "loading")}},
        {"need": {name: {"host": 1.5, "device": 0} for name in ("resident", "working", "loading")}},
        {"identity": {}},
    ],
)
def test_a_damaged_record_is_none(tmp_path, damage):
    needs = Needs(tmp_path)
    needs.remember(IDENTITY, TOOK)
    path = needs.path(IDENTITY)
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        path.write_text(json.dumps({**json.loads(path.read_text()), **damage}))
    assert needs.recall(IDENTITY) is None


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    needs = Needs(tmp_path / "file")
    needs.remember(IDENTITY, TOOK)
    assert needs.recall(IDENTITY) is None


@pytest.mark.parametrize(
    ("threads", "keep_compiled", "same"), [(None, False, True), (2, False, False), (None, True, False)]
)
def test_what_an_engine_is_told_by(bundle, threads, keep_compiled, same):
    opened, backend = Bundle.open(bundle(2)), OrtBackend("cpu", "fp32")
    usual = identity(backend, opened, "sam")
    assert usual.items() > backend.identity(opened, "sam").items()
    assert (identity(backend, opened, "sam", threads, keep_compiled=keep_compiled) == usual) is same


def test_the_language_model_reads_in_pieces_against_all_of_its_context(bundle):
    opened = Bundle.open(bundle(2))
    language = opened.manifest.language
    one = 2 * language.layers * language.key_value_heads * language.head_dim * language.context * 4
    assert caches(language) == 2 * one
    guess = working(opened, "llm", 1 << 40)
    assert guess == caches(language) + prefill(language) == longest(opened, "llm", 0)
    probed = prefill(language) + 5
    assert longest(opened, "llm", probed) == caches(language) + probed, "a run has both at once"


def test_a_shorter_context_takes_less_and_is_measured_for_itself(bundle):
    whole, backend = Bundle.open(bundle(2)), OrtBackend("cpu", "fp32")
    half = whole.bounded(whole.manifest.language.context // 2)
    assert 2 * caches(half.manifest.language) == caches(whole.manifest.language)
    assert backend.need(half, "llm").working.host < backend.need(whole, "llm").working.host
    assert identity(backend, half, "llm") != identity(backend, whole, "llm")
    assert identity(backend, half, "sam") == identity(backend, whole, "sam")
    assert whole.bounded(1 << 30).manifest == whole.bounded(None).manifest == whole.manifest


@pytest.mark.parametrize(("tokens", "width"), [(512, 1024), (256, 1024), (512, 768), (512, "width")])
def test_a_question_is_longer_than_the_probe(bundle, tokens, width):
    manifest = Bundle.open(bundle(2)).manifest
    text = manifest.components["text"]
    output = replace(text.outputs[0], shape=("batch", width))
    opened = SimpleNamespace(
        manifest=replace(manifest, text=replace(manifest.text, max_tokens=tokens)),
        component=lambda name: replace(manifest.components[name], outputs=(output,)),
    )
    least = 69_000_000 * tokens // 512 * (1024 if isinstance(width, str) else width) // 1024
    assert longest(opened, "text", 2 * MIB) == working(opened, "text", 4 * MIB) == least
    assert longest(opened, "text", 100 * MIB) == 100 * MIB
    assert working(opened, "text", 4000 * MIB) == 1000 * MIB


def test_a_run_that_was_over_too_soon_takes_something(bundle):
    opened = Bundle.open(bundle(2))
    assert longest(opened, "sam", 0) == working(opened, "sam", 1000) == 4 * MIB
    assert longest(opened, "sam", 5 * MIB) == working(opened, "sam", 20 * MIB) == 5 * MIB


@pytest.mark.parametrize(("component", "pieces"), [("llm", 4), ("text", 1)])
def test_the_longest_run_takes_no_more_than_what_is_remembered(bundle, component, pieces):
    opened, backend = Bundle.open(bundle(2)), OrtBackend("cpu", "fp32", 1)
    first = load_first(opened, component, backend, None, Trace(), lambda: 0)
    assert first.measured
    peaks = [longest_run(opened, component, first.engine, pieces) for _ in range(3)]
    first.engine.close()
    working = first.took.need.working.host
    assert 0.5 * working < max(peaks) < working + 16 * MIB, "on a busy machine a thread may look too late"


def longest_run(opened, component, engine, pieces):
    """Bytes at the peak."""
    with Watch() as watch:
        watch.loaded()
        engine = Watched(engine, watch)
        if component == "text":
            ids = np.ones((1, opened.manifest.text.max_tokens), np.int64)
            engine.run({"ids": ids, "mask": ids})
        else:
            language = opened.manifest.language
            assert pieces * PREFILL_CHUNK == language.context
            tokens = Prompt((tuple([1] * (language.max_prompt - 1)), ()))
            embeddings = np.zeros((2, language.hidden), np.float32)
            visual = np.zeros((1, language.hidden), np.float32)
            list(
                Decoder(engine, embeddings, replace(language, context=language.context + 1)).generate(
                    tokens, [visual], Generation(1), -1
                )
            )
    return watch.need().peak.host


HOST = Need(Memory(1000 * MIB), Memory(250 * MIB), Memory(1000 * MIB))
GPU = Need(Memory(0, 1000 * MIB), Memory(0, 250 * MIB), Memory(1000 * MIB, 1000 * MIB))
TINY = Need(Memory(9 * MIB), Memory(2 * MIB), Memory(9 * MIB))


@pytest.mark.parametrize(
    ("guess", "found", "believed"),
    [
        (HOST, HOST, True),
        (HOST, Need(Memory()), True),
        (HOST, Need(Memory(4064 * MIB)), True),
        (HOST, Need(Memory(4065 * MIB)), False),
        (HOST, Need(Memory(), working=Memory(9274 * MIB)), True),
        (HOST, Need(Memory(), working=Memory(9275 * MIB)), False),
        (HOST, Need(Memory(), loading=Memory(8064 * MIB)), True),
        (HOST, Need(Memory(), loading=Memory(8065 * MIB)), False),
        (GPU, Need(Memory(500 * MIB, 1500 * MIB), Memory(10 * MIB, 500 * MIB), Memory(1500 * MIB, 1500 * MIB)), True),
        (GPU, Need(Memory(0, 5000 * MIB)), False),
        (GPU, Need(Memory(5000 * MIB, 1000 * MIB)), False),
        (TINY, Need(Memory(45 * MIB), Memory(378 * MIB), Memory(20 * MIB)), True),
    ],
)
def test_what_is_believed(guess, found, believed):
    assert is_believed(found, guess) is believed


@pytest.mark.parametrize("part", ["resident", "working", "loading"])
def test_what_another_thread_took_is_not_believed(bundle, monkeypatch, part):
    opened, backend = Bundle.open(bundle(2)), OrtBackend("cpu", "fp32", 1)
    found = replace(HOST, **{part: Memory(10_000 * MIB)})
    monkeypatch.setattr("mova_runtime.engines.needs.watch.Watch.need", lambda _: found)
    first = load_first(opened, "sam", backend, None, Trace(), lambda: 0)
    first.engine.close()
    assert not first.measured
    assert first.took.need == backend.need(opened, "sam")


def test_on_a_gpu_it_is_the_gpu_where_longer_runs_take_more(bundle, monkeypatch):
    opened, backend = Bundle.open(bundle(2)), OrtBackend("cpu", "fp32", 1)
    monkeypatch.setattr(backend, "need", lambda *_: GPU)
    monkeypatch.setattr(backend, "start", Gpu)
    monkeypatch.setattr("mova_runtime.engines.needs.watch.Watch.need", lambda _: Need(Memory(1, 2), Memory(3, 4)))
    first = load_first(opened, "text", backend, None, Trace(), lambda: 0)
    first.engine.close()
    assert first.measured
    assert first.took.need.working == Memory(3, 69_000_000)
