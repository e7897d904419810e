"""fio's results of both generations, with text around them, damaged, and merged."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.bench.fio_parser import FioError, Histogram, merged, parse

COUNTS = st.dictionaries(st.integers(1, 1 << 40), st.integers(1, 50), min_size=1, max_size=8)
NOISE = st.text(alphabet=st.sampled_from('fio: {}[]"\n'), max_size=30)


def result(*bins: dict[int, int], **job: Any) -> dict[str, Any]:
    jobs = [
        {
            "jobname": f"job{at}",
            "error": 0,
            "read": {
                "io_bytes": 8192,
                "bw_bytes": 4096,
                "bw": 4,
                "iops": 1.5,
                "runtime": 2000,
                "total_ios": sum(each.values()),
                "clat_ns": {"bins": {str(value): count for value, count in each.items()}, "percentile": {}},
            },
            **job,
        }
        for at, each in enumerate(bins)
    ]
    return {"fio version": "fio-3.33", "jobs": jobs}


@given(before=NOISE, after=NOISE, counts=COUNTS)
def test_text_around_the_result_does_not_matter(before: str, after: str, counts: dict[int, int]) -> None:
    (job,) = parse(before + "\n" + json.dumps(result(counts)) + "\n" + after).jobs
    assert job.read.latency.counts == counts and job.read.requests == sum(counts.values())
    assert (job.read.bytes, job.read.bytes_per_second, job.read.seconds, job.read.iops) == (8192, 4096, 2.0, 1.5)
    assert job.write.requests == 0 and job.write.latency.total == 0


@given(bins=st.lists(COUNTS, min_size=1, max_size=4), share=st.floats(0.001, 100))
def test_percentiles_are_those_of_every_request_together(bins: list[dict[int, int]], share: float) -> None:
    every = sorted(value for each in bins for value, count in each.items() for _ in range(count))
    latency = parse(json.dumps(result(*bins))).latency("read")
    share = round(share, 6)
    rank = max(1, math.ceil(len(every) * round(share * 1_000_000) / 100_000_000))
    assert latency.percentile(share) == every[rank - 1]
    assert latency.percentile(100) == every[-1] and latency.total == len(every)
    assert merged(map(Histogram, reversed(bins))).counts == latency.counts


@given(counts=COUNTS, low=st.floats(0.001, 100), high=st.floats(0.001, 100))
def test_percentiles_grow(counts: dict[int, int], low: float, high: float) -> None:
    low, high = sorted((low, high))
    assert Histogram(counts).percentile(low) <= Histogram(counts).percentile(high)


@given(cut=st.integers(0, 400), counts=COUNTS)
def test_a_result_that_is_cut_off_is_refused(cut: int, counts: dict[int, int]) -> None:
    whole = json.dumps(result(counts))
    with pytest.raises(FioError, match="no result of fio"):
        parse(whole[: min(cut, len(whole) - 1)])


def test_the_older_generation_counts_in_microseconds_and_kibibytes() -> None:
    old = {"io_kbytes": 8, "bw": 4, "iops": 2, "runtime": 1000, "total_ios": 3, "clat": {"bins": {"7": 3}}}
    told = json.dumps({"fio version": "fio-2.16", "jobs": [{"jobname": "a", "error": 5, "write": old}]})
    found = parse("fio: this platform does not support process shared mutexes\n" + told)
    (job,) = found.jobs
    assert (job.write.bytes, job.write.bytes_per_second) == (8192, 4096)
    assert job.write.latency.counts == {7000: 3}
    assert found.failed == ["a (error 5)"]


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"fio version": "3", "jobs": []}, "no jobs"),
        ({"fio version": "3", "jobs": [1]}, "job 0 of fio is no object"),
        (result({1: 1}, read=[1]), "job0.read of fio is no object"),
        (result({1: 1}, error="x"), "job0.error of fio is 'x'"),
        (result({1: 1}, read={"clat_ns": {"bins": {"a": 1}}}), "are not counts by time"),
        (result({1: 1}, read={"io_bytes": None}), "job0.read.io_bytes of fio is None"),
    ],
)
def test_what_is_wrong_is_said(document: dict[str, Any], why: str) -> None:
    with pytest.raises(FioError, match=why):
        parse(json.dumps(document))


def test_latencies_that_are_not_there_have_no_percentiles() -> None:
    for share in (0, 100.5):
        with pytest.raises(FioError, match="no percentile"):
            Histogram({1: 1}).percentile(share)
    with pytest.raises(FioError, match=r"json\+"):
        Histogram().percentile(50)
