"""Messages between simulated processes: what is lost, when, and what the sender may conclude."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.runtime.process import SimulatedRuntime
from harness.runtime.simulated import Simulation
from harness.spi.commands import Answer, AnyAnswer, AnyCommand, DeleteCommand, PingAnswer, PingCommand
from harness.spi.errors import Unavailable, Unknown
from harness.spi.objects import VmPower
from harness.storpool import AnswerLost, NotSent, Request, Secret
from harness.worlds.memory.transports import Listener, MemoryEndpoint, Network, StorPoolServer, StorPoolTransport
from simulator import ports

PING = PingCommand(wait=5)


def agent(simulation: Simulation, handle: Callable[[SimulatedRuntime], AnyAnswer]) -> Listener:
    listener = Listener("kvm1", Network(simulation.process("network")))
    runtime = simulation.process("agent")

    def work(command: AnyCommand) -> AnyAnswer:
        assert command == PING
        return handle(runtime)

    listener.listen(runtime, work)
    return listener


@pytest.mark.parametrize("seed", range(5))
def test_a_command_is_carried_out_by_the_agents_process_and_its_answer_comes_back_equal(seed: int) -> None:
    simulation = Simulation(seed)
    answer = PingAnswer(result=True, host_uuid="h", vms={"i-2-3-VM": VmPower.ON})
    ran_in: list[str] = []

    def handle(runtime: SimulatedRuntime) -> AnyAnswer:
        runtime.sleep(1)
        current = simulation.current
        assert current is not None
        ran_in.append(current.process.process)
        return answer

    endpoint = MemoryEndpoint(simulation.main, agent(simulation, handle))
    assert simulation.run(lambda: endpoint.send(PING, timeout=10)) == answer
    assert ran_in == ["agent"]


def test_a_command_to_an_agent_that_does_not_run_was_not_delivered() -> None:
    simulation = Simulation(1)
    calls: list[int] = []

    def handle(_runtime: SimulatedRuntime) -> AnyAnswer:
        calls.append(1)
        return Answer(result=True)

    endpoint = MemoryEndpoint(simulation.main, agent(simulation, handle))
    nobody = MemoryEndpoint(simulation.main, Listener("kvm2", Network(simulation.process("network-2"))))

    def main() -> None:
        simulation.kill("agent")
        for dead in (endpoint, nobody):
            with pytest.raises(Unavailable, match="not delivered"):
                dead.send(PING, timeout=10)

    simulation.run(main)
    assert calls == []


@pytest.mark.parametrize("seed", range(8))
def test_an_agent_killed_at_work_leaves_the_outcome_unknown_at_once(seed: int) -> None:
    simulation = Simulation(seed)
    effects: list[str] = []

    def handle(runtime: SimulatedRuntime) -> AnyAnswer:
        runtime.sleep(5)
        effects.append("late")
        return Answer(result=True)

    endpoint = MemoryEndpoint(simulation.main, agent(simulation, handle))

    def killer() -> None:
        simulation.main.sleep(2)
        simulation.kill("agent")

    def main() -> float:
        simulation.main.spawn("killer", killer)
        with pytest.raises(Unknown, match="connection broke"):
            endpoint.send(PING, timeout=100)
        return simulation.elapsed

    assert simulation.run(main) == 2
    assert effects == []


def test_an_agent_killed_before_or_after_it_took_the_command_up_is_noticed_at_once() -> None:
    outcomes: set[str] = set()
    for seed in range(60):
        simulation = Simulation(seed)

        def handle(runtime: SimulatedRuntime) -> AnyAnswer:
            runtime.sleep(5)
            return Answer(result=True)

        endpoint = MemoryEndpoint(simulation.main, agent(simulation, handle))

        def main(simulation: Simulation = simulation, endpoint: MemoryEndpoint = endpoint) -> None:
            simulation.main.spawn("killer", lambda: simulation.kill("agent"))
            with pytest.raises((Unknown, Unavailable)) as caught:
                endpoint.send(PING, timeout=100)
            outcomes.add(type(caught.value).__name__)

        simulation.run(main)
        assert simulation.elapsed == 0
    assert outcomes == {"Unknown", "Unavailable"}


def test_an_answer_that_takes_too_long_is_unknown_and_the_work_goes_on() -> None:
    simulation = Simulation(1)
    effects: list[str] = []

    def handle(runtime: SimulatedRuntime) -> AnyAnswer:
        runtime.sleep(20)
        effects.append("late")
        return Answer(result=True)

    endpoint = MemoryEndpoint(simulation.main, agent(simulation, handle))

    def main() -> None:
        with pytest.raises(Unknown, match="no answer in 10 s"):
            endpoint.send(PING, timeout=10)
        assert effects == []
        simulation.main.sleep(30)

    simulation.run(main)
    assert effects == ["late"]


def test_only_what_can_go_over_a_wire_gets_through() -> None:
    simulation = Simulation(1)
    endpoint = MemoryEndpoint(simulation.main, agent(simulation, lambda _: Answer(result=True)))
    command = DeleteCommand(store=object(), path="x")  # type: ignore[arg-type]  # not wire-able, on purpose

    def main() -> None:
        with pytest.raises(TypeError):
            endpoint.send(command, timeout=1)

    simulation.run(main)


class FakeService:
    """Answers `now` at once, `later` after two seconds, `never` not at all."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.seen: list[ports.Request] = []
        self.cancelled: list[int] = []
        self._late: list[tuple[float, Callable[[ports.Reply], None]]] = []

    def object_keys(self) -> dict[str, int]:
        return {}

    def submit(self, request: ports.Request, reply: Callable[[ports.Reply], None]) -> int:
        self.seen.append(request)
        if request.path.endswith("now"):
            reply(ports.Reply(200, b"{}"))
        elif request.path.endswith("later"):
            self._late.append((self._simulation.elapsed + 2, reply))
        return len(self.seen)

    def cancel(self, number: int) -> None:
        self.cancelled.append(number)

    def tick(self) -> float | None:
        while self._late and self._late[0][0] <= self._simulation.elapsed:
            self._late.pop(0)[1](ports.Reply(503, b"late"))
        return self.due_in()

    def due_in(self) -> float | None:
        return self._late[0][0] - self._simulation.elapsed if self._late else None

    def close(self) -> None:
        pass


