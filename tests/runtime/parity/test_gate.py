"""An engine that computes something else is refused, once and for all, unless something listed can serve."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

import mova_runtime as mova
from bundle_copy import copy_bundle, edited_manifest, file_entry, read_manifest, rewrite
from mova_runtime.bundle import Bundle
from mova_runtime.engines import backends
from mova_runtime.engines.choice import choose
from mova_runtime.parity.bars import BARS
from mova_runtime.parity.verdicts import Verdicts
from reference_data import IMAGES

CHART = IMAGES / "chart.png"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("MOVA_CACHE", str(folder))
    return folder


@pytest.fixture
def copied(bundle, tmp_path):
    return copy_bundle(bundle(2), tmp_path / "bundle")


def alter_probe(bundle, component, output):
    """Another expected output, and a manifest that says it is right."""
    with edited_manifest(bundle) as manifest:
        outputs = manifest["components"][component]["probe"]["outputs"]
        path = bundle / outputs[output]["path"]
        array = np.load(path)
        array[..., -1] += 10
        path.unlink()
        np.save(path, array)
        outputs[output] = file_entry(bundle, outputs[output]["path"])


def add_wrong_engine(bundle, component, precision):
    """A first artifact whose weights are wrong though its hashes are right; the sound float32 one stays behind it."""
    with edited_manifest(bundle) as manifest:
        for name, entry in manifest["components"].items():
            (sound,) = entry["artifacts"]
            other = json.loads(json.dumps(sound)) | {"precision": precision}
            if name == component:
                for file in other["files"]:
                    path = Path(file["path"])
                    target = bundle / f"components/{name}/{precision}/{path.name}"
                    target.parent.mkdir(exist_ok=True)
                    data = (bundle / path).read_bytes()
                    half = len(data) // 2
                    spoilt = data[:half] + b"\0" * (len(data) - half) if path.suffix == ".data" else data
                    target.write_bytes(spoilt)
                other["files"] = [
                    file_entry(bundle, f"components/{name}/{precision}/{Path(file['path']).name}")
                    for file in other["files"]
                ]
            entry["artifacts"] = [other, sound]


def stages(answer):
    return [stage["name"] for stage in answer.stats.stages]


def test_each_engine_is_checked_once_on_a_machine(bundle, cache):
    names = ("base", "text", "adapter", "llm", "sam")
    for checked in (names, ()):
        with mova.open(bundle(2)) as rt:
            answer = rt.answer(CHART, "Why?", experts=("sam",), max_new_tokens=1)
        assert {name for name in stages(answer) if name.startswith("check ")} == {f"check {name}" for name in checked}
    assert len(list((cache / "parity").iterdir())) == len(names)
    assert answer.stats.served == {name: mova.Served("ort:fp32") for name in names}


def test_another_driver_library_or_device_is_another_question(bundle, monkeypatch):
    with mova.open(bundle(2)) as rt:
        rt.features(CHART, "sam")
    opened, backend = Bundle.open(bundle(2)), backends.make(choose(Bundle.open(bundle(2)), "ort"))
    identity = backend.identity(opened, "sam")
    assert set(identity) == {"engine", "backend", "precision", "version", "device", "driver"}
    bar = str(BARS["fp32"])
    assert Verdicts().recall(identity, bar, "whatever the probe") == ""
    assert Verdicts().recall(identity, "another bar", "") is None
    for key in identity:
        assert Verdicts().recall({**identity, key: "another"}, bar, "") is None, key


def test_an_engine_is_not_held_guilty_for_a_wrong_probe(copied, bundle):
    alter_probe(copied, "sam", "keys")
    for _ in range(2):
        with mova.open(copied) as rt, pytest.raises(mova.ParityError):
            rt.features(CHART, "sam")
    with mova.open(bundle(2)) as rt:
        rt.features(CHART, "sam")
    with mova.open(copied) as rt:
        rt.features(CHART, "sam")  # the same engine, known to be right by now


def test_what_was_checked_before_serves_where_a_probe_was_altered(copied):
    with mova.open(copied, backend="openvino") as rt:
        rt.features(CHART, "sam")
    alter_probe(copied, "sam", "keys")
    with mova.open(copied, backend="ort", fallback=("openvino:fp32",)) as rt:
        answer = rt.answer(CHART, "Why?", experts=("sam",), max_new_tokens=1)
    assert answer.stats.served["sam"].by == "openvino:fp32"
    assert "output 'keys' is not what torch computed" in answer.stats.served["sam"].refused[0]
    assert answer.stats.served["base"] == mova.Served("ort:fp32")


def test_every_probe_counts(copied):
    """A graph that is right with experts and wrong without."""
    with edited_manifest(copied) as manifest:
        (probe,) = manifest["components"]["adapter"]["more_probes"]
        path = copied / probe["outputs"]["visual"]["path"]
        array = np.load(path)
        path.unlink()
        np.save(path, array[..., ::-1])
        probe["outputs"]["visual"] = file_entry(copied, probe["outputs"]["visual"]["path"])
    with (
        mova.open(copied) as rt,
        pytest.raises(mova.ParityError, match=r"adapter: output 'visual \(no pairs\)' is not"),
    ):
        rt.encode(CHART, "Why?", experts=("sam",))


def test_an_altered_probe_is_refused_with_component_and_number(copied):
    alter_probe(copied, "sam", "keys")
    with mova.open(copied) as rt:
        for _ in range(2):
            with pytest.raises(
                mova.ParityError,
                match=r"ort: sam: output 'keys' is not what torch computed: cosine 0\.\d+, relative L2",
            ):
                rt.features(CHART, "sam")
        assert "sam" not in rt.engines_loaded
        assert rt.features(CHART, "base").shape == (64, 1024)


def test_a_probe_with_other_bytes_than_promised_is_an_integrity_error(copied):
    path = copied / read_manifest(copied)["components"]["sam"]["probe"]["outputs"]["keys"]["path"]
    data = path.read_bytes()
    rewrite(path, data[:-1] + bytes([data[-1] ^ 1]))
    with mova.open(copied) as rt, pytest.raises(mova.IntegrityError, match=r"keys\.npy: its sha256 differs"):
        rt.features(CHART, "sam")


def test_a_refusal_is_remembered_until_verify_finds_better(copied, mova_command):
    alter_probe(copied, "sam", "features")
    with mova.open(copied) as rt, pytest.raises(mova.ParityError, match="not what torch computed"):
        rt.features(CHART, "sam")
    with mova.open(copied) as rt, pytest.raises(mova.ParityError, match=r"remembered in .*mova verify"):
        rt.features(CHART, "sam")
    done = mova_command("verify", copied, "--only", "sam")
    assert done.status == 1
    assert done.error == "mova: not what torch computed: sam\n"
    with edited_manifest(copied) as manifest:  # the engine was right all along: mend the probe
        outputs = manifest["components"]["sam"]["probe"]["outputs"]
        array = np.load(copied / outputs["features"]["path"])
        array[..., -1] -= 10
        np.save(copied / outputs["features"]["path"], array)
        outputs["features"] = file_entry(copied, outputs["features"]["path"])
    assert mova_command("verify", copied, "--only", "sam").status == 0
    with mova.open(copied) as rt:
        rt.features(CHART, "sam")


def test_a_wrong_engine_is_refused_and_a_listed_fallback_serves(copied, bundle):
    add_wrong_engine(copied, "sam", "fp16")
    question = "What is shown?"
    with (
        mova.open(copied, precision="fp16") as rt,
        pytest.raises(mova.ParityError, match="sam: output 'features'"),
    ):
        rt.answer(CHART, question, experts=("sam",), max_new_tokens=4)
    with mova.open(copied, precision="fp16", fallback=("ort:fp32",)) as rt:
        answer = rt.answer(CHART, question, experts=("sam",), max_new_tokens=4)
    with mova.open(bundle(2)) as rt:
        assert answer.tokens == rt.answer(CHART, question, experts=("sam",), max_new_tokens=4).tokens
    served = answer.stats.served
    assert served["sam"].by == "ort:fp32"
    (why,) = served["sam"].refused
    assert "sam: output 'features' is not what torch computed" in why
    assert all(served[name] == mova.Served("ort:fp16") for name in ("base", "text", "adapter", "llm"))


def test_when_the_fallback_fails_too_both_reasons_are_told(copied):
    add_wrong_engine(copied, "sam", "fp16")
    alter_probe(copied, "sam", "values")
    both = r"output 'features'.*; fallback: ort: sam: output 'values'"
    with mova.open(copied, precision="fp16", fallback=("fp32",)) as rt, pytest.raises(mova.ParityError, match=both):
        rt.features(CHART, "sam")


def test_run_tells_by_what_it_was_served(copied, mova_command):
    add_wrong_engine(copied, "base", "fp16")
    asked = ("run", copied, "--image", CHART, "--question", "Why?", "--experts", "none", "--max-new-tokens", 1)
    refused = mova_command(*asked, "--precision", "fp16")
    assert refused.status == 1
    assert refused.error.startswith("mova: ort: base: output 'features' is not what torch computed: cosine")
    assert refused.error.count("\n") == 1
    done = mova_command(*asked, "--precision", "fp16", "--fallback", "fp32")
    assert done.status == 0
    assert "base was served by ort:fp32: ort: base: output 'features' is not" in done.error
    stats = json.loads(mova_command(*asked, "--precision", "fp16", "--fallback", "fp32", "--json").output)["stats"]
    assert stats["served"]["base"]["by"] == "ort:fp32"
    assert len(stats["served"]["base"]["refused"]) == 1
    assert stats["served"]["adapter"] == {"by": "ort:fp16", "refused": []}


def test_a_first_choice_that_cannot_run_here_is_told_of_every_component(bundle, monkeypatch):
    with mova.open(bundle(2), backend="tensorrt", fallback=("ort:fp32",)) as rt:
        answer = rt.answer(CHART, "Why?", experts=(), max_new_tokens=1)
    assert answer.stats.backend == "tensorrt"
    assert {served.by for served in answer.stats.served.values()} == {"ort:fp32"}
    assert all("backend tensorrt: " in served.refused[0] for served in answer.stats.served.values())
    with mova.open(bundle(2), fallback=None) as rt:
        assert rt.choice.backend == "ort"


def test_the_budget_holds_for_what_a_fallback_loads(copied):
    """The wrong engine is small; what serves in its place is not."""
    add_wrong_engine(copied, "sam", "fp16")
    with edited_manifest(copied) as manifest:
        wrong, sound = manifest["components"]["sam"]["artifacts"]
        wrong["files"] = wrong["files"][:1]
    size = sum(file["bytes"] for file in sound["files"])
    with mova.open(copied, precision="fp16", fallback=("fp32",), memory_budget=size - 1) as rt:
        with pytest.raises(mova.MemoryBudgetError, match=r"engine 'sam' (needs|turned out to need)"):
            rt.features(CHART, "sam")
        assert rt.engines_loaded == ()
    with mova.open(copied, precision="fp16", fallback=("fp32",), memory_budget="1GiB") as rt:
        rt.features(CHART, "sam")
        assert rt.engines_loaded == ("sam",)


@pytest.mark.parametrize("damage", ["", "{}", "[]", "null", '{"identity": {}, "complaint": ""}', "\xff"])
def test_a_damaged_verdict_is_none(bundle, cache, damage):
    with mova.open(bundle(2)) as rt:
        rt.features(CHART, "sam")
    (verdict,) = (cache / "parity").iterdir()
    verdict.write_text(damage, encoding="latin-1")
    with mova.open(bundle(2)) as rt:
        rt.features(CHART, "sam")
    assert json.loads(verdict.read_text())["complaint"] == ""


def test_a_cache_that_cannot_be_written_costs_a_check_each_time(bundle, cache):
    cache.write_text("a file where the folder should be")
    for _ in range(2):
        with mova.open(bundle(2)) as rt:
            answer = rt.answer(CHART, "Why?", experts=(), max_new_tokens=1)
        assert "check base" in stages(answer)


def test_the_cache_folder(monkeypatch, tmp_path):
    from mova_runtime.cache_folder import cache_folder

    monkeypatch.setenv("MOVA_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("MOVA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "mova"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "mova"
    monkeypatch.setenv("MOVA_CACHE", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"
    monkeypatch.delenv("MOVA_CACHE")
    monkeypatch.setattr(Path, "home", classmethod(lambda _: (_ for _ in ()).throw(RuntimeError("no home"))))
    assert cache_folder().name == f"mova-{os.getuid()}"


def test_a_wrong_engine_hash_is_found_by_content(copied):
    """What is remembered belongs to bytes: the same engine in another bundle is not checked again."""
    with mova.open(copied) as rt:
        rt.features(CHART, "sam")
    (path,) = (Path(os.environ["MOVA_CACHE"]) / "parity").iterdir()
    hashes = [file["sha256"] for file in read_manifest(copied)["components"]["sam"]["artifacts"][0]["files"]]
    kept = json.loads(path.read_text())
    assert kept["identity"]["engine"] == hashlib.sha256("\n".join(hashes).encode()).hexdigest()
