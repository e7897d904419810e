"""The four observers through which scenarios and checks see a cloud: cloud, storpool, host, guest (design section 1).

Outside the memory world they are real clients that nobody here wrote: `cs`, the vendor's `storpool` bindings, testinfra
and SSH. Sizes and offsets are bytes, times seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

Json = dict[str, Any]


class CloudApiError(Exception):
    """An error answer of the CloudStack API, or a failed async job."""

    def __init__(self, command: str, code: int, text: str) -> None:
        super().__init__(f"{command}: {code}: {text}")
        self.command = command
        self.code = code
        self.text = text


class Cloud(Protocol):
    """CloudStack's API as a signed client sees it. Parameter and field names are CloudStack's, in lower case."""

    def call(self, command: str, /, **parameters: str | int | bool) -> Json:
        """The answer without its envelope; of an async command, the job's result. Raises `CloudApiError`."""
        ...

    def start(self, command: str, /, **parameters: str | int | bool) -> str:
        """Start an async command; the job id. Raises `CloudApiError` when it is refused at once."""
        ...

    def wait(self, job_id: str, timeout: float = 600) -> Json:
        """Wait for a job's result. Raises `CloudApiError` when it failed, `TimeoutError` when it did not end."""
        ...


class StorPool(Protocol):
    """StorPool's API as a client sees it; answers are the raw `data` of the calls."""

    def volumes(self) -> list[Json]: ...

    def volume(self, name: str) -> Json | None:
        """By name or `~globalId`; None when it does not exist."""
        ...

    def snapshots(self) -> list[Json]: ...

    def snapshot(self, name: str) -> Json | None: ...

    def attachments(self) -> list[Json]: ...

    def lose_snapshot(self, name: str) -> None:
        """Delete the snapshot behind the cloud's back."""
        ...

    def update_volume(self, name: str, **changes: object) -> None:
        """VolumeUpdate behind the cloud's back; the keys are StorPool's."""
        ...

    def kept(self, bucket: str, key: str) -> str:
        """From StorPool's key-value store; empty when there is no such bucket or key."""
        ...

    def keep(self, bucket: str, key: str, value: str) -> None:
        """Into StorPool's key-value store; a missing bucket is made, an empty value deletes the key."""

    def make_template(self, name: str, like: str, *, replication: bool = True) -> None:
        """A StorPool template that places as the template `like` does; it may be left without a replication."""
        ...

    def remove_template(self, name: str) -> bool:
        """False while something is on it; True when there is none any more."""
        ...

    def refusing(self, call: str, name: str, *, for_good: bool = False) -> AbstractContextManager[None]:
        """While inside, StorPool does not carry out this call for the object of this name: it asks to come again, or,
        `for_good`, says that the object is busy. Of simulators only."""
        ...

    def calls(self) -> Mapping[str, int]:
        """Requests the StorPool API has served so far, by call name; empty when the cluster does not tell."""
        ...


@dataclass(frozen=True, slots=True)
class DomainDisk:
    """A disk as the domain XML shows it."""

    source: str
    target: str
    serial: str
    driver_type: str
    discard: str | None
    cache: str | None
    encryption: str | None = None
    """`luks`, of one that QEMU decrypts."""


