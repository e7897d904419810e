"""Judges an explored run once its faults are over: all converges, is what clients were told, and can be removed."""

from __future__ import annotations

from collections.abc import Callable

from harness import checks
from harness.checks import Picture
from harness.checks.picture import path_id, tags_of
from harness.explore.asking import Shared
from harness.explore.beginnings import LIMIT, TIER
from harness.explore.contents import wrong_contents
from harness.explore.model import ABSENT, DELETING, FREE, OFFERING, SIZE, Told
from harness.explore.requests import JobFailed, listed, wait
from harness.explore.violation import Violation, ViolationFound
from harness.observers import CloudApiError, Json

UP_SECONDS = 3600.0
"""Within this after the last fault every process and host is up again, and every job has ended."""
REST_SECONDS = 3600.0
"""Within this the cloud is at rest: the longest fault, its time-out, and a restart after it."""
CLOSED_SECONDS = 1800.0
"""Within this after everything was removed the driver has closed its operations: thrice its settle time."""
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 300.0
WATCH_PAUSE = 60.0


def judge(shared: Shared, skew: float) -> Picture:
    """The cloud at rest, as clients were told; raises `ViolationFound`.

    Clocks may be wrong by up to `skew` seconds, which is waited longer then.
    """
    _watch(shared, "faults are over", lambda: [] if shared.world.faults.over else ["not yet"], UP_SECONDS + skew)
    _wait(shared, "hosts come up again", lambda: _away(shared), UP_SECONDS + skew)
    _wait(shared, "jobs end", lambda: _jobs(shared), UP_SECONDS + skew)
    picture = _at_rest(shared, "at rest", REST_SECONDS + skew)
    _as_told(shared, picture)
    _facts_as_told(shared, picture)
    wrong = wrong_contents(shared, picture)
    if wrong is not None:
        _found("contents", wrong)
    return picture


def judge_removal(shared: Shared, picture: Picture, skew: float) -> None:
    """Everything in the picture can be removed, and nothing is left then; raises `ViolationFound`."""
    _remove(shared, picture)
    _nothing_left(shared, _at_rest(shared, "after removal", REST_SECONDS + skew))
    _watch(shared, "the driver closes its operations", lambda: _open_operations(shared), CLOSED_SECONDS + skew)


def _found(kind: str, text: str) -> None:
    raise ViolationFound(Violation(kind, text))


def _watch(shared: Shared, what: str, left: Callable[[], list[str]], seconds: float) -> None:
    """As `_wait`, for looks that cost next to nothing."""
    _wait(shared, what, left, seconds, longest=WATCH_PAUSE)


def _wait(
    shared: Shared, what: str, left: Callable[[], list[str]], seconds: float, longest: float = LONGEST_PAUSE
) -> None:
    """Until nothing is left, at most so long. Each look costs, so the pauses between them grow up to `longest`."""
    main = shared.world.simulation.main
    deadline = main.monotonic() + seconds
    pause = FIRST_PAUSE
    while remaining := left():
        if main.monotonic() >= deadline:
            _found(what, f"still so after {seconds:g} s: {'; '.join(remaining)}")
        main.sleep(pause)
        pause = min(longest, 2 * pause)


def _at_rest(shared: Shared, when: str, seconds: float) -> Picture:
    """The cloud once every invariant holds."""
    main = shared.world.simulation.main
    deadline = main.monotonic() + seconds
    pause = FIRST_PAUSE
    while True:
        picture = checks.take(shared.world)
        violated = checks.violations(picture)
        if not violated:
            return picture
        if main.monotonic() >= deadline:
            text = "; ".join(str(each) for each in violated)
            _found(f"{when}: {violated[0].invariant}", f"still so after {seconds:g} s: {text}")
        main.sleep(pause)
        pause = min(LONGEST_PAUSE, 2 * pause)


def _away(shared: Shared) -> list[str]:
    hosts = listed(shared.world, "listHosts", "host", type="Routing")
    return [f"host {host['name']} is {host['state']}" for host in hosts if host["state"] != "Up"]


