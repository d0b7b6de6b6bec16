"""A bundle on disk: opens its manifest, resolves its paths, checks its bytes."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from mova_runtime.bundle import checked
from mova_runtime.bundle.check import check
from mova_runtime.bundle.manifest import FORMAT, VERSION, Artifact, Component, File, Manifest, Precision
from mova_runtime.bundle.schema import from_json
from mova_runtime.errors import BundleError, IntegrityError, ManifestVersionError, MovaError

if TYPE_CHECKING:
    from mova_runtime.bundle.engine import EngineRecord

MANIFEST = "manifest.json"
ENGINES = "engines"
_CHUNK = 1 << 22


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


class Bundle:
    """An opened bundle. Opening reads the manifest alone; a file's bytes are checked when it is first needed."""

    def __init__(self, root: Path, manifest: Manifest, *, anew: bool = False) -> None:
        """`anew`: see `open`."""
        self.root = root
        self.manifest = manifest
        self._anew = anew
        self._checked: set[checked.Seen] = set()

    @classmethod
    def open(cls, path: str | Path, *, anew: bool = False) -> Bundle:
        """Read and validate `path`/manifest.json.

        Args:
            path: the folder.
            anew: check files whatever was found on this machine before.

        Raises:
            BundleError: no such folder, no manifest, not JSON, a field missing or wrong, a path outside the bundle.
            ManifestVersionError: the format is newer than this runtime's.
        """
        root = Path(path)
        file = root / MANIFEST
        try:
            if not root.exists():
                raise BundleError(f"{root}: no such folder")
            if not file.is_file():
                raise BundleError(
                    f"{root}: not a bundle (no {MANIFEST}); make one with `mova export CHECKPOINT --out BUNDLE`"
                )
            data = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{file}: not valid JSON ({error})") from None
        except OSError as error:
            raise BundleError(f"{file}: can't be read ({error.strerror})") from None
        _check_version(data, file)
        bundle = cls(root, from_json(Manifest, data, MANIFEST), anew=anew)
        check(bundle.manifest)
        for member in bundle.files():
            bundle.path(member)
        return bundle

    def bounded(self, context: int | None) -> Bundle:
        """This bundle with a language model that is used for so many tokens at most, prompt and answer together.

        What caches take is counted by that. None, or more than the model was made for, changes nothing.

        Raises:
            MovaError: it is no number of tokens.
        """
        if context is not None and (isinstance(context, bool) or not isinstance(context, int) or context < 2):
            raise MovaError(f"max_context is a number of tokens from 2 up, or None, not {context!r}")
        language = self.manifest.language
        least = min(language.context, context or language.context)
        language = replace(language, context=least, max_prompt=min(language.max_prompt, least))
        return Bundle(self.root, replace(self.manifest, language=language), anew=self._anew)

    def files(self) -> list[File]:
        """Every file the manifest names."""
        manifest = self.manifest
        files = [manifest.text.tokenizer, manifest.language.tokenizer]
        files += [manifest.language.embeddings] if manifest.language.embeddings else []
        for component in manifest.components.values():
            files += [file for artifact in component.artifacts for file in artifact.files]
            for probe in component.probes:
                files += [*probe.inputs.values(), *probe.outputs.values()]
        return files

    def path(self, file: File) -> Path:
        """Where a file of the manifest lies.

        Raises:
            BundleError: the path is absolute, climbs out of the bundle, or a link leads out of it.
        """
        relative = PurePosixPath(file.path)
        absolute = self.root / relative
        leaves = relative.is_absolute() or ".." in relative.parts or "\\" in file.path or not relative.parts
        try:
            if leaves or not absolute.resolve().is_relative_to(self.root.resolve()):
                raise BundleError(f"{MANIFEST}: the path {file.path!r} leaves the bundle")
        except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name, links that lead in a circle
            raise BundleError(f"{MANIFEST}: {file.path!r} is no path ({error})") from None
        return absolute

    def checked_path(self, file: File) -> Path:
        """Like `path`, after the file's size and sha256 were found to be what is said of them.

        Found once, on this machine: it is looked at again when it has changed since, by its size and times.

        Raises:
            IntegrityError: the file is missing or has other bytes.
        """
        path = self.path(file)
        try:
            seen = checked.Seen.now(path, file.sha256)
            if seen in self._checked:
                return path
            if seen.bytes != file.bytes:
                raise IntegrityError(
                    f"{path}: {seen.bytes} bytes, the manifest says {file.bytes}; copy or export the bundle again"
                )
            if self._anew or not checked.recall(seen):
                settled = seen.settled  # asked before it is read
                if sha256_of(path) != file.sha256:
                    raise IntegrityError(
                        f"{path}: its sha256 differs from the manifest's; copy or export the bundle again"
                    )
                if settled:
                    checked.remember(seen)
        except OSError as error:
            raise IntegrityError(f"{path}: can't be read ({error.strerror})") from None
        self._checked.add(seen)
        return path

    def component(self, name: str) -> Component:
        """A component of the manifest.

        Raises:
            BundleError: the bundle was exported without it.
        """
        try:
            return self.manifest.components[name]
        except KeyError:
            has = ", ".join(self.manifest.components)
            raise BundleError(f"{self.root}: exported without component {name!r} (it has {has})") from None

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that every component has, in the order they were exported in.

        Where they have none in common, those that most have: the others were exported in precisions of their own.
        """
        sets = [tuple(artifact.precision for artifact in c.artifacts) for c in self.manifest.components.values()]
        every = tuple(precision for precision in (sets[0] if sets else ()) if all(precision in one for one in sets))
        return every or max(sets, key=sets.count, default=())

    def has(self, name: str, precision: Precision) -> bool:
        """Whether a component was exported in a precision."""
        component = self.manifest.components.get(name)
        return component is not None and any(artifact.precision == precision for artifact in component.artifacts)

    def artifact(self, name: str, precision: Precision) -> Artifact:
        """The ONNX form of a component in a precision.

        Raises:
            BundleError: the bundle has no such component, or not in this precision.
        """
        artifacts = self.component(name).artifacts
        for artifact in artifacts:
            if artifact.precision == precision:
                return artifact
        has = ", ".join(artifact.precision for artifact in artifacts)
        raise BundleError(
            f"{self.root}: component {name!r} was not exported in {precision} (it has {has}); "
            f"export it with `--precision {precision}`"
        )

    def engines(self) -> tuple[EngineRecord, ...]:
        """Engines that were built into the bundle. A damaged record counts as none: `mova build` writes it anew."""
        from mova_runtime.bundle.engine import RECORD, EngineRecord  # noqa: PLC0415  # not every machine has engines

        records = []
        for path in sorted((self.root / ENGINES).glob(f"*/{RECORD}")):
            with contextlib.suppress(OSError, ValueError, RecursionError, BundleError):
                record = from_json(EngineRecord, json.loads(path.read_text(encoding="utf-8")), RECORD)
                self.path(record.file)
                records.append(record)
        return tuple(records)


def _check_version(data: Any, file: Path) -> None:
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BundleError(f"{file}: not the manifest of a MoVA bundle")
    version = data.get("version")
    if type(version) is not int or version < 1:
        raise BundleError(f"{file}: version {version!r} is not a format version")
    if version > VERSION:
        raise ManifestVersionError(
            f"{file}: bundle format {version} is newer than this runtime reads ({VERSION}); upgrade mova-export"
        )
