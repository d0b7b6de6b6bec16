"""mova inspect: what a bundle holds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mova_runtime.bundle import Bundle, Manifest
from mova_runtime.bundle.kernels import AdapterWeights, is_current, records
from mova_runtime.bundle.manifest import Artifact, TensorSpec
from mova_runtime.bundle.schema import to_json
from mova_runtime.engines.memory import format_size


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("inspect", help="show what a bundle holds")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--json", action="store_true", help="print the manifest")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it."""
    bundle = Bundle.open(arguments.bundle)
    if arguments.json:
        print(json.dumps(to_json(bundle.manifest)))
        return 0
    for line in (*_describe(bundle.manifest), *_engines(bundle), *_kernels(bundle)):
        print(line)
    return 0


def _describe(manifest: Manifest) -> list[str]:
    vision, language = manifest.vision, manifest.language
    lines = [
        f"{manifest.format} {manifest.version}, from a checkpoint of type {manifest.provenance.model_type}",
        f"image: {vision.grid}×{vision.grid} tokens, {vision.visual_tokens} to the language model, "
        f"{vision.routing_tokens} for routing; at most {vision.top_k} experts count",
        f"language model: {language.layers} layers, hidden {language.hidden}, context {language.context}, "
        f"prompt at most {language.max_prompt} tokens; template {manifest.prompts.template}",
        "",
        f"{'component':<15}{'parameters':>14}{'precision':>11}{'size':>11}{'error':>9}{'cosine':>11}  inputs → outputs",
    ]
    letters = {expert.name: expert.letter for expert in vision.experts}
    kept = []
    for name, component in manifest.components.items():
        label = f"{name} ({letters[name]})" if name in letters else name
        head = f"{label:<15}{component.parameters:>14,}"
        flow = f"  {_tensors(component.inputs)} → {_tensors(component.outputs)}"
        for artifact in component.artifacts:
            lines.append(f"{head}{_figures(artifact)}{flow}")
            head, flow = " " * len(head), ""
            kept += [f"{label:<15}{artifact.precision:<6}{text}" for text in _kept(artifact)]
    if kept:
        lines += [
            "",
            "in lower precisions, what stays float32, in int4 what is int8, and how often it says the same:",
            *kept,
        ]
    return lines


def _engines(bundle: Bundle) -> list[str]:
    """Built engines, a line for each component, precision and library, with the GPUs they are for."""
    targets: dict[tuple[str, ...], list[str]] = {}
    for record in bundle.engines():
        key = record.key
        current = bundle.has(key.component, key.precision)
        if not current or bundle.artifact(key.component, key.precision).sha256 != key.graph:
            source = "  of another export: not used"
        else:
            source = ""
        entry = (key.component, key.precision, f"{key.flavour} {key.version}", source)
        targets.setdefault(entry, []).append(key.capability)
    lines = [
        f"{component:<15}{precision:<6}{library:<26}{', '.join(sorted(set(found)))}{source}"
        for (component, precision, library, source), found in targets.items()
    ]
    return ["", "engines:", *lines] if lines else []


def _kernels(bundle: Bundle) -> list[str]:
    """Compiled kernels, a line for each precision and compiler, with the GPUs they are for; and packed weights."""
    lines: dict[tuple[str, ...], list[str]] = {}
    for record in records(bundle):
        source = "" if is_current(bundle, record) else "  of another export: not used"
        if isinstance(record, AdapterWeights):
            lines[(record.precision, "weights", source)] = [format_size(record.file.bytes)]
        else:
            compiler = f"triton {record.triton}, CUDA {record.toolkit}"
            lines.setdefault((record.precision, compiler, source), []).append(record.capability)
    shown = [f"{name:<6}{by:<26}{', '.join(found)}{source}" for (name, by, source), found in sorted(lines.items())]
    return ["", "kernels of the adapter:", *shown] if shown else []


def _figures(artifact: Artifact) -> str:
    """Precision, size, and the worst output's error and cosine at export."""
    error = max(parity.relative_l2 for parity in artifact.parity)
    cosines = [parity.cosine for parity in artifact.parity if parity.cosine is not None]
    cosine = f"{min(cosines):.7f}" if cosines else "–"
    return f"{artifact.precision:>11}{format_size(artifact.bytes):>11}{error:>9.0e}{cosine:>11}"


def _kept(artifact: Artifact) -> list[str]:
    parts = [f"{name}: {', '.join(words)}" for name in ("float32", "int8") if (words := getattr(artifact, name))]
    if (alike := artifact.agreement) and artifact.precision != "fp32":
        parts.append(
            f"says the same next token as float32 after {alike.tokens:.0%} of {alike.prompts} prompts, "
            f"divergence {alike.divergence:.2g} nats"
        )
    return ["; ".join(parts)] if parts else []


def _tensors(specs: tuple[TensorSpec, ...]) -> str:
    cache = [spec for spec in specs if spec.name.startswith(("past_key_values.", "present."))]
    shown = [f"{spec.name}[{', '.join(map(str, spec.shape))}]" for spec in specs if spec not in cache]
    return ", ".join(shown + ([f"{len(cache)} cache tensors"] if cache else []))
