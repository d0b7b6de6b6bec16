"""Verdicts that were passed on this machine, kept in a cache folder so that each engine is checked once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mova_runtime.bundle.schema import to_json
from mova_runtime.cache_folder import cache_folder, keep

if TYPE_CHECKING:
    from mova_runtime.parity.probe import Verdict


class Verdicts:
    """A file a verdict, named by the hash of what was checked: engine, device, driver, library version, precision."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` of the verdicts; by default `parity` in the cache folder."""
        self._folder = folder or cache_folder() / "parity"

    def path(self, identity: Mapping[str, str]) -> Path:
        """Where a verdict is kept."""
        canonical = json.dumps(dict(identity), sort_keys=True)
        return self._folder / f"{hashlib.sha256(canonical.encode()).hexdigest()[:32]}.json"

    def recall(self, identity: Mapping[str, str], bar: str, probe: str) -> str | None:
        """The complaint of a remembered verdict, empty where it passed; None where there is none to go by.

        What passed a bar, passed it whatever the probe. What failed may have been held against a wrong one: on another
        probe, by its hash, it is to be checked again. Another bar is another question.
        """
        try:
            kept = json.loads(self.path(identity).read_text(encoding="utf-8"))
            complaint, judged_by, judged_on = kept["complaint"], kept["bar"], kept["probe"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not isinstance(complaint, str) or kept.get("identity") != dict(identity) or judged_by != bar:
            return None
        return complaint if complaint == "" or judged_on == probe else None

    def remember(self, identity: Mapping[str, str], verdict: Verdict, probe: str) -> None:
        """Keep a verdict; a folder that can't be written means that the engine is checked again next time."""
        kept = {
            "identity": dict(identity),
            "bar": str(verdict.bar),
            "probe": probe,
            "complaint": "" if verdict.passed else verdict.complaint(),
            "outputs": to_json(list(verdict.outputs)),
        }
        keep(self.path(identity), (json.dumps(kept, indent=1) + "\n").encode())
