"""The runtime's contract on real bundles: what comes back, what is loaded for it, and what is refused."""

import gc
import io
import threading

import numpy as np
import pytest
from PIL import Image

import mova_runtime as mova
from bundle_copy import copy_bundle, edited_manifest
from reference_data import EXPERTS, IMAGES, cases, relative_l2

CHART, PHOTO, DOCUMENT = (IMAGES / f"{name}.png" for name in ("chart", "photo", "document"))
QUESTION = "What is the title of the chart?"

CHANNELS = {
    "base": 1024, "dinov2": 96, "vary": 512, "codetr": 256,
    "pix2struct": 96, "deplot": 48, "biomedclip": 192, "sam": 256,
}  # fmt: skip
SHAPES = {"clip": (3, 112, 112), "dinov2": (3, 112, 112), "high": (3, 256, 256), "flattened": (144, 770)}


@pytest.fixture(scope="module")
def rt(bundle):
    with mova.open(bundle(2)) as runtime:
        yield runtime


@pytest.fixture
def fresh(bundle):
    with mova.open(bundle(2)) as runtime:
        yield runtime


def test_preprocess(rt):
    inputs = rt.preprocess(CHART)
    assert {name: array.shape for name, array in inputs.items()} == SHAPES
    assert {array.dtype for array in inputs.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", CHANNELS)
def test_features(rt, name):
    features = rt.features(CHART, name)
    assert features.ndim == 2
    assert features.shape[1] == CHANNELS[name]
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def test_encode_by_hand(rt):
    visual = rt.encode(CHART, QUESTION, experts=("sam", "dinov2"))
    assert visual.tokens.shape == (16, 64)
    assert visual.gates.shape == (1, 7)
    assert visual.tokens.dtype == visual.gates.dtype == np.float32
    assert np.flatnonzero(visual.gates[0]).tolist() == [0, 6]
    np.testing.assert_allclose(visual.gates.sum(axis=1), 1, atol=1e-6)
    again = rt.encode(CHART, QUESTION, experts=["dinov2", "sam"])
    np.testing.assert_array_equal(visual.tokens, again.tokens)


def test_encode_without_experts(rt):
    visual = rt.encode(CHART, QUESTION, experts=())
    assert not visual.gates.any()
    assert relative_l2(visual.tokens, rt.encode(CHART, QUESTION, experts=("sam",)).tokens) > 1e-3


def test_of_seven_experts_three_count(rt):
    assert np.count_nonzero(rt.encode(CHART, QUESTION, experts=EXPERTS).gates, axis=1).tolist() == [3]


def test_encode_asks_the_router_like_answer(bundle):
    case = cases(6)[0]
    with mova.open(bundle(6)) as runtime:
        routing = runtime.route(case.image, case.question)
        assert len(routing.experts) > 3
        assert isinstance(routing.text, str)
        assert all(type(token) is int for token in routing.tokens)
        assert routing.experts == tuple(name for name in EXPERTS if name in routing.experts)
        routed = runtime.encode(case.image, case.question)
        chosen = runtime.encode(case.image, case.question, experts=routing.experts)
        answer = runtime.answer(case.image, case.question, max_new_tokens=2)
    np.testing.assert_array_equal(routed.tokens, chosen.tokens)
    assert answer.routing == routing


def test_answer(fresh):
    answer = fresh.answer(CHART, QUESTION, max_new_tokens=6)
    assert isinstance(answer, mova.Answer)
    assert isinstance(answer.text, str)
    assert type(answer.tokens) is tuple
    assert len(answer.tokens) == 6
    assert all(type(token) is int for token in answer.tokens)
    assert answer.text == answer.text.strip()
    assert answer.routing == fresh.route(CHART, QUESTION)
    stats = answer.stats
    assert (stats.backend, stats.precision, stats.finish) == ("ort", "fp32", "length")
    assert stats.prompt_tokens > 16
    names = [stage["name"] for stage in stats.stages]
    for stage in ("base", "text", "adapter (no experts)", "route", "adapter", "answer"):
        assert names.count(stage) == 1, stage
    assert all(stage["ms"] >= 0 and stage["start_ms"] >= 0 for stage in stats.stages)
    assert [stage["start_ms"] for stage in stats.stages] == sorted(stage["start_ms"] for stage in stats.stages)


def test_what_both_passes_need_is_computed_once(fresh):
    answer = fresh.answer(CHART, QUESTION, max_new_tokens=1)
    names = [stage["name"] for stage in answer.stats.stages]
    assert names.count("base") == names.count("text") == 1
    for expert in answer.routing.experts:
        assert names.count(expert) == 1
    assert answer.stats.cache == {"hits": 0, "misses": 2 + len(answer.routing.experts)}


def test_a_choice_of_experts_asks_no_router(fresh):
    answer = fresh.answer(CHART, QUESTION, experts=("sam", "vary"), max_new_tokens=2)
    assert answer.routing == mova.Routing(("vary", "sam"), "", ())
    names = [stage["name"] for stage in answer.stats.stages]
    assert "route" not in names
    assert "adapter (no experts)" not in names
    assert set(names) & set(EXPERTS) == {"vary", "sam"}


def test_only_the_selected_experts_are_loaded(fresh):
    assert fresh.engines_loaded == ()
    answer = fresh.answer(CHART, QUESTION, experts=("vary", "sam"), max_new_tokens=2)
    assert set(answer.stats.engines_loaded) & set(EXPERTS) == {"vary", "sam"}
    assert set(answer.stats.engines_loaded) == {"base", "text", "adapter", "llm", "vary", "sam"}
    assert fresh.engines_loaded == answer.stats.engines_loaded


def test_routing_loads_no_expert(fresh):
    fresh.route(CHART, QUESTION)
    assert set(fresh.engines_loaded) == {"base", "adapter", "llm"}


def test_opening_and_preprocessing_load_nothing(fresh):
    fresh.preprocess(CHART)
    assert fresh.engines_loaded == ()
    fresh.features(CHART, "sam")
    assert fresh.engines_loaded == ("sam",)


def test_every_source_of_an_image_gives_the_same(rt):
    pillow = Image.open(CHART)
    pixels = np.asarray(pillow.convert("RGB"))
    expected = rt.answer(CHART, QUESTION, experts=("sam",), max_new_tokens=4).tokens
    for image in (str(CHART), CHART.read_bytes(), pillow, pixels):
        assert rt.answer(image, QUESTION, experts=("sam",), max_new_tokens=4).tokens == expected


@pytest.mark.parametrize(("image", "experts"), [(CHART, None), (PHOTO, ()), (DOCUMENT, ("deplot",))])
def test_a_stream_is_the_answer_in_pieces(rt, image, experts):
    answer = rt.answer(image, QUESTION, experts, max_new_tokens=24)
    pieces = list(rt.stream(image, QUESTION, experts, max_new_tokens=24))
    assert all(isinstance(piece, str) and piece for piece in pieces)
    assert "".join(pieces) == answer.text


def test_a_shorter_answer_is_the_beginning_of_a_longer(rt):
    long = rt.answer(CHART, QUESTION, experts=(), max_new_tokens=12).tokens
    for limit in (1, 5):
        assert rt.answer(CHART, QUESTION, experts=(), max_new_tokens=limit).tokens == long[:limit]


def test_the_model_that_ends_by_itself(bundle, tmp_path):
    """Its fifth token is declared the stop token: the answer ends there, and holds it."""
    with mova.open(bundle(2)) as runtime:
        tokens = runtime.answer(CHART, QUESTION, experts=(), max_new_tokens=12).tokens
    copied = copy_bundle(bundle(2), tmp_path / "bundle")
    spelled = {letter: ord(letter) - ord("!") for letter in map(chr, range(ord("!"), 127))}
    stop = next(letter for letter, token in spelled.items() if token in tokens)
    with edited_manifest(copied) as manifest:
        manifest["prompts"]["stop"] = stop
    with mova.open(copied) as runtime:
        answer = runtime.answer(CHART, QUESTION, experts=(), max_new_tokens=12)
    assert answer.tokens == tokens[: tokens.index(spelled[stop]) + 1]
    assert answer.stats.finish == "stop"


def test_a_batch_of_three_equals_three_single_runs(rt):
    images, questions = (
        [CHART, PHOTO, DOCUMENT],
        [QUESTION, "Describe the image.", "What is the total on line 07?"],
    )
    choices = [(), ("sam", "vary"), EXPERTS]
    batch = rt.encode_batch(images, questions, choices)
    assert len(batch) == 3
    for found, image, question, experts in zip(batch, images, questions, choices, strict=True):
        alone = rt.encode(image, question, experts=experts)
        assert found.tokens.shape == alone.tokens.shape
        assert found.gates.shape == alone.gates.shape
        assert relative_l2(found.tokens, alone.tokens) < 1e-5
        np.testing.assert_allclose(found.gates, alone.gates, atol=1e-6)
        assert np.count_nonzero(found.gates) == min(len(experts), 3)


def test_batches_of_none_and_of_one(rt):
    assert rt.encode_batch([], [], []) == []
    (found,) = rt.encode_batch([CHART], [QUESTION], [()])
    assert relative_l2(found.tokens, rt.encode(CHART, QUESTION, experts=()).tokens) < 1e-6


def test_a_batch_in_another_order(rt):
    images, choices = [CHART, PHOTO], [("sam", "deplot"), ("sam",)]
    forward = rt.encode_batch(images, [QUESTION, "Why?"], choices)
    backward = rt.encode_batch(images[::-1], ["Why?", QUESTION], choices[::-1])
    for found, expected in zip(backward[::-1], forward, strict=True):
        assert relative_l2(found.tokens, expected.tokens) < 1e-5


def test_batches_that_do_not_match(rt):
    with pytest.raises(mova.ExpertError, match="2 images, 1 questions and 2 choices"):
        rt.encode_batch([CHART, PHOTO], [QUESTION], [(), ()])
    with pytest.raises(mova.ExpertError, match="a sequence of names, not None"):
        rt.encode_batch([CHART], [QUESTION], [None])
    with pytest.raises(mova.QuestionError, match="empty"):
        rt.encode_batch([CHART], [""], [()])


def test_two_threads_get_what_one_gets(rt, fresh):
    asked = [(CHART, QUESTION, ("sam",)), (PHOTO, "Describe the image.", None)]
    expected = [rt.answer(*question, max_new_tokens=8) for question in asked]
    found: dict[int, mova.Answer] = {}
    together = threading.Barrier(len(asked))

    def ask(index):
        together.wait(30)
        found[index] = fresh.answer(*asked[index], max_new_tokens=8)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [found[i].tokens for i in range(len(asked))] == [answer.tokens for answer in expected]
    assert [found[i].routing for i in range(len(asked))] == [answer.routing for answer in expected]


@pytest.mark.parametrize("experts", [None, ()])
def test_a_question_of_a_hundred_thousand_characters(fresh, experts):
    for ask in (fresh.answer, lambda *asked: list(fresh.stream(*asked))):
        with pytest.raises(
            mova.QuestionError,
            match=r"takes \d{6} tokens, the model reads at most (2047|2032); shorten it by \d+ tokens",
        ):
            ask(CHART, "x" * 100_000, experts)
    assert fresh.engines_loaded == ()


def test_routing_a_question_too_long(fresh):
    for ask in (fresh.route, fresh.encode):
        with pytest.raises(mova.QuestionError, match="too long"):
            ask(CHART, "x" * 100_000)
    assert fresh.engines_loaded == ()


def test_the_longest_question_that_fits(rt):
    """The message's number is exact: so many tokens less, and it is answered with one token, for want of room."""
    question = "x" * 2000
    with pytest.raises(mova.QuestionError) as caught:
        rt.answer(PHOTO, question, experts=())
    excess = int(str(caught.value).rsplit("shorten it by ", 1)[1].split()[0])
    with pytest.raises(mova.QuestionError, match=r"shorten it by 1 token$"):
        rt.answer(PHOTO, question[: -excess + 1], experts=())
    answer = rt.answer(PHOTO, question[:-excess], experts=(), max_new_tokens=5)
    assert len(answer.tokens) == 1
    assert answer.stats.prompt_tokens == 2047
    assert answer.stats.finish in ("context", "stop")


def test_a_question_whose_routing_prompt_alone_is_too_long(rt):
    question = "x" * 1200
    assert rt.answer(PHOTO, question, experts=(), max_new_tokens=1).tokens
    with pytest.raises(mova.QuestionError, match="too long"):
        rt.answer(PHOTO, question, max_new_tokens=1)


def test_a_prompt_bound_shorter_than_the_context(bundle, tmp_path):
    copied = copy_bundle(bundle(2), tmp_path / "bundle")
    with edited_manifest(copied) as manifest:
        manifest["language"]["max_prompt"] = 50
    with mova.open(copied) as runtime, pytest.raises(mova.MovaError, match=r"too short for any question.* 50"):
        runtime.answer(CHART, QUESTION, experts=())


@pytest.mark.parametrize("question", ["", "  ", "<image>", None, b"Why?", "\ud800"])
def test_questions_that_are_none(fresh, question):
    for ask in (fresh.answer, fresh.route, fresh.encode, lambda *asked: list(fresh.stream(*asked))):
        with pytest.raises(mova.QuestionError):
            ask(CHART, question)
    assert fresh.engines_loaded == ()


@pytest.mark.parametrize(
    "question",
    ["What is <image> here?", "<|eot_id|> <|begin_of_text|>", "[SEP] [MASK]", "{message}", "\x00", "😀" * 20],
)
def test_odd_questions_are_answered(rt, question):
    answer = rt.answer(CHART, question, experts=("sam",), max_new_tokens=3)
    assert 1 <= len(answer.tokens) <= 3


@pytest.mark.parametrize("limit", [0, -1, True, "3", 2.0, None])
def test_limits_that_are_none(fresh, limit):
    for ask in (fresh.answer, lambda *asked, **options: list(fresh.stream(*asked, **options))):
        with pytest.raises(mova.QuestionError, match="max_new_tokens must be a positive whole number"):
            ask(CHART, QUESTION, max_new_tokens=limit)
    assert fresh.engines_loaded == ()


@pytest.mark.parametrize("experts", [("clip",), ("sam", "sam"), "sam", ("base",), 7])
def test_experts_that_are_none(fresh, experts):
    for ask in (fresh.answer, fresh.encode, lambda *asked: list(fresh.stream(*asked))):
        with pytest.raises(mova.ExpertError):
            ask(CHART, QUESTION, experts)
    assert fresh.engines_loaded == ()


def test_the_router_has_room_for_its_answer(bundle):
    """A context that cut it short would choose other experts."""
    with mova.open(bundle(2)) as runtime:
        whole = runtime.answer(CHART, "Why?", max_new_tokens=1).routing
    with mova.open(bundle(2), max_context=1000) as runtime, pytest.raises(mova.MovaError) as caught:
        runtime.answer(CHART, "Why?", max_new_tokens=1)
    least = 1000 + int(str(caught.value).rpartition(" ")[2])
    with mova.open(bundle(2), max_context=least) as runtime:
        assert runtime.answer(CHART, "Why?", max_new_tokens=1).routing == whole
    with (
        mova.open(bundle(2), max_context=least - 1) as runtime,
        pytest.raises(mova.QuestionError, match=r"by 1 token$"),
    ):
        runtime.answer(CHART, "Why?", max_new_tokens=1)


@pytest.mark.parametrize("name", ["clip", "", None, "Base"])
def test_features_of_nobody(rt, name):
    with pytest.raises(mova.ExpertError, match=r"no encoder .*; one of base, dinov2, vary"):
        rt.features(CHART, name)


@pytest.mark.parametrize(
    "image", ["absent.png", "", b"", b"no image", None, 3, CHART.read_bytes()[:200], np.zeros((4, 4))]
)
def test_images_that_are_none(fresh, image):
    for ask in (fresh.answer, fresh.route):
        with pytest.raises(mova.ImageError) as caught:
            ask(image, QUESTION)
        assert "\n" not in str(caught.value)
    with pytest.raises(mova.ImageError):
        fresh.preprocess(image)
    with pytest.raises(mova.ImageError):
        fresh.features(image, "base")
    assert fresh.engines_loaded == ()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "I;16", "CMYK"])
