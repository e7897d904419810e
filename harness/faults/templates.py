"""Operations on templates that are made here, on the cache, and on downloads of volumes (rows 11 to 13, 17)."""

from __future__ import annotations

from contextlib import ExitStack, suppress

from harness.faults.deploys import deploy, deployed, not_deployed
from harness.faults.disks import vm_with_marked_volume
from harness.faults.kinds import RESTART
from harness.faults.marks import MARK, in_file, in_memory, stored
from harness.faults.operation import REFUSALS, Operation, Subject, running, shorten
from harness.faults.points import MANAGEMENT
from harness.observers import CloudApiError, Json, World
from scenarios import direct_download, looks, snapshots, steps, templates
from scenarios.row13_download_volume import MODE, files

WAITS = ("primary.storage.download.wait", "backup.snapshot.wait", "copy.volume.wait")
WAIT_SECONDS = "1800"
"""Shorter than CloudStack's hours: what a late copy of a request writes is looked for when that is over."""
COPY_SECONDS = 900.0
"""In which a copy begins, if it does."""
BACK_SECONDS = 7200.0
JOB_SECONDS = 3 * 3600.0
COLLECT_SECONDS = 6 * 3600.0
ROUNDS_SECONDS = 150.0
"""Two rounds of the background task."""
EXPIRED_SECONDS = 6 * 3600.0
"""Longer than a URL holds."""


def _volume(world: World) -> Subject:
    """Detached."""
    shorten(world, *WAITS)
    subject = vm_with_marked_volume(world)
    subject.volume = steps.detach(world, subject.volume)
    return subject


def _snapshot(world: World) -> Subject:
    subject = _volume(world)
    with steps.setting(world, snapshots.BACKUP, "false", "true"):
        subject.snapshot = snapshots.take(world, subject.volume)
    return subject


def _archived(world: World) -> Subject:
    subject = _volume(world)
    subject.snapshot = snapshots.archive(world, snapshots.take(world, subject.volume))
    return subject


def _create(world: World, subject: Subject, **source: str) -> None:
    subject.name = world.name("template")
    os_type = world.environment.os_type_id
    job = world.cloud.start("createTemplate", name=subject.name, ostypeid=os_type, **source)
    world.cloud.wait(job, JOB_SECONDS)


def _from_volume(world: World, subject: Subject) -> None:
    _create(world, subject, volumeid=str(subject.volume["id"]))


def _after_a_death(world: World, subject: Subject) -> None:
    """As `_from_volume`, after a request that the death of the server cut off amid its copy."""
    faults = in_memory(world).faults
    with ExitStack() as slow:
        for host in world.hosts:
            slow.enter_context(host.slow_copies())
        # A fault may have kept it from copying: then the server dies all the same.
        with suppress(*REFUSALS, TimeoutError):
            os_type = world.environment.os_type_id
            volume = str(subject.volume["id"])
            world.cloud.start("createTemplate", name=world.name("cut-off"), ostypeid=os_type, volumeid=volume)
            world.wait_until("a host copies", lambda: any(host.copies() for host in world.hosts), COPY_SECONDS)
    faults.kill(MANAGEMENT, RESTART)
    world.wait_until("the server is back", lambda: _serves_again(world), BACK_SECONDS)
    _from_volume(world, subject)


def _serves_again(world: World) -> bool:
    try:
        return bool(world.cloud.call("listZones"))
    except REFUSALS:
        return False


def _from_snapshot(world: World, subject: Subject) -> None:
    _create(world, subject, snapshotid=str(subject.snapshot["id"]))


def _named(world: World, name: str) -> Json | None:
    answer = world.cloud.call("listTemplates", templatefilter="all", name=name, listall=True)
    return next(iter(steps.many(answer, "template")), None)


def _in_file(world: World, subject: Subject) -> Json:
    made = _named(world, subject.name)
    assert made is not None and made["isready"], f"template {subject.name} is {made}"
    in_file(world, templates.file_of(world, made))
    assert looks.reread_volume(world, subject.volume)["state"] == "Ready"
    return made


def _serves(world: World, made: Json) -> None:
    """A volume made from it has its bytes."""
    vm = steps.deploy(world, str(made["id"]))
    stored(world, looks.global_id(steps.root_volume(world, str(vm["id"]))))
    steps.expunge(world, vm)


def _on_both(world: World, subject: Subject) -> None:
    made = _in_file(world, subject)
    stored(world, str(templates.mirror_of(world, made)["globalId"]))
    _serves(world, made)


