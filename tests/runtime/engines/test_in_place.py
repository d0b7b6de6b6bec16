"""ONNX Runtime's engine of a language model whose cache is one buffer: what its bindings do, and what `run` does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle_copy import copy_bundle, edited_manifest, rewrite
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.arrays import load_array
from mova_runtime.engines.first_load import load_first
from mova_runtime.engines.needs.guess import caches, longest, prefill, working
from mova_runtime.engines.needs.watch import Watched, resident
from mova_runtime.engines.ort import OrtBackend, open_engine
from mova_runtime.engines.ov import OpenVinoBackend
from mova_runtime.engines.protocol import Binding, Engine
from mova_runtime.errors import BackendError, BundleError
from mova_runtime.parity.gate import Gate
from mova_runtime.parity.probe import verify
from mova_runtime.trace import Trace

MIB = 1 << 20
SEED = 2


@pytest.fixture(scope="module")
def opened(bundle: Any) -> Bundle:
    return Bundle.open(bundle(SEED))


@pytest.fixture
def engine(opened: Bundle) -> Iterator[Engine]:
    engine = OrtBackend("cpu", "fp32", 1).load(opened, "llm")
    yield engine
    engine.close()


@pytest.fixture
def older(bundle: Any, tmp_path: Path) -> Bundle:
    """A bundle from before there was a second form."""
    folder = copy_bundle(bundle(SEED), tmp_path / "older")
    with edited_manifest(folder) as manifest:
        for component in manifest["components"].values():
            for artifact in component["artifacts"]:
                in_place = artifact.pop("in_place")
                artifact["files"] = [file for file in artifact["files"] if file["path"] != in_place]
    return Bundle.open(folder)


def probes(opened: Bundle) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Inputs and outputs of every probe."""

    def arrays(files: Any) -> dict[str, np.ndarray]:
        return {name: load_array(opened.path(file)) for name, file in files.items()}

    return [(arrays(probe.inputs), arrays(probe.outputs)) for probe in opened.component("llm").probes]


def names(opened: Bundle) -> list[str]:
    return [f"{layer}.{part}" for layer in range(opened.manifest.language.layers) for part in ("key", "value")]


def buffers(opened: Bundle, capacity: int, fill: float = np.nan) -> dict[str, np.ndarray]:
    language = opened.manifest.language
    shape = (1, language.key_value_heads, capacity, language.head_dim)
    return {name: np.full(shape, fill, np.float32) for name in names(opened)}


def share(binding: Binding, held: dict[str, np.ndarray]) -> None:
    for name, buffer in held.items():
        binding.share(f"present.{name}", f"past_key_values.{name}", buffer)


def read(binding: Binding, x: np.ndarray, total: int) -> np.ndarray:
    binding.set("inputs_embeds", x)
    binding.set("seqlens_k", np.array([total - 1], np.int32))
    binding.set("total_sequence_length", np.array(total, np.int32))
    binding.run()
    return np.array(binding.get("logits"))


def speech(opened: Bundle, tokens: int, seed: int = 0) -> np.ndarray:
    hidden = opened.manifest.language.hidden
    return np.random.default_rng(seed).standard_normal((1, tokens, hidden)).astype(np.float32)


# ---- which form is opened ----


def test_the_processors_backend_opens_the_form_with_one_buffer(opened: Bundle, engine: Engine) -> None:
    assert engine.cache == "shared"
    assert Watched(engine, None).cache == "shared"  # type: ignore[arg-type]
    assert OrtBackend("cpu", "fp32", 1).load(opened, "text").cache == "growing"
    assert OpenVinoBackend("fp32", 1).load(opened, "llm").cache == "growing"


def test_a_bundle_without_that_form_is_opened_as_before(older: Bundle, opened: Bundle) -> None:
    artifact = older.artifact("llm", "fp32")
    assert artifact.in_place is None
    backend = OrtBackend("cpu", "fp32", 1)
    grown = backend.load(older, "llm")
    assert grown.cache == "growing"
    assert grown.least.host == artifact.bytes
    assert verify(older, "llm", grown, "fp32").passed
    assert backend.identity(older, "llm") != backend.identity(opened, "llm"), (
        "what one was found to be, the other isn't"
    )


