"""Pieces of a stream: joined they are the answer's text, whatever the tokens are, and none is taken back."""

import random

import pytest

from mova_runtime.language.stream import TextStream
from mova_runtime.language.tokenizer import Tokenizer
from tokenizer_files import write_byte_fallback, write_byte_level

WORDS = [
    " .",
    " ,",
    " '",
    " ' ",
    "n't",
    " n't",
    " n",
    "'t",
    "'s",
    " 's",
    " 're",
    "  ",
    " \n",
    "é",
    "日本",
    "😀",
    " a",
    "\t ",
]
FIRST_WORD = 256
END = FIRST_WORD + len(WORDS)

# The clean-up that transformers documents for decoding, in its order.
CLEAN_UPS = [" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    write_byte_level(folder / "bytes.json", WORDS, special=["<|end|>"])
    write_byte_fallback(folder / "fallback.json", ["▁", "▁a", "a", "b", ".", "▁.", "'", "▁'", "s", "n", "t", "\n", "é"])
    return folder


def expected(tokens, clean):
    """What the tokens of bytes.json say, without the tokenizers library."""
    data = b"".join(bytes([t]) if t < FIRST_WORD else WORDS[t - FIRST_WORD].encode() for t in tokens if t != END)
    text = data.decode("utf-8", errors="replace")
    if clean:
        for found in CLEAN_UPS:
            text = text.replace(found, found.strip(" "))
    return text.strip()


def streamed(tokenizer, tokens):
    """Pieces while the tokens come, and all text at the end."""
    stream = TextStream(tokenizer)
    pieces = [stream.add(token) for token in tokens]
    pieces.append(stream.end())
    assert stream.end() == ""
    return pieces, stream.text


@pytest.fixture(params=[False, True], ids=["as it is", "cleaned up"])
def clean(request):
    return request.param


@pytest.fixture
def tokenizer(files, clean):
    return Tokenizer(files / "bytes.json", clean_up_spaces=clean)


@pytest.mark.parametrize(
    "text",
    [
        "", "Hello", "  leading", "trailing \n ", " \t\n ", "naïve café", "日本語のテキスト",
        "😀👩‍👩‍👧‍👦 and 🇩🇪", "a\ufffdb", "\ufffd",
        "A cat , a dog . Is it ? No !", "I do n't , you 're", "the ' cat ' s", "' ' ' '", "x n ' t y", "a  .  .  b",
        "the dogs ' .", "a ' ?b", "e\u0301 combining", "\u2028line\u2029",
        "a\u00a0b\u3000", "tab\tand\r\nreturn", "\x00nul",
    ],
)  # fmt: skip
def test_text_split_over_byte_tokens(tokenizer, clean, text):
    tokens = list(text.encode())
    pieces, whole = streamed(tokenizer, tokens)
    assert whole == expected(tokens, clean)
    assert "".join(pieces) == whole


@pytest.mark.parametrize(
    "data",
    [b"\xff", b"a\xc3", b"a\xc3b", b"\xe2\x82", b"\xe2\x82a", b"\xf0\x9f\x98", b"\xf0\x9f\x98\xf0\x9f\x98\x80",
     b"\x80\x80ok\x80", b"ok \xff ", b"\xed\xa0\x80", b"\xc3\xa9\xff\xc3", b" \xff . \xff"],
)  # fmt: skip
def test_invalid_bytes_become_replacement_characters(tokenizer, clean, data):
    pieces, whole = streamed(tokenizer, list(data))
    assert whole == expected(data, clean)
    assert "".join(pieces) == whole


def test_a_character_leaves_whole(files):
    pieces, _ = streamed(Tokenizer(files / "bytes.json"), list("é€😀x".encode()))
    assert pieces == ["", "é", "", "", "€", "", "", "", "😀", "x", ""]


def test_words_leave_as_they_come(files):
    pieces, _ = streamed(Tokenizer(files / "bytes.json"), list(b"one two"))
    assert "".join(pieces[:4]) == "one"
    assert "".join(pieces) == "one two"
    long = b"a long answer of many words that goes on and on"
    stream = TextStream(Tokenizer(files / "bytes.json", clean_up_spaces=True))
    sent = ""
    for count, byte in enumerate(long, 1):
        sent += stream.add(byte)
        assert count - len(sent) <= 9, "no more is held back than a clean-up can reach"


def test_special_tokens_are_silent(files):
    pieces, whole = streamed(Tokenizer(files / "bytes.json"), [END, *b"ok", END])
    assert whole == "".join(pieces) == "ok"


def test_random_tokens(tokenizer, clean):
    rng = random.Random(1)
    likely = [
        *b" .,?!'nt' smvre\n",
        0xC3,
        0xA9,
        0xE2,
        0x82,
        0xAC,
        0xF0,
        0x9F,
        0x98,
        0x80,
        0xFF,
        *range(FIRST_WORD, END + 1),
    ]
    for _ in range(2500):
        tokens = [
            rng.choice(likely) if rng.random() < 0.95 else rng.randrange(256) for _ in range(rng.randrange(1, 24))
        ]
        stream, sent, final = TextStream(tokenizer), "", expected(tokens, clean)
        for token in tokens:
            sent += stream.add(token)
            assert final.startswith(sent), (tokens, sent, final)
        assert sent + stream.end() == stream.text == final, tokens


def test_random_tokens_of_a_sentencepiece_tokenizer(files, clean):
    """Its byte tokens are decoded by runs: a wrong one at the end spoils those before it."""
    tokenizer = Tokenizer(files / "fallback.json", clean_up_spaces=clean)
    rng = random.Random(2)
    likely = [3 + byte for byte in (0xC3, 0xA9, 0xF0, 0x9F, 0x98, 0x80, 0xFF, 0x20, 0x0A)] + list(range(259, 272))
    for _ in range(2500):
        tokens = [rng.choice(likely) for _ in range(rng.randrange(1, 16))]
        pieces, whole = streamed(tokenizer, tokens)
        assert "".join(pieces) == whole == tokenizer.decode(tokens).strip(), tokens


def test_a_run_of_byte_tokens_spoiled_at_its_end(files):
    tokenizer = Tokenizer(files / "fallback.json")
    tokens = [3 + byte for byte in "é".encode()] + [3 + 0xFF]
    pieces, whole = streamed(tokenizer, tokens)
    assert "".join(pieces) == whole == "\ufffd" * 3
    letter = tokenizer.id_of("a")
    pieces, whole = streamed(tokenizer, [*tokens[:2], letter])
    assert pieces == ["", "", "éa", ""]
