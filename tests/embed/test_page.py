"""What docs/embedding.md shows, as it stands there: its commands in a shell, its C compiled and run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

from doc_pages import ROOT, commands
from native_programs import MOVA, STRICT

PAGE = "embedding.md"


def place(folder, bundle, picture):
    """A folder with what the page's names stand for, and `mova` as a command."""
    (folder / "runtime").symlink_to(ROOT / "runtime")
    (folder / "BUNDLE").symlink_to(bundle(2))
    shutil.copy(picture("photo"), folder / "photo.ppm")
    mova = folder / "bin" / "mova"
    mova.parent.mkdir()
    mova.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{MOVA[2]}" "$@"\n')
    mova.chmod(0o755)
    return {**os.environ, "PATH": f"{mova.parent}:{os.environ['PATH']}"}


def test_its_commands_run_one_after_another(tmp_path, bundle, picture):
    shown = [one.text for one in commands() if one.page == PAGE and not one.text.startswith("pip install")]
    assert [line.split()[0] for line in shown] == ["mova", "cmake", "cmake", "./build/examples/answer"]
    environment = place(tmp_path, bundle, picture)
    done = subprocess.run(
        ["sh", "-e", "-c", "\n".join(shown)], cwd=tmp_path, env=environment, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert b"\ntokens: " in done.stdout
    assert (tmp_path / "DIR" / "lib" / "libmova.so").exists()


def test_its_c_compiles_and_answers(tmp_path, library, bundle, picture):
    (code,) = re.findall(
        r"^```c\n(.*?)^```$", (ROOT / "docs" / PAGE).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    include, body = code.split("\n", 1)
    (tmp_path / "shown.c").write_text(
        f"{include}\n#include <stdio.h>\nstatic unsigned char pixels[64 * 48 * 3];\n"
        f"int main(void) {{\nint width = 64, height = 48;\n{body}\nreturn 0;\n}}\n"
    )
    flags = [f"-I{library / 'include'}", f"-L{library / 'lib'}", f"-Wl,-rpath,{library / 'lib'}"]
    subprocess.run(["gcc", *STRICT, *flags, "shown.c", "-lmova", "-o", "shown"], cwd=tmp_path, check=True)
    environment = place(tmp_path, bundle, picture)
    done = subprocess.run([tmp_path / "shown"], cwd=tmp_path, env=environment, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_it_names_every_function(library):
    page, header = (ROOT / "docs" / PAGE).read_text(encoding="utf-8"), (library / "include" / "mova.h").read_text()
    functions = set(
        re.findall(r"\b(mova_\w+)\(", "".join(re.findall(r"^MOVA_API .*?;", header, re.MULTILINE | re.DOTALL)))
    )
    short = set(re.findall(r"`(_\w+)`", page))
    assert functions
    assert not {name for name in functions if name not in page and name.removeprefix("mova_result") not in short}