def test_images_of_other_modes_are_answered(rt, mode):
    file = io.BytesIO()
    Image.new(mode, (1, 1)).save(file, "TIFF")
    assert rt.answer(file.getvalue(), QUESTION, experts=("deplot",), max_new_tokens=1).tokens


def test_a_closed_runtime(bundle):
    with mova.open(bundle(2)) as runtime:
        runtime.features(CHART, "sam")
        stream = runtime.stream(CHART, QUESTION)
    assert runtime.engines_loaded == ()
    for ask in (
        lambda: runtime.answer(CHART, QUESTION),
        lambda: runtime.features(CHART, "sam"),
        lambda: runtime.preprocess(CHART),
        lambda: runtime.encode_batch([CHART], [QUESTION], [()]),
        lambda: next(stream),
    ):
        with pytest.raises(mova.MovaError, match="the runtime is closed"):
            ask()
    runtime.close()
    assert runtime.manifest.version == 1


def test_closing_in_the_middle_of_a_stream(bundle):
    with mova.open(bundle(2)) as runtime:
        whole = runtime.answer(CHART, QUESTION, experts=(), max_new_tokens=12).text
        stream = runtime.stream(CHART, QUESTION, experts=(), max_new_tokens=12)
        begun = next(stream)
    assert runtime.engines_loaded == ("llm",), "it speaks to its end"
    assert begun + "".join(stream) == whole
    assert runtime.engines_loaded == ()


