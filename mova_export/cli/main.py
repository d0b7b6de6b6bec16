"""Reads the command line, runs one command, turns errors into one line and an exit status.

0: done. 1: our own fault (or an engine that fails its parity check). 2: the user's mistake. 130: interrupted.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib import metadata
from types import FrameType
from typing import NoReturn

from mova_export.cli import bench, build, demo, doctor, embed, eval, export, inspect, kernels, run, verify
from mova_runtime import MovaError, ParityError

COMMANDS = (export, build, kernels, run, eval, inspect, verify, bench, embed, doctor, demo)


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `mova` with the given arguments, or the process's; returns the exit status."""
    parser = _Parser(prog="mova", description="Export MoVA checkpoints and answer questions about images with them.")
    parser.add_argument("--version", action="version", version=f"mova-export {metadata.version('mova-export')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    parsed = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an answer may hold what the terminal's encoding lacks
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores one, and means it
            signal.signal(number, _terminate)
    try:
        status: int = parsed.run(parsed)
    except MovaError as error:
        print("mova: " + " ".join(str(error).split()), file=sys.stderr)
        return 1 if isinstance(error, ParityError) else 2
    except KeyboardInterrupt:
        print("mova: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read our output went away
        return 0
    except OSError as error:
        print(f"mova: {error}", file=sys.stderr)
        return 2
    return status


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Leave through every `finally`, so that nothing half-written stays."""
    raise SystemExit(128 + number)
