"""The bundle: a folder with a manifest, graphs, tokenizers and probes."""

from mova_runtime.bundle.folder import MANIFEST, Bundle, sha256_of
from mova_runtime.bundle.manifest import Manifest

__all__ = ["MANIFEST", "Bundle", "Manifest", "sha256_of"]