def storpool(simulation: Simulation) -> tuple[FakeService, StorPoolServer]:
    service = FakeService(simulation)
    return service, StorPoolServer(simulation.process("storpool"), service, Network(simulation.process("network")))


def request(path: str, timeout: float = 60) -> Request:
    return Request("POST", f"MultiCluster/{path}", b"[]", timeout)


@pytest.mark.parametrize("seed", range(5))
def test_storpool_calls_are_answered_at_once_or_when_their_time_comes(seed: int) -> None:
    simulation = Simulation(seed)
    service, server = storpool(simulation)
    transport = StorPoolTransport(simulation.main, lambda: server, Secret("t"))

    def main() -> None:
        assert transport.call(request("now")).status == 200
        simulation.main.sleep(100)
        assert transport.call(request("later")).body == b"late"
        assert simulation.elapsed == 102

    simulation.run(main)
    assert service.seen[0] == ports.Request("POST", "/ctrl/1.0/MultiCluster/now", b"[]", "t")
    assert server.calls == {"now": 1, "later": 1}
    assert service.cancelled == []


def test_storpool_without_answer_is_unknown_and_unreached_is_not_sent() -> None:
    simulation = Simulation(1)
    service, server = storpool(simulation)
    open_ways = [True]
    transport = StorPoolTransport(simulation.main, lambda: server, Secret("t"), lambda: open_ways[0])

    def main() -> None:
        with pytest.raises(AnswerLost, match="no answer in 7 s"):
            transport.call(request("never", 7))
        assert simulation.elapsed == 7
        assert service.cancelled == [1]
        open_ways[0] = False
        with pytest.raises(NotSent):
            transport.call(request("now"))
        open_ways[0] = True
        assert len(service.seen) == 1

        def killer() -> None:
            simulation.main.sleep(1)
            simulation.kill("storpool")

        simulation.main.spawn("killer", killer)
        with pytest.raises(AnswerLost, match="broke"):
            transport.call(request("never"))
        assert simulation.elapsed == 8
        with pytest.raises(NotSent):
            transport.call(request("now"))

    simulation.run(main)
    assert len(service.seen) == 2
