"""Mistakes are told in one line, before anything is measured."""

from __future__ import annotations

import pytest

from command_line import assert_user_error


@pytest.fixture(autouse=True)
def nothing_is_measured(monkeypatch):
    def never(*_, **__):
        raise AssertionError("measured")

    monkeypatch.setattr("mova_export.bench.measurement.Measurement.run", never)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--only", "sma"], "unknown component sma; one of base, dinov2"),
        (["--only", "sam,sam"], "component sam is named twice"),
        (["--only", ","], "names nothing"),
        (["--backend", "onnx"], "unknown backend onnx; one of ort"),
        (["--precision", "fp8"], "unknown precision fp8; one of fp32"),
        (["--precision", "int8"], "nothing asked for can run base: ort: no int8 in the bundle"),
        (["--routes", "sma"], "no expert 'sma' in the bundle; it has dinov2"),
        (["--routes", "sam+sam"], "an expert is named twice"),
        (["--routes", "none,none"], "route none is named twice"),
        (["--routes", "off,sam"], "off stands alone"),
        (["--against", "tensorflow"], "unknown --against tensorflow; one of torch, torch.compile"),
        (["--against", "torch"], "pass --checkpoint DIR"),
        (["--checkpoint", "."], "pass --against torch too"),
        (["--threads", "0"], "threads must be a whole number"),
        (["--warmup", "-1"], "--warmup -1: expected 0"),
        (["--repeats", "0"], "--repeats 0: expected 1"),
        (["--seconds", "nan"], "expected a positive number of seconds"),
        (["--seconds", "soon"], "invalid float value"),
        (["--json", "nowhere/a.json"], "--json nowhere/a.json: its folder does not exist"),
        (["--html", "."], "--html .: is a folder"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_told(mova_command, bundle, options, said) -> None:
    assert_user_error(mova_command("bench", bundle(2), *options), said)


def test_what_is_no_bundle_is_told(mova_command, tmp_path) -> None:
    assert_user_error(mova_command("bench", tmp_path), "not a bundle")


def test_a_backend_that_is_not_here_is_told(mova_command, bundle, monkeypatch) -> None:
    monkeypatch.setattr("mova_export.bench.options.lacking", lambda backend, precision: "pip install it")
    assert_user_error(
        mova_command("bench", bundle(2), "--backend", "openvino"), "openvino can't run here: pip install it"
    )
