"""What runs of the memory world cost, beside a loop of plain Python."""

from __future__ import annotations

from harness.bench import memory
from harness.bench.measure import Bench

LEG = "explore"


def measure(bench: Bench) -> None:
    """CPU time: machines differ and so does one machine from hour to hour; the ratio to the loop is what two
    measurements can share."""
    for body in memory.BODIES.values():
        memory.run_seconds(body, 0)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in memory.BODIES}
    for seed in range(1, 4 * bench.effort.turns + 1):
        loop = memory.loop_seconds()
        for name, body in memory.BODIES.items():
            taken[name].append((memory.run_seconds(body, seed) * 1000, loop * 1000))
    for name, pairs in taken.items():
        bench.compared(LEG, name, "ms CPU", f"{memory.LOOP} turns of a loop of plain Python", pairs)
