"""`mova eval` over a tiny bundle: what it writes is what the runtime answers, wherever the router led."""

import json
from pathlib import Path

import mova_runtime as mova
from question_files import as_lines, question
from reference_data import IMAGES, cases

TOKENS = 4


def test_answers_are_the_runtimes(bundle, mova_command, tmp_path: Path) -> None:
    asked = cases(2)[:2]
    first = f"{asked[0].image.name}"
    lines = [question(i, case.image.name, case.question) for i, case in enumerate(asked)]
    lines.insert(1, question("again", first, f"<image>\n{asked[0].question}"))
    lines.insert(2, question("sideways", "absent.png"))
    file, answers, summary = (tmp_path / name for name in ("q.jsonl", "a.jsonl", "s.json"))
    file.write_text(as_lines(lines))
    done = mova_command(
        "eval", bundle(2), "--questions", file, "--images", IMAGES, "--answers", answers, "--max-new-tokens", TOKENS,
        "--json", summary,
    )  # fmt: skip
    assert done.status == 1
    assert f"{file}:3: {IMAGES / 'absent.png'}: can't be opened (No such file or directory)" in done.error_lines
    records = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [record["question_id"] for record in records] == [0, "again", 1]
    assert records[1]["prompt"].startswith("<image>\n")
    assert records[1]["text"] == records[0]["text"]
    with mova.open(bundle(2)) as runtime:
        for record, case in zip((records[0], records[2]), asked, strict=True):
            answer = runtime.answer(case.image, case.question, max_new_tokens=TOKENS)
            assert record["text"] == answer.text.strip()
            assert record["metadata"]["routing"] == {
                "experts": list(case.experts), "text": answer.routing.text,
            }  # fmt: skip
            assert record["metadata"]["finish"] == answer.stats.finish
            assert record["metadata"]["prompt_tokens"] == answer.stats.prompt_tokens
    told = json.loads(summary.read_text())
    assert told["failed"] == {"image": 1}
    assert {route["answers"] for route in told["routes"]} == {3}
    features = 1 + 1 + len(asked[0].experts)  # base, text and experts
    assert told["cache"] == {"hits": features, "misses": 2 * features}, "the image's second question computes nothing"
    assert {"route", "answer", "adapter"} <= {stage["name"] for stage in told["stages"]}
    assert sum(stage["share"] for stage in told["stages"]) <= 1
    assert told["tokens"] == 3 * TOKENS


def test_shards_joined_are_the_whole(bundle, mova_command, tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(as_lines(question(-1, "chart.png", f"What is {number}?") for number in range(3)))
    given = ("--questions", file, "--images", IMAGES, "--experts", "none", "--max-new-tokens", 2, "--model-id", "tiny")
    parts = [tmp_path / "0.jsonl", tmp_path / "1.jsonl"]
    for number, part in enumerate(parts):
        assert mova_command("eval", bundle(2), *given, "--answers", part, "--shard", f"{number}/2").status == 0
    assert mova_command("eval", bundle(2), *given, "--answers", tmp_path / "whole.jsonl").status == 0
    joined = tmp_path / "joined.jsonl"
    assert mova_command("eval", "--join", *parts, "--questions", file, "--answers", joined).status == 0
    assert joined.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
