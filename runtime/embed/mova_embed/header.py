"""mova.h, made from `c/types.h`, `c/functions.h` and the list of statuses."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from mova_embed import ABI
from mova_embed.status import MEANINGS, Status

C = Path(__file__).parent / "c"
"""The library's C files."""


def version() -> str:
    """Of the project."""
    return metadata.version("mova-export")


def statuses() -> str:
    """The enumeration of `status.py`."""
    lines = [f"  MOVA_{status.name} = {status.value}, /**< {MEANINGS[status]} */" for status in Status]
    return "\n".join(["typedef enum mova_status {", *lines, "} mova_status;\n"])


def types() -> str:
    """What cffi and mova.h are both told of types."""
    return statuses() + "\n" + (C / "types.h").read_text(encoding="utf-8")


def functions() -> str:
    """The interface's functions, each with its description."""
    return (C / "functions.h").read_text(encoding="utf-8")


def names() -> list[str]:
    """The interface's functions by name, all that the library shows."""
    return re.findall(r"^MOVA_API .*?(\w+)\(", functions(), re.MULTILINE)


def header() -> str:
    """mova.h: C99 and C++, in need of nothing but the standard headers."""
    return f"""\
/* MoVA's runtime in C. Made by `mova embed build`, version {version()}; docs/embedding.md tells how to use it.
 *
 * Every function may be called at any time from any thread. Those that can fail return a mova_status, and leave what
 * they would have given NULL or zero. Texts are UTF-8 and end with a zero.
 */
#ifndef MOVA_H
#define MOVA_H

#include <stddef.h>
#include <stdint.h>

#define MOVA_ABI_VERSION {ABI}
#define MOVA_VERSION "{version()}"

#if defined(__GNUC__)
#define MOVA_API __attribute__((visibility("default")))
#else
#define MOVA_API
#endif

#ifdef __cplusplus
extern "C" {{
#endif

struct DLManagedTensor;

/** How a call ended. */
{types()}
{functions()}
#ifdef __cplusplus
}}
#endif

#endif
"""
