"""The language model alone: bytes, tokens a second, and what a longer context costs; eager torch in the same run.

    python benchmarks/language.py [--work DIR] [--part speed|context] [--precisions int4,int8,fp32] [--tiny]

A Llama of a billion parameters with random weights (see `llamas.py`) is exported as `mova export` does it, without the
rest of a MoVA model. Each precision, and torch in bfloat16, has a process of its own; they take turns, and are timed
only where they say the same. `--tiny` measures a tiny one: it shows that the script works, and nothing else.

speed: reading a prompt, and speaking after another one.
context: a step of decoding after prompts of several lengths, beside the time that reading the longer cache takes at the
memory bandwidth that was measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from bandwidth import read_bandwidth
from company import CACHES, Company, agree, company

from mova_export.bench.facts import cores, describe, facts, load, short_name
from mova_export.bench.timing import Spread, interleave
from mova_runtime import MovaError, ParityError
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.manifest import LANGUAGE_MODEL, Language, Precision
from mova_runtime.language.sampling import Sampler, Sampling

RESULTS = Path(__file__).resolve().parent / "results"
FULL, TINY = "llama-1b", "llama-tiny"
PRECISIONS: tuple[Precision, ...] = ("int4", "int8", "fp32")
PREFILL, CONTEXT, NEW = 512, 128, 32
CONTEXTS = (128, 256, 512, 1024)
PICKS = {"greedy": Sampling(), "temperature 1, top_p 0.9": Sampling(1.0, 0.9, seed=0)}
_MANY_PICKS = 200

Found = dict[str, Any]


def speed(given: argparse.Namespace, together: Company) -> Found:
    """Bytes; seconds and tokens a second of reading and of speaking."""
    artifacts = {str(one.precision): one for one in together.bundle.component(LANGUAGE_MODEL).artifacts}
    found: Found = {"prefill_tokens": PREFILL, "context": CONTEXT, "new_tokens": NEW, "contenders": {}, "ratios": {}}
    for name in together.ways:
        own = artifacts.get(name)
        files = {} if own is None else {"disk_bytes": own.bytes, "eight_bits": list(own.int8)}
        found["contenders"][name] = {**files, **together.loaded[name]}
    table = together.language.embeddings
    assert table, "the bundle has the language model"
    found["embeddings_bytes"] = table.bytes
    for step, count, contenders in (
        ("prefill", PREFILL, {name: way.prefill(PREFILL) for name, way in together.ways.items()}),
        ("decode", NEW, {name: way.decode(CONTEXT, NEW) for name, way in together.ways.items()}),
    ):
        times = interleave(contenders, given.repeats)
        for name, sample in times.items():
            spread = Spread.of(sample)
            rate = count / spread.median
            found["contenders"][name][step] = {"seconds": asdict(spread), "tokens_per_second": rate}
        found["ratios"][step] = together.against(times)
    return found | {"pick_seconds": picking(together.vocabulary)}


def context(given: argparse.Namespace, together: Company) -> Found:
    """Seconds a token after prompts of several lengths, and how much more that is than reading the cache takes."""
    cases = [(name, length) for name in together.ways for length in CONTEXTS]  # what is compared is neighbours
    labels = {f"{name} after {length}": (name, length) for name, length in cases}
    contenders = {label: together.ways[name].decode(length, NEW) for label, (name, length) in labels.items()}
    times = {
        labels[label]: [one / NEW for one in sample] for label, sample in interleave(contenders, given.repeats).items()
    }
    bandwidth = read_bandwidth(given.threads)
    found: Found = {"contexts": CONTEXTS, "new_tokens": NEW, "read_bytes_per_second": bandwidth, "contenders": {}}
    shortest, longest = min(CONTEXTS), max(CONTEXTS)
    for name in together.ways:
        bytes_each = cache_bytes(together.language, 2 if name in together.theirs else 4)
        must = (longest - shortest) * bytes_each / bandwidth
        pairs = list(zip(times[name, shortest], times[name, longest], strict=True))
        found["contenders"][name] = {
            "seconds_per_token": {length: asdict(Spread.of(times[name, length])) for length in CONTEXTS},
            "cache_bytes_per_token": bytes_each,
            "reading_seconds": {length: length * bytes_each / bandwidth for length in CONTEXTS},
            "growth": asdict(Spread.of([long / short - 1 for short, long in pairs])),
            "growth_beyond_reading": asdict(Spread.of([(long - must) / short - 1 for short, long in pairs])),
        }
    return found


def cache_bytes(language: Language, width: int) -> int:
    """Of one token's keys and values in all layers, in numbers of `width` bytes."""
    return 2 * language.layers * language.key_value_heads * language.head_dim * width


