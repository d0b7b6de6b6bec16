"""Findings of `mova doctor` on machines that this one is made to look like."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from doctor_machines import MACHINE, libraries, parts
from mova_export.doctor.findings import Findings
from mova_export.doctor.plan import Plan


@pytest.fixture
def found() -> Callable[..., Findings]:
    """found(…): what `look` would have found, ready for `mova run` but for what is given."""

    def make(**given: object) -> Findings:
        usual = {
            "machine": MACHINE,
            "libraries": libraries("onnxruntime"),
            "abilities": {"ort": "fp32, fp16, int8, int4"},
            "able": ("ort",),
            "bundle": "/bundle",
            "precisions": ("fp32",),
            "plan": Plan("auto", "as asked", parts(), {"ort": "fp32"}),
        }
        return Findings(**{**usual, **given})  # type: ignore[arg-type]

    return make
