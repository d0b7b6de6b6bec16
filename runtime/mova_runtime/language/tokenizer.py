"""A tokenizer.json, and text that can't pass for special tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer as _Tokenizer

from mova_runtime.errors import BundleError

_ZERO_WIDTH_SPACE = "\u200b"
_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")

# What transformers' clean_up_tokenization does when it decodes, in its order.
_CLEAN_UPS = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"),
    (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


class Tokenizer:
    """Text to ids and back."""

    def __init__(self, file: Path, *, clean_up_spaces: bool = False) -> None:
        """Read `file`; `clean_up_spaces` drops spaces before punctuation when decoding.

        Raises:
            BundleError: it is not a tokenizer.
        """
        try:
            self._tokenizer = _Tokenizer.from_file(str(file))
        except Exception as error:  # noqa: BLE001  # the tokenizers library raises plain Exception
            raise BundleError(f"{file}: not a tokenizer ({error})") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._clean_up_spaces = clean_up_spaces
        added = self._tokenizer.get_added_tokens_decoder().values()
        self._special = sorted((token.content for token in added if token.special), key=len, reverse=True)

    def encode(self, text: str, *, max_tokens: int | None = None) -> list[int]:
        """Ids with the tokenizer's own special tokens.

        With `max_tokens` the text's end is cut so that at most so many ids, special ones included, remain.
        """
        encoding = self._tokenizer.encode(text)
        if max_tokens is None or len(encoding.ids) <= max_tokens:
            return list(encoding.ids)
        plain = self._tokenizer.encode(text, add_special_tokens=False)
        plain.truncate(max_tokens - self._tokenizer.num_special_tokens_to_add(is_pair=False))
        return list(self._tokenizer.post_process(plain).ids)

    def id_of(self, token: str) -> int:
        """The id of a token that is in the vocabulary.

        Raises:
            BundleError: it is not.
        """
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise BundleError(f"the tokenizer has no token {token!r}")
        return int(found)

    def decode(self, ids: Sequence[int], *, complete: bool = True) -> str:
        """Text without special tokens, not stripped; bytes that are no UTF-8 become U+FFFD.

        Where more is to come (`complete` false) spaces at the end are left out: a clean-up may give them to what
        follows (" ' " becomes "'", but " ' ." becomes " '.").
        """
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        if not complete:
            text = text.rstrip(" ")
        if self._clean_up_spaces:
            for found, replacement in _CLEAN_UPS:
                text = text.replace(found, replacement)
        return text

    def is_byte(self, token: int) -> bool:
        """Whether a token is one raw byte, `<0xE2>`: how SentencePiece spells characters it has no token for."""
        return _BYTE.fullmatch(self._tokenizer.id_to_token(token) or "") is not None

    def as_plain_text(self, text: str) -> str:
        """`text` with a zero-width space inside whatever would be read as a special token, so that it is not."""
        for token in self._special:
            text = text.replace(token, token[0] + _ZERO_WIDTH_SPACE + token[1:])
        return text
