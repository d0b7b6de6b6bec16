"""What pages show and can't be run here: why, for each."""

from __future__ import annotations

import re

COMMANDS: dict[tuple[str, str], str] = {
    ("README.md", r"make (demo|test)"): "what CI runs, this test among it",
    (".*", r"(~/mova/bin/)?pip install .*"): "changes the environment; tests/test_wheel.py has its own",
    ("jetson.md", r"sudo .*"): "a Jetson's system",
    ("jetson.md", r"python3 .*|~/mova/bin/python .*|mv .*"): "a Jetson's Python; test_jetson_page.py has a stand-in",
    (".*", r"rsync .* DEVICE:.*"): "needs a second machine",
    (".*", r"mova export --preset .*"): "full size; tests/export/test_preset.py exports small ones",
    (".*", r"mova build .*--backend tensorrt( .*)?"): "TensorRT builds on the GPU that it builds for",
    (".*", r"mova verify .*--backend (cuda|tensorrt|tensorrt-rtx)( .*)?"): "needs an NVIDIA GPU",
    (".*", r"mova run .*--backend (ort-cuda|tensorrt-rtx)\b(?!.*--fallback).*"): "needs an NVIDIA GPU",
    ("language.md", r"mova run .*llm=ort:int4.*"): "a language model of 4 bits; tests/benchmarks/test_edge.py has one",
    ("embedding.md", r"(cc|c\+\+|gcc|g\+\+|cmake|ctest|pkg-config|export|\./|mova embed).*"): (
        "tests/embed compiles and runs it"
    ),
    ("README.md", r"mova embed build .*"): "tests/embed compiles and runs it",
}  # fmt: skip
"""By page and command, both as patterns of the whole."""

EXAMPLES: dict[tuple[str, str], str] = {
    ("bundle.md", "InferenceSession"): "test_bundle_page.py runs it",
    ("kernels.md", "torch.ops.mova"): "tests/kernels runs these operators",
    ("language.md", "from vllm import"): "vLLM is not here",
}
"""By page, and by words of the example."""


def why_no_command(page: str, command: str) -> str | None:
    """Why a command is not run here; None where it is."""
    for (pages, pattern), reason in COMMANDS.items():
        if re.fullmatch(pages, page) and re.fullmatch(pattern, command):
            return reason
    return None


def why_no_example(page: str, code: str) -> str | None:
    """Why an example is not run here; None where it is."""
    return next((why for (its, words), why in EXAMPLES.items() if its == page and words in code), None)
