"""The two tokenizers of a checkpoint as `tokenizer.json`, which the runtime reads without transformers."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer
from transformers import BertTokenizerFast

from mova_export.errors import CheckpointError


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
    file = checkpoint / "tokenizer_config.json"
    if not file.is_file():
        return True
    return bool(json.loads(file.read_text(encoding="utf-8")).get("clean_up_tokenization_spaces", True))


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


def _read(file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # noqa: BLE001  # the tokenizers library raises plain Exception
        raise CheckpointError(f"{file}: not a tokenizer ({error})") from None
