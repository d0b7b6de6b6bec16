"""A damaged file is noticed when its component is first loaded, and a sound component beside it still works."""

import os
import time
from pathlib import Path

import pytest

import mova_runtime as mova
from bundle_copy import copy_bundle, read_manifest, rewrite
from mova_runtime.bundle import Bundle, checked, folder
from reference_data import IMAGES

CHART = IMAGES / "chart.png"


@pytest.fixture
def copied(bundle, tmp_path):
    return copy_bundle(bundle(2), tmp_path / "bundle")


def artifact_file(bundle, component, suffix):
    files = read_manifest(bundle)["components"][component]["artifacts"][0]["files"]
    return bundle / next(file["path"] for file in files if file["path"].endswith(suffix))


def flip(data, position):
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


@pytest.mark.parametrize("suffix", [".onnx", ".data"])
@pytest.mark.parametrize("where", [0, 0.5, 1])
def test_one_changed_byte_when_and_only_when_loaded(copied, suffix, where):
    file = artifact_file(copied, "biomedclip", suffix)
    data = file.read_bytes()
    rewrite(file, flip(data, int(where * (len(data) - 1))))
    with mova.open(copied) as rt:
        assert rt.features(CHART, "base").shape == (64, 1024)
        rt.preprocess(CHART)
        with pytest.raises(mova.IntegrityError, match=rf"{file.name}.*sha256 differs") as caught:
            rt.features(CHART, "biomedclip")
        assert "\n" not in str(caught.value)
        with pytest.raises(mova.IntegrityError):
            rt.encode(CHART, "Why?", experts=("biomedclip",))
        assert "biomedclip" not in rt.engines_loaded
        assert rt.features(CHART, "deplot").shape[1] == 48


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b""])
def test_another_size(copied, change):
    file = artifact_file(copied, "text", ".data")
    data = file.read_bytes()
    rewrite(file, change(data))
    with mova.open(copied) as rt, pytest.raises(mova.IntegrityError, match=f"the manifest says {len(data)}"):
        rt.encode(CHART, "Why?", experts=("sam",))


def test_a_missing_file(copied):
    artifact_file(copied, "text", ".onnx").unlink()
    with mova.open(copied) as rt, pytest.raises(mova.IntegrityError, match="can't be read"):
        rt.encode(CHART, "Why?", experts=("sam",))


def test_a_folder_in_place_of_a_file(copied):
    file = artifact_file(copied, "text", ".onnx")
    file.unlink()
    file.mkdir()
    with mova.open(copied) as rt, pytest.raises(mova.IntegrityError):
        rt.encode(CHART, "Why?", experts=("sam",))


@pytest.mark.parametrize("name", ["text", "language"])
def test_a_damaged_tokenizer_is_noticed_at_the_first_question(copied, name):
    file = copied / "tokenizers" / f"{name}.json"
    rewrite(file, flip(file.read_bytes(), 100))
    with mova.open(copied) as rt, pytest.raises(mova.IntegrityError, match=f"{name}.json"):
        rt.route(CHART, "Why?")


def test_damaged_embeddings_are_noticed_when_the_language_model_speaks(copied):
    file = copied / read_manifest(copied)["language"]["embeddings"]["path"]
    data = file.read_bytes()
    rewrite(file, flip(data, len(data) - 1))
    with mova.open(copied) as rt:
        rt.encode(CHART, "Why?", experts=())
        with pytest.raises(mova.IntegrityError, match=r"embeddings\.npy"):
            rt.answer(CHART, "Why?", experts=())


def test_a_file_is_hashed_once(copied, monkeypatch):
    bundle = Bundle.open(copied)
    file = bundle.manifest.text.tokenizer
    hashed = []
    monkeypatch.setattr("mova_runtime.bundle.folder.sha256_of", lambda path: hashed.append(path) or file.sha256)
    assert bundle.checked_path(file) == bundle.checked_path(file) == copied / file.path
    assert hashed == [copied / file.path]