def _on_secondary(world: World, subject: Subject) -> None:
    made = _in_file(world, subject)
    assert templates.mirrors(world, made) == [], templates.mirrors(world, made)
    _serves(world, made)


def _not_made(world: World, subject: Subject) -> None:
    """What of it would be left is no template's, which is looked at whenever the cloud is at rest."""
    assert _named(world, subject.name) is None, f"template {subject.name} is {_named(world, subject.name)}"
    assert looks.reread_volume(world, subject.volume)["state"] == "Ready"
    running(world, subject, subject.vm)


def _extract(world: World, subject: Subject) -> None:
    subject.url = ""
    zone = world.environment.zone_id
    job = world.cloud.start("extractVolume", id=subject.volume["id"], zoneid=zone, mode=MODE)
    subject.url = str(steps.one(world.cloud.wait(job, JOB_SECONDS), "volume")["url"])


def _gives(world: World, subject: Subject) -> None:
    assert subject.url, "no URL was told"
    seen = world.secondary.download(subject.url, 0, len(MARK))
    assert seen == MARK, f"the URL gives {str(seen)[:60]}"
    assert looks.reread_volume(world, subject.volume)["state"] == "Ready"
    world.wait_until("the URL expires", lambda: not files(world), EXPIRED_SECONDS)
    assert world.secondary.download(subject.url, 0, len(MARK)) is None


def _gives_nothing(world: World, subject: Subject) -> None:
    volume = looks.reread_volume(world, subject.volume)
    assert volume["state"] == "Ready", volume
    world.wait_until("nothing stays on secondary storage", lambda: not files(world), EXPIRED_SECONDS)
    steps.detach(world, steps.attach(world, volume, running(world, subject, subject.vm)))


def _made(world: World) -> Subject:
    """A template that was made from a volume, cached, and used by nothing."""
    subject = _volume(world)
    _from_volume(world, subject)
    made = _named(world, subject.name)
    assert made is not None
    subject.template_id = str(made["id"])
    steps.expunge(world, steps.deploy(world, subject.template_id))
    return subject


def _delete(world: World, subject: Subject) -> None:
    templates.delete(world, {"id": subject.template_id}, forced=True)


def _deleted(world: World, subject: Subject) -> None:
    """Nothing is left, at once or, of what was away then, when the background task has been there."""
    made = {"id": subject.template_id}
    assert not templates.template_exists(world, made), "it is still listed"
    templates.collected(world, made)
    assert templates.files_of(world, made) == [], templates.files_of(world, made)
    assert looks.reread_volume(world, subject.volume)["state"] == "Ready"
    stored(world, looks.global_id(subject.volume))


def _not_deleted(world: World, subject: Subject) -> None:
    made = _named(world, subject.name)
    assert made is not None and made["isready"], f"template {subject.name} is {made}"
    _serves(world, made)


def _in_use(world: World) -> Subject:
    """A template that a running VM was made from."""
    made = steps.template(world)
    vm = steps.deploy(world, str(made["id"]))
    return Subject(template_id=str(made["id"]), name=str(made["name"]), vm=vm)


def _deleted_in_use(world: World, subject: Subject) -> None:
    made = {"id": subject.template_id}
    assert not templates.template_exists(world, made), "it is still listed"
    assert templates.files_of(world, made) == [], templates.files_of(world, made)
    vm = running(world, subject, subject.vm)
    looks.fully_attached(world, vm, steps.root_volume(world, str(vm["id"])))
    assert world.guest(str(vm["id"])).boot_id()
    steps.expunge(world, vm)
    templates.collected(world, made)


def _not_deleted_in_use(world: World, subject: Subject) -> None:
    made = _named(world, subject.name)
    assert made is not None and made["isready"], f"template {subject.name} is {made}"
    running(world, subject, subject.vm)


def _unused(world: World) -> Subject:
    """A cached template that nothing uses, among others that are used."""
    subject = _in_use(world)
    subject.template_id = _cached_template(world).template_id
    (cached,) = looks.template_snapshots(world, subject.template_id)
    subject.global_id = str(cached["globalId"])
    return subject


