"""What routing saves that ends as soon as its outcome is settled, and that the outcome is the same.

    python benchmarks/routing.py [--models 200] [--pace 20] [--bundles DIR] [--out FILE]

Every golden question is routed twice, in turn: by a router that is heard out (`rt.route()`), and as an answer routes,
which stops listening when no further token can change the choice. Then the same with other language models, whose
weights are those of tiny checkpoints of so many seeds, behind the first bundle's towers; what makes commas and experts'
letters is three times as large, because few models of random weights would ever say them. They say a token in a third
of a millisecond, so all of it is done once more with tokens that take as long as those of a larger model. Experts have
to be equal; of routings that ended early, the time that was saved behind their first token stands beside what its
tokens promise: those that were not waited for, at the pace of the router that was heard out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from tokenizers import Tokenizer

import mova_runtime as mova
from mova_export.bench.facts import facts, load, short_name
from mova_export.bench.timing import Spread
from mova_export.checkpoint.load import Checkpoint
from mova_export.demo.checkpoint import write_tiny_checkpoint
from mova_export.demo.weights import random_tensor
from mova_export.export import export
from mova_runtime import ParityError
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.arrays import load_array
from mova_runtime.bundle.manifest import LANGUAGE_MODEL
from mova_runtime.engines.ort import open_engine
from mova_runtime.language.decoder import Decoder
from mova_runtime.language.generation import Generation
from mova_runtime.language.prompt import Prompt
from mova_runtime.language.sampling import Sampling

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
REFERENCE = ROOT / "tests" / "reference"
FIRST_SEED = 1000
"""Of the further language models: none of them is a golden one."""

_OUTPUT, _LOUDER = "lm_head.weight", 3
"""The matrix [vocabulary, hidden] that makes logits, and how much larger some of its rows are."""
_TRANSPOSED = ".T"
"""Behind the names of the graph's matrices, which are [inputs, outputs]."""

Found = dict[str, Any]


@dataclass(frozen=True)
class Routed:
    """One question: experts, tokens heard, and seconds, of the router that is heard out and of the other.

    seconds: of all of the routing; speaking: of what came behind the first token; pace: of a token of the router that
    is heard out.
    """

    experts: tuple[str, ...]
    same: bool
    tokens: tuple[int, int]
    seconds: tuple[float, float]
    speaking: tuple[float, float]
    pace: float

    @property
    def promised(self) -> float:
        """Seconds that the tokens which were not waited for would have taken."""
        return (self.tokens[0] - self.tokens[1]) * self.pace


class Drawn:
    """A language model for `mova_runtime.open`: the bundle's graph with weights of another seed.

    pace: seconds that a token takes at least.
    """

    pace = 0.0

    def __init__(self, bundle: Bundle, folder: Path) -> None:
        """`folder`: for the graph."""
        file = bundle.manifest.language.embeddings
        assert file, "the bundle has the language model"
        self._table = load_array(bundle.checked_path(file))
        self._language = bundle.manifest.language
        for part in bundle.artifact(LANGUAGE_MODEL, "fp32").files:  # onnx refuses what is linked
            shutil.copy(bundle.checked_path(part), folder)
        self._graph = onnx.load(folder / "model.onnx")
        self._folder = folder
        tokenizer = Tokenizer.from_file(str(bundle.checked_path(bundle.manifest.language.tokenizer)))
        letters = ",".join(expert.letter for expert in bundle.manifest.vision.experts)
        self._loud = sorted(set(tokenizer.encode(letters, add_special_tokens=False).ids))

    def become(self, seed: int) -> None:
        """Take the weights of a seed: those that a tiny checkpoint of that seed has."""
        model = onnx.ModelProto()
        model.CopyFrom(self._graph)
        for tensor in model.graph.initializer:
            if len(tensor.dims) == 2 and tensor.data_type == onnx.TensorProto.FLOAT:
                name = tensor.name.removesuffix(_TRANSPOSED)
                drawn = random_tensor(name, list(tensor.dims)[::-1], seed).astype(np.float32)  # [outputs, inputs]
                if name == _OUTPUT:
                    drawn[self._loud] *= _LOUDER
                tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(drawn.T), tensor.name))
        path = self._folder / f"{seed}.onnx"
        onnx.save(model, path)
        self._engine = open_engine(path, LANGUAGE_MODEL, path.stat().st_size, 1)
        path.unlink()

    def generate(self, embeddings: np.ndarray, *, max_new_tokens: int, stop: int, sampling: Sampling) -> Iterator[int]:
        """See `mova_runtime.LanguageModel`."""
        decoder = Decoder(self._engine, self._table, self._language)
        for token in decoder.generate(Prompt(((), ())), [embeddings], Generation(max_new_tokens, sampling), stop):
            yield token
            time.sleep(self.pace)


