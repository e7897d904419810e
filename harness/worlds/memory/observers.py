"""StorPool and the hosts as scenarios see them, over the simulated processes and the model machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

from harness.observers import DomainDisk, Json
from harness.spi.objects import PATH_PREFIX
from harness.spi.ports import DomainState
from harness.spi.runtime import Runtime
from harness.storpool import Reply, Request, Transport
from harness.worlds.memory.faults import MemoryFaults
from harness.worlds.memory.image import Image, read_image
from harness.worlds.memory.machine import Machine
from harness.worlds.memory.model_domain import ModelDisk
from harness.worlds.memory.model_domain_xml import live_xml
from harness.worlds.memory.model_luks import LuksError, unlock
from harness.worlds.memory.model_secondary import ModelExport
from harness.worlds.memory.processes import STORPOOL_CONF, agent_of
from harness.worlds.memory.transports import BUSY, COME_AGAIN, Refusals

CALL_TIMEOUT = 60.0


class MemoryStorPool:
    """`harness.observers.StorPool` over the same transport that the driver uses, decoding nothing but JSON."""

    def __init__(
        self,
        transport: Transport,
        calls: Callable[[], Mapping[str, int]],
        refusals: Refusals,
        *,
        several: bool = False,
    ) -> None:
        """With `several` attachments are those of all clusters of the location, with the id of the client's cluster."""
        self._transport = transport
        self._several = several
        self._calls = calls
        self._refusals = refusals

    def volumes(self) -> list[Json]:
        return self._list("VolumesList")

    def volume(self, name: str) -> Json | None:
        return self._one(f"Volume/{name}")

    def snapshots(self) -> list[Json]:
        return self._list("SnapshotsList")

    def snapshot(self, name: str) -> Json | None:
        return self._one(f"Snapshot/{name}")

    def attachments(self) -> list[Json]:
        return self._list("MultiCluster/AttachmentsList" if self._several else "AttachmentsList")

    def exports(self) -> list[Json]:
        """Snapshots that other locations may read."""
        found: list[Json] = msgspec.json.decode(self._get("ExportsList").body)["data"]["exports"]
        return found

    def lose_snapshot(self, name: str) -> None:
        self._post(f"SnapshotDelete/{name}", {})

    def update_volume(self, name: str, **changes: object) -> None:
        self._post(f"VolumeUpdate/{name}", changes)

    def kept(self, bucket: str, key: str) -> str:
        found = self._one(f"KV/Get/{bucket}/{key}")
        return "" if found is None else str(found.get("pairs", {}).get(key, ""))

    def keep(self, bucket: str, key: str, value: str) -> None:
        if self._one(f"KV/List/{bucket}") is None:
            self._post(f"KV/Create/{bucket}", {})
        self._post(f"KV/Set/{bucket}", {"set": {key: value}})

    def make_template(self, name: str, like: str, *, replication: bool = True) -> None:
        shown: Json = msgspec.json.decode(self._get(f"VolumeTemplateDescribe/{like}").body)["data"]
        keys = ("placeAll", "placeTail", "placeHead", *(("replication",) if replication else ()))
        self._post("VolumeTemplateCreate", {"name": name, **{key: shown[key] for key in keys}})

    def remove_template(self, name: str) -> bool:
        reply = self._transport.call(Request("POST", f"VolumeTemplateDelete/{name}", b"{}", CALL_TIMEOUT))
        return reply.status == 200 or b'"objectDoesNotExist"' in reply.body

    @contextmanager
    def refusing(self, call: str, name: str, *, for_good: bool = False) -> Iterator[None]:
        self._refusals[call, name] = BUSY if for_good else COME_AGAIN
        try:
            yield
        finally:
            self._refusals.pop((call, name), None)

    def calls(self) -> Mapping[str, int]:
        return self._calls()

    def _list(self, path: str) -> list[Json]:
        reply = self._get(path)
        if reply.status != 200:
            raise AssertionError(f"StorPool {path}: HTTP {reply.status}: {reply.body[:500]!r}")
        return _data(reply)

    def _one(self, path: str) -> Json | None:
        reply = self._get(path)
        if reply.status != 200:
            answer = msgspec.json.decode(reply.body)
            if answer.get("error", {}).get("name") == "objectDoesNotExist":
                return None
            raise AssertionError(f"StorPool {path}: HTTP {reply.status}: {answer}")
        found = msgspec.json.decode(reply.body)["data"]
        if isinstance(found, list):
            (found,) = found
        shown: Json = found
        return shown

    def _post(self, path: str, body: object) -> None:
        reply = self._transport.call(Request("POST", path, msgspec.json.encode(body), CALL_TIMEOUT))
        if reply.status != 200:
            raise AssertionError(f"StorPool {path}: HTTP {reply.status}: {reply.body[:500]!r}")

    def _get(self, path: str) -> Reply:
        return self._transport.call(Request("GET", path, None, CALL_TIMEOUT))