class Host(Protocol):
    """What one KVM host shows, and what can befall it."""

    @property
    def name(self) -> str:
        """The host's name in CloudStack."""
        ...

    @property
    def client_id(self) -> int:
        """The host's StorPool client id (SP_OURID)."""
        ...

    @property
    def cluster_id(self) -> str:
        """The host's StorPool cluster (SP_CLUSTER_ID) in a world with several; else empty."""
        ...

    def devices(self) -> Sequence[str]:
        """Global ids under /dev/storpool-byid, sorted."""
        ...

    def device_size(self, path: str) -> int | None:
        """Size of the block device there; None when there is none."""
        ...

    def read_device(self, path: str, offset: int, length: int) -> bytes: ...

    def reads_a_second(self, path: str, seconds: int) -> float:
        """4 KiB reads a second that fio gets from the device in so many seconds. Of real hosts only."""

    def unlocks(self, path: str, passphrase: bytes) -> bool:
        """Whether the device has a LUKS header that this passphrase opens."""
        ...

    def secrets(self) -> Sequence[str]:
        """Devices whose passphrases this host's libvirt knows, sorted."""
        ...

    def traces(self, text: bytes) -> Sequence[str]:
        """Where on this host the text stands: StorPool devices (their paths), files of libvirt and the agent, command
        lines. It has no zero byte and no end of a line; `OSError` when a place could not be read."""
        ...

    def without_encryption(self) -> AbstractContextManager[None]:
        """While inside, this host has no cryptsetup."""
        ...

    def domains(self) -> Mapping[str, str]:
        """State of every libvirt domain of this host by name, in virsh's words."""
        ...

    def domain_disks(self, name: str) -> Sequence[DomainDisk]:
        """Disks in the live XML of the domain; empty when it does not exist."""
        ...

    def disk_capacity(self, name: str, target: str) -> int:
        """Bytes of the disk with this target (`vda`) of a running domain, as libvirt tells them: what QEMU shows its
        guest."""
        ...

    def domain_xml(self, name: str) -> str: ...

    def kill_qemu(self, name: str) -> None:
        """SIGKILL the domain's QEMU and return when it is gone."""
        ...

    def suspend(self, name: str) -> None:
        """Stop the guest's CPUs, so that it lets nothing go."""
        ...

    def resume(self, name: str) -> None: ...

    def cd_image(self, name: str) -> str | None:
        """File name of the image in the CD drive of the live domain; None when that is empty."""
        ...

    def kill_agent(self) -> None:
        """SIGKILL the host's agent; everything else runs on."""
        ...

    def start_agent(self) -> None:
        """Start the agent that was killed again, with what it left on the host; returns when it takes commands."""
        ...

    def power_cut(self) -> None:
        """Everything on the host ends at once, guests too."""
        ...

    def power_on(self) -> None:
        """Start the host and its agent again; returns when that takes commands."""
        ...

    def storpool_conf(self, **settings: str) -> AbstractContextManager[None]:
        """While inside, the host's StorPool configuration has these settings; the agent is not restarted for it."""
        ...

    def devices_late(self) -> AbstractContextManager[None]:
        """While inside, devices of new attachments do not show up on this host."""

    def copies(self) -> Sequence[str]:
        """Command lines of the copies by qemu-img that run on this host, whoever started them."""
        ...

    def slow_copies(self) -> AbstractContextManager[None]:
        """While inside, copies by qemu-img take many times as long on this host as they would."""
        ...

    def slow_migration(self, name: str) -> None:
        """From now on memory of the domain, which runs here, is copied to another host at 1 MiB a second at most."""
        ...

    def libvirt_cut(self) -> AbstractContextManager[None]:
        """While inside, no other host reaches the libvirtd of this one."""
        ...

    def storpool_api_cut(self) -> AbstractContextManager[None]:
        """While inside, this host cannot reach the StorPool API; others can."""
        ...


class Secondary(Protocol):
    """Secondary storage as the machine with the files shows it."""

    def backups(self) -> Sequence[str]:
        """Files under the export's directory `snapshots`, relative to the export, sorted."""
        ...

    @property
    def primary_url(self) -> str:
        """Of the export's directory `primary`, for a primary storage pool beside the StorPool pools."""
        ...

    def files(self, directory: str) -> Sequence[str]:
        """Files anywhere below the directory of the export, relative to the export, sorted."""
        ...

    def download(self, url: str, offset: int, length: int) -> bytes | None:
        """What a guest would read from the qcow2 that a client gets from the URL; None when it gives none."""
        ...

    def read(self, path: str, offset: int, length: int) -> bytes:
        """What a guest would read from the qcow2 at this path; `offset` and `length` are multiples of 4096."""
        ...

    def size(self, path: str) -> int:
        """Of the disk in the qcow2."""
        ...

    def unreachable(self) -> AbstractContextManager[None]:
        """While inside, no KVM host reaches the export."""
        ...


