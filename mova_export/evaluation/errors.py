"""What can be wrong with an evaluation run as a whole."""

from mova_runtime.errors import MovaError


class EvaluationError(MovaError):
    """The run can't begin or go on: a file or an option makes no sense, or the answers are those of another run."""
