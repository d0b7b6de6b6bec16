"""The errors a user of the runtime can meet. Each message is one line: what was wrong, where, what to do."""

from __future__ import annotations

from collections.abc import Sequence


class MovaError(Exception):
    """Base of every error this project raises on purpose."""


class BundleError(MovaError):
    """The bundle is not one, lacks a part, or its manifest says something impossible."""


class ManifestVersionError(BundleError):
    """The bundle was written in a newer format than this runtime reads."""


class IntegrityError(BundleError):
    """A file of the bundle does not have the bytes its manifest promises."""


class BackendError(MovaError):
    """The engine backend is unknown, not installed, or failed to load or run an engine."""


class OutOfMemoryError(BackendError):
    """Memory ran out, of the host or of the GPU, while an engine was loaded or run."""


class EngineKeyError(BackendError):
    """A component has no built engine for this machine; the message names what differs from those there are."""


class ParityError(BackendError):
    """An engine computes something other than torch did."""


class ImageError(MovaError):
    """The image can't be read as one."""


class QuestionError(MovaError):
    """The question is empty, not text, or too long for the model's context."""


class ExpertError(MovaError):
    """An expert was named that the bundle does not know, or named twice."""


class MemoryBudgetError(MovaError):
    """What a request needs can't fit the memory budget.

    alone: engines that do not fit even by themselves, whatever else goes; empty where it was a wait that took too long.
    """

    def __init__(self, text: str, alone: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.alone = tuple(alone)
