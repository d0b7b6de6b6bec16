"""Results as one HTML page that needs nothing beside it: no network, no script, no font.

`page` puts sections together: `header` and `summary` in words, `components` and `routes` in pictures, `table` in
numbers. Pictures are drawn by `bars` and `timeline`. What they write goes through `markup`, which escapes it, and what
they read through `read`, which takes whatever is missing for unknown.
"""

from mova_export.bench.page.page import render

__all__ = ["render"]
