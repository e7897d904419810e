from harness.bench.measure import Bench


def measure(bench: Bench) -> None: ...
