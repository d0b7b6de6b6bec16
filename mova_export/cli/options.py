"""Options that several commands read alike."""

from __future__ import annotations

from mova_runtime import MovaError


def names(option: str, value: str) -> list[str]:
    """The names in a comma-separated value.

    Raises:
        MovaError: it names nothing.
    """
    found = [name.strip() for name in value.split(",") if name.strip()]
    if not found:
        raise MovaError(f"{option} {value!r} names nothing")
    return found


def chosen_experts(option: str | None) -> list[str] | None:
    """What `--experts` says: names, `none` for none, or nothing: then the model is asked.

    Raises:
        MovaError: it names nothing.
    """
    if option is None:
        return None
    return [] if option == "none" else names("--experts", option)
