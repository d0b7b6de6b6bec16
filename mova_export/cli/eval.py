"""mova eval: the questions of a file, answered into a file that published scoring scripts read."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import mova_runtime as mova
from mova_export.cli.options import RUNTIME, add_runtime_options, chosen_experts, runtime_options

if TYPE_CHECKING:
    from mova_export.evaluation.questions import QuestionFile
    from mova_export.evaluation.record import Options
    from mova_export.evaluation.shard import Shard
    from mova_export.evaluation.summary import Summary

_USAGE = """mova eval BUNDLE --questions FILE --images DIR --answers FILE [options]
       mova eval --join FILE [FILE …] --questions FILE --answers FILE [--overwrite]"""

_NOT_WITH_JOIN = ("bundle", "images", "shard", "experts", "max_new_tokens", *RUNTIME, "model_id", "json")
_MAX_NEW_TOKENS = 128
_CHECKPOINT_DIGITS = 12


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser("eval", usage=_USAGE, help="answer the questions of a file, for scoring scripts")
    parser.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE")
    parser.add_argument("--questions", type=Path, required=True, metavar="FILE", help="JSON lines, as LLaVA's")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder that images' paths are relative to")
    parser.add_argument(
        "--answers", type=Path, required=True, metavar="FILE", help="JSON lines; what is there already is not repeated"
    )
    parser.add_argument("--overwrite", action="store_true", help="begin the answers anew")
    parser.add_argument("--shard", metavar="K/N", help="each N-th question only, from K on, as 0/4")
    parser.add_argument("--join", type=Path, nargs="+", metavar="FILE", help="answers of shards, to be put together")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help=f"longest answer (default: {_MAX_NEW_TOKENS})")
    parser.add_argument("--model-id", metavar="NAME", help="in every answer (default: the bundle's folder's name)")
    add_runtime_options(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it; the exit status is 1 where a question has no answer."""
    from mova_export.evaluation.questions import QuestionFile
    from mova_export.evaluation.run import StoppedError
    from mova_export.evaluation.shard import Shard

    _check(arguments)
    file = QuestionFile.read(arguments.questions)
    if arguments.join:
        return _join(arguments, file)
    shard = Shard() if arguments.shard is None else Shard.read(arguments.shard)
    try:
        summary = _evaluate(arguments, file.shard(shard), shard)
    except StoppedError as stopped:
        print(f"mova: {stopped}", file=sys.stderr)
        return stopped.status
    if arguments.json:
        from mova_export.evaluation.whole import write_whole

        write_whole(arguments.json, [json.dumps(summary.to_json(), indent=1).encode("ascii"), b"\n"])
    for line in summary.lines():
        print(line)
    return _status(summary.missing, summary.total)


def _evaluate(arguments: argparse.Namespace, file: QuestionFile, shard: Shard) -> Summary:
    from mova_export.evaluation.answers import AnswersFile
    from mova_export.evaluation.progress import Progress
    from mova_export.evaluation.record import Run
    from mova_export.evaluation.run import evaluate
    from mova_export.evaluation.summary import Summary

    with mova.open(arguments.bundle, **runtime_options(arguments)) as runtime:
        whose = Run(arguments.model_id or arguments.bundle.resolve().name, _options(arguments, runtime))
        with AnswersFile(arguments.answers, whose, file.questions, overwrite=arguments.overwrite) as answers:
            total, before = len(file.lines), answers.count
            summary = Summary(whose, shard, total, before, answers.routes)
            evaluate(runtime, file, arguments.images, answers, summary, Progress(total, before, sys.stderr))
    return summary


def _join(arguments: argparse.Namespace, file: QuestionFile) -> int:
    from mova_export.evaluation.join import join

    joined = join(arguments.join, file, arguments.answers, overwrite=arguments.overwrite)
    total = len(file.lines)
    print(f"{arguments.answers}: {joined} answers to {total} questions, from {len(arguments.join)} files")
    return _status(total - joined, total)


def _status(missing: int, total: int) -> int:
    if missing:
        print(f"mova: {missing} of {total} questions without an answer", file=sys.stderr)
    return 1 if missing else 0


def _options(arguments: argparse.Namespace, runtime: mova.Runtime) -> Options:
    """What answers depend on, as `auto` and the bundle decided it."""
    from mova_export.evaluation.record import Options
    from mova_runtime.routing import parse

    chosen = chosen_experts(arguments.experts)
    experts = None if chosen is None else parse.check(chosen, runtime.manifest.vision.experts)
    _, comma, own = (arguments.backend or "").partition(",")
    origin = runtime.manifest.provenance
    digest = hashlib.sha256(json.dumps([origin.model_type, origin.checkpoint], sort_keys=True).encode("ascii"))
    return Options(
        experts=experts,
        max_new_tokens=_MAX_NEW_TOKENS if arguments.max_new_tokens is None else arguments.max_new_tokens,
        context=runtime.manifest.language.context,
        backend=f"{runtime.choice.backend}{comma}{','.join(sorted(own.split(',')))}",
        precision=runtime.choice.precision,
        checkpoint=digest.hexdigest()[:_CHECKPOINT_DIGITS],
    )


def _check(arguments: argparse.Namespace) -> None:
    """Find what is wrong with the options before anything is read or made.

    Raises:
        MovaError: something is.
    """
    if arguments.join:
        if given := [name for name in _NOT_WITH_JOIN if getattr(arguments, name) is not None]:
            raise mova.MovaError(f"--join answers nothing, so it takes no {_option(given[0])}")
    elif missing := [name for name in ("bundle", "images") if getattr(arguments, name) is None]:
        raise mova.MovaError(f"{_option(missing[0])} is missing (see mova eval --help)")
    elif not arguments.images.is_dir():
        raise mova.MovaError(f"--images {arguments.images}: no such folder")
    if arguments.max_new_tokens is not None and arguments.max_new_tokens < 1:
        raise mova.MovaError(f"--max-new-tokens {arguments.max_new_tokens}: expected a positive whole number")
    if arguments.model_id is not None and not arguments.model_id.strip():
        raise mova.MovaError("--model-id is empty")
    written = {"--answers": arguments.answers, **({"--json": arguments.json} if arguments.json else {})}
    others = {"--questions": arguments.questions}
    for option, path in written.items():
        if not path.absolute().parent.is_dir():
            raise mova.MovaError(f"{option} {path}: its folder does not exist")
        if path.is_dir():
            raise mova.MovaError(f"{option} {path}: is a folder")
        for other, its in others.items():
            if path.resolve() == its.resolve():
                raise mova.MovaError(f"{option} {path}: is the file of {other}, too")
        others[option] = path


def _option(name: str) -> str:
    return "BUNDLE" if name == "bundle" else f"--{name.replace('_', '-')}"