@pytest.mark.parametrize("where", ["elsewhere", "the first file", "another component"])
def test_a_second_form_that_can_not_be_is_refused(where: str, bundle: Any, tmp_path: Path) -> None:
    folder = copy_bundle(bundle(SEED), tmp_path / "damaged")
    with edited_manifest(folder) as manifest:
        components = manifest["components"]
        llm, sam = (components[name]["artifacts"][0] for name in ("llm", "sam"))
        if where == "elsewhere":
            llm["in_place"] = "components/llm/fp32/other.onnx"
        elif where == "the first file":
            llm["in_place"] = llm["files"][0]["path"]
        else:
            sam["in_place"] = sam["files"][1]["path"]
    with pytest.raises(BundleError, match=r"components\.(llm|sam): '.*' is no further file of a language model"):
        Bundle.open(folder)


# ---- a binding ----


def test_the_callers_arrays_are_the_cache(opened: Bundle, engine: Engine, older: Bundle) -> None:
    """Token by token, beside an engine whose cache grows: the same logits, keys and values, written where they are."""
    binding, held = engine.bind(), buffers(opened, 20)
    share(binding, held)
    grown = OrtBackend("cpu", "fp32", 1).load(older, "llm")
    language = opened.manifest.language
    empty = np.zeros((1, language.key_value_heads, 0, language.head_dim), np.float32)
    cache, total = dict.fromkeys(names(opened), empty), 0
    for piece in np.split(speech(opened, 12), [6, 9, 10, 11], axis=1):
        past, total = total, total + piece.shape[1]
        logits = read(binding, piece, total)
        inputs = {f"past_key_values.{name}": array for name, array in cache.items()}
        mask, positions = np.ones((1, total), np.int64), np.arange(past, total)[None]
        expected = grown.run({**inputs, "inputs_embeds": piece, "attention_mask": mask, "position_ids": positions})
        np.testing.assert_allclose(logits, expected["logits"], rtol=1e-4, atol=1e-5)
        cache = {name: expected[f"present.{name}"] for name in cache}
        for name, buffer in held.items():
            assert binding.get(f"present.{name}") is buffer
            np.testing.assert_allclose(buffer[:, :, :total], cache[name], rtol=1e-4, atol=1e-5)
            assert np.isnan(buffer[:, :, total:]).all()


def test_a_cache_is_copied_nowhere(opened: Bundle, engine: Engine) -> None:
    """Of buffers of 512 MiB, a run touches what it reads: no memory is taken for the rest."""
    held = {name: np.zeros((1, 2, MIB, 16), np.float32) for name in names(opened)}  # the system gives none of it yet
    assert sum(buffer.nbytes for buffer in held.values()) == 512 * MIB
    binding = engine.bind()
    share(binding, held)
    read(binding, speech(opened, 8), 8)
    before = resident()
    for total in range(9, 40):
        read(binding, speech(opened, 1), total)
    assert resident() - before < 8 * MIB


def test_a_longer_buffer_takes_a_shorter_ones_place(opened: Bundle, engine: Engine) -> None:
    short, long = buffers(opened, 8), buffers(opened, 16)
    x = speech(opened, 9)
    binding = engine.bind()
    share(binding, short)
    read(binding, x[:, :8], 8)
    for name, buffer in long.items():
        buffer[:, :, :8] = short[name]
    share(binding, long)
    once = engine.bind()
    share(once, buffers(opened, 9))
    np.testing.assert_allclose(read(binding, x[:, 8:], 9), read(once, x, 9), rtol=1e-4, atol=1e-5)