def routed(runtime: mova.Runtime, image: Path, question: str) -> Routed:
    """One question both ways: heard out, and as an answer routes."""
    heard, out = _timed(runtime, image, question, ahead=False)
    other, early = _timed(runtime, image, question, ahead=True)
    pace = out["rest_ms"] / 1e3 / max(out["tokens"] - 1, 1)
    seconds = out["ms"] / 1e3, early["ms"] / 1e3
    speaking = out["rest_ms"] / 1e3, early["rest_ms"] / 1e3
    tokens = out["tokens"], early["tokens"]
    return Routed(heard.experts, heard.experts == other.experts, tokens, seconds, speaking, pace)


def _timed(runtime: mova.Runtime, image: Path, question: str, *, ahead: bool) -> tuple[mova.Routing, Found]:
    request, _ = runtime.request(image, question, None, 1, {})
    with request:
        request.expect(None, answered=False)
        routing = request.route(ahead=ahead)
        (stage,) = (one for one in request.trace.stages() if one["name"] == "route")
    return routing, stage


def summary(all_routed: list[Routed]) -> Found:
    """Counts, and of those that ended early what that saved."""
    early = [one for one in all_routed if one.tokens[1] < one.tokens[0]]
    found: Found = {
        "routings": len(all_routed),
        "equal": sum(one.same for one in all_routed),
        "with_experts": sum(bool(one.experts) for one in all_routed),
        "ended_early": len(early),
    }
    if early:
        shares = [1 - one.seconds[1] / one.seconds[0] for one in early]
        found |= {
            "tokens_heard": [sum(one.tokens[at] for one in early) for at in (0, 1)],
            "seconds": [sum(one.seconds[at] for one in early) for at in (0, 1)],
            "saved_seconds": sum(one.speaking[0] - one.speaking[1] for one in early),
            "promised_seconds": sum(one.promised for one in early),
            "share_saved": asdict(Spread.of(shares)),
        }
    return found


def bundle_of(seed: int, folder: Path) -> Path:
    """A golden seed's bundle, made if it is not there."""
    out = folder / f"seed{seed}"
    if not out.exists():
        say(f"exporting the tiny checkpoint of seed {seed}")
        with tempfile.TemporaryDirectory() as checkpoint:
            write_tiny_checkpoint(Path(checkpoint) / "tiny", seed=seed)
            export(Checkpoint(Path(checkpoint) / "tiny"), out)
    return out


def measure(given: argparse.Namespace, folder: Path) -> Found:
    """Golden seeds first, then drawn language models on the first of their questions.

    Raises:
        ParityError: experts differ.
    """
    golden = [json.loads(file.read_text()) for file in sorted((REFERENCE / "golden").glob("seed*.json"))]
    golden = [one for one in golden if given.seeds is None or one["seed"] in given.seeds]
    asked = [
        (one["seed"], REFERENCE / "images" / f"{c['image']}.png", c["question"]) for one in golden for c in one["cases"]
    ]
    by_golden, by_drawn, by_slow = [], [], []
    for seed in sorted({seed for seed, *_ in asked}):
        with mova.open(bundle_of(seed, folder), backend="ort", threads=1) as runtime:
            for one, image, question in asked:
                if one == seed:
                    routed(runtime, image, question)  # loads engines, keeps prompts
                    by_golden.append(routed(runtime, image, question))
    first, image, question = asked[0]
    with tempfile.TemporaryDirectory() as graphs:
        bundle = bundle_of(first, folder)
        drawn = Drawn(Bundle.open(bundle), Path(graphs))
        with closing(mova.open(bundle, backend="ort", threads=1, language_model=drawn)) as runtime:
            for seed in range(FIRST_SEED, FIRST_SEED + given.models):
                drawn.become(seed)
                for drawn.pace, kept in ((0.0, by_drawn), (given.pace / 1e3, by_slow)):
                    kept.append(routed(runtime, image, question))
    found = {"golden": summary(by_golden), "drawn": summary(by_drawn), "slow": summary(by_slow)}
    if wrong := [name for name, one in found.items() if one["equal"] < one["routings"]]:
        raise ParityError(f"routing that ends early chooses others: {', '.join(wrong)}")
    return found


def say(line: str) -> None:
    """To whoever waits."""
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=200, help="language models beside the golden ones")
    parser.add_argument("--pace", type=float, default=20.0, help="ms a token of the slow ones; default: %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", help="golden seeds; default: all")
    parser.add_argument("--bundles", type=Path, help="where their bundles are, or are kept")
    parser.add_argument("--out", type=Path, default=RESULTS / f"routing-{short_name()}.json")
    given = parser.parse_args()
    about = facts(1)
    with tempfile.TemporaryDirectory() as temporary:
        try:
            found = measure(given, given.bundles or Path(temporary))
        except ParityError as error:
            print(f"routing: {error}", file=sys.stderr)
            return 1
    for name, one in found.items():
        print(f"{name}: {one}")
    given.out.write_text(
        json.dumps({**about, **found, "pace_ms": given.pace, "load_at_end": load()}, indent=1) + "\n", encoding="utf-8"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
