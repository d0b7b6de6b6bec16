"""One colour a contender: hues for ours, hatched greys for torch, so that no meaning hangs on colour alone.

Classes are c1 to c7 and t1 to t3; page.css has a colour of each for light and for dark. Hues are those of Okabe and
Ito's palette, which colour-blind people tell apart, made darker or lighter until they stand out from the page.
"""

from __future__ import annotations

from mova_export.bench.page.markup import Markup, tag
from mova_export.bench.page.read import Results, entries, named, text

OURS, THEIRS = 7, 3
"""Colours there are; they are taken again from the first when they run out."""


def colours(results: Results) -> dict[str, str]:
    """The class of every contender's label, in the order in which they appear."""
    found: dict[str, str] = {}
    counts = {True: 0, False: 0}
    for component in named(results, "components").values():
        for contender in entries(component, "contenders"):
            label = text(contender, "label")
            if label and label not in found:
                ours = contender.get("ours") is not False
                found[label] = f"c{counts[ours] % OURS + 1}" if ours else f"t{counts[ours] % THEIRS + 1}"
                counts[ours] += 1
    return found


def legend(classes: dict[str, str]) -> Markup:
    """What colour is whose."""
    return tag("ul", [tag("li", swatch(class_), label) for label, class_ in classes.items()], class_="legend")


def swatch(class_: str) -> Markup:
    """A small patch of a colour; `faint` after the class is what a bar has in its lighter part."""
    patch = tag("rect", x=0.5, y=0.5, width=13, height=11, rx=2, class_="faint" if "faint" in class_ else "solid")
    return tag("svg", patch, width=14, height=12, class_=class_, aria_hidden="true")


def patterns() -> Markup:
    """The hatches that page.css fills torch's bars with."""
    made = []
    for index in range(1, THEIRS + 1):
        stripe = tag("line", x1=0, y1=0, x2=0, y2=6, class_="stripe")
        ground = tag("rect", width=6, height=6, class_=f"ground t{index}")
        turn = f"rotate({(45, -45, 0)[index - 1]})"
        made.append(
            tag(
                "pattern",
                ground,
                stripe,
                id=f"hatch{index}",
                width=6,
                height=6,
                patternUnits="userSpaceOnUse",
                patternTransform=turn,
            )
        )
    return tag("svg", tag("defs", made), width=0, height=0, class_="patterns", aria_hidden="true")
