"""What can befall the memory world (`harness.faults.FaultTarget`), and how killed processes come up again."""

from __future__ import annotations

from collections.abc import Callable

from harness.worlds.memory.processes import Processes, agent_of

RETRY_SECONDS = 5.0
"""Between two tries of starting a process that was killed while it started."""


class MemoryFaults:
    """Over the processes of one world; `start` starts a killed process, from the scenario's tasks."""

    def __init__(self, processes: Processes, start: Callable[[str], None]) -> None:
        self._processes = processes
        self._simulation = processes.simulation
        self._start = start
        self._restarting: dict[str, float] = {}
        """When each killed process is started again, in seconds of the run."""
        self._hanging = 0
        self._full = 0

    @property
    def over(self) -> bool:
        """Whether killed processes are up, hung tasks go on, what was broken is whole and no message is under way."""
        return not self._restarting and not self._hanging and self._processes.network.idle

    def kill(self, process: str, seconds: float) -> None:
        at = self._simulation.elapsed + seconds
        if process in self._restarting:
            self._restarting[process] = max(at, self._restarting[process])
        else:
            self._restarting[process] = at
            self._simulation.main.spawn(f"restart {process}", lambda: self._restart(process))
        if self._simulation.alive(process):
            self._simulation.kill(process)

    def end(self, process: str) -> None:
        """As `kill`, until `begin`."""
        if self._simulation.alive(process):
            self._simulation.kill(process)

    def begin(self, process: str) -> None:
        """Start what `end`, or a kill, ended; returns when it can be used."""
        self._restarting.pop(process, None)
        if not self._simulation.alive(process):
            self._start(process)

    def lose_host(self, host: str, seconds: float) -> None:
        self._processes.machines[host].cut_power()
        self.kill(agent_of(host), seconds)

    def kill_guests(self, host: str) -> None:
        self._processes.machines[host].kill_guests()

    def hang(self, seconds: float) -> None:
        self._hanging += 1
        try:
            self._simulation.block(f"{seconds:g} s of hanging to pass", seconds)
        finally:
            self._hanging -= 1

    def libvirtd_gone(self, host: str, seconds: float) -> None:
        machine = self._processes.machines[host]
        machine.libvirtd_gone += 1

        def back() -> None:
            machine.libvirtd_gone -= 1

        self._later(seconds, f"libvirtd of {host} back", back)

    def devices_late(self, host: str, seconds: float) -> None:
        show = self._processes.machines[host].storage.devices_late()
        self._later(seconds, f"late devices of {host}", show)

    def devices_stale(self, host: str, seconds: float) -> None:
        refresh = self._processes.machines[host].storage.devices_stale()
        self._later(seconds, f"stale devices of {host}", refresh)

    def secondary_stalled(self, seconds: float) -> None:
        export = self._processes.export
        export.stalls += 1

        def answer() -> None:
            export.stalls -= 1

        self._later(seconds, "secondary storage back", answer)

    def secondary_full(self, seconds: float) -> None:
        export = self._processes.export
        export.full += 1

        def empty() -> None:
            export.full -= 1

        self._later(seconds, "secondary storage emptied", empty)

    def pool_full(self, seconds: float) -> None:
        pools = self._processes.pools
        self._full += 1
        for blocks in pools:
            blocks.taken = blocks.capacity()[0]

        def empty() -> None:
            self._full -= 1
            if not self._full:
                for blocks in pools:
                    blocks.taken = 0

        self._later(seconds, "StorPool emptied", empty)

    def storpool_dies(self, seconds: float, *, after: bool) -> None:
        effects = self._processes.effects
        effects.dying = lambda process: self.kill(process, seconds)
        effects.after = after

    def disarm(self) -> bool:
        """What waits for its moment does not strike any more; whether there was such a thing."""
        effects = self._processes.effects
        dying, effects.dying = effects.dying, None
        return dying is not None

    def set_clock(self, process: str, seconds: float) -> None:
        clocks = self._simulation.clocks
        clocks[process] = clocks.get(process, 0.0) + seconds

    def _later(self, seconds: float, what: str, change: Callable[[], None]) -> None:
        self._processes.network.later(seconds, what, change)

    def _restart(self, process: str) -> None:
        main, simulation = self._simulation.main, self._simulation
        while True:
            if process not in self._restarting:
                return
            if simulation.elapsed < self._restarting[process]:
                main.sleep(self._restarting[process] - simulation.elapsed)
                continue
            if simulation.alive(process):
                break
            try:
                self._start(process)
            except Exception:
                # Killed again while it started: that is what its caller hears of it.
                if simulation.alive(process):
                    raise
                main.sleep(RETRY_SECONDS)
        del self._restarting[process]
