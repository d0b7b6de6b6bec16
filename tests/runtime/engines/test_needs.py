"""What engines take: watched while they load and run, remembered, and guessed before."""

import json
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from mova_runtime.bundle import Bundle
from mova_runtime.engines.memory import Memory, Need
from mova_runtime.engines.needs.guess import caches, working
from mova_runtime.engines.needs.store import Needs, Took
from mova_runtime.engines.needs.watch import Watch, Watched, resident
from mova_runtime.errors import BackendError

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

    name, least = "greedy", Memory()

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
        return SimpleNamespace(set=None, carry=None, get=None, close=None, run=lambda: self.run({}))


@pytest.mark.parametrize("way", ["run", "keep", "bind"])
def test_what_is_watched(way):
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
    need = watch.need()
    assert (need.resident.device, need.working.device, need.loading.device) == (20 * MIB, 30 * MIB, 20 * MIB)
    assert gpu.trims == 2
    for found, expected in ((need.resident, 64), (need.working, 96), (need.loading, 128)):
        assert abs(found.host / MIB - expected) < 16


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


def test_the_language_models_cache(bundle):
    opened = Bundle.open(bundle(2))
    language = opened.manifest.language
    one = 2 * language.layers * language.key_value_heads * language.head_dim * language.context * 4
    assert caches(language) == working(opened, "llm", 1) == 2 * one
    assert working(opened, "sam", 1000) == 250
