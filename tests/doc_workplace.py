"""A folder in which the pages' commands run on the tiny bundle, what is slow made small."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

from bundle_copy import copy_bundle
from command_line import Done, MovaCommand
from reference_data import IMAGES

SMALL = "deplot"
"""The component that is quickest to export, build and measure, all told."""

NAMES = {"FILE": "photo.jpg", "TEXT": "'Why?'", "mova-8b": "BUNDLE"}

MORE = {
    "export": f"--only {SMALL}",
    "verify": f"--only {SMALL}",
    "build": f"--only {SMALL}",
    "run": "--max-new-tokens 2 --experts none",
    "eval": "--max-new-tokens 2 --experts none",
    "bench": f"--only {SMALL} --backend ort --repeats 1 --warmup 0 --threads 1",
}
"""By command, options that make it small; those that a line has itself stay."""

EVAL = {"--questions": "llava_pope_test.jsonl", "--images": "mm-vet/images", "--answers": "answers/of-eval.jsonl"}
"""What stands for a file or folder that a page leaves open."""

QUESTIONS = ("llava-mm-vet.jsonl", "llava_pope_test.jsonl")


def prepare(root: Path, bundle: Path, checkpoint: Path) -> None:
    """Put what pages name into a folder."""
    copy_bundle(bundle, root / "BUNDLE")
    (root / "CHECKPOINT").symlink_to(checkpoint)
    Image.open(IMAGES / "photo.png").convert("RGB").save(root / "photo.jpg")
    (root / "mm-vet" / "images").mkdir(parents=True)
    (root / "answers").mkdir()
    shutil.copy(root / "photo.jpg", root / "mm-vet" / "images" / "0.jpg")
    questions = [{"question_id": i, "image": "0.jpg", "text": "Why?"} for i in range(2)]
    for name in QUESTIONS:
        (root / name).write_text("".join(json.dumps(one) + "\n" for one in questions))


def small(command: str) -> str:
    """A page's command as it is run here."""
    verb = re.search(r"\bmova (\w+)", command)[1]
    ellipsis = {
        "run": "--image photo.jpg --question 'Why?'",
        "eval": "--questions FILE --images DIR",
    }.get(verb, "CHECKPOINT --out BUNDLE")
    command = re.sub(r"\[(BUNDLE)\]", r"\1", command.replace("…", ellipsis))
    if verb == "eval":
        for option, value in EVAL.items():
            command = re.sub(rf"{option} (FILE|DIR)", f"{option} {value}", command)
    for name, ours in NAMES.items():
        command = re.sub(rf"(?<![\w/-]){name}(?![\w.-])", ours, command)
    command = re.sub(r"--target (\S*sm_87|sm_\d+)\S*", lambda found: f"--target {found[1][-5:]}", command)
    command = re.sub(r"--(json|html) \w+\.", r"--\1 bench.", command)
    command = re.sub(r"--out \S+", "--out EXPORTED --overwrite", command)
    command = command.replace("for k in 0 1 2 3;", "for k in 0 1;").replace("$k/4", "$k/2")
    words = command.split()
    added = "" if "--join" in words else MORE.get(verb, "")
    options = re.findall(r"(--\S+) (\S+)", added)
    extra = " ".join(f"{option} {value}" for option, value in options if option not in words)
    return re.sub(rf"\bmova {verb}", f"mova {verb} {extra}".rstrip(), command, count=1)


def run(command: str, root: Path, mova_command: MovaCommand) -> Done:
    """Run one in a folder: in this process, or by a shell where it needs one."""
    if not re.search(r"[;&|*\[$<>]", command):
        return mova_command(*shlex.split(command)[1:])
    program = f'mova() {{ {shlex.quote(sys.executable)} -m mova_export "$@"; }}\nset -e\n{command}'
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, cwd=root, env=os.environ)
    return Done(done.returncode, done.stdout, done.stderr)
