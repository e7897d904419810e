"""Judges an explored run once its faults are over: all converges, is what clients were told, and can be removed."""

from __future__ import annotations

from collections.abc import Callable

from harness import tidy
from harness.checks import Picture, Violation, take, violations_at_rest
from harness.explore import violation
from harness.explore.client import Shared
from harness.explore.contents import wrong_contents
from harness.explore.model import ABSENT, DELETING, FREE, Told
from harness.explore.violation import ViolationFound
from harness.observers import CloudApiError, Json
from harness.runtime.simulated import Simulation

UP_SECONDS = 3600.0
"""Within this after the last fault every killed process is up again."""
REST_SECONDS = 3600.0
"""Within this the cloud is at rest: the longest fault, its time-out, and a restart after it."""
CLOSED_SECONDS = 1800.0
"""Within this after everything was removed the driver has closed its operations: thrice its settle time."""
LOOK_SECONDS = 60.0


def judge(shared: Shared, before: tidy.Inventory, skew: float) -> None:
    """Raises `ViolationFound`. Clocks may be wrong by up to `skew` seconds, which is waited longer then."""
    world = shared.world
    _wait(world.simulation, "processes and hosts come up again", lambda: _away(shared), skew)
    _expunge_again(shared)
    _rest(shared, "at rest", REST_SECONDS + skew)
    _wait(world.simulation, "jobs end", lambda: _jobs(shared), skew)
    picture = take(world)
    _as_told(shared, picture)
    wrong = wrong_contents(shared, picture)
    if wrong is not None:
        _found("contents", wrong)
    left = tidy.tidy(world, before)
    if left:
        _found("what is at rest can be removed", "; ".join(left))
    _rest(shared, "after removal", REST_SECONDS + skew)
    _nothing_left(shared)
    _wait(world.simulation, "the driver closes its operations", lambda: _open_operations(shared), CLOSED_SECONDS + skew)


def _found(kind: str, text: str) -> None:
    raise ViolationFound(violation.Violation(kind, text))


def _rest(shared: Shared, when: str, seconds: float) -> None:
    found = violations_at_rest(shared.world, shared.world.simulation.main.sleep, seconds)
    if found:
        text = "; ".join(str(each) for each in found)
        _found(f"{when}: {_names(found)}", f"still so after {seconds:g} s: {text}")


def _names(found: list[Violation]) -> str:
    return found[0].invariant


def _wait(simulation: Simulation, what: str, left: Callable[[], list[str]], seconds: float) -> None:
    """Until nothing is left, at most `UP_SECONDS` and `seconds`."""
    main = simulation.main
    deadline = main.monotonic() + UP_SECONDS + seconds
    while remaining := left():
        if main.monotonic() >= deadline:
            _found(what, "; ".join(remaining))
        main.sleep(LOOK_SECONDS)


def _away(shared: Shared) -> list[str]:
    if not shared.world.faults.over:
        return ["a fault goes on"]
    hosts = shared.world.cloud.call("listHosts", type="Routing").get("host", [])
    return [f"host {host['name']} is {host['state']}" for host in hosts if host["state"] != "Up"]


def _expunge_again(shared: Shared) -> None:
    """An expunge that failed is asked for again by whoever wanted it; CloudStack itself comes back once a day."""
    cloud = shared.world.cloud
    listed = cloud.call("listVirtualMachines", listall=True).get("virtualmachine", [])
    for vm in listed:
        if vm["state"] == "Expunging":
            try:
                cloud.call("expungeVirtualMachine", id=vm["id"])
            except CloudApiError as error:
                shared.world.simulation.note("judge", "expunge again", str(error))


def _jobs(shared: Shared) -> list[str]:
    answer = shared.world.cloud.call("listAsyncJobs", listall=True)
    return [f"job {job['jobid']} of {job['cmd']} is in progress" for job in answer.get("asyncjobs", [])]


def _as_told(shared: Shared, picture: Picture) -> None:
    vms = {str(vm["name"]): vm for vm in picture.vm_records.values()}
    by_id = {str(vm["id"]): str(vm["name"]) for vm in picture.vm_records.values()}
    for vm in shared.model.vms.values():
        shown = vms.get(vm.name)
        _compare(vm, ABSENT if shown is None else str(shown["state"]))
    for volume in shared.model.volumes.values():
        found = [v for v in picture.volume_records.values() if v["name"] == volume.name]
        if volume.id is not None:
            # A create that was delivered twice made another one of that name.
            found = [v for v in found if v["id"] == volume.id]
        states = {_volume_state(v, by_id) for v in found} or {ABSENT}
        if not states & volume.register.possible():
            _compare(volume, ", ".join(sorted(states)))


def _volume_state(volume: Json, vms: dict[str, str]) -> str:
    if volume["state"] in ("Destroy", "Expunging", "Expunged"):
        return DELETING
    holder = volume.get("virtualmachineid")
    return FREE if holder is None else vms.get(str(holder), str(holder))


def _compare(told: Told, seen: str) -> None:
    possible = told.register.possible()
    if seen not in possible:
        _found("what was acknowledged", f"{told.name} is {seen}, and can only be {' or '.join(sorted(possible))}")


def _nothing_left(shared: Shared) -> None:
    """Beyond what the invariants say of a cloud without records."""
    processes = shared.world.processes
    for machine in processes.machines.values():
        if machine.domains:
            _found("nothing is left", f"domains of {machine.name}: {', '.join(machine.domains)}")
        if machine.open_disks():
            _found("nothing is left", f"{machine.name} has devices open: {machine.open_disks()}")


def _open_operations(shared: Shared) -> list[str]:
    operations = shared.world.management.open_operations()
    return [f"operation {o.id}: {o.kind} {o.subject} is open at step {o.step}" for o in operations]
