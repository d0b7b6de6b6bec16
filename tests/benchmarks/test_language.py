"""The language model alone: what is measured is what it says it is, and the script that measures it."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import language
import language_page
import numpy as np
import pytest
import torch
from bandwidth import read_bandwidth
from company import CACHES, CHECKS, Company, Way, agree
from llamas import LLAMAS, RandomLlama, four_bit
from pages import END, mark, with_table
from speakers import MOST, Ours, prompt_ids

from mova_export.export import export
from mova_export.graphs.quantise import BLOCK
from mova_runtime import MovaError, ParityError
from mova_runtime.bundle import Bundle

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/language.py"
TINY = LLAMAS[language.TINY]
DYNAMIC, STATIC = CACHES.values()

Found = dict[str, Any]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("llama") / language.TINY
    export(RandomLlama(language.TINY), out, components=["llm"], precisions=("int4", "fp32"))
    return Bundle.open(out)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Found:
    out = tmp_path_factory.mktemp("results") / "out.json"
    options = ["--tiny", "--repeats", "2", "--threads", "1", "--precisions", "int4", "--out", out]
    done = subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "beyond reading" in done.stdout
    found: Found = json.loads(out.read_text())
    return found


def test_the_script_measures_both_parts(results: Found) -> None:
    assert set(results) == {"speed", "context"}
    for part in results.values():
        assert {"machine", "versions", "commit", "threads", "load_at_start", "load_at_end", "bundle"} <= part.keys()
        assert set(part["contenders"]) == {"int4", DYNAMIC, STATIC}
        assert set(part["agreement"]) == {"int4", STATIC}
    found = results["speed"]
    for one in found["contenders"].values():
        assert one["peak"] >= one["held"] > 0
        for step, count in (("prefill", 512), ("decode", 32)):
            assert one[step]["seconds"]["count"] == 2
            assert one[step]["tokens_per_second"] == pytest.approx(count / one[step]["seconds"]["median"])
    assert set(found["ratios"]["decode"]["int4"]) == {DYNAMIC, STATIC}
    assert found["contenders"]["int4"]["disk_bytes"] > 0
    assert found["embeddings_bytes"] == pytest.approx(512 * 128 * 4, rel=0.01)
    assert set(found["pick_seconds"]) == set(language.PICKS)


def test_the_script_measures_contexts(results: Found) -> None:
    found = results["context"]
    assert found["read_bytes_per_second"] > 1e8
    assert found["contenders"]["int4"]["cache_bytes_per_token"] == 2 * 3 * 2 * 32 * 4
    assert found["contenders"][DYNAMIC]["cache_bytes_per_token"] == 2 * 3 * 2 * 32 * 2
    for one in found["contenders"].values():
        assert list(one["seconds_per_token"]) == ["128", "256", "512", "1024"]
        assert all(spread["median"] > 0 for spread in one["seconds_per_token"].values())


def test_tables_of_what_was_measured(results: Found) -> None:
    speed, context = language_page.tables(results).split("\n\n")
    for table, rows in ((speed, 3), (context, 4)):
        lines = table.strip().splitlines()
        assert len(lines) == 2 + rows
        assert {line.count("|") for line in lines} == {lines[0].count("|")}
    assert language_page.tables({"speed": results["speed"]}) == speed + "\n"


def test_a_table_has_the_quicker_of_torchs_caches(results: Found) -> None:
    found = json.loads(json.dumps(results["speed"]))
    found["contenders"][STATIC]["decode"]["seconds"]["median"] = 1e-9
    found["ratios"]["decode"]["int4"][STATIC] |= {"median": 4.25}
    (row,) = [line for line in language_page.tables({"speed": found}).splitlines() if line.startswith("| int4 |")]
    assert "**4.25**" in row


def test_the_page_has_the_tables_of_the_results() -> None:
    """Nothing between its marks as long as there are none."""
    page = language_page.PAGE.read_text(encoding="utf-8")
    files = list(language_page.RESULTS.glob("language-*.json"))
    tables = "".join(language_page.tables(json.loads(file.read_text(encoding="utf-8"))) for file in files)
    assert mark(language_page.SCRIPT) in page
    assert END in page
    assert with_table(page, language_page.SCRIPT, tables) == page


def test_a_matrix_of_four_bits() -> None:
    weight = np.random.default_rng(0).standard_normal((96, 4 * BLOCK)).astype(np.float32)
    rounded = four_bit(weight.copy())
    blocks, before = rounded.reshape(-1, BLOCK), weight.reshape(-1, BLOCK)
    steps = np.abs(blocks).max(axis=1, keepdims=True) / 8
    assert np.abs(np.rint(blocks / steps) - blocks / steps).max() < 1e-5, "whole steps"
    assert len(np.unique(np.rint(blocks[0] / steps[0]))) <= 16
    errors = np.abs(blocks - before) / steps
    assert errors.max() <= 1.0001, "the one at 8 steps opposite to the furthest"
    assert np.mean(errors) == pytest.approx(0.25, abs=0.03)
    np.testing.assert_array_equal(four_bit(rounded.copy()), rounded)


def test_four_bits_lose_nothing(bundle: Bundle) -> None:
    """But for what is rounded while it runs: 8 bits of activations."""
    (int4,) = [one for one in bundle.component("llm").artifacts if one.precision == "int4"]
    (told,) = int4.int8
    eight, matrices = (int(word) for word in told.split() if word.isdigit())
    assert eight < matrices / 2
    assert all(parity.relative_l2 < 0.04 for parity in int4.parity)


def test_the_large_one_has_a_billion_parameters() -> None:
    source = RandomLlama(language.FULL)
    source.check(["llm"])
    parameters = sum(math.prod(shape) for shape in source.reader.values())
    assert 1.2e9 < parameters < 1.3e9
    assert RandomLlama(language.TINY, 5).origin == "llama-tiny, random weights of seed 5, rounded to 4 bits"


def test_ours_says_what_torch_says_without_a_cache(bundle: Bundle) -> None:
    ours = Ours(TINY["vocab_size"], 1, bundle.root, "fp32")
    told = ours.load()
    assert told["peak"] >= told["held"]
    said = [ours.begin(40, seed=3), *ours.go_on(10)]
    ours.forget()
    llama, ids = RandomLlama(language.TINY).load("llm"), prompt_ids(TINY["vocab_size"], 40, 3)
    with torch.inference_mode():
        for _ in said:
            ids.append(int(llama(torch.tensor([ids])).logits[0, -1].argmax()))
    assert said == ids[40:]
    assert len({*said}) > 3, "a model that always says the same would prove little"
    assert [ours.begin(40, seed=4), *ours.go_on(3)] != said[:4]
    assert len(ours.go_on(10 * MOST)) < MOST


class Saying:
    """Stands for a process; says its prompt's seed, or something else after some of them."""

    def __init__(self, wrong: int = 0) -> None:
        self.wrong, self.seed = wrong, 0

    def ask(self, method: str, *arguments: Any) -> Any:
        if method == "begin":
            _, self.seed, _ = arguments
            return self.seed
        return [self.seed + (self.seed < self.wrong)] if method == "go_on" else None


