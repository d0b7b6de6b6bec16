"""`mova verify` leaves every engine known: checked, and measured."""

import numpy as np
import pytest

from bundle_copy import copy_bundle, edited_manifest, file_entry
from mova_runtime.bundle import Bundle
from mova_runtime.engines.choice import choose_in_order
from mova_runtime.engines.loader import Loader
from mova_runtime.engines.memory import Memory, Need
from mova_runtime.engines.needs.store import Needs, Took, identity
from mova_runtime.errors import OutOfMemoryError

WRONG = Took(Need(Memory(1 << 40), Memory(1 << 40), Memory(1 << 40)), 100.0)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MOVA_CACHE", str(tmp_path / "cache"))


def backend_of(opened, name):
    from mova_runtime.engines import backends

    return backends.make(choose_in_order(opened, name, "fp32")[0])


@pytest.mark.parametrize("backend", ["ort", "openvino"])
def test_what_passed_is_known_to_a_loader(mova_command, bundle, backend):
    assert mova_command("verify", bundle(2), "--backend", backend).status == 0
    opened = Bundle.open(bundle(2))
    loader = Loader(opened, choose_in_order(opened, backend, "fp32"))
    assert all(loader.is_known(component) for component in opened.manifest.components)


def test_what_is_remembered_is_measured_anew(mova_command, bundle):
    opened = Bundle.open(bundle(2))
    name = identity(backend_of(opened, "ort"), opened, "sam")
    Needs().remember(name, WRONG)
    assert mova_command("verify", bundle(2), "--backend", "ort", "--only", "sam").status == 0
    took = Needs().recall(name)
    assert took.need.peak.host < 1 << 30
    assert took.seconds < WRONG.seconds


def test_what_is_not_believed_is_not_remembered(mova_command, bundle, monkeypatch):
    monkeypatch.setattr("mova_runtime.engines.needs.watch.Watch.need", lambda _: WRONG.need)
    assert mova_command("verify", bundle(2), "--backend", "ort", "--only", "sam").status == 0
    opened = Bundle.open(bundle(2))
    assert Needs().recall(identity(backend_of(opened, "ort"), opened, "sam")) is None


def test_what_failed_is_not_remembered(mova_command, bundle, tmp_path):
    copied = copy_bundle(bundle(2), tmp_path / "bundle")
    with edited_manifest(copied) as manifest:
        outputs = manifest["components"]["sam"]["probe"]["outputs"]
        path = copied / outputs["features"]["path"]
        array = np.load(path)
        path.unlink()
        np.save(path, array * np.float32(1.1))
        outputs["features"] = file_entry(copied, outputs["features"]["path"])
    assert mova_command("verify", copied, "--backend", "ort", "--only", "sam").status == 1
    opened = Bundle.open(copied)
    assert Needs().recall(identity(backend_of(opened, "ort"), opened, "sam")) is None


def test_an_engine_whose_check_fails_is_closed(mova_command, bundle, monkeypatch):
    closed = []
    monkeypatch.setattr("mova_runtime.engines.ort.OrtEngine.close", lambda engine: closed.append(engine.name))

    def fail(*_):
        raise OutOfMemoryError("full")

    monkeypatch.setattr("mova_runtime.parity.gate.Gate.judge", fail)
    done = mova_command("verify", bundle(2), "--backend", "ort", "--only", "sam")
    assert (done.status, done.error) == (2, "mova: full\n")
    assert closed == ["sam"]
