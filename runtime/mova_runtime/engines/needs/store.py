"""What engines took on this machine, kept in a cache folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mova_runtime.bundle.manifest import LANGUAGE_MODEL
from mova_runtime.cache_folder import cache_folder, keep
from mova_runtime.engines.memory import Memory, Need

if TYPE_CHECKING:
    from mova_runtime.bundle import Bundle
    from mova_runtime.engines.protocol import Backend

_VERSION = 2
"""Of how engines are loaded and measured: what another version measured says nothing here."""


@dataclass(frozen=True)
class Took:
    """What an engine took: memory, and seconds to load."""

    need: Need
    seconds: float


def identity(
    backend: Backend, bundle: Bundle, component: str, threads: int | None = None, *, keep_compiled: bool = False
) -> dict[str, str]:
    """What the memory that an engine takes depends on.

    With `keep_compiled` it also depends on whether there was something kept to load: that takes less than to compile
    (DINOv2-giant in bfloat16 holds 8.7 GB instead of 10). That is not told apart. What the first measured load took
    counts for both, and it compiled, unless what was kept is older than what was measured.

    Args:
        backend: loads it.
        bundle: of the component.
        component: its name.
        threads: that the backend was made with.
        keep_compiled: that it was made with.

    Raises:
        BundleError, EngineKeyError: see `Backend.identity`.
    """
    context = {"context": str(bundle.manifest.language.context)} if component == LANGUAGE_MODEL else {}
    return {
        **backend.identity(bundle, component),
        **context,
        "threads": str(threads),
        "keep compiled": str(keep_compiled),
    }


class Needs:
    """A file an engine, named by the hash of what it is and of how it is run."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` of the files; by default `needs` in the cache folder."""
        self._folder = folder or cache_folder() / "needs"

    def path(self, identity: Mapping[str, str]) -> Path:
        """Where an engine's is kept."""
        canonical = json.dumps([_VERSION, dict(identity)], sort_keys=True)
        return self._folder / f"{hashlib.sha256(canonical.encode()).hexdigest()[:32]}.json"

    def recall(self, identity: Mapping[str, str]) -> Took | None:
        """What an engine took; None where it was never measured here, or the file is damaged."""
        try:
            kept = json.loads(self.path(identity).read_text(encoding="utf-8"))
            if kept["identity"] != dict(identity):
                return None
            need = Need(*(_memory(kept["need"][name]) for name in ("resident", "working", "loading")))
            seconds = float(kept["seconds"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return Took(need, seconds) if 0 <= seconds < float("inf") else None

    def remember(self, identity: Mapping[str, str], took: Took) -> None:
        """Keep what was measured; a folder that can't be written means that it is measured again next time."""
        kept = {"identity": dict(identity), "need": asdict(took.need), "seconds": took.seconds}
        keep(self.path(identity), (json.dumps(kept, indent=1) + "\n").encode())


def _memory(kept: Any) -> Memory:
    host, device = kept["host"], kept["device"]
    if type(host) is not int or type(device) is not int or min(host, device) < 0:
        raise ValueError("not bytes")
    return Memory(host, device)