def gathered(bundle: Bundle, **wrong: int) -> Company:
    ways = {name.replace("_", " "): Way(Saying(count)) for name, count in wrong.items()}  # type: ignore[arg-type]
    return Company(bundle, ways, {})


def test_who_goes_on_otherwise_is_not_timed(bundle: Bundle) -> None:
    assert agree(gathered(bundle, torch_bf16=0, int4=3)) == {"int4": 1 - 3 / CHECKS}
    with pytest.raises(ParityError, match="int4 and torch bf16 go on differently"):
        agree(gathered(bundle, torch_bf16=0, int4=CHECKS // 2 + 1))
    assert agree(gathered(bundle, int4=3)) == {}


def test_growth_is_held_against_what_the_cache_takes_to_read(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """896 tokens more, of 1,536 bytes each, at a megabyte a second."""
    seconds = {128: 10.0, 256: 10.5, 512: 11.0, 1024: 12.0}
    monkeypatch.setattr(language, "read_bandwidth", lambda _: 1e6)
    monkeypatch.setattr(
        language, "interleave", lambda contenders, _: {one: [32 * seconds[int(one.split()[-1])]] for one in contenders}
    )
    found = language.context(argparse.Namespace(repeats=1, threads=1), gathered(bundle, int4=0))["contenders"]["int4"]
    assert found["seconds_per_token"][256]["median"] == 10.5
    assert found["growth"]["median"] == pytest.approx(0.2)
    assert found["reading_seconds"][1024] == pytest.approx(1024 * 1536 / 1e6)
    assert found["growth_beyond_reading"]["median"] == pytest.approx((12 - 896 * 1536 / 1e6) / 10 - 1)


def test_bandwidth_is_bytes_a_second() -> None:
    assert 1e8 < read_bandwidth(1, 1 << 24) < 1e13


@pytest.mark.parametrize(
    "options", [["--precisions", "fp64"], ["--torch", "compiled"], ["--repeats", "0"], ["--threads", "0"]]
)
def test_options_that_make_no_sense(
    options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["language.py", "--tiny", *options])
    with pytest.raises(SystemExit) as left:
        language.arguments()
    assert left.value.code == 2
    assert options[0] in capsys.readouterr().err


@pytest.mark.parametrize(("error", "status"), [(ParityError("apart"), 1), (MovaError("no room"), 2)])
def test_what_goes_wrong_is_one_line(
    error: MovaError, status: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["language.py", "--tiny"])
    monkeypatch.setattr(language, "exported", fails)
    assert language.main() == status
    assert capsys.readouterr().err.strip().splitlines()[-1] == f"language: {error}"
