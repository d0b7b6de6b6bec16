"""What of a bundle an engine is loaded from."""

from __future__ import annotations

from mova_runtime.bundle import Bundle
from mova_runtime.bundle.kernels import AdapterWeights, records
from mova_runtime.bundle.manifest import File, Precision
from mova_runtime.engines.nvidia import gpu


def engine_files(bundle: Bundle, component: str, backend: str, precision: Precision) -> tuple[File, ...]:
    """The files of an engine of ours; of engines that were built, those for this machine's GPU.

    Raises:
        BundleError: the bundle lacks the component, or this precision of it.
    """
    if backend in ("tensorrt", "tensorrt-rtx"):
        here = gpu()
        return tuple(
            record.file
            for record in bundle.engines()
            if (record.key.component, record.key.precision, record.key.flavour) == (component, precision, backend)
            and here is not None
            and record.key.capability == here.capability
        )
    if backend == "cuda":
        weights = [one for one in records(bundle) if isinstance(one, AdapterWeights) and one.precision == precision]
        return tuple(record.file for record in weights)
    # One float32 graph serves OpenVINO in every precision.
    source: Precision = "fp32" if backend == "openvino" and bundle.has(component, "fp32") else precision
    artifact = bundle.artifact(component, source)
    return artifact.files_of("shared" if backend == "ort" and artifact.in_place else "growing")
