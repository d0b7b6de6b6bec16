"""What a runtime does for the next question, for many threads, and after a fault."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mova_runtime as mova
from bundle_copy import copy_bundle, rewrite
from mova_runtime.bundle import Bundle
from mova_runtime.engines.ort import OrtBackend, OrtEngine
from mova_runtime.engines.prefetch import THREAD, Prefetcher
from mova_runtime.language.decoder import Decoder
from mova_runtime.trace import Trace
from reference_data import EXPERTS, IMAGES, cases

MakePath = Callable[[int], Path]

CHART, PHOTO, DOCUMENT = (IMAGES / f"{name}.png" for name in ("chart", "photo", "document"))
CROWD = Path(__file__).parents[1] / "crowd.py"
BESIDE_BUDGET = 128 * 2**20
"""Bytes that a process may take beside engines and cached features: libraries, tokenizers, images and inputs of eight
requests, what the allocator has not given back yet."""

QUESTION, ANOTHER = "What is the title of the chart?", "Which bar is the tallest?"


@pytest.fixture(scope="module")
def known(bundle: MakePath) -> Path:
    """A bundle whose every engine was checked and measured here: such engines may load beside other work."""
    with mova.open(bundle(2)) as runtime:
        runtime.encode(CHART, QUESTION, experts=EXPERTS)
        runtime.route(CHART, QUESTION)
    return bundle(2)


def names(answer: mova.Answer) -> list[str]:
    return [stage["name"] for stage in answer.stats.stages]


def marks(runtime: mova.Runtime, name: str) -> list[str]:
    return [e["args"]["component"] for e in runtime.trace()["traceEvents"] if e["name"] == name]


class TestFurtherQuestions:
    def test_a_second_question_about_an_image_runs_no_tower(self, known: Path) -> None:
        with mova.open(known) as runtime:
            first = runtime.answer(CHART, QUESTION, experts=("dinov2", "sam"), max_new_tokens=2)
            second = runtime.answer(CHART.read_bytes(), ANOTHER, experts=("sam", "dinov2"), max_new_tokens=2)
        assert {"base", "dinov2", "sam", "text", "preprocess clip"} <= set(names(first))
        assert set(names(second)) == {"text", "adapter", "answer"}
        assert first.stats.cache == {"hits": 0, "misses": 4}
        assert second.stats.cache == {"hits": 3, "misses": 1}

    def test_and_gets_the_answer_that_it_gets_alone(self, known: Path) -> None:
        with mova.open(known) as runtime, mova.open(known, feature_cache=0) as forgetful:
            for question in (QUESTION, ANOTHER, QUESTION):
                cached, alone = (
                    one.answer(CHART, question, experts=("vary", "sam"), max_new_tokens=8)
                    for one in (runtime, forgetful)
                )
                assert cached.tokens == alone.tokens
                assert alone.stats.cache["hits"] == 0
            assert forgetful.stats().cache["bytes"] == 0
            totals = runtime.stats()
            assert totals.cache["hits"] == 3 + 4 + 2, "features, and the text before the image"
            assert totals.cache["bytes"] > 0

    def test_towers_whose_features_are_kept_are_not_announced(
        self, known: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        load, announced = Prefetcher.load, []

        def watched(self: Prefetcher, component: str, trace: Trace, **options: Any) -> Any:
            announced.append(component)
            return load(self, component, trace, **options)

        monkeypatch.setattr(Prefetcher, "load", watched)
        case = cases(2)[0]
        with mova.open(known) as runtime:
            first = runtime.answer(case.image, case.question, max_new_tokens=1)
            assert {"base", "adapter", "llm", "text", *first.routing.experts} == set(announced)
            announced.clear()
            runtime.answer(case.image, case.question, max_new_tokens=1)
            assert set(announced) == {"adapter", "llm"}
            announced.clear()
            runtime.answer(case.image, ANOTHER, first.routing.experts, max_new_tokens=1)
            assert set(announced) == {"text", "adapter", "llm"}

    def test_another_image_has_features_of_its_own(self, known: Path) -> None:
        with mova.open(known) as runtime:
            runtime.encode(CHART, QUESTION, experts=("sam",))
            other = runtime.answer(PHOTO, QUESTION, experts=("sam",), max_new_tokens=1)
            assert other.stats.cache == {"hits": 1, "misses": 2}, "the question's text feature alone"
            assert not np.array_equal(runtime.features(CHART, "sam"), runtime.features(PHOTO, "sam"))

    def test_features_of_another_backend_are_others(self, known: Path) -> None:
        with mova.open(known) as runtime:
            runtime.encode(CHART, QUESTION, experts=("deplot",))
            runtime._loader.served["deplot"] = mova.Served("openvino:bf16")
            again = runtime.answer(CHART, QUESTION, experts=("deplot",), max_new_tokens=1)
        assert again.stats.cache == {"hits": 2, "misses": 1}, "base and text were served by the same"

    def test_the_bound_holds(self, known: Path) -> None:
        with mova.open(known, feature_cache="1MiB") as runtime:
            for image in (CHART, PHOTO, DOCUMENT):
                runtime.encode(image, QUESTION, experts=EXPERTS)
                assert runtime.stats().cache["bytes"] <= 2**20

    def test_what_a_caller_gets_is_its_own(self, known: Path) -> None:
        with mova.open(known) as runtime:
            features = runtime.features(CHART, "sam")
            before = features.copy()
            features[:] = 0
            np.testing.assert_array_equal(runtime.features(CHART, "sam"), before)

    def test_nobody_chosen_needs_neither_the_text_encoder_nor_a_second_pass(self, known: Path) -> None:
        with mova.open(known) as runtime:
            answer = runtime.answer(CHART, QUESTION, experts=(), max_new_tokens=1)
            assert runtime.engines_loaded == ("base", "adapter", "llm")
        assert names(answer).count("adapter (no experts)") == 1
        assert "adapter" not in names(answer)

    def test_experts_at_the_same_time_give_the_same(self, known: Path) -> None:
        chosen = ("dinov2", "vary", "sam")
        with mova.open(known) as in_turn, mova.open(known, experts_at_once=True) as at_once:
            expected = in_turn.encode(CHART, QUESTION, chosen)
            found = at_once.encode(CHART, QUESTION, chosen)
            np.testing.assert_array_equal(found.tokens, expected.tokens)
            threads = {e["tid"] for e in at_once.trace()["traceEvents"] if e["name"] in chosen}
            assert len(threads) > 1

    def test_a_budget_set_later_bounds_the_cache_too(self, known: Path) -> None:
        with mova.open(known, device_memory_budget="1GiB") as runtime:
            runtime.encode(CHART, QUESTION, experts=EXPERTS)
            before = runtime.stats()
            runtime.set_memory_budget(3 * before.cache["bytes"])
            after = runtime.stats()
            assert 0 < after.cache["bytes"] <= 3 * before.cache["bytes"] // 4
            assert after.pool.limits.device == before.pool.limits.device == 2**30


OPTIONS = [
    ({"lease_timeout": "0.2"}, "lease_timeout is seconds"),
    ({"lease_timeout": -1}, "lease_timeout is seconds"),
    ({"lease_timeout": float("nan")}, "lease_timeout is seconds"),
    ({"lease_timeout": float("inf")}, "lease_timeout is seconds"),
    ({"pinned": "base"}, "pinned is a sequence"),
    ({"pinned": None}, "pinned is a sequence"),
    ({"pinned": ("base", "clip")}, "no component 'clip' in the bundle"),
    ({"feature_cache": "junk"}, "feature cache 'junk' is not a size"),
    ({"feature_cache": None}, "feature cache None is not a size"),
    ({"device_memory_budget": "0"}, "memory budget '0'"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_options_that_make_no_sense(bundle: MakePath, options: dict[str, Any], message: str) -> None:
    with pytest.raises(mova.MovaError, match=message) as caught:
        mova.open(bundle(2), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("nothing", [0, "0", "0MiB", 0.0, " 0 B"])
def test_no_cache(bundle: MakePath, nothing: Any) -> None:
    with mova.open(bundle(2), feature_cache=nothing) as runtime:
        runtime.features(CHART, "deplot")
        assert runtime.stats().cache["bytes"] == 0


def test_a_closed_runtime_takes_no_budget(bundle: MakePath) -> None:
    runtime = mova.open(bundle(2))
    runtime.close()
    with pytest.raises(mova.MovaError, match="closed"):
        runtime.set_memory_budget("1GiB")
    with pytest.raises(mova.MovaError, match="closed"):
        runtime.__enter__()


class TestPrefetch:
    def test_experts_load_while_the_router_still_speaks(self, known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        case, generate = cases(2)[0], Decoder.generate

        def slowly(self: Decoder, *arguments: Any) -> Iterator[int]:
            for token in generate(self, *arguments):
                yield token
                time.sleep(0.05)

        monkeypatch.setattr(Decoder, "generate", slowly)
        with mova.open(known) as runtime:
            answer = runtime.answer(case.image, case.question, max_new_tokens=2)
            chosen = marks(runtime, "chosen")
        assert answer.routing.experts
        assert sorted(chosen) == sorted(answer.routing.experts), "all that it named, nothing else"
        stages = {stage["name"]: stage for stage in answer.stats.stages}
        end = stages["route"]["start_ms"] + stages["route"]["ms"]
        first = min(stages[f"load {name}"]["start_ms"] for name in answer.routing.experts)
        assert first < end, "a load began before the router had ended"
        assert any(stages[f"load {name}"]["thread"].startswith(THREAD) for name in answer.routing.experts)
        assert answer.stats.loading["hidden_ms"] > 0

    def test_without_it_every_load_is_the_requests_own(self, known: Path) -> None:
        with mova.open(known, prefetch=False) as runtime:
            answer = runtime.answer(CHART, QUESTION, max_new_tokens=2)
        assert answer.stats.loading["hidden_ms"] == 0
        assert answer.stats.loading["exposed_ms"] == pytest.approx(answer.stats.loading["ms"])

    def test_routing_alone_loads_no_expert(self, known: Path) -> None:
        with mova.open(known) as runtime:
            runtime.route(CHART, QUESTION)
            assert runtime.engines_loaded == ("base", "adapter", "llm")

    @pytest.mark.parametrize("speculate", [True, False])
    def test_speculation_asks_for_what_was_chosen_before(
        self, known: Path, monkeypatch: pytest.MonkeyPatch, speculate: bool
    ) -> None:
        case, load, guessed = cases(2)[0], Prefetcher.load, set()

        def watched(self: Prefetcher, component: str, trace: Trace, **options: Any) -> Any:
            if not options.get("evict", True):
                guessed.add(component)
            return load(self, component, trace, **options)

        monkeypatch.setattr(Prefetcher, "load", watched)
        with mova.open(known, speculate=speculate) as runtime:
            chosen = runtime.answer(case.image, case.question, max_new_tokens=1).routing.experts
            assert guessed == set(), "nothing to go by yet"
            runtime.answer(PHOTO, case.question, max_new_tokens=1)
        assert guessed == (set(chosen) if speculate else set())


class TestManyThreads:
    def test_eight_threads_under_a_budget_that_holds_two_experts(self, known: Path) -> None:
        """In a process of its own, so that what it takes can be measured. By hand: 200 requests of each thread."""
        command = [sys.executable, CROWD, str(known), "8", "8"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        assert found["wrong"] == []
        assert found["evictions"] > 0, "the budget has to have been felt"
        assert found["peak_reserved"] <= found["budget"]
        assert found["leased"] == []
        assert found["peak_resident"] <= found["resident_before"] + found["budget"] + BESIDE_BUDGET

    def test_a_stream_that_is_given_up_frees_its_lease(self, known: Path) -> None:
        with mova.open(known) as runtime:
            stream = runtime.stream(CHART, QUESTION, experts=("sam",), max_new_tokens=12)
            next(stream)
            assert [use.name for use in runtime.stats().pool.engines if use.users] == ["llm"]
            stream.close()
            assert not any(use.users or use.wanted for use in runtime.stats().pool.engines)

    def test_a_stream_that_is_collected_ends_in_a_thread_of_its_own(self, known: Path) -> None:
        """A collector may come by while the pool's lock is held; what it finds must not change the pool there."""
        with mova.open(known) as runtime:
            stream = runtime.stream(CHART, QUESTION, experts=(), max_new_tokens=12)
            next(stream)
            with runtime._pool.shared.changed:
                del stream
                assert runtime._pool.shared.room.engines["llm"].users == 1
            deadline = time.monotonic() + 30
            while any(use.users for use in runtime.stats().pool.engines):
                assert time.monotonic() < deadline
                time.sleep(0.01)

    def test_threads_that_need_the_same_cold_engines_load_each_once(self, known: Path) -> None:
        together = threading.Barrier(4)
        with mova.open(known) as runtime:

            def ask(_: int) -> tuple[int, ...]:
                together.wait(30)
                return runtime.answer(CHART, QUESTION, experts=("sam",), max_new_tokens=3).tokens

            with ThreadPoolExecutor(4) as workers:
                answers = set(workers.map(ask, range(4)))
            assert len(answers) == 1
            assert runtime.stats().pool.loads == 5


