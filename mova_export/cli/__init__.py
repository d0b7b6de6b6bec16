"""The `mova` command: one file a command; what is slow to import is imported inside it."""

from mova_export.cli.main import main

__all__ = ["main"]
