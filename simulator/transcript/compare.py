"""Whether an answer is the recorded one, less what may differ from one cluster to another.

What may differ is *unified*: where it is first seen, the recorded value is bound to the one that came instead, and from
then on each must come wherever the other was recorded, in requests too. This is done with

* the cluster's id, and global ids: everywhere, also inside names (`~d.n.b1`, `*d.n.b1`). A global id must begin with
  the bound cluster's id;
* serial numbers of objects: `id` beside `name` or `globalId`, the fields that end in `VolumeId` or `templateId`, and
  what follows `@` in a generated name;
* the cluster's name: `clusterName` and `cluster` beside `clusterId`.

Times (`TIMES`) must be numbers, and 0 where 0 was recorded. The generation must grow where it grew and stay where it
stayed, as it does on a cluster where nobody else works. Of an error only the name, whether it is transient, and the
texts that clients look for count. The order of the objects in a list does not. All else must be equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

TIMES = frozenset({"creationTimestamp", "startTime", "targetDeleteDate", "lastScrubCompleted", "timeCreated"})
MATCHED_TEXTS = ("is open at", "No such client registered")
"""Texts in errors that clients look for (spec storpool-api 8)."""
ABSENT = "(absent)"
_ID = re.compile(r"(?<![A-Za-z0-9.\-_])([a-z0-9]+\.[a-z0-9]+)\.([a-z0-9]+)(?![A-Za-z0-9.\-_])")
_CLUSTER = re.compile(r"[a-z0-9]+\.[a-z0-9]+")
_GENERATED = re.compile(r"@([0-9]+)$")
_MOST_TRIES = 64
"""Elements of a list that are tried for one recorded element, when it is not at its place."""


@dataclass(frozen=True, slots=True)
class Difference:
    exchange: int
    """Number of the exchange in the transcript, from 1."""
    call: str
    where: str
    """Path in the answer: `$.data[0].size`."""
    expected: Any
    got: Any

    def __str__(self) -> str:
        return f"{self.exchange} {self.call}: {self.where}: expected {self.expected!r}, got {self.got!r}"


@dataclass(slots=True)
class _Bound:
    """A one-to-one relation of recorded values and those that came."""

    to: dict[Any, Any] = field(default_factory=dict)
    back: dict[Any, Any] = field(default_factory=dict)

    def unify(self, recorded: Any, got: Any) -> bool:
        if recorded not in self.to and got not in self.back:
            self.to[recorded], self.back[got] = got, recorded
        return bool(recorded in self.to and self.to[recorded] == got)

    def copy(self) -> _Bound:
        return _Bound(dict(self.to), dict(self.back))


_Found = Iterator[tuple[str, Any, Any]]
"""Where, expected, got."""


class Comparison:
    """Of one transcript with one cluster: what is bound is kept from exchange to exchange."""

    def __init__(self, clusters: frozenset[str], ignore: frozenset[str] = frozenset()) -> None:
        """`clusters`: ids of those in the recording. `ignore`: names of fields whose values do not count."""
        self._clusters = clusters
        self._ignore = ignore
        self._bound: dict[str, _Bound] = {}
        self._envelope: tuple[int, int] | None = None
        """The last generations, recorded and got."""

    def differences(
        self, number: int, call: str, recorded: dict[str, Any], got: dict[str, Any], statuses: tuple[int, int]
    ) -> list[Difference]:
        """Of the answers, with their envelopes and HTTP statuses."""
        found: list[tuple[str, Any, Any]] = []
        if statuses[0] != statuses[1]:
            found.append(("HTTP status", *statuses))
        if "clusterId" in recorded and "clusterId" in got:
            self._same_text(recorded["clusterId"], got["clusterId"])
        found += self._of_generation(recorded.get("generation"), got.get("generation"))
        found += self._compare("$", recorded, got, {})
        return [Difference(number, call, *one) for one in found]

    def translated(self, value: Any) -> Any:
        """A recorded request with everything bound in it replaced."""
        if isinstance(value, dict):
            return {self.translated(key): self.translated(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.translated(inner) for inner in value]
        return self._text(value) if isinstance(value, str) else value

    def translated_path(self, path: str) -> str:
        head, slash, tail = path.partition("/")
        if head != "RemoteCommand":
            return self._text(path)
        name, slash, rest = tail.partition("/")
        cluster = f"~{self._to('cluster', name[1:])}" if name.startswith("~") else self._to("cluster name", name)
        return f"{head}/{cluster}{slash}{self._text(rest)}"

    # Values that may differ.

    def _of(self, kind: str) -> _Bound:
        return self._bound.setdefault(kind, _Bound())

    def _to(self, kind: str, recorded: str) -> str:
        return str(self._of(kind).to.get(recorded, recorded))

    def _text(self, text: str) -> str:
        """A recorded text with the bound ids in it."""

        def known(found: re.Match[str]) -> str:
            if found[1] not in self._clusters:
                return found[0]
            serial = self._of("global id").to.get(found[0])
            return str(serial) if serial is not None else f"{self._to('cluster', found[1])}.{found[2]}"

        text = _ID.sub(known, text)
        if text in self._of("cluster").to:
            return self._to("cluster", text)
        return _GENERATED.sub(lambda found: f"@{self._of('object').to.get(int(found[1]), found[1])}", text)

    def _same_text(self, recorded: str, got: str) -> bool:
        if recorded in self._clusters:
            return bool(_CLUSTER.fullmatch(got)) and self._of("cluster").unify(recorded, got)
        theirs, mine = _GENERATED.search(recorded), _GENERATED.search(got)
        if theirs is not None and mine is not None:
            if not self._of("object").unify(int(theirs[1]), int(mine[1])):
                return False
            recorded, got = recorded[: theirs.start()], got[: mine.start()]
        pattern, start = "", 0
        ids: list[re.Match[str]] = [found for found in _ID.finditer(recorded) if found[1] in self._clusters]
        for found in ids:
            pattern += re.escape(recorded[start : found.start()]) + r"([a-z0-9]+\.[a-z0-9]+)\.([a-z0-9]+)"
            start = found.end()
        match = re.fullmatch(pattern + re.escape(recorded[start:]), got)
        if match is None:
            return False
        for at, found in enumerate(ids):
            cluster, serial = match[2 * at + 1], match[2 * at + 2]
            same_cluster = self._of("cluster").unify(found[1], cluster)
            if not same_cluster or not self._of("global id").unify(found[0], f"{cluster}.{serial}"):
                return False
        return True

    # Shapes.

    def _compare(self, where: str, recorded: Any, got: Any, beside: dict[str, Any], name: str = "") -> _Found:
        """`beside`: the recorded object that the value is in, under this name."""
        if name in self._ignore or (name == "generation" and where == "$.generation"):
            return
        if isinstance(recorded, dict) and isinstance(got, dict):
            yield from self._objects(where, recorded, got)
        elif isinstance(recorded, list) and isinstance(got, list):
            yield from self._lists(where, recorded, got)
        elif type(recorded) is not type(got) or not self._same(recorded, got, beside, name):
            yield where, self._shown(recorded), got

    def _same(self, recorded: Any, got: Any, beside: dict[str, Any], name: str) -> bool:
        if isinstance(recorded, str) and isinstance(got, str):
            if name == "clusterName" or (name == "cluster" and "clusterId" in beside):
                return self._of("cluster name").unify(recorded, got)
            if name == "descr" and "name" in beside:
                return all((text in recorded) == (text in got) for text in MATCHED_TEXTS)
            return self._same_text(recorded, got)
        if not isinstance(recorded, int) or not isinstance(got, int) or isinstance(recorded, bool):
            return bool(recorded == got)
        if name in TIMES:
            return (recorded == 0) == (got == 0)
        if name in ("generation", "clientGeneration"):
            return self._same_generation(recorded, got)
        kind = _serial(name, beside)
        if kind is not None and recorded and got:
            return self._of(kind).unify(recorded, got)
        return recorded == got

    def _objects(self, where: str, recorded: dict[str, Any], got: dict[str, Any]) -> _Found:
        """Keys may be names with ids in them."""
        left = dict(got)
        for key, value in recorded.items():
            found = self._text(key)
            if found not in left:
                found = next((other for other in left if other not in recorded and self._could_be(key, other)), "")
            if key in self._ignore:
                left.pop(found, None)
            elif found in left:
                yield from self._compare(f"{where}.{found}", value, left.pop(found), recorded, key)
            else:
                yield f"{where}.{key}", self._shown(value), ABSENT
        for key, value in left.items():
            if key not in self._ignore:
                yield f"{where}.{key}", ABSENT, value

    def _could_be(self, recorded: str, got: str) -> bool:
        """Whether a key with ids that nothing is bound to yet is the other; if so they are bound."""
        trial = self._copy()
        if not _ID.search(recorded) or not trial._same_text(recorded, got):
            return False
        self._bound = trial._bound
        return True

    def _equal(self, recorded: Any, got: Any) -> bool:
        """Whether there is no difference; what is bound for that counts only then."""
        trial = self._copy()
        if any(trial._compare("", recorded, got, {})):
            return False
        self._bound = trial._bound
        return True

    def _copy(self) -> Comparison:
        other = Comparison(self._clusters, self._ignore)
        other._bound = {kind: bound.copy() for kind, bound in self._bound.items()}
        other._envelope = self._envelope
        return other

    def _lists(self, where: str, recorded: list[Any], got: list[Any]) -> _Found:
        if len(recorded) != len(got):
            yield f"{where} length", len(recorded), len(got)
        left = list(range(len(got)))
        missing: list[int] = []
        for at, value in enumerate(recorded):
            order = sorted(left, key=lambda other: abs(other - at))[:_MOST_TRIES] if isinstance(value, dict) else [at]
            found = next((other for other in order if other in left and self._equal(value, got[other])), None)
            if found is None:
                missing.append(at)
            else:
                left.remove(found)
        for at, other in zip(missing, left, strict=False):
            yield from self._compare(f"{where}[{other}]", recorded[at], got[other], {})

    def _shown(self, recorded: Any) -> Any:
        return self._text(recorded) if isinstance(recorded, str) else recorded

    # Generations.

    def _of_generation(self, recorded: Any, got: Any) -> _Found:
        """One that is absent from both answers, as from errors, is no difference."""
        if "generation" in self._ignore or recorded is got is None:
            return
        if not isinstance(recorded, int) or not isinstance(got, int):
            yield "$.generation", recorded, got
            return
        if self._envelope is not None:
            before, then = self._envelope
            if recorded > before and got <= then:
                yield "$.generation", f"more than {then}", got
            elif recorded == before and got != then:
                yield "$.generation", then, got
            elif recorded < before and got >= then:
                yield "$.generation", f"less than {then}", got
        self._envelope = recorded, got
        self._of("generation").unify(recorded, got)

    def _same_generation(self, recorded: int, got: int) -> bool:
        """Inside an answer: that of an envelope before, or of this one."""
        if recorded not in self._of("generation").to:
            return (recorded > 0) == (got > 0)
        return bool(self._of("generation").to[recorded] == got)


def _serial(name: str, beside: dict[str, Any]) -> str | None:
    """The kind of serial number that a field holds."""
    if name == "id" and "globalId" in beside:
        return "object"
    if name.endswith(("VolumeId", "volumeId")):
        return "object"
    if name == "templateId" or (name == "id" and "placeAll" in beside):
        return "template"
    return "named" if name == "id" and "name" in beside else None


def clusters_in(value: Any) -> set[str]:
    """Ids of the clusters that an answer tells of."""
    found: set[str] = set()
    if isinstance(value, list):
        for inner in value:
            found |= clusters_in(inner)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, str) and key == "clusterId":
                found.add(inner)
            elif isinstance(inner, str) and key.endswith("lobalId") and inner.count(".") == 2:
                found.add(inner.rpartition(".")[0])
            else:
                found |= clusters_in(inner)
    return found
