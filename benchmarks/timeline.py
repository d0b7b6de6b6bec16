"""Draws a request's timeline for the README: `python benchmarks/timeline.py TRACE.json docs/images/timeline.svg`.

TRACE.json is what `mova run … --trace TRACE.json` wrote: every block of the picture is a stage of that request.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mova_export.bench.page.timeline import Stage, threads

WIDTH, LEFT, RIGHT = 960, 110, 14
ROW, BLOCK, GAP, TOP = 22, 18, 10, 34
LETTER = 6.1
"""Pixels that a letter takes."""

COLOURS = {
    "load": ("#e0a458", "load an engine"),
    "check": ("#9a9a9a", "check it"),
    "wait": ("#dddddd", "wait for a load"),
    "preprocess": ("#7fb069", "prepare the image"),
    "run": ("#4a7fb5", "run an engine"),
    "answer": ("#a05195", "language model"),
}


def stages(trace: dict[str, Any]) -> list[Stage]:
    """The trace's timed events, from the first one's begin, by start."""
    events = trace["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    timed = [event for event in events if event["ph"] == "X"]
    begin = min(event["ts"] for event in timed)
    found = [
        Stage(one["name"], (one["ts"] - begin) / 1e6, one["dur"] / 1e6, names.get(one["tid"], str(one["tid"])))
        for one in timed
    ]
    return sorted(found, key=lambda stage: (stage.start, -stage.duration))


def drawing(shown: list[Stage]) -> str:
    """An SVG that needs no style and no font of its own, on white."""
    end = max(stage.end for stage in shown)
    across = (WIDTH - LEFT - RIGHT) / end
    parts: list[str] = []
    y = TOP
    for thread, rows in threads(shown).items():
        parts.append(f'<text x="8" y="{y + 13}">{thread.replace("MainThread", "request")}</text>')
        for row in rows:
            parts += [block(stage, LEFT + stage.start * across, stage.duration * across, y) for stage in row]
            y += ROW
        y += GAP
    return "\n".join([*head(y + 18, [stage.kind for stage in shown]), *parts, *axis(end, across, y), "</svg>", ""])


def block(stage: Stage, x: float, width: float, y: int) -> str:
    """A stage; its name where it has room."""
    fill, _ = COLOURS[stage.kind]
    told = f"<title>{stage.name}: {stage.duration * 1e3:.1f} ms</title>"
    box = f'<rect x="{x:.1f}" y="{y}" width="{max(width, 1):.1f}" height="{BLOCK}" rx="2" fill="{fill}">{told}</rect>'
    name = stage.name.removeprefix("load ").removeprefix("wait for ").removeprefix("preprocess ")  # the colour says it
    room = (len(name) + 1) * LETTER <= width
    ink = "#222" if stage.kind in ("load", "wait", "check", "preprocess") else "#fff"
    return box + (f'<text x="{x + 4:.1f}" y="{y + 13}" fill="{ink}">{name}</text>' if room else "")


def head(height: int, kinds: list[str]) -> list[str]:
    """The sheet, and what colours mean."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' font-family="sans-serif" font-size="11" fill="#222">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    x = LEFT
    for kind, (fill, name) in COLOURS.items():
        if kind in kinds:
            lines.append(f'<rect x="{x}" y="9" width="11" height="11" rx="2" fill="{fill}"/>')
            lines.append(f'<text x="{x + 16}" y="19">{name}</text>')
            x += 34 + int(len(name) * LETTER)
    return lines


def axis(end: float, across: float, y: int) -> list[str]:
    """Milliseconds, about eight of them."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if end * 1e3 / step <= 8)
    return [
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 4}" y2="{y}" stroke="#0002"/>'
        f'<text x="{x:.1f}" y="{y + 13}" text-anchor="middle">{value} ms</text>'
        for value in range(0, int(end * 1e3) + 1, step)
        for x in [LEFT + value / 1e3 * across]
    ]


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(drawing(stages(json.loads(source.read_text(encoding="utf-8")))), encoding="utf-8")
