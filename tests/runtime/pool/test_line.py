"""The line: first come first served, and a place stays one's own."""

from mova_runtime.engines.pool.line import Line


def test_first_come_first_served():
    line = Line()
    first, second, third = line.ticket(), line.ticket(), line.ticket()
    for ticket in (first, second, third):
        line.join(ticket)
    assert [line.ahead_of(ticket) for ticket in (first, second, third)] == [0, 1, 2]
    line.leave(second)
    assert [line.ahead_of(first), line.ahead_of(third)] == [0, 1]
    line.leave(first)
    assert line.ahead_of(third) == 0
    assert len(line) == 1


def test_who_comes_back_stands_where_it_stood():
    line = Line()
    first, second = line.ticket(), line.ticket()
    line.join(first)
    line.leave(first)
    line.join(second)
    line.join(first)
    assert line.ahead_of(second) == 1
    assert line.ahead_of(first) == 0
