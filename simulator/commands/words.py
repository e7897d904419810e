"""From the words of a command line to clauses, in whatever order they come (spec storpool-api 10.4)."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SIZE = re.compile(r"([0-9]{1,19})([KMGTP]?)\Z")
_TIME = re.compile(r"([0-9]{1,12})([smhd]?)\Z")
_SIZE_UNITS = {"": 1, **{unit: 1 << 10 * power for power, unit in enumerate("KMGTP", 1)}}
_TIME_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class UsageError(Exception):
    """The command line means nothing; its text says which word and what would do."""


def tokenise(argv: Iterable[str]) -> list[str]:
    """Items of `argv` are split again at blanks: clients pass several words as one item."""
    return " ".join(argv).split()


class Operand(enum.Enum):
    """What follows a keyword."""

    NONE = enum.auto()
    VALUE = enum.auto()
    OPTIONAL = enum.auto()
    """A value, unless the next word is a keyword itself."""
    ANY = enum.auto()
    """The next word, whatever it is, if there is one."""
    SWITCH = enum.auto()
    """`yes` or `no`, or nothing for yes."""


@dataclass(frozen=True, slots=True)
class Word:
    """A keyword: what follows it, which field of the request it fills, and how its value is read."""

    operand: Operand = Operand.VALUE
    field: str = ""
    """Empty for words that choose the call instead."""
    read: Callable[[str], Any] = str
    """Raises `UsageError`."""


Clauses = dict[str, list[str]]
"""Values by keyword, in order; only `tag` may have several. A keyword without a value has the empty string."""


def clauses(tokens: Sequence[str], keywords: Mapping[str, Word]) -> Clauses:
    """Raises `UsageError` for an unknown word, a missing value or a word that comes twice."""
    found: Clauses = {}
    position = 0
    while position < len(tokens):
        name = tokens[position]
        word = keywords.get(name)
        if word is None:
            raise UsageError(f"unexpected word '{name}'; expected one of: {', '.join(sorted(keywords))}")
        if name in found and name != "tag":
            raise UsageError(f"'{name}' is given twice")
        following = tokens[position + 1] if position + 1 < len(tokens) else None
        value = _operand(name, word, following, keywords)
        found.setdefault(name, []).append(value or "")
        position += 1 if value is None else 2
    return found


def _operand(name: str, word: Word, following: str | None, keywords: Mapping[str, Word]) -> str | None:
    match word.operand:
        case Operand.NONE:
            return None
        case Operand.SWITCH:
            return following if following in ("yes", "no") else None
        case Operand.OPTIONAL:
            return None if following in keywords else following
        case Operand.ANY:
            return following
        case Operand.VALUE:
            if following is None:
                raise UsageError(f"'{name}' needs a value")
            return following


def fields(given: Clauses, keywords: Mapping[str, Word]) -> dict[str, Any]:
    """The request's fields that the clauses fill. Raises `UsageError` for a value that cannot be read."""
    body: dict[str, Any] = {}
    for name, values in given.items():
        word = keywords[name]
        if not word.field:
            continue
        if name == "tag":
            body[word.field] = _tags(values)
        elif word.operand is Operand.NONE:
            body[word.field] = True
        else:
            try:
                body[word.field] = word.read(values[0])
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from None
    return body


def _tags(values: Sequence[str]) -> dict[str, str]:
    """An empty value takes the tag away."""
    tags: dict[str, str] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UsageError(f"tag: '{text}' is not NAME=VALUE")
        if name in tags:
            raise UsageError(f"tag '{name}' is given twice")
        tags[name] = value
    return tags


def size(text: str) -> int:
    """Bytes of `N[KMGTP]`, powers of 1024."""
    found = _SIZE.match(text)
    if found is None:
        raise UsageError(f"'{text}' is not a size: a number with K, M, G, T, P or nothing for bytes")
    return int(found[1]) * _SIZE_UNITS[found[2]]


def seconds(text: str) -> int:
    """Seconds of `N[smhd]`."""
    found = _TIME.match(text)
    if found is None:
        raise UsageError(f"'{text}' is not a time: a number with s, m, h, d or nothing for seconds")
    return int(found[1]) * _TIME_UNITS[found[2]]


def number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise UsageError(f"'{text}' is not a number")
    return int(text)


def limit(text: str) -> int | str:
    """Of iops or bw, in the API's own unit; `-` is unlimited."""
    return text if text == "-" else number(text)


def switch(text: str) -> bool:
    return text != "no"


def one_of(*choices: str) -> Callable[[str], str]:
    """Reads one of these words."""

    def read(text: str) -> str:
        if text not in choices:
            raise UsageError(f"'{text}' is not one of: {', '.join(choices)}")
        return text

    return read
