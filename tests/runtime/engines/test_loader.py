"""Loading: what is measured and when it is believed, what is remembered, and what a failed load leaves behind."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import mova_runtime as mova
from mova_runtime.bundle import Bundle
from mova_runtime.engines import backends
from mova_runtime.engines.choice import choose_in_order
from mova_runtime.engines.loader import Loader
from mova_runtime.engines.memory import Memory
from mova_runtime.engines.needs.guess import caches
from mova_runtime.errors import BackendError, OutOfMemoryError, ParityError
from mova_runtime.trace import Trace


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MOVA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def opened(bundle):
    return Bundle.open(bundle(2))


def loader(opened, backend="ort", fallback=(), **how):
    return Loader(opened, choose_in_order(opened, backend, "fp32", fallback), 1, **how)


def load(one, component, *alone):
    """What was loaded and closed again, and the names of the stages."""
    trace = Trace()
    loaded = one.load(component, trace, *alone)
    loaded.engine.close()
    return loaded, [stage["name"] for stage in trace.stages()]


def size(opened, component):
    return opened.artifact(component, "fp32").bytes


@pytest.mark.parametrize("backend", ["ort", "openvino"])
def test_a_first_load_checks_and_measures(opened, backend):
    one = loader(opened, backend)
    guess, seconds = one.need("base"), one.seconds("base")
    assert guess.resident.host >= size(opened, "base")
    assert seconds > 0
    assert not one.is_known("base")
    loaded, stages = load(one, "base")
    assert stages == ["load base", "check base"]
    assert one.is_known("base")
    assert one.need("base") == loaded.need != guess
    assert one.seconds("base") == loaded.seconds
    assert loaded.need.resident.device == loaded.need.working.device == 0
    assert size(opened, "base") <= loaded.need.resident.host < 4 * size(opened, "base") + (64 << 20)

    another = loader(opened, backend)
    assert another.is_known("base")
    assert another.need("base") == loaded.need
    again, stages = load(another, "base")
    assert stages == ["load base"]
    assert again.need == loaded.need


def test_opening_a_loader_and_asking_it_imports_and_loads_nothing(opened, monkeypatch):
    monkeypatch.setattr("mova_runtime.engines.ort.open_session", lambda *_, **__: pytest.fail("loaded"))
    one = loader(opened)
    assert [one.is_known(name) for name in opened.manifest.components] == [False] * len(opened.manifest.components)
    assert one.need("sam").resident == Memory(size(opened, "sam"))


@pytest.mark.parametrize("answers", [(None, None), (None, 1), (1, None), (1, 2)])
def test_what_was_measured_beside_other_work_is_not_believed(opened, answers):
    one = loader(opened)
    given = iter(answers)
    guess = one.need("sam")
    loaded, stages = load(one, "sam", lambda: next(given))
    assert stages == ["load sam", "check sam"]
    assert loaded.need == guess
    assert not one.is_known("sam")
    another = loader(opened)
    assert another.need("sam") == guess
    measured, stages = load(another, "sam")
    assert stages == ["load sam", "check sam"], "it passed before, and is run to be measured"
    assert another.is_known("sam")
    assert measured.need != guess


def test_what_passed_is_not_run_again_where_it_cannot_be_measured(opened):
    load(loader(opened), "sam", lambda: None)
    _, stages = load(loader(opened), "sam", lambda: None)
    assert stages == ["load sam"]


def test_the_language_model_is_never_thought_to_need_less_than_its_cache(opened):
    loaded, _ = load(loader(opened), "llm")
    assert loaded.need.working.host >= caches(opened.manifest.language, "shared")


def test_another_number_of_threads_is_another_need(opened):
    load(loader(opened), "sam")
    assert not Loader(opened, choose_in_order(opened, "ort", "fp32"), 2).is_known("sam")


def test_a_cache_that_cannot_be_written(opened, cache):
    cache.write_text("a file where the folder should be")
    for _ in range(2):
        one = loader(opened)
        assert not one.is_known("sam")
        _, stages = load(one, "sam")
        assert stages == ["load sam", "check sam"]
        assert one.is_known("sam"), "by this process"


def test_a_cache_that_was_deleted(opened, cache):
    load(loader(opened), "sam")
    shutil.rmtree(cache)
    assert not loader(opened).is_known("sam")
    load(loader(opened), "sam")


def test_a_component_that_is_not_there(opened):
    one = loader(opened)
    assert not one.is_known("nobody")
    for ask in (one.need, one.seconds, lambda name: one.load(name, Trace())):
        with pytest.raises(mova.BundleError, match="exported without component 'nobody'"):
            ask("nobody")


class Short:
    """A backend that runs out of memory as often as it is told, and passes everything else on."""

    def __init__(self, inner, times, error):
        self.inner, self.times, self.error, self.engines = inner, times, error, []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def load(self, bundle, component):
        if self.times:
            self.times -= 1
            raise self.error
        self.engines.append(self.inner.load(bundle, component))
        return self.engines[-1]


@pytest.fixture
def short(monkeypatch):
    """short(times, error): the first backend that is made fails so often."""

    def install(times, error):
        made, make = [], backends.make

        def replaced(choice, threads, **how):
            made.append(Short(make(choice, threads, **how), 0 if made else times, error))
            return made[-1]

        monkeypatch.setattr(backends, "make", replaced)
        return made

    return install


def test_python_out_of_memory_is_told_as_such(opened, short):
    short(1, MemoryError())
    one = loader(opened)
    with pytest.raises(OutOfMemoryError, match=r"^ort: can't load 'sam': out of memory$"):
        one.load("sam", Trace())
    load(one, "sam")


def test_out_of_memory_falls_back_only_where_no_more_can_be_freed(opened, short):
    """Whoever loads can make room first."""
    short(3, OutOfMemoryError("full"))
    one = loader(opened, fallback=("openvino:fp32",))
    for _ in range(2):
        with pytest.raises(OutOfMemoryError, match="full"):
            one.load("sam", Trace())
    one.load("sam", Trace(), final=True).engine.close()
    assert one.served["sam"].by == "openvino:fp32"
    assert one.served["sam"].refused == ("full",)


def test_room_made_in_time_needs_no_fallback(opened, short):
    short(1, OutOfMemoryError("full"))
    one = loader(opened, fallback=("openvino:fp32",))
    with pytest.raises(OutOfMemoryError):
        one.load("sam", Trace())
    one.load("sam", Trace(), final=True).engine.close()
    assert one.served["sam"].by == "ort:fp32"


@pytest.mark.parametrize("error", [BackendError("broken"), MemoryError(), KeyboardInterrupt()])
def test_an_engine_that_fails_its_check_is_closed(opened, short, monkeypatch, error):
    made = short(0, None)
    one = loader(opened)

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("mova_runtime.parity.gate.Gate.judge", fail)
        with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else BackendError):
            one.load("sam", Trace())
    (engine,) = made[0].engines
    with pytest.raises(BackendError, match="it was closed"):
        engine.bind()
    assert not one.is_known("sam")
    load(one, "sam")


def test_a_wrong_engine_is_not_known(opened, monkeypatch):
    class Wrong:
        passed = False

        def complaint(self):
            return "sam: wrong"

        bar, outputs = "", ()

    with monkeypatch.context() as patch:
        patch.setattr("mova_runtime.parity.probe.verify", lambda *_: Wrong())
        with pytest.raises(ParityError, match="sam: wrong"):
            loader(opened).load("sam", Trace())
    assert not loader(opened).is_known("sam")


@pytest.mark.parametrize("backend", ["ort", "openvino"])
@pytest.mark.parametrize("component", ["base", "llm"])
def test_a_closed_engine_says_so_whoever_holds_it(opened, backend, component):
    engine = loader(opened, backend).load(component, Trace()).engine
    binding = engine.bind()
    engine.close()
    engine.close()
    for use in (lambda: engine.run({"x": np.zeros(1)}), engine.bind, binding.run):
        with pytest.raises(BackendError, match=rf"^{backend}: '{component}' failed: it was closed$"):
            use()
    binding.close()


def test_openvino_keeps_what_it_compiled(opened, cache):
    load(loader(opened, "openvino", keep_compiled=True), "sam")
    (folder,) = (cache / "openvino").iterdir()
    kept = {path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert kept
    load(loader(opened, "openvino", keep_compiled=True), "sam")
    assert kept == {path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    load(loader(opened, "openvino"), "sam")
    assert len(list((cache / "openvino").iterdir())) == 1


@pytest.mark.parametrize("damage", ["cut", "in the way"])
def test_openvino_compiles_where_it_cannot_keep(opened, cache, damage):
    one = loader(opened, "openvino", keep_compiled=True)
    if damage == "in the way":
        cache.mkdir()
        (cache / "openvino").write_text("a file")
    else:
        load(one, "sam")
        for path in [path for path in (cache / "openvino").rglob("*") if path.is_file()]:
            os.truncate(path, 100)
    load(loader(opened, "openvino", keep_compiled=True), "sam")
    assert Path(cache).exists()
