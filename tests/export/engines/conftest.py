"""Bundles of one's own, without engines and with one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bundle_copy import copy_bundle
from engine_bundles import RTX
from mova_export.cli import main

MakePath = Callable[[int], Path]


@pytest.fixture
def fresh(bundle: MakePath, tmp_path: Path) -> Path:
    """A bundle of one's own, without engines."""
    return copy_bundle(bundle(2), tmp_path / "bundle")


@pytest.fixture(scope="session")
def built_deplot(bundle: MakePath, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DePlot's engine for sm_86."""
    root = copy_bundle(bundle(2), tmp_path_factory.mktemp("deplot") / "bundle")
    assert main(["build", str(root), *RTX, "--only", "deplot", "--target", "sm_86"]) == 0
    return root


@pytest.fixture
def deplot(built_deplot: Path, tmp_path: Path) -> Path:
    """A bundle of one's own with that engine; its files are changed by `rewrite` only."""
    return copy_bundle(built_deplot, tmp_path / "deplot")
