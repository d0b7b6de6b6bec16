"""The lengths that an engine takes: from no pairs to the whole context."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bundle_copy import edited_manifest
from engine_bundles import needs_tensorrt_rtx
from mova_export.engines.profiles import profile
from mova_export.errors import ExportError
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.engine import Range

MakePath = Callable[[int], Path]
pytestmark = needs_tensorrt_rtx


def test_profiles_cover_no_pairs_and_the_whole_context(bundle: MakePath) -> None:
    opened = Bundle.open(bundle(2))
    adapter = profile(opened, "adapter")
    assert [getattr(adapter["pair_image"], name) for name in ("minimum", "optimum", "maximum")] == [(0,), (3,), (7,)]
    assert (adapter["keys"].minimum, adapter["keys"].maximum) == ((0, 1, 64, 1024), (7, 1, 64, 1024))
    llm = profile(opened, "llm", max_batch=4)
    assert llm["past_key_values.0.key"] == Range((1, 2, 0, 16), (1, 2, 144, 16), (1, 2, 2047, 16))
    assert llm["inputs_embeds"] == Range((1, 1, 64), (1, 1, 64), (1, 512, 64))
    assert llm["attention_mask"] == Range((1, 1), (1, 145), (1, 2559))
    assert profile(opened, "text")["ids"] == Range((1, 1), (1, 32), (2, 512))  # its probe has two questions
    assert profile(opened, "sam", max_batch=4)["pixels"] == Range(*[(n, 3, 256, 256) for n in (1, 1, 4)])
    assert profile(opened, "adapter", max_batch=4)["keys"].maximum[0] == 28


def test_every_probe_is_within_its_profile(bundle: MakePath) -> None:
    opened = Bundle.open(bundle(2))
    for name, component in opened.manifest.components.items():
        ranges = profile(opened, name)
        for tensor, file in (entry for probe in component.probes for entry in probe.inputs.items()):
            shape = np.load(opened.path(file), mmap_mode="r").shape
            limits = zip(ranges[tensor].minimum, shape, ranges[tensor].maximum, strict=True)
            assert all(least <= length <= most for least, length, most in limits), (name, tensor)


def test_an_unknown_axis_is_named(fresh: Path) -> None:
    with edited_manifest(fresh) as manifest:
        manifest["components"]["sam"]["inputs"][0]["shape"][0] = "frames"
    with pytest.raises(ExportError, match="sam: input 'pixels' has an axis 'frames'"):
        profile(Bundle.open(fresh), "sam")
