"""JSON to frozen dataclasses and back, checked field by field against the type hints.

Small on purpose: the runtime's dependencies are few, and a manifest is plain data. Unknown fields are ignored, so
that a bundle with more to say within the same version still opens; a field with a default may be absent.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from functools import cache
from typing import Any, Literal, TypeVar, Union

from mova_runtime.errors import BundleError

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """Dataclasses become objects, tuples become arrays; everything else stays."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[T], value: Any, where: str) -> T:
    """`value` as an instance of the dataclass `kind`; `where` names it in errors.

    Raises:
        BundleError: a field is missing or of another type; the message holds its full path.
    """
    if not isinstance(value, dict):
        raise BundleError(f"{where}: expected an object, found {_kind_of(value)}")
    arguments = {}
    for name, hint in _hints(kind).items():  # type: ignore[arg-type]  # a class is hashable
        if name not in value:
            if name in _optional(kind):  # type: ignore[arg-type]
                continue
            raise BundleError(f"{where}.{name}: missing")
        arguments[name] = _convert(hint, value[name], f"{where}.{name}")
    return kind(**arguments)


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


@cache
def _optional(kind: type) -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(kind) if field.default is not dataclasses.MISSING)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_json(hint, value, where)
    if origin is Literal:
        if value in arguments:
            return value
        raise BundleError(f"{where}: {value!r} is none of {', '.join(map(str, arguments))}")
    if origin in (Union, types.UnionType):
        nested = [option for option in arguments if dataclasses.is_dataclass(option)]
        if nested and isinstance(value, dict):
            return _convert(nested[0], value, where)
        if any(type(value) is option for option in arguments):
            return value
        raise BundleError(f"{where}: expected {_names(arguments)}, found {_kind_of(value)}")
    if origin is tuple:
        return _convert_tuple(arguments, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise BundleError(f"{where}: expected an object, found {_kind_of(value)}")
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise BundleError(f"{where}: expected {_names((hint,))}, found {_kind_of(value)}")
    return value


def _convert_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise BundleError(f"{where}: expected an array, found {_kind_of(value)}")
    hints = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
    if len(hints) != len(value):
        raise BundleError(f"{where}: expected {len(hints)} items, found {len(value)}")
    return tuple(_convert(hint, item, f"{where}[{i}]") for i, (hint, item) in enumerate(zip(hints, value, strict=True)))


_JSON_NAMES = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _kind_of(value: Any) -> str:
    return _JSON_NAMES.get(type(value), type(value).__name__)


def _names(kinds: tuple[Any, ...]) -> str:
    return " or ".join(_JSON_NAMES.get(kind, str(kind)) for kind in kinds)