def peaks(runtime):
    """Bytes of each loaded engine while it loads or runs."""
    return {use.name: use.need.peak.host for use in runtime.stats().pool.engines}


def test_a_memory_budget_unloads_and_changes_nothing(bundle):
    with mova.open(bundle(2)) as large:
        expected = {experts: large.answer(CHART, QUESTION, experts, max_new_tokens=4) for experts in (None, ("sam",))}
        budget = max(peaks(large).values())
        loaded = large.engines_loaded
    with mova.open(bundle(2), memory_budget=budget) as small:
        for experts, answer in expected.items():
            assert small.answer(CHART, QUESTION, experts, max_new_tokens=4).tokens == answer.tokens
        totals = small.stats().pool
        assert totals.peak.host <= budget
        assert totals.evictions > 0
        assert len(small.engines_loaded) < len(loaded)


def test_a_memory_budget_too_small_for_one_engine(fresh, bundle):
    fresh.features(CHART, "base")
    with mova.open(bundle(2), memory_budget=peaks(fresh)["base"] - 1) as small:
        with pytest.raises(mova.MemoryBudgetError, match=r"engine 'base' needs .*; the budget is"):
            small.features(CHART, "base")
        assert small.engines_loaded == ()
    with pytest.raises(mova.MemoryBudgetError, match="not a size"):
        mova.open(bundle(2), memory_budget="plenty")


