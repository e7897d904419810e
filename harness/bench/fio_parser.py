"""What fio says in its `json+` output, whichever generation of it and whatever stands around it.

Latencies are completion latencies in nanoseconds. Those of several jobs are merged as histograms and percentiles are
read off the merged one: an average of percentiles is the percentile of nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_KIB = 1024
_GENERATIONS = (("clat_ns", 1), ("clat", 1000))
"""Name of the completion latency, and its unit in nanoseconds: fio 3, and fio 2 in microseconds."""
DIRECTIONS = ("read", "write", "trim")


class FioError(Exception):
    """The text is no result of fio, or one that leaves out what is wanted; says what and where."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many requests took so many nanoseconds."""

    counts: Mapping[int, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def percentile(self, share: float) -> int:
        """Nanoseconds within which `share` per cent of the requests ended, by nearest rank. `FioError` without any."""
        if not 0 < share <= 100:
            raise FioError(f"{share} is no percentile: it must be above 0 and at most 100")
        total = self.total
        if not total:
            raise FioError("there are no latencies: was fio run with --output-format=json+?")
        # In integers, so that 99.9 per cent of a thousand is the 999th and not, by a rounding, the 1000th.
        wanted = max(1, -(-total * round(share * 1_000_000) // 100_000_000))
        seen = 0
        for nanoseconds, count in sorted(self.counts.items()):
            seen += count
            if seen >= wanted:
                return nanoseconds
        raise AssertionError("the last one is within 100 per cent")


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """Of all requests together."""
    counts: Counter[int] = Counter()
    for histogram in histograms:
        counts.update(histogram.counts)
    return Histogram(dict(counts))


@dataclass(frozen=True, slots=True)
class Direction:
    """What a job read, wrote or trimmed."""

    requests: int
    bytes: int
    seconds: float
    bytes_per_second: float
    iops: float
    latency: Histogram


@dataclass(frozen=True, slots=True)
class Job:
    name: str
    error: int
    """errno of the first request that failed, 0 without one."""
    read: Direction
    write: Direction
    trim: Direction


@dataclass(frozen=True, slots=True)
class Result:
    version: str
    jobs: tuple[Job, ...]

    @property
    def failed(self) -> list[str]:
        """Names of jobs with an error, whose figures mean nothing."""
        return [f"{job.name} (error {job.error})" for job in self.jobs if job.error]

    def latency(self, direction: str) -> Histogram:
        """Of all jobs together."""
        return merged(getattr(job, direction).latency for job in self.jobs)


def parse(text: str) -> Result:
    """The result in what fio printed; warnings may stand before and behind it. Raises `FioError`."""
    document = _document(text)
    jobs = document.get("jobs")
    if not isinstance(jobs, list) or not jobs:
        raise FioError("fio reported no jobs")
    return Result(str(document["fio version"]), tuple(_job(found, at) for at, found in enumerate(jobs)))


def _document(text: str) -> dict[str, Any]:  # Any: JSON
    decoder = json.JSONDecoder()
    at = text.find("{")
    while at >= 0:
        try:
            found, _ = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError):
            pass
        else:
            if isinstance(found, dict) and "fio version" in found:
                return found
        at = text.find("{", at + 1)
    beginning = text.strip()[:200]
    raise FioError(f"no result of fio in its output, which begins with {beginning!r}")


def _job(found: Any, at: int) -> Job:
    if not isinstance(found, dict):
        raise FioError(f"job {at} of fio is no object")
    name = str(found.get("jobname", at))
    directions = {direction: _direction(found.get(direction) or {}, f"{name}.{direction}") for direction in DIRECTIONS}
    return Job(name=name, error=int(_number(found, "error", name)), **directions)


def _direction(found: Any, where: str) -> Direction:
    if not isinstance(found, dict):
        raise FioError(f"{where} of fio is no object")
    # Old ones give KiB, and no bytes a second.
    amount = _number(found, "io_bytes", where) if "io_bytes" in found else _number(found, "io_kbytes", where) * _KIB
    rate = _number(found, "bw_bytes", where) if "bw_bytes" in found else _number(found, "bw", where) * _KIB
    return Direction(
        requests=int(_number(found, "total_ios", where)),
        bytes=int(amount),
        seconds=_number(found, "runtime", where) / 1000,
        bytes_per_second=rate,
        iops=_number(found, "iops", where),
        latency=_latency(found, where),
    )


def _latency(found: dict[str, Any], where: str) -> Histogram:
    for name, unit in _GENERATIONS:
        latency = found.get(name)
        if isinstance(latency, dict):
            bins = latency.get("bins") or {}
            try:
                return Histogram({int(value) * unit: int(count) for value, count in bins.items() if int(count)})
            except (TypeError, ValueError, AttributeError):
                raise FioError(f"{where}.{name}.bins of fio are not counts by time") from None
    return Histogram()


def _number(found: dict[str, Any], name: str, where: str) -> float:
    value = found.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FioError(f"{where}.{name} of fio is {value!r}, not a number")
    return value
