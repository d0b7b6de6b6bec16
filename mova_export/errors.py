"""What can be wrong with an export, besides what can be wrong with a bundle."""

from mova_runtime.errors import MovaError


class ExportError(MovaError):
    """The export can't start or go on: the output exists, the disk is full, a component is unknown."""


class CheckpointError(ExportError):
    """The checkpoint is not one of MoVA, is incomplete, or damaged."""


class TensorMismatchError(CheckpointError):
    """Tensors are missing, unexpected or misshapen; the message names every one."""


class UnsafePickleError(CheckpointError):
    """A pickled shard holds more than tensors. It was not executed."""


class BenchError(MovaError):
    """Nothing can be measured: an option makes no sense, or what it names is not here."""


class WorkerError(MovaError):
    """A process that measures failed, ended or did not answer; what it was to measure is lost, and nothing else."""
