"""Row 13: download volume. Seen from outside: spec/action-table.md row 13."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from harness.observers import Json, World
from scenarios.looks import fails, fully_detached, reread_volume
from scenarios.registry import scenario
from scenarios.row09_volume_snapshot import used_volume
from scenarios.snapshots import BLOCK, PLACES, guest_reads, pattern, write
from scenarios.steps import (
    MISSING,
    attach,
    booted_vm,
    data_volume,
    detach,
    one,
    root_volume,
    setting,
    stop,
)
from scenarios.templates import objects, refused_with, suspended_at_start

EXPIRATION = "extract.url.expiration.interval"
MODE = "HTTP_DOWNLOAD"


def extract(world: World, volume: Json, **parameters: str) -> Json:
    chosen = {"id": str(volume["id"]), "zoneid": world.environment.zone_id, "mode": MODE, **parameters}
    return one(world.cloud.call("extractVolume", **chosen), "volume")


def url_of(answer: Json) -> str:
    """Older releases write slashes as %2F."""
    return str(answer["url"]).replace("%2F", "/")


def gives(world: World, url: str, word: str, places: tuple[int, ...] = PLACES) -> None:
    for place in places:
        seen = world.secondary.download(url, place, BLOCK)
        assert seen == pattern(word, place), f"the download at {place}: {str(seen)[:60]}, expected {word!r}"


def files(world: World) -> list[str]:
    return [*world.secondary.files("volumes"), *world.secondary.files("userdata")]


def no_helper(world: World, volume: Json, before: set[str]) -> None:
    """Nothing temporary is on StorPool, and the volume can be used."""
    with world.check("no temporary object stays on StorPool"):
        world.wait_until("it is gone", lambda: objects(world) <= before, 60)
    fully_detached(world, volume)
    with world.check("the volume is Ready"):
        assert reread_volume(world, volume)["state"] == "Ready"


@scenario(13, "detached", "a detached volume: the URL gives an image with its bytes, and no temporary object stays")
def detached(world: World) -> None:
    vm, volume = used_volume(world, "old")
    volume = detach(world, volume)
    before = objects(world)
    answer = extract(world, volume)
    with world.check("the answer names the volume, the mode and the state"):
        seen = (answer["id"], answer["extractMode"], answer["state"], answer["zoneid"])
        assert seen == (volume["id"], MODE, "DOWNLOAD_URL_CREATED", world.environment.zone_id), answer
    with world.check("the URL gives an image with the volume's bytes"):
        gives(world, url_of(answer), "old")
    no_helper(world, volume, before)
    with world.check("another name there gives nothing"):
        assert world.secondary.download(url_of(answer).replace(".qcow2", "0.qcow2"), 0, BLOCK) is None
    volume = attach(world, volume, vm)
    with world.check("the volume has its bytes"):
        guest_reads(world, vm, volume, "old")


@scenario(13, "root", "every byte of the ROOT volume of a stopped VM, which can be started again")
def root(world: World) -> None:
    vm = stop(world, booted_vm(world))
    volume = root_volume(world, str(vm["id"]))
    before = objects(world)
    url = url_of(extract(world, volume))
    no_helper(world, volume, before)
    vm, host = suspended_at_start(world, vm)
    size = int(volume["size"])
    content = host.read_device(str(volume["path"]), 0, size)
    with world.check("the URL gives all of it"):
        assert world.secondary.download(url, 0, size) == content
    host.resume(str(vm["instancename"]))
    with world.check("the VM boots from it"):
        assert world.guest(str(vm["id"])).boot_id()


@scenario(13, "again", "asked for again the same URL, until the volume has changed; then one with the new bytes")
def again(world: World) -> None:
    vm, volume = used_volume(world, "old")
    volume = detach(world, volume)
    first = url_of(extract(world, volume))
    with world.check("the same URL for an unchanged volume"):
        assert url_of(extract(world, volume)) == first
    volume = attach(world, volume, vm)
    write(world, vm, volume, "new")
    volume = detach(world, volume)
    second = url_of(extract(world, volume))
    with world.check("another URL, with the new bytes; the first one has the old ones"):
        assert second != first
        gives(world, second, "new")
        gives(world, first, "old")


@scenario(13, "expires", "a URL expires: then it gives nothing, and its file is gone")
def expires(world: World) -> None:
    _, volume = used_volume(world, "old")
    volume = detach(world, volume)
    before = files(world)
    url = url_of(extract(world, volume))
    gives(world, url, "old")
    with setting(world, EXPIRATION, "1", "14400"):
        world.wait_until("the files are gone", lambda: files(world) == before, 120)
    with world.check("the URL gives nothing any more"):
        assert world.secondary.download(url, 0, BLOCK) is None
    with world.check("asked for again there is another one, which works"):
        other = url_of(extract(world, volume))
        assert other != url
        gives(world, other, "old")
    world.cloud.call("deleteVolume", id=volume["id"])
    world.wait_until("with the volume its download goes, too", lambda: files(world) == before, 120)


@scenario(13, "two-at-once", "two volumes at once, each its own URL")
def two_at_once(world: World) -> None:
    vm, first = used_volume(world, "first")
    second = attach(world, data_volume(world), vm)
    write(world, vm, second, "second")
    volumes = [detach(world, volume) for volume in (first, second)]
    before = objects(world)
    jobs = [
        world.cloud.start("extractVolume", id=volume["id"], zoneid=world.environment.zone_id, mode=MODE)
        for volume in volumes
    ]
    urls = [url_of(one(world.cloud.wait(job), "volume")) for job in jobs]
    with world.check("each gives its volume's bytes"):
        for url, word in zip(urls, ("first", "second"), strict=True):
            gives(world, url, word)
    for volume in volumes:
        no_helper(world, volume, before)


@scenario(13, "fails", "secondary storage is away, or no host reaches StorPool: a clear error, and nothing stays")
def fails_clearly(world: World) -> None:
    _, volume = used_volume(world, "old")
    volume = detach(world, volume)
    before, there = objects(world), files(world)
    with world.secondary.unreachable():
        error = fails(lambda: extract(world, volume))
    with world.check("the error names the image store"):
        assert "Failed to extract volume" in error.text and "image store" in error.text, error.text
    no_helper(world, volume, before)
    with ExitStack() as cuts:
        for host in world.hosts:
            cuts.enter_context(host.storpool_api_cut())
        error = fails(lambda: extract(world, volume))
    with world.check("the error names StorPool's API"):
        assert "StorPool API" in error.text, error.text
    no_helper(world, volume, before)
    world.wait_until("no file stays", lambda: files(world) == there, 120)
    with world.check("later it works"):
        gives(world, url_of(extract(world, volume)), "old")


@scenario(13, "refusals", "what cannot be downloaded is refused with a reason")
def refusals(world: World) -> None:
    vm, volume = used_volume(world, "old")
    unused = data_volume(world)
    root = root_volume(world, str(vm["id"]))
    for why, words, chosen, parameters in (
        ("a volume of a running VM", "either detached or the VM should be in stopped state", volume, {}),
        ("the ROOT volume of a running VM", "either detached or the VM should be in stopped state", root, {}),
        ("a volume that was never used", "doesn't belong to a storage pool", unused, {}),
        ("a volume that does not exist", "entity does not exist", {"id": MISSING}, {}),
        ("a zone that does not exist", "entity does not exist", volume, {"zoneid": MISSING}),
        ("another mode", "valid extract Mode", volume, {"mode": "FTP_UPLOAD"}),
    ):
        refused_with(world, why, words, partial(extract, world, chosen, **parameters))
