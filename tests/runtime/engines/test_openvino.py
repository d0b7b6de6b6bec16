"""OpenVINO against the same golden outputs and float32 probes as ONNX Runtime."""

import threading

import numpy as np
import pytest

import mova_runtime as mova
from mova_runtime.bundle import Bundle
from mova_runtime.engines.machine import multiplies
from mova_runtime.engines.ov import OpenVinoBackend
from mova_runtime.parity.bars import BARS
from mova_runtime.parity.probe import verify
from reference_data import EXPERTS, IMAGES, cases, relative_l2

COMPONENTS = ("base", *EXPERTS, "text", "adapter", "llm")
CHART = IMAGES / "chart.png"

bfloat16 = pytest.mark.skipif(not multiplies("bf16"), reason="this processor has no bfloat16 instructions")


@pytest.fixture(scope="module", params=["fp32", pytest.param("bf16", marks=bfloat16)])
def backend(request):
    return OpenVinoBackend(request.param)


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_component_passes_its_bar(bundle, backend, component):
    opened = Bundle.open(bundle(2))
    engine = backend.load(opened, component)
    verdict = verify(opened, component, engine, backend.precision)
    engine.close()
    assert verdict.passed, verdict.complaint()
    if backend.precision == "bf16":
        assert all(output.cosine >= 0.999 for output in verdict.outputs)
        # Identical outputs would mean that it ignored the precision.
        assert max(output.relative_l2 for output in verdict.outputs) > 10 * BARS["fp32"].relative_l2


@pytest.mark.parametrize("seed", [2, 6])
def test_float32_gives_the_golden_answers(bundle, seed):
    with mova.open(bundle(seed), backend="openvino", precision="fp32") as rt:
        for case in cases(seed):
            answer = rt.answer(case.image, case.question, max_new_tokens=len(case.answer_tokens))
            assert list(answer.tokens) == list(case.answer_tokens)
            assert answer.routing.experts == case.experts
    assert {served.by for served in answer.stats.served.values()} == {"openvino:fp32"}


@pytest.mark.parametrize("experts", [(), ("sam",), EXPERTS])
def test_any_number_of_pairs_equals_onnx_runtime(bundle, experts):
    visuals = []
    for name in ("ort", "openvino"):
        with mova.open(bundle(2), backend=name) as rt:
            visuals.append(rt.encode(CHART, "Why?", experts=experts))
    assert relative_l2(visuals[1].tokens, visuals[0].tokens) < 1e-4
    np.testing.assert_allclose(visuals[1].gates, visuals[0].gates, rtol=0, atol=1e-5)


def test_threads_share_an_engine(bundle):
    opened = Bundle.open(bundle(2))
    engine = OpenVinoBackend("fp32").load(opened, "text")
    rows = [np.full((1, 5 + i), 7 + i, np.int64) for i in range(8)]
    alone = [engine.run({"ids": ids, "mask": np.ones_like(ids)})["text"] for ids in rows]
    together = [None] * len(rows)

    def run(i):
        for _ in range(5):
            together[i] = engine.run({"ids": rows[i], "mask": np.ones_like(rows[i])})["text"]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(rows))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_two_conversations_do_not_share_a_cache(bundle):
    """Two bindings of one engine, a step of each in turn, give what each gives alone."""
    language = Bundle.open(bundle(2)).manifest.language
    engine = OpenVinoBackend("fp32").load(Bundle.open(bundle(2)), "llm")
    embeddings = np.random.default_rng(0).standard_normal((2, 4, language.hidden)).astype(np.float32)

    def steps(binding, which):
        for past in range(4):
            for layer in range(language.layers):
                for part in ("key", "value"):
                    name = f"past_key_values.{layer}.{part}"
                    if past:
                        binding.carry(f"present.{layer}.{part}", name)
                    else:
                        binding.set(name, np.empty((1, language.key_value_heads, 0, language.head_dim), np.float32))
            binding.set("inputs_embeds", embeddings[which, None, past : past + 1])
            binding.set("attention_mask", np.ones((1, past + 1), np.int64))
            binding.set("position_ids", np.array([[past]]))
            binding.run()
            yield binding.get("logits").copy()

    alone = [list(steps(engine.bind(), which)) for which in (0, 1)]
    both = list(zip(steps(engine.bind(), 0), steps(engine.bind(), 1), strict=True))
    for step, pair in enumerate(both):
        for which in (0, 1):
            np.testing.assert_allclose(pair[which], alone[which][step], rtol=0, atol=1e-5)


@pytest.mark.parametrize("inputs", [{}, {"pixels": np.zeros((1, 3, 5, 5), np.float32)}, {"pictures": np.zeros(1)}])
def test_inputs_that_do_not_fit(bundle, inputs):
    engine = OpenVinoBackend("fp32").load(Bundle.open(bundle(2)), "base")
    with pytest.raises(mova.BackendError, match="openvino: 'base' failed") as caught:
        engine.run(inputs)
    assert "\n" not in str(caught.value)


def test_a_graph_it_cannot_read(bundle, tmp_path):
    from bundle_copy import copy_bundle, edited_manifest, file_entry, rewrite

    copied = copy_bundle(bundle(2), tmp_path / "bundle")
    with edited_manifest(copied) as manifest:
        files = manifest["components"]["text"]["artifacts"][0]["files"]
        rewrite(copied / files[0]["path"], b"not a graph")
        files[0] = file_entry(copied, files[0]["path"])
    with (
        mova.open(copied, backend="openvino") as rt,
        pytest.raises(mova.BackendError, match="openvino: can't load 'text'"),
    ):
        rt.encode(CHART, "Why?", experts=("sam",))


def test_threads_are_passed_on(bundle):
    backend = OpenVinoBackend("fp32", threads=1)
    engine = backend.load(Bundle.open(bundle(2)), "text")
    assert engine._compiled.get_property("INFERENCE_NUM_THREADS") == 1