def _data(reply: Reply) -> list[Json]:
    found: list[Json] = msgspec.json.decode(reply.body)["data"]
    return found


class MemorySecondary:
    """`harness.observers.Secondary` over the model export."""

    def __init__(self, export: ModelExport) -> None:
        self._export = export

    def backups(self) -> Sequence[str]:
        return sorted(path for path in self._export.files if path.startswith("snapshots/"))

    @property
    def primary_url(self) -> str:
        return f"{self._export.url}/primary"

    def files(self, directory: str) -> Sequence[str]:
        return sorted(path for path in self._export.files if path.startswith(directory + "/"))

    def download(self, url: str, offset: int, length: int) -> bytes | None:
        content = self._export.download(url)
        return None if content is None else read_image(content, "qcow2").read(offset, length)

    def read(self, path: str, offset: int, length: int) -> bytes:
        return self._image(path).read(offset, length)

    def size(self, path: str) -> int:
        return self._image(path).size

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        self._export.stalls += 1
        try:
            yield
        finally:
            self._export.stalls -= 1

    def _image(self, path: str) -> Image:
        return read_image(self._export.files[path], "qcow2")


class MemoryHost:
    """`harness.observers.Host` over a model machine; `runtime` is the observer's."""

    def __init__(self, machine: Machine, runtime: Runtime, faults: MemoryFaults) -> None:
        self._machine = machine
        self._runtime = runtime
        self._faults = faults

    @property
    def name(self) -> str:
        return self._machine.name

    @property
    def client_id(self) -> int:
        return self._machine.client_id

    @property
    def cluster_id(self) -> str:
        return self._machine.cluster_id

    def devices(self) -> Sequence[str]:
        return sorted(self._machine.storage.devices())

    def device_size(self, path: str) -> int | None:
        key = self._machine.storage.key(path)
        return None if key is None else self._machine.storage.blocks.size(key)

    def read_device(self, path: str, offset: int, length: int) -> bytes:
        key = self._machine.storage.key(path)
        if key is None:
            raise FileNotFoundError(f"host {self.name} has no device {path}")
        return self._machine.storage.blocks.read(key, offset, length)

    def reads_a_second(self, path: str, seconds: int) -> float:
        raise NotImplementedError(f"model host {self.name} has no devices whose speed means anything ({path})")

    def unlocks(self, path: str, passphrase: bytes) -> bool:
        key = self._machine.storage.key(path)
        if key is None:
            raise FileNotFoundError(f"host {self.name} has no device {path}")
        try:
            unlock(self._machine.storage.header(key), passphrase)
        except LuksError:
            return False
        return True

    def secrets(self) -> Sequence[str]:
        return sorted(self._machine.storage.secrets)

    def traces(self, text: bytes) -> Sequence[str]:
        machine = self._machine
        paths = [PATH_PREFIX + name for name in self.devices()]
        found = [path for path in paths if text in _stored(machine, path)]
        found += [path for path, content in machine.files.items() if text in content.encode()]
        found += [f"command line {line}" for line in machine.command_lines if text in line.encode()]
        return [*found, *(f"domain {name}" for name, d in machine.domains.items() if text in live_xml(d).encode())]

    @contextmanager
    def without_encryption(self) -> Iterator[None]:
        self._machine.no_cryptsetup += 1
        try:
            yield
        finally:
            self._machine.no_cryptsetup -= 1

    def domains(self) -> Mapping[str, str]:
        return {name: domain.state.value for name, domain in sorted(self._machine.domains.items())}

    def domain_disks(self, name: str) -> Sequence[DomainDisk]:
        domain = self._machine.domains.get(name)
        return () if domain is None else tuple(_shown(disk) for disk in domain.disks)

    def disk_capacity(self, name: str, target: str) -> int:
        return self._machine.disk(self._machine.find(name), target).size

    def domain_xml(self, name: str) -> str:
        return live_xml(self._machine.find(name))

    def cd_image(self, name: str) -> str | None:
        drive = self._machine.find(name).drive
        return None if drive is None or drive.image is None else drive.image.rpartition("/")[2]

    def kill_qemu(self, name: str) -> None:
        self._runtime.point("effect-begin", f"{self.name}: kill -9 the QEMU of {name}")
        domain = self._machine.find(name)
        if domain.state in (DomainState.RUNNING, DomainState.PAUSED):
            self._machine.power_off(domain)

    def suspend(self, name: str) -> None:
        self._runtime.point("effect-begin", f"{self.name}: suspend {name}")
        self._machine.suspend(self._machine.find(name))

    def resume(self, name: str) -> None:
        self._runtime.point("effect-begin", f"{self.name}: resume {name}")
        self._machine.resume(self._machine.find(name))

    def kill_agent(self) -> None:
        self._faults.end(agent_of(self.name))

    def start_agent(self) -> None:
        self._faults.begin(agent_of(self.name))

    def power_cut(self) -> None:
        self._machine.cut_power()
        self._faults.end(agent_of(self.name))

    def power_on(self) -> None:
        self._faults.begin(agent_of(self.name))

    @contextmanager
    def storpool_conf(self, **settings: str) -> Iterator[None]:
        files, before = self._machine.files, self._machine.files[STORPOOL_CONF]
        lines = "".join(f"{key}={value}\n" for key, value in settings.items())
        files[STORPOOL_CONF] = f"{before}{lines}"
        try:
            yield
        finally:
            files[STORPOOL_CONF] = before

    @contextmanager
    def devices_late(self) -> Iterator[None]:
        show = self._machine.storage.devices_late()
        try:
            yield
        finally:
            show()

    def copies(self) -> Sequence[str]:
        return sorted(program.copies for program in self._machine.programs if program.copies)

    @contextmanager
    def slow_copies(self) -> Iterator[None]:
        self._machine.slow_copies += 1
        try:
            yield
        finally:
            self._machine.slow_copies -= 1

    def slow_migration(self, name: str) -> None:
        self._machine.find(name).slow = True

    @contextmanager
    def libvirt_cut(self) -> Iterator[None]:
        self._machine.unreached += 1
        try:
            yield
        finally:
            self._machine.unreached -= 1

    @contextmanager
    def storpool_api_cut(self) -> Iterator[None]:
        self._machine.cuts += 1
        try:
            yield
        finally:
            self._machine.cuts -= 1


def _stored(machine: Machine, path: str) -> bytes:
    """Everything that was written to the device, one piece after the other."""
    key = machine.storage.key(path)
    blocks = machine.storage.blocks
    return b"" if key is None else b"".join(blocks.read(key, *extent) for extent in blocks.extents(key))


def _shown(disk: ModelDisk) -> DomainDisk:
    driver = disk.element.find("driver")
    attributes = {} if driver is None else driver.attrib
    return DomainDisk(
        source=disk.source.removeprefix("nfs://"),
        target=disk.target,
        serial=disk.serial,
        driver_type=attributes.get("type", ""),
        discard=attributes.get("discard"),
        cache=attributes.get("cache"),
        encryption=None if disk.secret is None else "luks",
    )
