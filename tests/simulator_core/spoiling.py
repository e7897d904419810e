"""Requests that one step takes out of, or to the edge of, what a schema allows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from msgspec import UNSET, inspect

WORDS = ("a b", "x\n", "", "list", "ü", "~", "all", "300.1.2.3", "/")
"""Strings, each of which some pattern of the API excludes."""
FITTING = ("x", "7", "a.b.c", "10.0.0.1", "a", "10.0.0.0/8", "abc.0def.9.z", "iqn.a", "-")
"""Strings, one of which each pattern allows."""
NO_WORD: tuple[Any, ...] = ({}, [], 7)
NO_TRUTH: tuple[Any, ...] = ("maybe", 2, {}, [])
NO_CHOICE: tuple[Any, ...] = ("nonsense", {}, [])
NO_MAP: tuple[Any, ...] = ([], "words", 7)
NO_LIST: tuple[Any, ...] = ({}, "words", 7)
NO_NUMBER: tuple[Any, ...] = ("words", "", 1.5, {}, [])
NO_OBJECT: tuple[Any, ...] = ([], 7)
Variants = Iterator[tuple[str, Any]]
"""Where the step was taken, and the whole value."""


def spoiled(wanted: inspect.Type, value: Any = UNSET) -> Variants:
    """Values that the type excludes, each with one thing wrong; the rest is as in `value`, which it allows."""
    match wanted:
        case inspect.IntType():
            yield from _number(wanted)
        case inspect.StrType():
            yield from _words(wanted)
            yield from (("wrong type", wrong) for wrong in NO_WORD)
        case inspect.BoolType():
            yield from (("wrong type", wrong) for wrong in NO_TRUTH)
        case inspect.LiteralType():
            yield from (("no such word", wrong) for wrong in NO_CHOICE)
        case inspect.DictType():
            yield from (("key", {key: "v"}) for _, key in _words(wanted.key_type))
            yield from ((f"value {where}", {"k": inner}) for where, inner in spoiled(wanted.value_type))
            yield from (("wrong type", wrong) for wrong in NO_MAP)
        case inspect.ListType():
            yield from _list(wanted, value)
        case inspect.StructType():
            yield from _struct(wanted, value)
        case inspect.UnionType():
            yield from _union(wanted, value)
        case _:
            raise NotImplementedError(f"no values are known that {wanted} excludes")


def edges(wanted: inspect.Type) -> Iterator[Any]:
    """Scalars at the edge of what the type still allows; none for types that hold others."""
    match wanted:
        case inspect.IntType():
            step = wanted.multiple_of or 1
            yield max(wanted.ge or 0, step)
            if wanted.le is not None:
                yield wanted.le // step * step
        case inspect.StrType():
            fitting = [word for word in FITTING if _allowed(wanted, word)]
            yield from fitting[:1]
            longest = (fitting[0] * 2000)[: wanted.max_length] if fitting and wanted.max_length else ""
            if longest and _allowed(wanted, longest):
                yield longest
        case inspect.BoolType():
            yield from (True, False)
        case inspect.LiteralType():
            yield from wanted.values
        case inspect.UnionType():
            numbers = any(isinstance(one, inspect.IntType) for one in wanted.types)
            for one in wanted.types:
                # That a number may come as a string is a matter of its own.
                yield from (edge for edge in edges(one) if not (numbers and str(edge).isdigit() and edge == str(edge)))


def _number(wanted: inspect.IntType) -> Variants:
    if wanted.ge is not None:
        yield "too small", wanted.ge - 1
    if wanted.le is not None:
        yield "too large", wanted.le + (wanted.multiple_of or 1)
    if wanted.multiple_of is not None:
        yield "no multiple", wanted.multiple_of + 1
    yield from (("wrong type", wrong) for wrong in NO_NUMBER)


def _words(wanted: inspect.Type) -> Variants:
    if isinstance(wanted, inspect.StrType):
        yield from (("bad pattern", word) for word in WORDS if not _allowed(wanted, word))
        if wanted.max_length is not None:
            yield "too long", "x" * (wanted.max_length + 1)


def _allowed(wanted: inspect.StrType, word: str) -> bool:
    if len(word) < (wanted.min_length or 0) or len(word) > (wanted.max_length or len(word)):
        return False
    return wanted.pattern is None or re.search(wanted.pattern, word) is not None


def _list(wanted: inspect.ListType, value: Any) -> Variants:
    items = value if isinstance(value, list) else []
    first = items[0] if items else UNSET
    for where, inner in spoiled(wanted.item_type, first):
        yield f"[0] {where}", [inner, *items[1:]]
    if wanted.max_length is not None and items:
        yield "too many", items[:1] * (wanted.max_length + 1)
    if wanted.min_length:
        yield "too few", []
    yield from (("wrong type", wrong) for wrong in NO_LIST)


def _struct(wanted: inspect.StructType, value: Any) -> Variants:
    fields = value if isinstance(value, dict) else {}
    for field in wanted.fields:
        name = field.encode_name
        for where, inner in spoiled(field.type, fields.get(name, UNSET)):
            yield f".{name} {where}", {**fields, name: inner}
        if field.required and name in fields:
            yield f".{name} missing", {key: inner for key, inner in fields.items() if key != name}
    yield ".colour unknown", {**fields, "colour": 1}
    yield from (("wrong type", wrong) for wrong in NO_OBJECT)


def _union(wanted: inspect.UnionType, value: Any) -> Variants:
    """What another member might take is left out."""
    types = [one for one in wanted.types if not isinstance(one, inspect.NoneType)]
    for one in types:
        for where, wrong in spoiled(one, value if _fits(one, value) else UNSET):
            if not any(_fits(other, wrong) for other in types if other is not one):
                yield where, wrong


def _fits(wanted: inspect.Type, value: Any) -> bool:
    """Whether it is the same kind of JSON, whatever is in it."""
    match wanted:
        case inspect.IntType():
            return isinstance(value, int) or (isinstance(value, str) and value.isdigit())
        case inspect.StrType() | inspect.LiteralType():
            return isinstance(value, str)
        case inspect.ListType():
            return isinstance(value, list)
        case _:
            return isinstance(value, dict)
