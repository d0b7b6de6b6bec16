"""What is there and whole is not made again; what is damaged, stale or forgotten is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle_copy import edited_manifest, file_entry, rewrite
from command_line import MovaCommand
from kernel_bundles import FEW, GRAPH, READ, hidden, written
from mova_export.kernels import order
from mova_runtime.bundle import Bundle
from mova_runtime.bundle.kernels import (
    read_kernels,
    read_weights,
)
from mova_runtime.errors import EngineKeyError, IntegrityError


def test_what_is_there_is_not_made_again(fresh: Path, few: object, mova_command: MovaCommand) -> None:
    arguments = ("kernels", fresh, "--target")
    assert mova_command(*arguments, "sm_87").status == 0
    before = written(fresh)
    assert set(before) == {
        "kernels/weights/bf16.json",
        "kernels/weights/bf16.bin",
        "kernels/sm_87/bf16.json",
        *(f"kernels/sm_87/bf16-{name}.cubin" for name in FEW),
    }
    again = mova_command(*arguments, "sm_87,sm_120,sm_87").output.splitlines()[1:]
    assert [line.endswith("already there") for line in again] == [True, True, False]
    after = written(fresh)
    assert before.items() < after.items()
    assert mova_command(*arguments, "sm_87", "--precision", "fp16").status == 0
    assert after.items() < written(fresh).items()
    assert mova_command(*arguments, "sm_87", "--rebuild").status == 0
    rebuilt = written(fresh)
    assert all(rebuilt[name] > time for name, time in before.items())
    assert all(rebuilt[name] == time for name, time in after.items() if "sm_120" in name)
    assert hidden(fresh) == []


@pytest.mark.parametrize(
    ("file", "damage", "read"),
    [
        ("sm_87/bf16-pool.cubin", lambda data: data[:-1] + b"x", "kernels"),
        ("sm_87/bf16-pool.cubin", None, "kernels"),
        ("sm_87/bf16.json", lambda data: data[:100], "kernels"),
        ("sm_87/bf16.json", lambda data: data.replace(b"sm_87", b"sm_89", 1), "kernels"),
        ("weights/bf16.bin", lambda data: data[:-1], "weights"),
        ("weights/bf16.json", lambda data: data.replace(b'"bf16"', b'"fp16"', 1), "weights"),
        ("weights/bf16.json", lambda data: b"[" * 100_000, "weights"),
    ],
)
def test_what_is_damaged_is_told_and_made_again(
    file: str, damage: Callable[[bytes], bytes] | None, read: str, ours: Path, mova_command: MovaCommand
) -> None:
    path = ours / "kernels" / file
    whole = path.read_bytes()
    path.unlink()
    if damage:
        path.write_bytes(damage(whole))
    way = rf"run `mova kernels {re.escape(str(ours))} --target (sm_87|SM) --precision bf16`"
    with pytest.raises(IntegrityError, match=way) as told:
        READ[read](Bundle.open(ours))
    assert str(path) in str(told.value)
    lines = mova_command("kernels", ours, "--target", "sm_87").output.splitlines()[1:]
    assert [line.split()[0] for line in lines if not line.endswith("already there")] == [
        "weights" if read == "weights" else "sm_87"
    ]
    assert path.read_bytes() == whole


def test_another_source_or_compiler_or_export_is_made_again(
    ours: Path, mova_command: MovaCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("kernels", ours, "--target", "sm_87")

    def made_now() -> list[str]:
        lines = mova_command(*arguments).output.splitlines()[1:]
        return [line.split()[0] for line in lines if not line.endswith("already there")]

    assert made_now() == []
    monkeypatch.setattr(order, "source_digest", lambda variants: "0" * 64)
    assert made_now() == ["sm_87"]
    monkeypatch.setattr(order.triton, "__version__", "3.99.0")
    assert made_now() == ["sm_87"]
    rewrite(ours / GRAPH, (ours / GRAPH).read_bytes() + b"\x3a\x02\x12\x00")  # an empty name more
    with edited_manifest(ours) as manifest:
        manifest["components"]["adapter"]["artifacts"][0]["files"][0] = file_entry(ours, GRAPH)
    with pytest.raises(EngineKeyError, match="packed from another export's adapter; run `mova kernels"):
        read_weights(Bundle.open(ours), "bf16")
    assert made_now() == ["weights"]


def test_kernels_that_there_are_no_more_go(ours: Path, mova_command: MovaCommand) -> None:
    for name in ("bf16-forgotten.cubin", "fp16-other.cubin"):
        (ours / "kernels/sm_87" / name).write_bytes(b"x")
    mova_command("kernels", ours, "--target", "sm_87", "--rebuild")
    assert not (ours / "kernels/sm_87/bf16-forgotten.cubin").exists()
    assert (ours / "kernels/sm_87/fp16-other.cubin").exists()


def test_inspect_shows_kernels_and_which_are_of_no_use(fresh: Path, few: object, mova_command: MovaCommand) -> None:
    title = "kernels of the adapter:"
    assert title not in mova_command("inspect", fresh).output
    mova_command("kernels", fresh, "--target", "sm_87,sm_120")
    lines = mova_command("inspect", fresh).output.splitlines()
    shown = [" ".join(line.split()) for line in lines[lines.index(title) + 1 :]]
    version = order.triton.__version__
    assert shown[-1] == "bf16 weights 14.0 MiB"
    assert [line.rpartition(" ")[::2] for line in shown[:-1]] == [
        (f"bf16 triton {version}, CUDA {read_kernels(Bundle.open(fresh), name, 'bf16').toolkit}", name)
        for name in ("sm_87", "sm_120")
    ]
    with edited_manifest(fresh) as manifest:
        manifest["vision"]["top_k"] = 2
    lines = mova_command("inspect", fresh).output.splitlines()
    assert all(line.endswith("of another export: not used") for line in lines[lines.index(title) + 1 :])
    with pytest.raises(EngineKeyError, match="made for an adapter of other sizes; run `mova kernels"):
        read_kernels(Bundle.open(fresh), "sm_87", "bf16")