class TestFaults:
    def test_a_corrupted_component_harms_nobody_who_does_not_need_it(self, known: Path, tmp_path: Path) -> None:
        copied = copy_bundle(known, tmp_path / "bundle")
        with mova.open(copied) as runtime:
            weights = copied / runtime.manifest.components["sam"].artifacts[0].files[1].path
            right = weights.read_bytes()
            rewrite(weights, right[:-1] + bytes([right[-1] ^ 1]))
            with pytest.raises(mova.IntegrityError, match=r"sam.*sha256 differs"):
                runtime.answer(CHART, QUESTION, experts=("vary", "sam"), max_new_tokens=1)
            assert runtime.answer(CHART, QUESTION, experts=("vary",), max_new_tokens=1).tokens
            assert not any(use.users or use.wanted for use in runtime.stats().pool.engines)
            rewrite(weights, right)
            assert runtime.answer(CHART, QUESTION, experts=("vary", "sam"), max_new_tokens=1).tokens

    def test_a_file_that_can_not_be_read_any_more(self, known: Path, tmp_path: Path) -> None:
        copied = copy_bundle(known, tmp_path / "bundle")
        with mova.open(copied) as runtime:
            (copied / runtime.manifest.components["sam"].artifacts[0].files[0].path).unlink()
            with pytest.raises(mova.IntegrityError, match="can't be read"):
                runtime.features(CHART, "sam")
            assert runtime.features(CHART, "vary").any()

    def test_an_engine_that_dies_is_loaded_anew(self, known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run, dying = OrtEngine.run, {"sam"}

        def die_once(self: OrtEngine, *arguments: Any) -> dict[str, np.ndarray]:
            if self.name in dying:
                dying.remove(self.name)
                raise mova.BackendError("ort: 'sam' failed: device lost")
            return run(self, *arguments)

        with mova.open(known) as runtime:
            runtime.features(PHOTO, "sam")
            dying.add("sam")
            monkeypatch.setattr(OrtEngine, "run", die_once)
            with pytest.raises(mova.BackendError, match="'sam' failed"):
                runtime.answer(CHART, QUESTION, experts=("sam",), max_new_tokens=1)
            assert "sam" not in runtime.engines_loaded
            before = runtime.stats().pool.loads
            assert runtime.answer(CHART, QUESTION, experts=("sam",), max_new_tokens=1).tokens
            assert runtime.stats().pool.loads - before == 3, "sam anew, text and llm for the first time"

    def test_memory_that_runs_out_in_a_load(self, known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        load = OrtBackend.load

        def full(self: OrtBackend, bundle: Bundle, component: str) -> Any:
            if component == "sam":
                raise MemoryError
            return load(self, bundle, component)

        monkeypatch.setattr(OrtBackend, "load", full)
        with mova.open(known) as runtime:
            with pytest.raises(mova.OutOfMemoryError, match="sam"):
                runtime.answer(CHART, QUESTION, experts=("sam",), max_new_tokens=1)
            assert runtime.answer(CHART, QUESTION, experts=("vary",), max_new_tokens=1).tokens
            monkeypatch.undo()
            assert runtime.answer(CHART, QUESTION, experts=("sam",), max_new_tokens=1).tokens


class TestTrace:
    def test_what_perfetto_reads(self, known: Path) -> None:
        with mova.open(known) as runtime:
            runtime.answer(CHART, QUESTION, max_new_tokens=2)
            runtime.features(CHART, "base")
            runtime.set_memory_budget(1)
            events = json.loads(json.dumps(runtime.trace()))["traceEvents"]
        threads = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
        happened = [event for event in events if event["ph"] != "M"]
        assert {event["tid"] for event in happened} == set(threads)
        assert any(name.startswith(THREAD) for name in threads.values())
        assert {event["ph"] for event in happened} == {"X", "i"}
        assert [event["ts"] for event in happened] == sorted(event["ts"] for event in happened)
        by_name = {event["name"]: event for event in happened}
        assert by_name["load base"]["args"]["bytes"] > 0
        assert by_name["evict base"]["args"]["bytes"] > 0
        assert {"route", "answer", "cache hit", "cache miss", "cache drop base", "chosen"} <= set(by_name)
        assert all(event["dur"] >= 0 for event in happened if event["ph"] == "X")

    def test_totals_are_plain_data(self, known: Path) -> None:
        with mova.open(known) as runtime:
            runtime.answer(CHART, QUESTION, experts=("sam",), max_new_tokens=1)
            totals = json.loads(json.dumps(runtime.stats().to_dict()))
        assert totals["pool"]["loads"] == 5
        assert totals["served"]["sam"]["by"] == "ort:fp32"
        assert totals["cache"]["misses"] == 3
