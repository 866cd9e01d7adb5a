"""Records as plain JSON and back, by the types of their fields; and frames of bytes with their length in front.

Knows nothing of which records there are or who is at the other end. Nothing is unpickled: what comes back can only be
the record asked for, made of strings, numbers, tuples and records, or it is refused.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")

LENGTH = struct.Struct(">Q")
"""What stands in front of a frame: the number of bytes that follow."""


def pack(record: Any) -> bytes:
    """`record` as JSON in ASCII: a record becomes the list of its fields. Lone surrogates pass unchanged."""
    return json.dumps(record, default=_plain, separators=(",", ":")).encode("ascii")


def unpack(kind: type[T], data: bytes) -> T:
    """The record of type `kind` that `pack` made `data` of. Raises ValueError for anything else."""
    try:
        found: T = _reader(cast(Hashable, kind))(json.loads(data))
        return found
    except (TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"not a {kind.__name__}: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if not dataclasses.is_dataclass(value):
        raise ValueError(f"{type(value).__name__} cannot be packed")
    return [getattr(value, name) for name in value.__dataclass_fields__]


@cache
def _reader(kind: Hashable) -> Callable[[Any], Any]:
    """A function from JSON to a value of `kind`; it raises ValueError or TypeError for what is none."""
    if dataclasses.is_dataclass(kind):
        return _record_reader(kind)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _union_reader(inner)
    if origin is tuple:
        return _tuple_reader(inner)
    if origin is Literal:
        return _one_of(frozenset(inner))
    if kind is Any or (origin is not None and issubclass(origin, Mapping)):
        return _checked(dict) if origin is not None else lambda value: value
    if kind is float:
        return lambda value: float(_checked((int, float))(value))
    return _checked(kind)


def _record_reader(kind: Any) -> Callable[[Any], Any]:
    hints = get_type_hints(kind)
    readers = tuple(_reader(hints[name]) for name in kind.__dataclass_fields__)

    def read(value: Any) -> Any:
        if not isinstance(value, list) or len(value) != len(readers):
            raise ValueError(f"{kind.__name__} has {len(readers)} fields")
        return kind(*[reader(item) for reader, item in zip(readers, value, strict=True)])

    return read


def _tuple_reader(inner: tuple[Any, ...]) -> Callable[[Any], Any]:
    if len(inner) == 2 and inner[1] is Ellipsis:
        each = _reader(inner[0])
        return lambda value: tuple(map(each, _checked(list)(value)))
    readers = tuple(map(_reader, inner))
    return lambda value: tuple(reader(item) for reader, item in zip(readers, _checked(list)(value), strict=True))


def _union_reader(inner: tuple[Any, ...]) -> Callable[[Any], Any]:
    others = [item for item in inner if item is not NoneType]
    if len(others) == 1:
        only = _reader(others[0])
        return lambda value: None if value is None and len(inner) > 1 else only(value)
    readers = [_reader(item) for item in inner]

    def read(value: Any) -> Any:
        for reader in readers:
            try:
                return reader(value)
            except (ValueError, TypeError):
                continue
        raise ValueError(f"{type(value).__name__} is none of the types expected")

    return read


def _one_of(values: frozenset[Any]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if value not in values:
            raise ValueError(f"{value!r:.40} is none of the values expected")
        return value

    return read


def _checked(kind: Any) -> Callable[[Any], Any]:
    kind = NoneType if kind is None else kind

    def read(value: Any) -> Any:
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{type(value).__name__} where another type was expected")
        return value

    return read
