"""Whatever a caller gets wrong is a status and a line, and never the end of the program."""

from __future__ import annotations

from importlib import metadata

from native_programs import SOURCES, run


def test_every_mistake(program, bundle):
    done = run(program("bad_calls.c"), bundle(2))
    assert done.returncode == 0, done.stderr
    assert told(done.stdout) == expected()
    assert done.stderr == ""


def told(output):
    """Line by line; an OK has no text behind it."""
    return [line.rstrip() for line in output.splitlines()]


def expected():
    """What bad_calls.c has to print."""
    text = (SOURCES / "bad_calls.txt").read_text(encoding="utf-8")
    return text.replace("{version}", metadata.version("mova-export")).splitlines()
