"""The progress line: on a terminal, elsewhere, and where nobody reads it."""

import io

import pytest

from mova_export.evaluation.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (3600, "1 h 0 min"), (9660, "2 h 41 min")],
)
def test_a_duration(seconds, said):
    assert duration(seconds) == said


def test_a_terminals_line_is_rewritten(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    stream, clock = Terminal(), Clock()
    progress = Progress(8, 2, stream, clock)
    clock.now += 10
    progress.step()
    clock.now += 20
    progress.step()
    progress.end()
    assert "\n" not in stream.getvalue()
    drawn = stream.getvalue().split("\r\x1b[K")
    assert drawn == [
        "",
        "[######..................] 2 of 8 questions",
        "[#########...............] 3 of 8 questions, 10.0 s each, 50 s left",
        "[############............] 4 of 8 questions, 15.0 s each, 1 min 0 s left",
        "",
    ]


def test_a_line_that_stays_is_not_overwritten():
    stream = Terminal()
    progress = Progress(2, 0, stream, Clock())
    progress.say("q.jsonl:1: bad")
    assert stream.getvalue().split("\r\x1b[K")[2].startswith("q.jsonl:1: bad\n")
    assert stream.getvalue().endswith("0 of 2 questions")


def test_a_narrow_terminal_is_not_wrapped(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    Progress(8, 2, stream, Clock())
    assert stream.getvalue() == "\r\x1b[K" + "[######............"


def test_elsewhere_a_line_every_so_often():
    stream, clock = io.StringIO(), Clock()
    progress = Progress(100, 0, stream, clock)
    for _ in range(7):
        clock.now += 10
        progress.step()
    progress.end()
    assert stream.getvalue().splitlines() == [
        "3 of 100 questions, 10.0 s each, 16 min 10 s left",
        "6 of 100 questions, 10.0 s each, 15 min 40 s left",
    ]


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_nobody_reads(kind):
    stream = kind()
    progress = Progress(2, 0, stream, Clock())

    def fails(text):
        raise BrokenPipeError

    stream.write = fails
    progress.say("bad")
    progress.step()
    progress.end()
    stream.close()
    progress.end()


def test_no_question_at_all():
    stream = Terminal()
    Progress(0, 0, stream, Clock()).end()
    assert "0 of 0 questions" in stream.getvalue()
