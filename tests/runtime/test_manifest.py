"""The manifest's schema: what is read is what was written, and everything else is told with its full path."""

import copy
import json
import re

import pytest

from bundle_copy import read_manifest
from mova_runtime.bundle import Bundle, Manifest
from mova_runtime.bundle.schema import from_json, to_json
from mova_runtime.errors import BundleError, ManifestVersionError


@pytest.fixture(scope="module")
def written(bundle):
    """A real manifest as plain JSON."""
    return read_manifest(bundle(2))


@pytest.fixture
def data(written):
    return copy.deepcopy(written)


def opened(folder, data):
    """Open a folder that holds nothing but a manifest: opening reads nothing else."""
    text = data if isinstance(data, str) else json.dumps(data)
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    return Bundle.open(folder)


def at(data, *keys):
    for key in keys:
        data = data[key]
    return data


def test_round_trip(written):
    manifest = from_json(Manifest, written, "manifest.json")
    assert to_json(manifest) == written
    assert from_json(Manifest, json.loads(json.dumps(to_json(manifest))), "again") == manifest


def test_opening_reads_the_manifest_alone(tmp_path, data):
    bundle = opened(tmp_path, data)
    assert [expert.name for expert in bundle.manifest.vision.experts] == [e["name"] for e in data["vision"]["experts"]]


