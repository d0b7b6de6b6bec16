"""The `mova` command: its JSON, its exit statuses, and one line for a user's mistake."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from bundle_copy import copy_bundle, edited_manifest, file_entry, read_manifest, rewrite
from reference_data import IMAGES

CHART = IMAGES / "chart.png"


@pytest.fixture
def asked(bundle):
    """Arguments of a run that works, cheap because no expert runs."""
    return [
        "run",
        bundle(2),
        "--image",
        CHART,
        "--question",
        "Why?",
        "--experts",
        "none",
        "--max-new-tokens",
        3,
    ]


def replaced(arguments, option, value):
    at = arguments.index(option) + 1
    return [*arguments[:at], value, *arguments[at + 1 :]]


def test_run_prints_the_contracted_json(mova_command, bundle):
    done = mova_command("run", bundle(2), "--image", CHART, "--question", "Why?", "--max-new-tokens", 3, "--json")
    assert (done.status, done.error) == (0, "")
    assert done.output.count("\n") == 1
    answer = json.loads(done.output)
    assert set(answer) == {"answer", "tokens", "routing", "stats"}
    assert set(answer["routing"]) == {"text", "tokens", "experts"}
    assert {"backend", "stages", "engines_loaded", "cache"} <= set(answer["stats"])
    assert set(answer["stats"]["cache"]) == {"hits", "misses"}
    assert isinstance(answer["answer"], str)
    assert len(answer["tokens"]) == 3
    assert all(type(token) is int for token in answer["tokens"] + answer["routing"]["tokens"])
    assert answer["stats"]["backend"] == "ort"
    assert all({"name", "ms"} <= set(stage) for stage in answer["stats"]["stages"])
    assert all(isinstance(stage["ms"], float) for stage in answer["stats"]["stages"])
    assert set(answer["routing"]["experts"]) <= set(answer["stats"]["engines_loaded"])
    assert {"base", "text", "adapter", "llm"} <= set(answer["stats"]["engines_loaded"])


def test_run_without_experts(mova_command, asked):
    answer = json.loads(mova_command(*asked, "--json").output)
    assert answer["routing"] == {"text": "", "tokens": [], "experts": []}
    assert set(answer["stats"]["engines_loaded"]) == {"base", "adapter", "llm"}, "no text without experts to weigh"


def test_run_with_experts(mova_command, asked):
    answer = json.loads(mova_command(*replaced(asked, "--experts", "sam, vary"), "--json").output)
    assert answer["routing"]["experts"] == ["vary", "sam"]


def test_run_for_people(mova_command, asked):
    done = mova_command(*asked)
    assert done.status == 0
    assert done.output == json.loads(mova_command(*asked, "--json").output)["answer"] + "\n"
    assert "experts chosen: none" in done.error
    assert "engines: ort:fp32, fp32 (the bundle's first that runs here) on the CPU" in done.error
    assert "engines loaded: base, adapter, llm\n" in done.error
    assert "answer" in done.error


def test_run_writes_a_trace(mova_command, asked, tmp_path):
    done = mova_command(*asked, "--trace", tmp_path / "trace.json", "--json")
    assert done.status == 0
    stages = json.loads(done.output)["stats"]["stages"]
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    timed = [event for event in events if event["ph"] == "X"]
    assert [event["name"] for event in timed] == [stage["name"] for stage in stages]
    for event, stage in zip(timed, stages, strict=True):
        assert event["dur"] == pytest.approx(stage["ms"] * 1000, abs=1)
    assert "cache miss" in {event["name"] for event in events if event["ph"] == "i"}


def assert_user_mistake(done, *words):
    assert done.status == 2
    assert done.output == ""
    assert len(done.error_lines) == 1, done.error
    assert done.error.startswith("mova")
    assert "Traceback" not in done.error
    for word in words:
        assert word in done.error


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("--image", "absent.png", "absent.png"),
        ("--image", "", "can't be opened"),
        ("--image", __file__, "test_cli.py"),
        ("--question", "", "the question is empty"),
        ("--question", "   ", "the question is empty"),
        ("--question", "x" * 100_000, "the question is too long"),
        ("--question", "\udcff", "not valid Unicode"),
        ("--experts", "sam,clip", "unknown expert 'clip'"),
        ("--experts", "none,sam", "unknown expert 'none'"),
        ("--experts", "sam,sam", "stands twice"),
        ("--max-new-tokens", 0, "max_new_tokens must be a positive whole number"),
        ("--max-new-tokens", "many", "invalid int value: 'many'"),
    ],
)
def test_a_mistake_in_a_run(mova_command, asked, option, value, word):
    assert_user_mistake(mova_command(*replaced(asked, option, value)), word)


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("--backend", "tpu", "unknown backend 'tpu'; one of auto, ort"),
        ("--memory-budget", "plenty", "'plenty' is not a size"),
        ("--memory-budget", "1KiB", "the budget is 1.0 KiB"),
        ("--threads", "0", "threads must be a whole number from 1 to 256"),
        ("--threads", "-3", "threads must be a whole number from 1 to 256"),
        ("--trace", "/absent/folder/trace.json", "its folder does not exist"),
        ("--colour", "red", "unrecognized arguments"),
    ],
)
def test_a_mistake_in_an_option(mova_command, asked, option, value, word):
    done = mova_command(*asked, f"{option}={value}")
    assert_user_mistake(done, word)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["run"], "BUNDLE"),
        (["run", "bundle"], "--image"),
        (["inspect"], "BUNDLE"),
        (["inspect", "/absent"], "/absent: no such folder"),
        (["verify", "/absent"], "/absent: no such folder"),
        (["verify", "BUNDLE", "--max-context", "1"], "max_context is a number of tokens from 2 up"),
        (["doctor", "BUNDLE", "--max-context", "0"], "max_context is a number of tokens from 2 up"),
        (["doctor", "--max-context", "512"], "name the bundle, too"),
        (["run", "/absent", "--image", CHART, "--question", "Why?"], "/absent: no such folder"),
        (["run", "/", "--image", CHART, "--question", "Why?"], "not a bundle"),
        (["run", __file__, "--image", CHART, "--question", "Why?"], "not a bundle"),
        (["doctor", "--fast"], "unrecognized arguments"),
        (["doctor", "--max-context", "many"], "invalid int value"),
    ],
)
def test_a_mistake_in_a_command(mova_command, monkeypatch, tmp_path, bundle, arguments, word):
    monkeypatch.chdir(tmp_path)
    arguments = [bundle(2) if one == "BUNDLE" else one for one in arguments]
    assert_user_mistake(mova_command(*arguments), word)
    assert not list(tmp_path.iterdir())


def test_a_bad_bundle_in_one_line(mova_command, asked, bundle, tmp_path):
    copied = copy_bundle(bundle(2), tmp_path / "bundle")
    with edited_manifest(copied) as manifest:
        del manifest["vision"]["grid"]
    assert_user_mistake(mova_command("inspect", copied), "manifest.json.vision.grid: missing")
    with edited_manifest(copied) as manifest:
        manifest["version"] = 99
    assert_user_mistake(mova_command("verify", copied), "newer than this runtime reads")
    (copied / "manifest.json").write_text("{\n\n")
    assert_user_mistake(mova_command(*asked[:1], copied, *asked[2:]), "not valid JSON")


def test_inspect_json_is_the_manifest(mova_command, bundle):
    done = mova_command("inspect", bundle(2), "--json")
    assert (done.status, done.error) == (0, "")
    assert json.loads(done.output) == read_manifest(bundle(2))


def test_inspect_for_people(mova_command, bundle):
    done = mova_command("inspect", bundle(2))
    assert (done.status, done.error) == (0, "")
    for component in read_manifest(bundle(2))["components"]:
        assert component in done.output


def test_verify_passes_every_component(mova_command, bundle):
    done = mova_command("verify", bundle(2))
    assert (done.status, done.error) == (0, "")
    rows = [line for line in done.output.splitlines() if line.endswith(("ok", "FAILED"))]
    components = read_manifest(bundle(2))["components"]
    assert len(rows) == sum(
        len(probe["outputs"]) for one in components.values() for probe in (one["probe"], *one["more_probes"])
    )
    assert {row.split()[0] for row in rows} == set(components)
    assert all(row.endswith("ok") for row in rows)


def test_verify_of_an_unknown_component(mova_command, bundle):
    assert_user_mistake(mova_command("verify", bundle(2), "--only", "clip"), "no component clip")
    assert_user_mistake(mova_command("verify", bundle(2), "--only", ""), "names nothing")


def altered(array, how):
    if how == "slightly":
        return array * np.float32(1.001)
    if how == "NaN":
        return np.full_like(array, np.nan)
    return array[:, :-1]


@pytest.mark.parametrize("how", ["slightly", "NaN", "shape"])
def test_verify_fails_where_an_engine_says_other_than_the_probe(mova_command, bundle, tmp_path, how):
    copied = copy_bundle(bundle(2), tmp_path / "bundle")
    with edited_manifest(copied) as manifest:
        outputs = manifest["components"]["deplot"]["probe"]["outputs"]
        path = outputs["features"]["path"]
        file = io.BytesIO()
        np.save(file, altered(np.load(copied / path), how))
        rewrite(copied / path, file.getvalue())
        outputs["features"] = file_entry(copied, path)
    done = mova_command("verify", copied, "--only", "deplot,text")
    assert done.status == 1
    assert done.error_lines == ["mova: not what torch computed: deplot"]
    rows = [line.split() for line in done.output.splitlines() if line.endswith(("ok", "FAILED"))]
    assert {(row[0], row[1]): row[-1] for row in rows} == {
        ("deplot", "features"): "FAILED", ("deplot", "keys"): "ok", ("deplot", "values"): "ok", ("text", "text"): "ok",
    }  # fmt: skip


def test_a_probe_that_is_a_pickle_is_not_read(mova_command, bundle, tmp_path):
    copied = copy_bundle(bundle(2), tmp_path / "bundle")
    with edited_manifest(copied) as manifest:
        outputs = manifest["components"]["text"]["probe"]["outputs"]
        path = outputs["text"]["path"]
        file = io.BytesIO()
        np.save(file, np.array([{"code": print}], dtype=object), allow_pickle=True)
        rewrite(copied / path, file.getvalue())
        outputs["text"] = file_entry(copied, path)
    done = mova_command("verify", copied, "--only", "text")
    assert (done.status, len(done.error_lines)) == (2, 1)
    assert "not an array" in done.error


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_and_version(mova_command, arguments):
    done = mova_command(*arguments)
    assert (done.status, done.error) == (0, "")
    assert "mova" in done.output


def test_as_a_process_of_its_own(asked):
    """Exit status and streams as a shell sees them; an output that can't spell the answer still gets one."""
    command = [sys.executable, "-m", "mova_export", *map(str, asked)]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(replaced(command, "--question", "é?"), capture_output=True, env=ascii_only)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    done = subprocess.run(replaced(command, "--question", ""), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "mova: the question is empty\n")
    inspect = [sys.executable, "-m", "mova_export", "inspect", str(asked[1])]
    done = subprocess.run(inspect, capture_output=True, env=ascii_only)
    assert (done.returncode, done.stderr) == (0, b"")


def test_run_draws_as_the_seed_says(mova_command, asked):
    drawn = [
        json.loads(mova_command(*asked, "--temperature", 3, "--top-p", 0.9, "--seed", seed, "--json").output)["tokens"]
        for seed in (1, 1)
    ]
    assert drawn[0] == drawn[1]
    done = mova_command(*asked, "--temperature", -1)
    assert (done.status, done.error.count("\n")) == (2, 1)
    assert "temperature" in done.error


def test_run_ends_at_a_stop_sequence(mova_command, asked):
    whole = json.loads(mova_command(*asked, "--json").output)["answer"]
    cut = json.loads(mova_command(*asked, "--stop", "never said", "--stop", whole[1], "--json").output)
    assert cut["answer"] == whole[: whole.index(whole[1])].rstrip()
    assert cut["stats"]["finish"] == "stop"