@pytest.mark.parametrize("path", ["components/dinov2/fp32/model.onnx", "components/dinov2/probe/features.npy"])
def test_verify_tells_a_changed_byte_in_one_line(copied, mova_command, path):
    data = (copied / path).read_bytes()
    rewrite(copied / path, flip(data, len(data) // 2))
    done = mova_command("verify", copied, "--only", "dinov2")
    assert done.status == 2
    assert done.error_lines == [
        f"mova: {copied / path}: its sha256 differs from the manifest's; copy or export the bundle again"
    ]
    assert mova_command("verify", copied, "--only", "text").status == 0


@pytest.mark.parametrize("path", ["tokenizers/text.json", "tokenizers/language.json", "components/llm/embeddings.npy"])
def test_verify_of_all_looks_at_what_is_no_engine_too(copied, mova_command, path):
    rewrite(copied / path, flip((copied / path).read_bytes(), 200))
    done = mova_command("verify", copied)
    assert done.status == 2
    assert len(done.error_lines) == 1
    assert path in done.error_lines[0]


@pytest.fixture
def hashed(monkeypatch):
    """The names of files that were hashed; what was just written counts as settled."""
    names, hash_it = [], folder.sha256_of
    monkeypatch.setattr(folder, "sha256_of", lambda path: names.append(path.name) or hash_it(path))
    monkeypatch.setattr(checked, "SETTLED", 0.0)
    return names


@pytest.fixture
def tokenizer(copied):
    """A file that is no link: a link made elsewhere changes the times of what it is a link to."""
    file = copied / "tokenizers" / "text.json"
    rewrite(file, file.read_bytes())
    time.sleep(0.02)
    return file


def look(copied, **how):
    opened = Bundle.open(copied, **how)
    return opened.checked_path(opened.manifest.text.tokenizer)


def test_a_machine_hashes_a_file_once(copied, tokenizer, hashed):
    for _ in range(3):
        assert look(copied) == tokenizer
    assert hashed == ["text.json"]
    look(copied, anew=True)
    assert hashed == ["text.json"] * 2


def test_other_bytes_with_the_old_times_are_noticed(copied, tokenizer, hashed):
    look(copied)
    before = tokenizer.stat()
    with tokenizer.open("r+b") as file:
        file.write(flip(tokenizer.read_bytes(), 100))
    os.utime(tokenizer, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (tokenizer.stat().st_mtime_ns, tokenizer.stat().st_size) == (before.st_mtime_ns, before.st_size)
    for _ in range(2):
        with pytest.raises(mova.IntegrityError, match="sha256 differs"):
            look(copied)


def test_what_is_young_is_not_remembered(copied, tokenizer, hashed, monkeypatch):
    """Its times go in steps, and would not show a change within one."""
    monkeypatch.setattr(checked, "SETTLED", 60.0)
    look(copied)
    look(copied)
    assert hashed == ["text.json"] * 2


@pytest.mark.parametrize("damage", [b"", b"{}", b"null", b"\xff"])
def test_a_damaged_memory_of_hashes_is_none(copied, tokenizer, hashed, damage):
    look(copied)
    for record in (Path(os.environ["MOVA_CACHE"]) / "checked").iterdir():
        record.write_bytes(damage)
    look(copied)
    assert hashed == ["text.json"] * 2


def test_hashes_that_cannot_be_kept(copied, tokenizer, hashed, monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setenv("MOVA_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        assert look(copied) == tokenizer
    assert hashed == ["text.json"] * 2


def test_verify_hashes_anew(copied, tokenizer, hashed, mova_command):
    look(copied)
    hashed.clear()
    assert mova_command("verify", copied).status == 0
    assert "text.json" in hashed


def test_a_file_that_changes_after_it_was_checked_is_checked_again(copied):
    """Kernels and engines are made anew while a runtime lives."""
    opened = Bundle.open(copied)
    file = opened.artifact("sam", "fp32").files[0]
    path = opened.checked_path(file)
    rewrite(path, flip(path.read_bytes(), 7))
    with pytest.raises(mova.IntegrityError, match="sha256 differs"):
        opened.checked_path(file)
