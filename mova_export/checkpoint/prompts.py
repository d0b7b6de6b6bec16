"""The prompt constants of published checkpoints (prompts.json says where they come from) and which of them one uses."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from tokenizers import Tokenizer

from mova_export.errors import CheckpointError
from mova_runtime.bundle.manifest import Prompts

ROUTING_MAX_NEW_TOKENS = 16
QUESTION = "question 0: {question}\n\n"
"""How the adapter's text encoder is told a question; published code numbers an image's questions from 0."""


def constants() -> dict[str, Any]:
    """prompts.json."""
    data: dict[str, Any] = json.loads(resources.files(__package__).joinpath("prompts.json").read_text(encoding="utf-8"))
    return data


def prompts(tokenizer: Tokenizer, template: str | None = None) -> Prompts:
    """The prompts of a checkpoint.

    Args:
        tokenizer: the language model's; tells the template where none is given: its stop token must be one token.
        template: a template's name.

    Raises:
        CheckpointError: the template is unknown, or none fits the tokenizer.
    """
    data = constants()
    templates = data["templates"]
    if template is None:
        # Of several that fit, the one whose roles are marked by tokens of their own, before one with plain words.
        fitting = [name for name, parts in templates.items() if tokenizer.token_to_id(parts["stop"]) is not None]
        template = min(fitting, key=lambda name: not templates[name]["user"].startswith("<|"), default=None)
        if template is None:
            raise CheckpointError(
                f"no prompt template fits the tokenizer; pass --template, one of {', '.join(templates)}"
            )
    if template not in templates:
        raise CheckpointError(f"--template {template}: unknown; one of {', '.join(templates)}")
    if tokenizer.token_to_id(templates[template]["stop"]) is None:
        raise CheckpointError(
            f"template {template}: its stop token {templates[template]['stop']!r} is not in the tokenizer"
        )
    return Prompts(
        template=template,
        **templates[template],
        image_placeholder=data["image_placeholder"],
        routing=data["routing_prompt"],
        routing_max_new_tokens=ROUTING_MAX_NEW_TOKENS,
    )


def routing_letters() -> tuple[str, ...]:
    """The experts' letters, in the experts' order."""
    return tuple(constants()["routing_letters"])