def _jobs(shared: Shared) -> list[str]:
    jobs = listed(shared.world, "listAsyncJobs", "asyncjobs")
    return [f"job {job['jobid']} of {job['cmd']} is in progress" for job in jobs]


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

    for snapshot in shared.model.snapshots.values():
        shown = picture.snapshot_records.get(snapshot.id or "")
        if snapshot.id is not None:
            _compare(snapshot, ABSENT if shown is None else str(shown["state"]))


def _facts_as_told(shared: Shared, picture: Picture) -> None:
    """Size and offering of every DATA volume, and of those on StorPool the offering's limit and tier."""
    limits = dict(zip(shared.disk_offerings, (("-", ""), (LIMIT, ""), ("-", TIER)), strict=True))
    for told in shared.model.volumes.values():
        shown = picture.volume_records.get(told.id or "")
        if shown is None:
            continue
        offering = str(shown["diskofferingid"])
        for fact, seen in ((SIZE, str(shown["size"])), (OFFERING, offering)):
            possible = shared.model.values(told, fact)
            if seen not in possible:
                _found("what was acknowledged", f"{fact} of {told.name} is {seen}, and can only be {sorted(possible)}")
        volume = picture.volumes.get(path_id(shown)) if "path" in shown else None
        if volume is None:
            continue
        found = volume["iops"], tags_of(volume).get("qc", "")
        if found != limits[offering]:
            _found("what its offering says", f"{told.name} has limit and tier {found}, its offering {limits[offering]}")


def _volume_state(volume: Json, vms: dict[str, str]) -> str:
    if volume["state"] in ("Destroy", "Expunging", "Expunged"):
        return DELETING
    holder = volume.get("virtualmachineid")
    return FREE if holder is None else vms.get(str(holder), str(holder))


def _compare(told: Told, seen: str) -> None:
    possible = told.register.possible()
    if seen not in possible:
        _found("what was acknowledged", f"{told.name} is {seen}, and can only be {' or '.join(sorted(possible))}")


def _remove(shared: Shared, picture: Picture) -> None:
    """Remove every VM, volume and snapshot through the API; what is at rest can be removed at once."""
    world = shared.world
    try:
        # Guests that have not booted hear no power button, and waiting for them tells nothing more.
        world.cloud.call("updateConfiguration", name="vm.destroy.forcestop", value="true")
        started = [
            (str(vm["name"]), world.cloud.start("destroyVirtualMachine", id=vm["id"], expunge=True))
            for vm in picture.vm_records.values()
        ]
        for name, job in started:
            wait(world, job, f"the removal of {name}")
        for volume in listed(world, "listVolumes", "volume"):
            world.cloud.call("deleteVolume", id=volume["id"])
        for snapshot in dict.fromkeys(str(item["id"]) for item in listed(world, "listSnapshots", "snapshot")):
            wait(world, world.cloud.start("deleteSnapshot", id=snapshot), f"the removal of snapshot {snapshot}")
    except (JobFailed, CloudApiError) as error:
        _found("what is at rest can be removed", str(error))


def _nothing_left(shared: Shared, picture: Picture) -> None:
    """Beyond what the invariants say of a cloud without records."""
    for records in (picture.vm_records, picture.volume_records, picture.snapshot_records):
        left = [str(item["name"]) for item in records.values()]
        if left:
            _found("nothing is left", f"CloudStack still shows {', '.join(left)}")
    for machine in shared.world.processes.machines.values():
        if machine.domains:
            _found("nothing is left", f"domains of {machine.name}: {', '.join(machine.domains)}")
        if machine.open_disks():
            _found("nothing is left", f"{machine.name} has devices open: {machine.open_disks()}")


def _open_operations(shared: Shared) -> list[str]:
    operations = shared.world.management.open_operations()
    return [f"operation {o.id}: {o.kind} {o.subject} is open at step {o.step}" for o in operations]