def _collect(world: World, subject: Subject) -> None:
    """Raises when the setting could not be changed."""
    world.cloud.call("updateConfiguration", name=templates.INTERVAL, value="1")
    try:
        # A look through the API would be one more point to strike.
        memory = in_memory(world)
        for _ in range(int(COLLECT_SECONDS / ROUNDS_SECONDS)):
            memory.simulation.main.sleep(ROUNDS_SECONDS)
            if subject.global_id not in memory.processes.storpool().object_keys():
                break
    finally:
        world.wait_until("the setting is put back", lambda: _put_back(world), COLLECT_SECONDS)


def _put_back(world: World) -> bool:
    try:
        world.cloud.call("updateConfiguration", name=templates.INTERVAL, value="86400")
    except REFUSALS:
        return False
    return True


def _collected(world: World, subject: Subject) -> None:
    left = looks.template_snapshots(world, subject.template_id)
    assert left == [], f"template {subject.template_id} is still on StorPool: {left}"
    vm = running(world, subject, subject.vm)
    looks.fully_attached(world, vm, steps.root_volume(world, str(vm["id"])))
    again = Subject(template_id=subject.template_id, guests_ended=subject.guests_ended)
    deploy(world, again)
    deployed(world, again)


def _not_collected(world: World, subject: Subject) -> None:
    assert looks.template_snapshots(world, subject.template_id), "it is gone"


def _lost(world: World) -> Subject:
    """A template whose cached snapshot StorPool has lost."""
    subject = _cached_template(world)
    (cached,) = looks.template_snapshots(world, subject.template_id)
    world.storpool.lose_snapshot("~" + str(cached["globalId"]))
    return subject


def _deploy_and_collect(world: World, subject: Subject) -> None:
    """Deploy while the background task collects as often as it can."""
    refusals: list[CloudApiError | ConnectionError] = []
    try:
        world.cloud.call("updateConfiguration", name=templates.INTERVAL, value="1")
        deploy(world, subject)
    except (CloudApiError, ConnectionError) as error:
        refusals.append(error)
    world.wait_until("the setting is put back", lambda: _put_back(world), COLLECT_SECONDS)
    if refusals:
        raise refusals[0]


def _cached_template(world: World) -> Subject:
    made = steps.template(world)
    steps.expunge(world, steps.deploy(world, str(made["id"])))
    return Subject(template_id=str(made["id"]))


def _direct(world: World) -> Subject:
    shorten(world, *WAITS)
    return Subject(template_id=str(direct_download.register(world)["id"]))


def _deployed_directly(world: World, subject: Subject) -> None:
    deployed(world, subject)
    _no_image_stays(world)


def _not_deployed_directly(world: World, subject: Subject) -> None:
    not_deployed(world, subject)
    _no_image_stays(world)


def _no_image_stays(world: World) -> None:
    machines = in_memory(world).processes.machines.values()
    world.wait_until("no host keeps an image", lambda: not any(each.images for each in machines), JOB_SECONDS)


TEMPLATES: tuple[Operation, ...] = (
    Operation("11.volume", "make a template from a volume", _volume, _from_volume, _on_both, _not_made),
    Operation(
        "11.cancelled",
        "make a template after the server died amid the copy of another",
        _volume,
        _after_a_death,
        _on_both,
        _not_made,
        # A server that starts hours after a request may have got its records from a backup: it leaves that alone.
        without=frozenset({"clock-forward"}),
    ),
    Operation(
        "12.primary", "make a template from a snapshot on StorPool", _snapshot, _from_snapshot, _on_both, _not_made
    ),
    Operation(
        "12.secondary",
        "make a template from a snapshot on secondary storage",
        _archived,
        _from_snapshot,
        _on_secondary,
        _not_made,
    ),
    Operation("13.extract", "download a volume", _volume, _extract, _gives, _gives_nothing),
    Operation("17.unused", "delete a template that was made here", _made, _delete, _deleted, _not_deleted),
    Operation("17.in-use", "delete a template that a VM uses", _in_use, _delete, _deleted_in_use, _not_deleted_in_use),
    Operation("cache.collect", "collect a cached template", _unused, _collect, _collected, _not_collected),
    Operation("cache.lost", "deploy from a template that StorPool has lost", _lost, deploy, deployed, not_deployed),
    Operation(
        "cache.race",
        "deploy from a template while it is collected",
        _cached_template,
        _deploy_and_collect,
        deployed,
        not_deployed,
    ),
    Operation(
        "direct-download.seed",
        "deploy from a template that a host fetches",
        _direct,
        deploy,
        _deployed_directly,
        _not_deployed_directly,
    ),
)
