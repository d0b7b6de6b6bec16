"""Bundles of one's own, without kernels and with few."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bundle_copy import copy_bundle
from kernel_bundles import some, some_weights
from mova_export.cli import main
from mova_export.kernels import order, workers

MakePath = Callable[[int], Path]


def make_few(patch: pytest.MonkeyPatch) -> None:
    """Of few kernels one process is done before a second has started."""
    patch.setattr(order, "variants", some)
    patch.setattr(order, "plan", some_weights)
    patch.setattr(workers, "_cores", lambda: 1)


@pytest.fixture
def fresh(bundle: MakePath, tmp_path: Path) -> Path:
    """A bundle of one's own, without kernels."""
    return copy_bundle(bundle(2), tmp_path / "bundle")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """`mova kernels` compiles few kernels and packs few weights in this test."""
    make_few(monkeypatch)


@pytest.fixture(scope="session")
def made_few(bundle: MakePath, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights and few kernels for Orin."""
    root = copy_bundle(bundle(2), tmp_path_factory.mktemp("few") / "bundle")
    with pytest.MonkeyPatch.context() as patch:
        make_few(patch)
        assert main(["kernels", str(root), "--target", "sm_87"]) == 0
    return root


@pytest.fixture
def ours(made_few: Path, few: object, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return copy_bundle(made_few, tmp_path / "ours")