def test_sizes_and_hashes_are_those_of_the_files(bundle):
    opened_bundle = Bundle.open(bundle(2))
    on_disk = {str(p.relative_to(bundle(2))) for p in bundle(2).rglob("*") if p.is_file()} - {"manifest.json"}
    assert {file.path for file in opened_bundle.files()} == on_disk
    for file in opened_bundle.files():
        assert opened_bundle.path(file).stat().st_size == file.bytes


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        (("vision",), "manifest.json.vision"),
        (("vision", "grid"), "manifest.json.vision.grid"),
        (("vision", "experts", 3, "letter"), "manifest.json.vision.experts[3].letter"),
        (("preprocessing", "high", "mean"), "manifest.json.preprocessing.high.mean"),
        (
            ("components", "sam", "artifacts", 0, "files", 1, "sha256"),
            "manifest.json.components.sam.artifacts[0].files[1].sha256",
        ),
        (
            ("components", "llm", "probe", "inputs", "position_ids", "path"),
            "manifest.json.components.llm.probe.inputs.position_ids.path",
        ),
        (("language", "embeddings"), "manifest.json.language.embeddings"),
        (("provenance", "tools"), "manifest.json.provenance.tools"),
    ],
)  # fmt: skip
def test_a_missing_field_is_named(tmp_path, data, keys, where):
    del at(data, *keys[:-1])[keys[-1]]
    with pytest.raises(BundleError, match=re.escape(f"{where}: missing")):
        opened(tmp_path, data)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("vision",), [], "vision: expected an object, found an array"),
        (("vision", "grid"), "8", "vision.grid: expected an integer, found a string"),
        (("vision", "grid"), 8.0, "vision.grid: expected an integer, found a number"),
        (("vision", "grid"), True, "vision.grid: expected an integer, found true or false"),
        (("vision", "grid"), None, "vision.grid: expected an integer, found null"),
        (("vision", "experts"), {}, "vision.experts: expected an array, found an object"),
        (("vision", "experts", 0), "dinov2", "vision.experts[0]: expected an object, found a string"),
        (
            ("vision", "experts", 0, "input"), "audio",
            "vision.experts[0].input: 'audio' is none of clip, dinov2, high, flattened",
        ),
        (("preprocessing", "aspect"), "stretch", "preprocessing.aspect: 'stretch' is none of pad, crop"),
        (("preprocessing", "clip", "mean"), [0.5, 0.5], "preprocessing.clip.mean: expected 3 items, found 2"),
        (("preprocessing", "clip", "std", 1), "x", "preprocessing.clip.std[1]: expected a number, found a string"),
        (("components",), [], "components: expected an object, found an array"),
        (
            ("components", "sam", "inputs", 0, "shape", 0), 1.5,
            "components.sam.inputs[0].shape[0]: expected an integer or a string, found a number",
        ),
        (
            ("components", "sam", "artifacts", 0, "format"), "engine",
            "components.sam.artifacts[0].format: 'engine' is none of onnx",
        ),
        (
            ("components", "sam", "artifacts", 0, "precision"), "fp32 ",
            "components.sam.artifacts[0].precision: 'fp32 ' is none of",
        ),
        (("language", "embeddings"), 3, "language.embeddings: expected"),
        (("language", "clean_up_spaces"), 1, "language.clean_up_spaces: expected true or false, found an integer"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(tmp_path, data, keys, value, message):
    at(data, *keys[:-1])[keys[-1]] = value
    with pytest.raises(BundleError, match=re.escape(f"manifest.json.{message}")):
        opened(tmp_path, data)


def test_unknown_fields_are_ignored(tmp_path, data, written):
    data["signature"] = {"by": "somebody"}
    data["vision"]["experts"][0]["nickname"] = "dino"
    data["components"]["sam"]["artifacts"][0]["files"][0]["compressed"] = False
    assert to_json(opened(tmp_path, data).manifest) == written


def test_a_whole_number_serves_as_a_number(tmp_path, data):
    data["preprocessing"]["clip"]["mean"] = [0, 1, 0]
    mean = opened(tmp_path, data).manifest.preprocessing.clip.mean
    assert mean == (0.0, 1.0, 0.0)
    assert all(type(value) is float for value in mean)


def test_a_bundle_without_the_language_model_opens(tmp_path, data):
    data["language"]["embeddings"] = None
    del data["components"]["llm"]
    bundle = opened(tmp_path, data)
    with pytest.raises(BundleError, match="exported without component 'llm'"):
        bundle.artifact("llm", "fp32")
    with pytest.raises(BundleError, match="component 'sam' was not exported in fp16"):
        bundle.artifact("sam", "fp16")


def test_an_artifact_without_files_is_none(tmp_path, data):
    data["components"]["sam"]["artifacts"][0]["files"] = []
    with pytest.raises(BundleError, match=r"components\.sam: an artifact lacks files"):
        opened(tmp_path, data).artifact("sam", "fp32")


def test_a_newer_version_says_to_upgrade(tmp_path, data):
    data["version"] = 2
    data["vision"] = "of a shape we don't know yet"
    with pytest.raises(ManifestVersionError, match=r"format 2 is newer .* upgrade"):
        opened(tmp_path, data)


@pytest.mark.parametrize("version", [0, -1, "1", 1.0, True, None])
def test_a_version_that_is_none(tmp_path, data, version):
    data["version"] = version
    with pytest.raises(BundleError, match="is not a format version") as caught:
        opened(tmp_path, data)
    assert not isinstance(caught.value, ManifestVersionError)


@pytest.mark.parametrize(
    "text", ["", "{", "mova", '{"format": "mova-bundle",}', "[" * 100_000, '{"version": ' + "9" * 5000]
)
def test_what_is_not_json(tmp_path, text):
    with pytest.raises(BundleError, match="not valid JSON") as caught:
        opened(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_what_is_not_utf8(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b'{"format": "\xff"}')
    with pytest.raises(BundleError, match="not valid JSON"):
        Bundle.open(tmp_path)


@pytest.mark.parametrize("text", ["null", "[]", "3", "{}", '{"format": "other", "version": 1}'])
def test_what_is_another_json(tmp_path, text):
    with pytest.raises(BundleError, match="not the manifest of a MoVA bundle"):
        opened(tmp_path, text)


def test_what_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match="no such folder"):
        Bundle.open(tmp_path / "absent")
    with pytest.raises(BundleError, match="not a bundle"):
        Bundle.open(tmp_path)
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(BundleError, match="not a bundle"):
        Bundle.open(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="not a bundle"):
        Bundle.open(tmp_path / "file")
    with pytest.raises(BundleError, match="can't be read"):
        Bundle.open("long" * 2000)


PATHS_OUT = [
    "../x",
    "components/../../x",
    "a/..",
    "..",
    "/etc/passwd",
    "//x",
    "",
    ".",
    "..\\x",
    "C:\\x",
    "nul\0byte",
    "\ud800",
]


@pytest.mark.parametrize("path", PATHS_OUT)
@pytest.mark.parametrize(
    "keys",
    [
        ("text", "tokenizer"),
        ("language", "embeddings"),
        ("components", "sam", "artifacts", 0, "files", 1),
        ("components", "sam", "probe", "outputs", "features"),
    ],
)
def test_a_path_that_climbs_out_is_refused_at_open(tmp_path, data, keys, path):
    at(data, *keys)["path"] = path
    with pytest.raises(BundleError, match=r"leaves the bundle|is no path"):
        opened(tmp_path, data)


def test_links_may_not_lead_out(tmp_path, data):
    secret, root = tmp_path / "secret", tmp_path / "bundle"
    secret.write_text("x")
    root.mkdir()
    (root / "link").symlink_to(secret)
    (root / "folder").symlink_to(tmp_path, target_is_directory=True)
    for path in ("link", "folder/secret"):
        data["text"]["tokenizer"]["path"] = path
        with pytest.raises(BundleError, match="leaves the bundle"):
            opened(root, data)


def test_links_inside_are_fine(tmp_path, data):
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    data["text"]["tokenizer"]["path"] = "link"
    opened(tmp_path, data)


def test_links_in_a_circle(tmp_path, data):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    data["text"]["tokenizer"]["path"] = "a"
    try:
        bundle = opened(tmp_path, data)  # Python 3.13 resolves it to itself
    except BundleError as error:
        assert "is no path" in str(error)  # noqa: PT017
    else:
        with pytest.raises(BundleError, match="can't be read"):
            bundle.checked_path(bundle.manifest.text.tokenizer)


def test_a_bundle_may_itself_be_a_link(tmp_path, data):
    real = tmp_path / "real"
    real.mkdir()
    opened(real, data)
    (tmp_path / "link").symlink_to(real, target_is_directory=True)
    Bundle.open(tmp_path / "link")
    Bundle.open(str(tmp_path / "link"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda data: data["vision"].update(routing_tokens=5), "vision.routing_tokens"),
        (lambda data: data["vision"].update(visual_tokens=17), "visual tokens"),
        (lambda data: data["vision"]["experts"][0].update(name="sam"), "share a name"),
        (lambda data: data["preprocessing"]["clip"].update(side=-3), "preprocessing.clip"),
        (lambda data: data["preprocessing"]["high"].update(std=[0.0, 1.0, 1.0]), "preprocessing.high"),
        (lambda data: data["preprocessing"]["flattened"].update(max_patches=2048), "square number"),
        (lambda data: data["preprocessing"]["pad_colour"].pop("high"), "pad_colour.high"),
        (lambda data: data["preprocessing"]["pad_colour"].update(clip=[1, 2, 999]), "pad_colour.clip"),
        (lambda data: data["language"].update(layers=99), "99 layers"),
        (lambda data: data["language"].update(embeddings=None), "embedding table"),
        (lambda data: data["text"].update(max_tokens=1), "text"),
        (lambda data: data["prompts"].update(user="hello"), "prompts"),
        (lambda data: data["components"]["sam"]["artifacts"][0].update(parity=[]), "components.sam"),
        (lambda data: data["components"]["adapter"].update(inputs=[]), "components.adapter"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(tmp_path, data, change, named):
    change(data)
    (tmp_path / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(BundleError, match=named) as error:
        Bundle.open(tmp_path)
    assert "\n" not in str(error.value)