def picking(vocabulary: int) -> Found:
    """Seconds of choosing a token from one step's logits."""
    logits = np.random.default_rng(0).standard_normal(vocabulary).astype(np.float32) * 3
    found = {}
    for name, sampling in PICKS.items():
        sampler = Sampler(sampling)
        times = []
        for _ in range(_MANY_PICKS):
            start = perf_counter()
            sampler.pick(logits)
            times.append(perf_counter() - start)
        found[name] = asdict(Spread.of(times))
    return found


def exported(given: argparse.Namespace, folder: Path) -> Bundle:
    """The bundle under a folder, made if it is not there, with every precision that is asked for."""
    path = folder / given.model
    if not (path / "manifest.json").is_file():
        # Not above: who measures imports this module, too, and no torch.
        from llamas import RandomLlama

        from mova_export.export import export

        source = RandomLlama(given.model, given.seed)
        say(f"exporting {source.origin}")
        told = lambda one: say(f"  {one.artifact.precision}: {one.artifact.bytes:,} bytes, {one.seconds:.0f} s")  # noqa: E731
        export(source, path, components=[LANGUAGE_MODEL], precisions=given.precisions, finished=told)
    return Bundle.open(path)


def tell(part: str, found: Found) -> None:
    """The result in a few lines."""
    for name, one in found["contenders"].items():
        if part == "speed":
            theirs = found["ratios"]["decode"].get(name, {})
            against = [f"{ratio['median']:.2f} of {other}'s time" for other, ratio in theirs.items()]
            rates = [f"{step} {one[step]['tokens_per_second']:8.1f}" for step in ("prefill", "decode")]
            held = f"{one['held'] / 2**20:.0f} MiB held"
            print(f"{name:26} tokens a second: {', '.join(rates)}; {'; '.join([*against, held])}")
        else:
            steps = [f"{one['seconds_per_token'][length]['median'] * 1e3:.2f}" for length in found["contexts"]]
            growth = f"{one['growth']['median']:+.1%}, beyond reading {one['growth_beyond_reading']['median']:+.1%}"
            print(f"{name:26} ms a token after {found['contexts']}: {', '.join(steps)}; {growth}")


PARTS = {"speed": speed, "context": context}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=list(PARTS), help="default: both")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to try the script; nothing is kept of it")
    parser.add_argument("--work", type=Path, help="keep the bundle here, and use the one that is there")
    parser.add_argument("--precisions", type=names(PRECISIONS), default=PRECISIONS, help="default: all three")
    parser.add_argument("--torch", type=names(CACHES), default=tuple(CACHES), help="its caches: dynamic, static")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parser.add_argument("--out", type=Path, help="the result's file; default: in benchmarks/results, none with --tiny")
    given = parser.parse_args()
    if min(given.repeats, given.threads) < 1:
        parser.error("--repeats and --threads are at least 1")
    given.model = TINY if given.tiny else FULL
    if given.out is None and not given.tiny:
        given.out = RESULTS / f"language-{short_name()}.json"
    return given


def names(known: Sequence[str] | Mapping[str, str]) -> Callable[[str], tuple[str, ...]]:
    """Reads names between commas, each one of those that are known."""

    def read(text: str) -> tuple[str, ...]:
        found = tuple(name for name in text.split(",") if name)
        if unknown := [name for name in found if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]}: one or more of {', '.join(known)}")
        return found

    return read


def main() -> int:
    """Measure, print, write."""
    given = arguments()
    if (busy := load()) > cores():
        say(f"others keep this machine busy (load {busy:.1f}): times will mean little")
    with tempfile.TemporaryDirectory() as temporary:
        try:
            bundle = exported(given, given.work or Path(temporary))
            about: Found = {**facts(given.threads), "bundle": describe(bundle)}
            del about["precision"]  # there are several
            with company(given, bundle) as together:
                about["agreement"] = agree(together)
                print(
                    f"go on as torch does: {', '.join(f'{n} {share:.0%}' for n, share in about['agreement'].items())}"
                )
                for part in [given.part] if given.part else PARTS:
                    found = PARTS[part](given, together)
                    tell(part, found)
                    write(given.out, part, {**about, **found, "load_at_end": load()})
        except MovaError as error:
            print(f"language: {error}", file=sys.stderr)
            return 1 if isinstance(error, ParityError) else 2
    return 0


def write(file: Path | None, part: str, found: Found) -> None:
    """Keep what was found beside the other part."""
    if file is None:
        return
    results = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    results[part] = found
    file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    say(f"written: {file}")


def say(line: str) -> None:
    """To whoever waits."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
