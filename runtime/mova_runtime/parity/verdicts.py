"""Verdicts that were passed on this machine, kept in a cache folder so that each engine is checked once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path


def cache_folder() -> Path:
    """$MOVA_CACHE, or `mova` in $XDG_CACHE_HOME or ~/.cache."""
    if chosen := os.environ.get("MOVA_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mova"


class Verdicts:
    """A file a verdict, named by the hash of what was checked: engine, device, driver, library version, precision."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` of the verdicts; by default `parity` in the cache folder."""
        self._folder = folder or cache_folder() / "parity"

    def path(self, identity: Mapping[str, str]) -> Path:
        """Where a verdict is kept."""
        canonical = json.dumps(dict(identity), sort_keys=True)
        return self._folder / f"{hashlib.sha256(canonical.encode()).hexdigest()[:32]}.json"

    def recall(self, identity: Mapping[str, str], probe: str) -> str | None:
        """The complaint of a remembered verdict, empty where it passed; None where there is none to go by.

        What passed, passed whatever the probe. What failed may have been held against a wrong one: on another probe,
        by its hash, it is to be checked again.
        """
        try:
            kept = json.loads(self.path(identity).read_text(encoding="utf-8"))
            complaint, judged_on = kept["complaint"], kept["probe"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not isinstance(complaint, str) or kept.get("identity") != dict(identity):
            return None
        return complaint if complaint == "" or judged_on == probe else None

    def remember(self, identity: Mapping[str, str], probe: str, complaint: str) -> None:
        """Keep a verdict; a folder that can't be written means that the engine is checked again next time."""
        path = self.path(identity)
        text = json.dumps({"identity": dict(identity), "probe": probe, "complaint": complaint}, indent=1) + "\n"
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
