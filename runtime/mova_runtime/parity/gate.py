"""No engine answers before it was seen, on this machine, to compute what torch computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mova_runtime.errors import ParityError
from mova_runtime.parity.bars import BARS
from mova_runtime.parity.verdicts import Verdicts

if TYPE_CHECKING:
    from mova_runtime.bundle import Bundle
    from mova_runtime.engines.protocol import Backend, Engine
    from mova_runtime.parity.probe import Verdict


class Gate:
    """Checks engines on their probes, and remembers what it found."""

    def __init__(self, bundle: Bundle, verdicts: Verdicts | None = None) -> None:
        self._bundle = bundle
        self._verdicts = verdicts or Verdicts()

    def knows(self, backend: Backend, component: str) -> bool:
        """Whether an engine passed before; nothing is loaded to find out.

        Raises:
            ParityError: it was found wrong before, with the numbers of then.
        """
        identity = backend.identity(self._bundle, component)
        probe = self._bundle.component(component).probes_sha256
        complaint = self._verdicts.recall(identity, str(BARS[backend.precision]), probe)
        if complaint:
            path = self._verdicts.path(identity)
            raise ParityError(f"{backend.name}: {complaint}; remembered in {path}, `mova verify` checks again")
        return complaint is not None

    def check(self, backend: Backend, component: str, engine: Engine) -> None:
        """See that an engine computes what torch computed, and remember it.

        Raises:
            ParityError: it does not.
            IntegrityError: a probe file is not what the manifest says.
            BackendError: the engine failed on its probe.
        """
        verdict = self.judge(backend, component, engine)
        if not verdict.passed:
            raise ParityError(f"{backend.name}: {verdict.complaint()}")

    def judge(self, backend: Backend, component: str, engine: Engine) -> Verdict:
        """Like `check`, but the verdict is returned, not raised."""
        from mova_runtime.parity.probe import verify  # noqa: PLC0415  # imports numpy

        verdict = verify(self._bundle, component, engine, backend.precision)
        probe = self._bundle.component(component).probes_sha256
        self._verdicts.remember(backend.identity(self._bundle, component), verdict, probe)
        return verdict
