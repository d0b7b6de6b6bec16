"""Bundles that a test may damage: hard links to a shared one, so that a copy costs neither time nor disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


def copy_bundle(source: Path, target: Path) -> Path:
    """A bundle of its own at `target`; change its files with `rewrite` only."""
    shutil.copytree(source, target, copy_function=_link)
    return target


def rewrite(file: Path, data: bytes) -> None:
    """Give a linked file other bytes without touching the bundle it was linked from."""
    file.unlink()
    file.write_bytes(data)


def read_manifest(bundle: Path) -> dict[str, Any]:
    """The manifest as plain JSON."""
    manifest: dict[str, Any] = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    return manifest


@contextlib.contextmanager
def edited_manifest(bundle: Path) -> Iterator[dict[str, Any]]:
    """The manifest as plain JSON, written back at the end."""
    manifest = read_manifest(bundle)
    yield manifest
    rewrite(bundle / MANIFEST, json.dumps(manifest).encode())


def file_entry(bundle: Path, path: str) -> dict[str, Any]:
    """What the manifest should say about a file as it is now."""
    data = (bundle / path).read_bytes()
    return {"path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
