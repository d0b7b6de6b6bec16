"""docs/api.md is what docs/api.py makes of the docstrings as they are now."""

import importlib.util
from pathlib import Path

import mova_runtime

ROOT = Path(__file__).parents[2]


def generator():
    spec = importlib.util.spec_from_file_location("docs_api", ROOT / "docs" / "api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date():
    made = generator().page()
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == made, "renew it: python docs/api.py"


def test_every_public_name_is_on_it():
    page = generator().page()
    for name in mova_runtime.__all__:
        assert f"### {name}\n" in page or f"| `{name}` |" in page, name


def test_every_method_of_the_runtime_is_on_it():
    page = generator().page()
    for name in ("answer", "stream", "chat", "route", "encode", "encode_batch", "features", "stats", "trace", "close"):
        assert f"#### Runtime.{name}()" in page
    assert "`memory_budget`: bound on what engines" in page
    assert "_request" not in page


def test_how_docstrings_become_markdown():
    prose = generator().prose(
        "One <image>.\n\n    Args:\n        a, b: two `<`\n            lines.\n\n    Raises:\n        OSError: no."
    )
    assert prose == "One \\<image>.\n\nArguments:\n\n- `a, b`: two `<`\n  lines.\n\nRaises:\n\n- `OSError`: no."
