"""What `/metrics` shows, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from simulator.api import wire


class Metrics:
    """Of one simulator. Labels come from fixed sets, so that no client can make them grow."""

    def __init__(
        self,
        calls: Callable[[], Mapping[str, int]],
        waiting: Callable[[], int],
        effects: Callable[[], int],
        devices: Callable[[], int],
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Calls(calls))
        answers = Counter("splab_answers", "HTTP answers by status", ["status"], registry=self._registry)
        self._answers = cache(lambda status: answers.labels(str(status)))
        self._errors = Counter("splab_errors", "Error answers by StorPool's name", ["name"], registry=self._registry)
        for name, text, value in (
            ("splab_calls_waiting", "Calls without an answer yet", waiting),
            ("splab_effects_in_flight", "Changes at work on the blocks", effects),
            ("splab_loop_devices", "Loop devices of attachments", devices),
        ):
            Gauge(name, text, registry=self._registry).set_function(value)

    def answered(self, status: int, body: bytes) -> None:
        self._answers(status).inc()
        if status != 200:
            self._errors.labels(wire.error_name(body)).inc()

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _Calls(Collector):
    def __init__(self, calls: Callable[[], Mapping[str, int]]) -> None:
        self._calls = calls

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily("splab_calls", "API calls by name, errors included", labels=["call"])
        for call, number in sorted(self._calls().items()):
            family.add_metric([call], number)
        yield family
