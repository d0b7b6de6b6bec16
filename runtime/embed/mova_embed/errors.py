"""What can be wrong with building the library. Each message is one line."""

from mova_runtime.errors import MovaError


class EmbedError(MovaError):
    """The library can't be built: no compiler, no headers, no shared libpython, or nowhere to write it."""
