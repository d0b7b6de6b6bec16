"""The two tokenizers of a checkpoint as `tokenizer.json`, which the runtime reads without transformers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import BertTokenizerFast

from mova_export.errors import CheckpointError


@dataclass(frozen=True)
class Tokenizers:
    """Both of a model's.

    bos: the id of what the language model's calls BOS, None where it has none; clean_up_spaces: whether decoding drops
    spaces before punctuation.
    """

    language: Tokenizer
    text: Tokenizer
    bos: int | None
    clean_up_spaces: bool

    @classmethod
    def read(cls, checkpoint: Path, text_folder: Path | None) -> Tokenizers:
        """Those of a checkpoint's folder and its text encoder's.

        Raises:
            CheckpointError: one is missing or damaged.
        """
        language = language_tokenizer(checkpoint)
        return cls(
            language,
            text_tokenizer(text_folder),
            beginning_of_sequence(checkpoint, language),
            cleans_up_spaces(checkpoint),
        )


def language_tokenizer(checkpoint: Path) -> Tokenizer:
    """The language model's.

    Raises:
        CheckpointError: there is no tokenizer.json, or it is damaged.
    """
    file = checkpoint / "tokenizer.json"
    if not file.is_file():
        raise CheckpointError(
            f"{checkpoint}: no tokenizer.json; convert the slow tokenizer with transformers: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    return _read(file)


def cleans_up_spaces(checkpoint: Path) -> bool:
    """Whether decoding drops spaces before punctuation; by default it does, as in the transformers of MoVA's time."""
    return bool(_tokenizer_config(checkpoint).get("clean_up_tokenization_spaces", True))


def beginning_of_sequence(checkpoint: Path, tokenizer: Tokenizer) -> int | None:
    """The id of what the language model's tokenizer calls BOS; None where it has none."""
    token = _tokenizer_config(checkpoint).get("bos_token")
    content = token.get("content") if isinstance(token, dict) else token
    return None if content is None else tokenizer.token_to_id(str(content))


def text_tokenizer(folder: Path | None) -> Tokenizer:
    """The text encoder's, from tokenizer.json or vocab.txt.

    Raises:
        CheckpointError: neither is there.
    """
    if folder is None or not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise CheckpointError(
            "text: no tokenizer on disk; pass --tower text=FOLDER with the encoder's vocab.txt or tokenizer.json"
        )
    if (folder / "tokenizer.json").is_file():
        return _read(folder / "tokenizer.json")
    try:
        tokenizer: Tokenizer = BertTokenizerFast.from_pretrained(folder, local_files_only=True).backend_tokenizer
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: not a BERT tokenizer ({str(error).splitlines()[0]})") from None
    return tokenizer


def _tokenizer_config(checkpoint: Path) -> dict[str, Any]:
    file = checkpoint / "tokenizer_config.json"
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{file}: not valid JSON ({error})") from None
    return config if isinstance(config, dict) else {}


def _read(file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # noqa: BLE001  # the tokenizers library raises plain Exception
        raise CheckpointError(f"{file}: not a tokenizer ({error})") from None