def test_conversations_at_once_do_not_disturb_each_other(opened: Bundle, engine: Engine) -> None:
    said: dict[int, np.ndarray] = {}

    def speak(seed: int) -> None:
        binding = engine.bind()
        share(binding, buffers(opened, 40))
        x = speech(opened, 40, seed)
        read(binding, x[:, :10], 10)
        said[seed] = np.concatenate([read(binding, x[:, at : at + 1], at + 1) for at in range(10, 40)])

    for seed in (1, 2):
        speak(seed)
    alone = {seed: said.pop(seed) for seed in (1, 2)}
    threads = [threading.Thread(target=speak, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, logits in alone.items():
        np.testing.assert_array_equal(said[seed], logits)
    assert not np.allclose(alone[1], alone[2])


@pytest.mark.parametrize(
    ("new", "total", "last"),
    [(1, 9, 8), (5, 12, 11), (1, 8, 200), (1, 8, -5), (1, 0, -1), (4, 8, 1), (5, 3, 2), (0, 4, 3), (1, -3, -4)],
)
def test_lengths_that_do_not_fit_are_refused(opened: Bundle, engine: Engine, new: int, total: int, last: int) -> None:
    """Some of them would have an older ONNX Runtime write where nothing is."""
    binding, held = engine.bind(), buffers(opened, 8, 0.0)
    share(binding, held)
    binding.set("inputs_embeds", speech(opened, new))
    binding.set("seqlens_k", np.array([last], np.int32))
    binding.set("total_sequence_length", np.array(total, np.int32))
    with pytest.raises(BackendError, match=r"ort: 'llm' failed: total_sequence_length .* do not fit"):
        binding.run()
    assert all((buffer == 0).all() for buffer in held.values())


def test_arrays_that_can_not_be_written_are_refused(opened: Bundle, engine: Engine) -> None:
    binding = engine.bind()
    whole = np.zeros((1, 2, 16, 16), np.float32)
    frozen = whole.copy()
    frozen.setflags(write=False)
    for array in (whole[:, :, ::2], whole.transpose(0, 1, 3, 2)[:, :, :8], frozen, whole[0]):
        with pytest.raises(
            BackendError, match=r"ort: 'llm': the array for 'present.0.key' can't be written where it is"
        ):
            binding.share("present.0.key", "past_key_values.0.key", array)


@pytest.mark.parametrize("wrong", ["dtype", "heads", "one is missing", "an input is missing", "batch"])
def test_what_does_not_fit_the_graph_is_an_error_of_the_backend(wrong: str, opened: Bundle, engine: Engine) -> None:
    binding, held = engine.bind(), buffers(opened, 8, 0.0)
    if wrong == "dtype":
        held["1.key"] = held["1.key"].astype(np.float64)
    elif wrong == "heads":
        held["1.key"] = np.zeros((1, 3, 8, 16), np.float32)
    elif wrong == "one is missing":
        del held["1.key"]
    share(binding, held)
    binding.set("inputs_embeds", np.concatenate([speech(opened, 2)] * (2 if wrong == "batch" else 1)))
    binding.set("seqlens_k", np.array([1], np.int32))
    if wrong != "an input is missing":
        binding.set("total_sequence_length", np.array(2, np.int32))
    with pytest.raises(BackendError, match="'llm' failed"):
        binding.run()


def test_a_closed_engine(opened: Bundle, engine: Engine) -> None:
    binding, held = engine.bind(), buffers(opened, 8)
    share(binding, held)
    read(binding, speech(opened, 2), 2)
    kept = {name: buffer.copy() for name, buffer in held.items()}
    engine.close()
    for use in (lambda: read(binding, speech(opened, 1), 3), lambda: share(binding, held), engine.bind):
        with pytest.raises(BackendError, match="it was closed"):
            use()
    with pytest.raises(BackendError, match="it was closed"):
        engine.run(probes(opened)[0][0])
    for name, buffer in held.items():  # they are their caller's
        np.testing.assert_array_equal(buffer, kept[name])


def test_engines_whose_cache_grows_share_nothing(opened: Bundle, older: Bundle) -> None:
    from mova_runtime.engines.cuda.binding import DeviceBinding

    array = np.zeros((1, 2, 8, 16), np.float32)
    ort, openvino = OrtBackend("cpu", "fp32", 1).load(older, "llm"), OpenVinoBackend("fp32", 1).load(opened, "llm")
    for binding in (ort.bind(), openvino.bind(), DeviceBinding(lambda inputs: {})):
        with pytest.raises(BackendError, match=r"'present.0.key' is not written where 'past_key_values.0.key' is"):
            binding.share("present.0.key", "past_key_values.0.key", array)


def test_older_libraries_hold_scores(opened: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    language, found = opened.manifest.language, {}
    for installed in ("1.31.1", "2.0.0", "1.23.2", "1.22.1", None):
        monkeypatch.setattr("mova_runtime.engines.needs.guess.version", lambda name, told=installed: told)
        found[installed] = prefill(language, "shared")
    assert found["1.31.1"] == found["2.0.0"] < found["1.23.2"] == found["1.22.1"] == found[None] < prefill(language)


# ---- in the form of a cache that grows ----


def test_run_takes_and_gives_a_cache_that_grows(opened: Bundle, engine: Engine) -> None:
    for inputs, expected in probes(opened):
        before = {name: array.copy() for name, array in inputs.items()}
        found = engine.run(inputs)
        assert set(found) == set(expected)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-5)
            np.testing.assert_array_equal(engine.keep(inputs)[name], found[name])
        for name, array in before.items():
            np.testing.assert_array_equal(inputs[name], array)
        assert list(engine.run(inputs, ["present.1.value"])) == ["present.1.value"]


def test_parity_is_checked_and_memory_measured_as_ever(
    opened: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MOVA_CACHE", str(tmp_path))
    found = load_first(opened, "llm", OrtBackend("cpu", "fp32", 1), Gate(opened), Trace(), lambda: 0)
    try:
        assert found.measured
        language = opened.manifest.language
        one = 4 * language.layers * language.key_value_heads * language.head_dim * language.context * 2
        assert caches(language, "shared") == one == caches(language) // 2
        guess = working(opened, "llm", 1 << 40, "shared")
        assert guess == one + prefill(language, "shared") == longest(opened, "llm", 0, "shared")
        assert one <= found.took.need.working.host < caches(language) + prefill(language)
        assert OrtBackend("cpu", "fp32", 1).need(opened, "llm").working.host == guess
        assert OpenVinoBackend("fp32", 1).need(opened, "llm").working.host == caches(language) + prefill(language)
    finally:
        found.engine.close()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("batch", "it takes one prompt at a time"),
        ("gap", "it reads all of what is before a token, and nothing else"),
        ("positions", "it reads all of what is before a token, and nothing else"),
        ("no mask", "an input is missing, attention_mask"),
        ("no cache", r"an input is missing, past_key_values\.1\.key"),
        ("shorter cache", r"past_key_values\.1\.key is \[1, 2, 2, 16\], and 3 tokens were read before"),
        ("flat cache", r"past_key_values\.1\.key is \[2, 3, 16\], and 3 tokens were read before"),
    ],
)
def test_what_can_not_be_told_in_place_is_refused(change: str, told: str, opened: Bundle, engine: Engine) -> None:
    inputs = dict(probes(opened)[0][0])
    if change == "batch":
        inputs = {name: np.concatenate((array, array)) for name, array in inputs.items()}
    elif change == "gap":
        inputs["attention_mask"] = np.array([[0, *[1] * 7]])
    elif change == "positions":
        inputs["position_ids"] = inputs["position_ids"] + 1
    elif change == "no mask":
        del inputs["attention_mask"]
    elif change == "no cache":
        del inputs["past_key_values.1.key"]
    elif change == "shorter cache":
        inputs["past_key_values.1.key"] = inputs["past_key_values.1.key"][:, :, :2]
    else:
        inputs["past_key_values.1.key"] = inputs["past_key_values.1.key"][0]
    with pytest.raises(BackendError, match=f"ort: 'llm' failed: {told}"):
        engine.run(inputs)


def test_a_wrong_weight_is_noticed(opened: Bundle, bundle: Any, tmp_path: Path) -> None:
    """Parity is that of the form that answers."""
    folder = copy_bundle(bundle(SEED), tmp_path / "damaged")
    artifact = opened.artifact("llm", "fp32")
    weights = folder / artifact.files[1].path
    rewrite(weights, (np.fromfile(weights, np.float32) * np.float32(1.1)).tobytes())
    engine = open_engine(folder / str(artifact.in_place), "llm", 0, 1, prepack=True, cache="shared")
    assert not verify(opened, "llm", engine, "fp32").passed