def test_an_abandoned_stream_gives_its_engine_back(fresh, bundle):
    """While it speaks its engine leaves no room for the adapter; however it ends, there is room again."""
    fresh.answer(CHART, QUESTION, experts=(), max_new_tokens=1)
    with mova.open(bundle(2), memory_budget=peaks(fresh)["adapter"], feature_cache=0, lease_timeout=0.2) as small:
        stream = small.stream(CHART, QUESTION, experts=(), max_new_tokens=12)
        next(stream)
        with pytest.raises(mova.MemoryBudgetError, match=r"waited 0.2 s for 'adapter' .* is leased by llm"):
            small.encode(CHART, QUESTION, experts=())
        stream.close()
        small.encode(CHART, QUESTION, experts=())
        stream = small.stream(CHART, QUESTION, experts=(), max_new_tokens=12)
        next(stream)
        del stream
        gc.collect()
        small.encode(CHART, QUESTION, experts=())


def test_a_bundle_that_lacks_components(bundle, tmp_path):
    copied = copy_bundle(bundle(2), tmp_path / "bundle")
    with edited_manifest(copied) as manifest:
        manifest["components"] = {name: manifest["components"][name] for name in ("base", "text", "adapter", "sam")}
        manifest["language"]["embeddings"] = None
    with mova.open(copied) as runtime:
        assert runtime.encode(CHART, QUESTION, experts=("sam",)).tokens.shape == (16, 64)
        for ask in (
            lambda: runtime.features(CHART, "vary"),
            lambda: runtime.answer(CHART, QUESTION, experts=()),
            lambda: runtime.encode(CHART, QUESTION, experts=("vary",)),
        ):
            with pytest.raises(mova.BundleError, match="exported without component"):
                ask()
