"""Copies by qemu-img, which may take hours: how far one is can be seen, and one that nobody waits for any more, because
the management server was killed amid it, is ended by the server that starts next (weakness 65)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from harness.observers import Json, World
from scenarios import looks, snapshots, templates
from scenarios.looks import fails, reread_volume
from scenarios.registry import scenario
from scenarios.row09_volume_snapshot import used_volume
from scenarios.row10_volume_from_snapshot import copied, fresh, has_its_bytes
from scenarios.row13_download_volume import MODE, extract, files, gives, url_of
from scenarios.snapshots import archive, file_holds, files_of, stores, take
from scenarios.steps import detach, disk_offering, many, one

BEGIN_SECONDS = 120
END_SECONDS = 90
"""Shorter than the settle time, and than anything is waited for that is only late."""
AGAIN_SECONDS = 300
COPY_SECONDS = 600
STILL_SECONDS = {False: 150, True: 10}
"""Longer than between two times that a host is asked how far its copies are, where time is real and where it is not."""
INTERRUPTED = "management server restart"


def copying(world: World) -> list[str]:
    """Command lines of all copies that run."""
    return [line for host in world.hosts for line in host.copies()]


@contextmanager
def slow_copies(world: World) -> Iterator[None]:
    with ExitStack() as stack:
        for host in world.hosts:
            stack.enter_context(host.slow_copies())
        yield


def killed_amid(world: World) -> list[str]:
    """Kill the server once a host copies; the command lines of the copies that run then."""
    world.wait_until("a host copies", lambda: bool(copying(world)), BEGIN_SECONDS)
    begun = copying(world)
    world.kill_management()
    return begun


def ended(world: World, job: str, begun: list[str]) -> None:
    """With another server, which was started, the copies end long before their time."""
    with world.check("the job has failed, and says why"):
        assert INTERRUPTED in fails(lambda: world.cloud.wait(job)).text
    world.wait_until("the copy has ended", lambda: not set(begun) & set(copying(world)), END_SECONDS)


@scenario(11, "server-killed", "the server is killed amid the copy of a template: it is ended, and can be made at once")
def template(world: World) -> None:
    _, volume = used_volume(world, "old")
    detach(world, volume)
    before, names, stored = templates.objects(world), templates.names(world), world.secondary.files("template")
    with slow_copies(world):
        name = world.name("template")
        os_type = world.environment.os_type_id
        job = world.cloud.start("createTemplate", name=name, ostypeid=os_type, volumeid=volume["id"])
        begun = killed_amid(world)
        world.start_management()
        ended(world, job, begun)
        world.wait_until("its StorPool snapshot is gone", lambda: templates.objects(world) <= before, END_SECONDS)
    with world.check("no template, and no file of one, stays"):
        world.wait_until("the file is gone", lambda: world.secondary.files("template") == stored, END_SECONDS)
        assert templates.names(world) == names, templates.names(world)
    made = templates.from_volume(world, volume)
    templates.looks_right(world, made, int(volume["size"]))
    with world.check("asked for again it has the volume's bytes"):
        templates.file_holds(world, made, "old", snapshots.PLACES)
        templates.mirror_of(world, made)


@scenario(9, "server-killed", "the server is killed amid a backup: it is ended, and the next try begins at once")
def backup(world: World) -> None:
    vm, volume = used_volume(world, "before")
    with slow_copies(world):
        job = world.cloud.start("createSnapshot", volumeid=volume["id"])
        begun = killed_amid(world)
        world.start_management()
        ended(world, job, begun)
    snapshots.write(world, vm, volume, "after")
    (snapshot,) = snapshots.snapshots_of(world, volume)
    world.wait_until("it is backed up", lambda: "Image" in stores(world, snapshot), AGAIN_SECONDS)
    world.wait_until("only the good try has a file", lambda: len(files_of(world, snapshot)) == 1, END_SECONDS)
    with world.check("the backup has the bytes of the snapshot's time"):
        file_holds(world, snapshot, "before")


@scenario(9, "nfs-amid", "secondary storage goes away amid a backup and comes back: the backup ends well by itself")
def nfs_amid(world: World) -> None:
    vm, volume = used_volume(world, "before")
    with ExitStack() as cut:
        with slow_copies(world):
            job = world.cloud.start("createSnapshot", volumeid=volume["id"])
            world.wait_until("it is told how far the backup is", lambda: percent(world, job) > 0, COPY_SECONDS)
            cut.enter_context(world.secondary.unreachable())
        # From here on nothing but the server holds it up.
        world.wait_until("it hangs", lambda: not goes_on(world, job), COPY_SECONDS)
        snapshots.write(world, vm, volume, "after")
        with world.check("the copy waits, and its job with it"):
            assert len(copying(world)) == 1 and job_of(world, job)["jobstatus"] == 0, job_of(world, job)
    (snapshot,) = snapshots.snapshots_of(world, volume)
    with world.check("it ends well"):
        world.cloud.wait(job)
        snapshot = snapshots.snapshot_by_id(world, str(snapshot["id"]))
        assert (snapshot["state"], stores(world, snapshot)) == ("BackedUp", ["Image", "Primary"]), snapshot
        assert reread_volume(world, volume)["state"] == "Ready"
    with world.check("one file has the bytes of the snapshot's time"):
        file_holds(world, snapshot, "before")
    with world.check("one StorPool snapshot, attached nowhere"):
        snapshots.attached_nowhere(world, str(snapshots.on_storpool(world, snapshot)["globalId"]))
    made = snapshots.volume_from(world, archive(world, snapshot))
    fresh(world, made, snapshot, 1)
    copied(world, made)
    has_its_bytes(world, vm, made, "before")


def job_of(world: World, job: str) -> Json:
    return world.cloud.call("queryAsyncJobResult", jobid=job)


def percent(world: World, job: str) -> int:
    """How far the copy is that the job waits for."""
    return int(job_of(world, job)["jobprocstatus"])


def goes_on(world: World, job: str) -> bool:
    """Whether the copy that the job waits for gets any further while hosts are asked how far it is."""
    before = percent(world, job)
    try:
        world.wait_until("the copy goes on", lambda: percent(world, job) != before, STILL_SECONDS[world.real])
    except TimeoutError:
        return False
    return True


@scenario(10, "server-killed", "the server is killed as a snapshot is brought back: that begins anew at once")
def volume_from_backup(world: World) -> None:
    vm, volume = used_volume(world, "old")
    snapshot = archive(world, take(world, volume))
    before = templates.objects(world)
    with slow_copies(world):
        offering, name = disk_offering(world), world.name("volume")
        job = world.cloud.start("createVolume", snapshotid=snapshot["id"], name=name, diskofferingid=offering, size=1)
        begun = killed_amid(world)
    # The server makes the volume, anew, before it serves.
    world.start_management()
    ended(world, job, begun)
    (made,) = [item for item in many(world.cloud.call("listVolumes", listall=True), "volume") if item["name"] == name]
    fresh(world, made, snapshot, 1)
    copied(world, made)
    with world.check("what the first copy wrote to is gone"):
        assert templates.objects(world) - before == {looks.global_id(made)}, templates.objects(world)
    has_its_bytes(world, vm, made, "old")


@scenario(13, "server-killed", "the server is killed amid the copy for a download: it is ended, and can be had at once")
def download(world: World) -> None:
    _, volume = used_volume(world, "old")
    volume = detach(world, volume)
    before = templates.objects(world)
    with slow_copies(world):
        zone = world.environment.zone_id
        job = world.cloud.start("extractVolume", id=volume["id"], zoneid=zone, mode=MODE)
        begun = killed_amid(world)
        world.start_management()
        ended(world, job, begun)
        world.wait_until("its StorPool snapshot is gone", lambda: templates.objects(world) <= before, END_SECONDS)
    world.wait_until("its file is gone", lambda: not files(world), AGAIN_SECONDS)
    gives(world, url_of(extract(world, volume)), "old", snapshots.PLACES)


@scenario(11, "progress", "how far the copy of a template is shows in the job that waits for it, and grows")
def progress(world: World) -> None:
    _, volume = used_volume(world, "old")
    volume = detach(world, volume)
    seen: list[int] = []
    name, os_type = world.name("template"), world.environment.os_type_id

    def told(times: int) -> bool:
        job_now = world.cloud.call("queryAsyncJobResult", jobid=job)
        assert job_now["jobstatus"] == 0, f"the job ended after {seen}: {job_now}"
        if int(job_now["jobprocstatus"]) not in seen:
            seen.append(int(job_now["jobprocstatus"]))
        return len([percent for percent in seen if percent]) >= times

    with slow_copies(world):
        job = world.cloud.start("createTemplate", name=name, ostypeid=os_type, volumeid=volume["id"])
        world.wait_until("it is told how far the copy is, twice", lambda: told(2), COPY_SECONDS)
        with world.check("listAsyncJobs tells it, too"):
            (listed,) = [item for item in many(world.cloud.call("listAsyncJobs"), "asyncjobs") if item["jobid"] == job]
            assert int(listed["jobprocstatus"]) >= seen[-1] > 0, listed
    with world.check("it grows, and is less than 100 as long as it is not over"):
        assert seen == sorted(seen) and 0 < seen[-1] < 100, seen
    made = one(world.cloud.wait(job), "template")
    with world.check("the template is there"):
        assert made["isready"], made