class Guest(Protocol):
    """What a running guest sees. After each start, `boot_id` or `booted_from` comes before all but `ready`."""

    def ready(self) -> None:
        """Waits until the guest of a VM that was just deployed hears its power button and lets disks go, be it idle or
        a system. In later boots it may be told too early."""
        ...

    def boot_id(self) -> str:
        """Waits until the guest's system is up; differs after each boot. An idle guest has none."""
        ...

    def booted_from(self) -> str:
        """`cdrom` when it runs from the environment's ISO, else `disk`. Waits as `boot_id` does."""
        ...

    def disks(self) -> Mapping[str, int]:
        """Size of every disk by serial."""
        ...

    def write(self, serial: str, offset: int, data: bytes) -> None:
        """Write to the disk and flush it. Here and in `read` a disk that was just attached gets a moment to appear."""
        ...

    def read(self, serial: str, offset: int, length: int) -> bytes: ...

    def counting(self, serials: Sequence[str], offset: int) -> AbstractContextManager[None]:
        """While inside, the guest counts, at this place of these disks: 4096 bytes with the number, to one disk after
        the other, each flushed before the next is written."""
        ...

    def poweroff(self) -> None:
        """The guest shuts itself down; returns when it was asked."""
        ...


@dataclass(frozen=True, slots=True)
class Pool:
    """A StorPool primary pool of the cloud under test."""

    id: str
    name: str
    tag: str
    storpool_template: str


@dataclass(frozen=True, slots=True)
class OtherZone:
    """A second zone, with pools, hosts and a StorPool location of its own."""

    zone_id: str
    pools: tuple[Pool, ...]
    """With the tags of the first zone's."""
    location: str
    """What StorPool calls where it is."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What exists before a scenario starts. Ids are CloudStack's."""

    zone_id: str
    pools: tuple[Pool, ...]
    """At least two, with different tags."""
    image_url: str
    """Where the secondary storage role can fetch the guest image (qcow2) from."""
    image_size: int
    """Virtual size of the guest image."""
    image_sha256: str
    """Of the guest disk's bytes, that is of the image converted to raw."""
    iso_url: str
    """Where the secondary storage role can fetch an ISO from that guests boot; ends in `.iso`."""
    iso_size: int
    """Of its file."""
    service_offering_id: str
    """A small compute offering whose ROOT disks go to the first pool."""
    os_type_id: str
    storpool_endpoints: str
    """`host:port` of the StorPool API, several with commas between, as the management server reaches it."""
    storpool_token: str = field(repr=False)
    idle_image_url: str = ""
    """Where the secondary storage role can fetch an image (qcow2) with a boot sector that powers off and lets disks go
    when it is asked, and no system; empty when the guest image is used in its place."""
    idle_image_sha256: str = ""
    """Of that image's disk, which its VMs do not change; empty when it is not known."""
    location: str = ""
    """What StorPool calls where the zone is, in a world with several StorPool clusters."""
    other_zone: OtherZone | None = None


class World(Protocol):
    """A cloud under test, for one case. What the case makes through `cloud` is removed after it."""

    @property
    def cloud(self) -> Cloud: ...

    @property
    def storpool(self) -> StorPool:
        """All StorPool clusters of the world as one; what several have is found in the first of them."""
        ...

    @property
    def storpools(self) -> Sequence[StorPool]:
        """Each StorPool cluster by itself; one, but in the worlds of cases that ask for more."""
        ...

    @property
    def secondary(self) -> Secondary: ...

    @property
    def hosts(self) -> Sequence[Host]: ...

    @property
    def environment(self) -> Environment: ...

    @property
    def real(self) -> bool:
        """Whether devices, hosts and guests are real; checks marked [L] are made only then."""
        ...

    def guest(self, vm_id: str) -> Guest: ...

    def kill_management(self) -> None:
        """SIGKILL the management server; everything else runs on."""
        ...

    def start_management(self) -> None:
        """Start the management server that was killed; returns when its API may be used."""
        ...

    def name(self, stem: str) -> str:
        """A name for an object of this case that no other case uses."""
        ...

    def check(self, name: str) -> AbstractContextManager[None]:
        """Names a check in the result; an error inside it fails the case with this name."""
        ...

    def wait_until(self, what: str, condition: Callable[[], bool], timeout: float = 60) -> None:
        """Wait in the world's own time; raises `TimeoutError` naming `what`."""
        ...
