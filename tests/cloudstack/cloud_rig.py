"""A cloud around the stand-in with a storage provider, hosts and a secondary storage role that can be told to fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from fake_vm_snapshots import FakeVmSnapshots

from harness.cloudstack.api.command import Shape
from harness.cloudstack.api.dispatch import COMMANDS, ApiReply
from harness.cloudstack.api.signature import sign
from harness.cloudstack.config import CloudConfig, GuestAddress
from harness.cloudstack.orchestration.ha import Fence
from harness.cloudstack.records import Records
from harness.cloudstack.records.rows import Row, SnapshotStore, TemplatePool, Vm, Volume
from harness.cloudstack.server import ManagementServer
from harness.spi.commands import (
    Answer,
    AnyAnswer,
    AnyCommand,
    AttachAnswer,
    AttachCommand,
    CreateEntityDownloadURLAnswer,
    CreateEntityDownloadURLCommand,
    DeleteCommand,
    DettachCommand,
    DownloadAnswer,
    DownloadCommand,
    PingAnswer,
    PingCommand,
    StartCommand,
    StopCommand,
    published,
)
from harness.spi.driver import DriverRecords, HostEndpoints, PoolDescription, PoolRequest, ResizePayload, Space
from harness.spi.errors import Conflict, Error, ErrorClass, InvalidParameter, NotFound, Unavailable, Unknown
from harness.spi.inventory import Finding
from harness.spi.objects import (
    DataObject,
    DataStore,
    Host,
    SnapshotObject,
    StoreRole,
    TemplateObject,
    VmPower,
    VolumeObject,
    device_path,
)
from harness.spi.runtime import Runtime

Json = dict[str, Any]
GIB = 1 << 30
MIB = 1 << 20
HOSTS = ("kvm1", "kvm2")
API_KEY, SECRET_KEY = "test-api-key", "test-secret-key"
TOKEN = "4242424242"


class CloudError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


def check_declared(command: str, answer: Json) -> None:
    """Clients are generated from listApis, so an answer has no field that it does not tell of."""
    known = COMMANDS[command.lower()]
    if known.shape is Shape.SUCCESS:
        return
    objects = answer if known.shape is Shape.BARE else answer.get(known.noun, [])
    told = {word.partition(":")[0] for word in known.fields.split()}
    for found in objects if isinstance(objects, list) else [objects]:
        assert found.keys() <= told, f"{command} answers {found.keys() - told}, which listApis does not tell of"


class Scripted:
    """Calls and the faults that befall them: `fail("copy", error)` strikes the next call of that name."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.calls: list[str] = []
        self._faults: list[tuple[str, Error, bool]] = []

    def fail(self, call: str, error: Error, *, after: bool = False, times: int = 1) -> None:
        """With `after`, the call has its effect before it fails: an answer that is lost."""
        self._faults += [(call, error, after)] * times

    def forgive(self) -> None:
        """No more faults."""
        self._faults.clear()

    def struck(self, call: str, *, after: bool = False) -> None:
        if after:
            self.runtime.point("answer", call)
        for index, (name, error, late) in enumerate(self._faults):
            if name == call and late is after:
                del self._faults[index]
                raise error

    def step(self, call: str) -> None:
        self.calls.append(call)
        self.runtime.point("send", call)
        self.struck(call)


class FakeStorPool(Scripted):
    """Provider, driver, life cycle and host listener in one, over dictionaries."""

    name = "StorPool"

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self.volumes: dict[str, VolumeObject] = {}
        self.snapshots: dict[str, str] = {}
        """Tag uuid by path, of volume snapshots and cached templates."""
        self.tags: dict[str, dict[str, str]] = {}
        self.attached: dict[str, set[str]] = {}
        self.resizes: list[ResizePayload] = []
        self.records: DriverRecords | None = None
        self.left_open: set[str] = set()
        """What was made by a call that has not answered well: for `recover`, as the driver's operation records are."""
        self.vm_snapshots = FakeVmSnapshots(self)
        self.findings: list[Finding] = []
        """Of every comparison of volumes."""

    @property
    def driver(self) -> FakeStorPool:
        return self

    @property
    def life_cycle(self) -> FakeStorPool:
        return self

    @property
    def host_listener(self) -> FakeStorPool:
        return self

    def can_copy(self, source: DataObject, destination: DataObject) -> bool:  # noqa: ARG002 - the contract's signature
        return True

    def create(self, volume: VolumeObject) -> VolumeObject:
        self.step("create")
        return self._new_volume(volume, "create")

    def copy(self, source: DataObject, destination: DataObject) -> DataObject:
        if isinstance(destination, TemplateObject):
            if destination.store.role is StoreRole.IMAGE:
                self.step("template")
                return msgspec.structs.replace(destination, size=source.size)
            return self._seed(source, destination)
        assert isinstance(destination, VolumeObject)
        if isinstance(source, VolumeObject):
            return self._move(source, destination)
        self.step("clone")
        assert source.path is not None
        if source.path not in self.snapshots:
            raise NotFound(f"snapshot {source.path} does not exist")
        return self._new_volume(destination, "clone")

    def _move(self, source: VolumeObject, destination: VolumeObject) -> VolumeObject:
        """Within the cluster, into a file, or out of one."""
        self.step("move")
        if destination.path is not None:
            return destination
        if source.path not in self.volumes:
            return self._new_volume(destination, "move")
        made = self.volumes[source.path] = msgspec.structs.replace(destination, path=source.path)
        self.struck("move", after=True)
        return made

    def delete(self, item: DataObject) -> None:
        kind = type(item).__name__.removesuffix("Object").lower()
        self.step(f"delete {kind}")
        if item.path is None:
            assert isinstance(item, VolumeObject)
            self._undo(self._path(item.uuid))
            return
        if self.attached.get(item.path):
            raise Conflict(f"{item.path} is attached to {sorted(self.attached[item.path])}")
        self.volumes.pop(item.path, None)
        self.snapshots.pop(item.path, None)
        self.struck(f"delete {kind}", after=True)

    def take_snapshot(self, snapshot: SnapshotObject) -> SnapshotObject:
        self.step("snapshot")
        path = self._path(snapshot.uuid)
        self.snapshots[path] = snapshot.uuid
        self._end(path, "snapshot")
        return msgspec.structs.replace(snapshot, path=path, size=snapshot.volume.size)

    def revert_snapshot(self, snapshot: SnapshotObject) -> int:
        """Contents are not modelled here."""
        self.step("revert_snapshot")
        path = snapshot.volume.path
        assert path is not None and path in self.volumes
        self.struck("revert_snapshot", after=True)
        return self.volumes[path].size

    def provide_vm_info(self, vm_uuid: str, volume: VolumeObject) -> None:
        self.step("provide_vm_info")
        assert volume.path is not None
        self.tags.setdefault(volume.path, {})["cvm"] = vm_uuid

    def provide_vm_tags(self, vm_uuid: str, volume: VolumeObject, key: str) -> None:
        self.step("provide_vm_tags")
        assert volume.path is not None and self.records is not None
        self.tags.setdefault(volume.path, {})[key] = self.records.vm_tag(vm_uuid, key) or ""

    def revoke_access(self, volume: VolumeObject) -> None:
        self.step("revoke_access")
        assert volume.path is not None
        self.tags.setdefault(volume.path, {})["cvm"] = ""

    def resize(self, volume: VolumeObject, payload: ResizePayload) -> VolumeObject:
        self.step("resize")
        assert volume.path is not None and volume.path in self.volumes
        self.resizes.append(payload)
        made = self.volumes[volume.path] = msgspec.structs.replace(self.volumes[volume.path], size=payload.size)
        self.struck("resize", after=True)
        return msgspec.structs.replace(volume, size=made.size)

    def recover(self) -> list[str]:
        """What failed after its effect is undone, unless it was asked for again since."""
        self.step("recover")
        for path in sorted(self.left_open):
            self._undo(path)
        return []

    def collect_pool_stats(self) -> list[str]:
        return []

    def collect_volume_stats(self) -> list[str]:
        return []

    def pool_stats(self, pool_id: int) -> Space | None:
        del pool_id
        return None

    def volume_stats(self, path: str) -> Space | None:
        del path
        return None

    def release_fenced(self, volume: VolumeObject, host: Host) -> None:
        self.step("release_fenced")
        assert volume.path is not None
        self.attached.get(volume.path, set()).discard(host.name)

    def change_connection(self, pool_id: int, url: str) -> dict[str, str]:
        raise NotImplementedError(f"{pool_id} {len(url)}")

    def remove(self, pool_id: int) -> None:
        del pool_id
        self.step("remove pool")

    def reconcile_volumes(self) -> list[Finding]:
        self.step("reconcile_volumes")
        return list(self.findings)

    def reconcile_snapshots(self) -> list[Finding]:
        self.step("reconcile_snapshots")
        return []

    def _undo(self, path: str) -> None:
        if path in self.left_open:
            self.left_open.remove(path)
            self.volumes.pop(path, None)
            self.snapshots.pop(path, None)

    def _end(self, path: str, call: str) -> None:
        self.left_open.add(path)
        self.struck(call, after=True)
        self.left_open.remove(path)

    def initialize(self, request: PoolRequest) -> PoolDescription:
        self.step("initialize")
        if "missing" in request.url:
            raise InvalidParameter(f"StorPool has no template for pool {request.name}")
        details = {"SP_TEMPLATE": request.name, "SP_AUTH_TOKEN": TOKEN, "SP_API_HTTP_HOST": "sp:81"}
        uuid = f"{request.name};{self.runtime.uuid()}"
        return PoolDescription(uuid=uuid, path="/dev/storpool", tags=request.tags or (request.name,), details=details)

    def host_connected(self, host: Host, pool: DataStore) -> Host:
        self.step("host_connected")
        assert pool.provider == self.name
        return msgspec.structs.replace(host, storpool_client_id=host.id)

    def _seed(self, source: DataObject, destination: TemplateObject) -> TemplateObject:
        assert isinstance(source, TemplateObject) and source.store.role is StoreRole.IMAGE
        self.step("seed")
        path = self._path(destination.uuid[:13] + destination.store.uuid[-13:])
        self.snapshots[path] = destination.uuid
        self._end(path, "seed")
        return msgspec.structs.replace(destination, path=path, size=source.size)

    def _new_volume(self, volume: VolumeObject, call: str) -> VolumeObject:
        assert volume.store is not None
        made = msgspec.structs.replace(volume, path=self._path(volume.uuid))
        assert made.path is not None
        # Made once only, however often it is asked for: as operation records make it in the real driver.
        self.volumes[made.path] = made
        self.tags.setdefault(made.path, {"cvm": volume.vm_uuid or ""})
        self._end(made.path, call)
        return made

    @staticmethod
    def _path(uuid: str) -> str:
        return device_path(uuid.replace("-", "")[:24])


class FakeHost(Scripted):
    """An agent: its domains and the devices attached to its host."""

    def __init__(self, runtime: Runtime, name: str, storpool: FakeStorPool) -> None:
        super().__init__(runtime)
        self.name = name
        self.storpool = storpool
        self.domains: dict[str, set[str]] = {}
        self.off: set[str] = set()
        self.down = False

    def send(self, command: AnyCommand, *, timeout: float) -> AnyAnswer:
        assert timeout > command.wait
        if self.down:
            raise Unavailable(f"{self.name} cannot be reached")
        kind = type(command).__name__
        try:
            self.step(kind)
        except (Unavailable, Unknown):
            raise
        except Error as error:
            return Answer(result=False, details=str(error), error_class=error.error_class)
        answer = self._do(command)
        self.struck(kind, after=True)
        return answer

    def _do(self, command: AnyCommand) -> AnyAnswer:
        if isinstance(command, PingCommand):
            power = {name: VmPower.OFF if name in self.off else VmPower.ON for name in self.domains}
            return PingAnswer(result=True, host_uuid=self.name, vms=power)
        if isinstance(command, StartCommand):
            self.domains[command.vm.name] = {disk.path for disk in command.vm.disks}
            self.off.discard(command.vm.name)
            for disk in command.vm.disks:
                assert disk.path in self.storpool.volumes, f"{disk.path} is started but does not exist"
                self._attach(disk.path)
        elif isinstance(command, StopCommand):
            for path in self.domains.pop(command.vm_name, set()) | set(command.volumes_to_disconnect):
                self.storpool.attached.get(path, set()).discard(self.name)
        elif isinstance(command, AttachCommand):
            if command.vm_name not in self.domains:
                return Answer(result=False, details="no such domain", error_class=ErrorClass.PERMANENT)
            self.domains[command.vm_name].add(command.disk.path)
            self._attach(command.disk.path)
            return AttachAnswer(result=True, disk=command.disk)
        elif isinstance(command, DettachCommand):
            self.domains.get(command.vm_name, set()).discard(command.disk.path)
            self.storpool.attached.get(command.disk.path, set()).discard(self.name)
        return Answer(result=True)

    def _attach(self, path: str) -> None:
        holders = self.storpool.attached.setdefault(path, set())
        holders.add(self.name)
        assert len(holders) == 1, f"{path} is attached to two hosts: {sorted(holders)}"

    def poweroff(self, domain: str) -> None:
        """QEMU is gone; what it had attached stays attached."""
        del self.domains[domain]


class FakeSecondary(Scripted):
    name = "secondary"

    def send(self, command: AnyCommand, *, timeout: float) -> AnyAnswer:
        assert timeout > command.wait
        self.step(type(command).__name__)
        if isinstance(command, DownloadCommand):
            if "gone" in command.url:
                return Answer(result=False, details="HTTP 404 Not Found", error_class=ErrorClass.PERMANENT)
            assert command.template.path is not None
            path = command.template.path
            return DownloadAnswer(result=True, install_path=path, virtual_size=2 * GIB, physical_size=5 * MIB)
        if isinstance(command, CreateEntityDownloadURLCommand):
            return CreateEntityDownloadURLAnswer(result=True, url=f"http://secondary/{published(command.token)}")
        assert isinstance(command, DeleteCommand)
        return Answer(result=True)


def configuration(**changes: Any) -> CloudConfig:
    guests = tuple(GuestAddress(mac=f"02:00:00:00:00:{n:02x}", ip=f"10.1.1.{n}") for n in range(10, 18))
    settings = {"snapshot.backup.to.secondary": "false"}
    return msgspec.structs.replace(
        CloudConfig(
            hosts=HOSTS,
            image_store_url="nfs://secondary/export",
            guest_addresses=guests,
            bridge="cloudbr0",
            api_key=API_KEY,
            secret_key=SECRET_KEY,
            ping_interval=30.0,
            settings=settings,
        ),
        **changes,
    )


class Rig:
    """One management server; `reborn` makes the next one from the same records and the same StorPool."""

    def __init__(
        self,
        runtime: Runtime,
        records: Records | None = None,
        config: CloudConfig | None = None,
        storpool: FakeStorPool | None = None,
        hosts: dict[str, FakeHost] | None = None,
        fences: Mapping[str, Fence] = MappingProxyType({}),
    ) -> None:
        self.runtime = runtime
        self.records = records or Records.open(None, runtime)
        self.config = config or configuration()
        self.storpool = storpool or FakeStorPool(runtime)
        self.hosts = hosts or {name: FakeHost(runtime, name, self.storpool) for name in HOSTS}
        self.secondary = FakeSecondary(runtime)
        self.server = ManagementServer(
            runtime, self.records, self._provider, self.hosts, self.secondary, self.config, fences
        )

    def _provider(self, records: DriverRecords, endpoints: HostEndpoints) -> FakeStorPool:  # noqa: ARG002
        self.storpool.records = records
        return self.storpool

    def request(self, command: str, /, **parameters: Any) -> ApiReply:
        query = [("command", command), ("apiKey", API_KEY), ("response", "json")]
        for name, value in parameters.items():
            if isinstance(value, dict):
                query += [(f"{name}[{i}].{k}", str(v)) for i, (k, v) in enumerate(value.items())]
            elif isinstance(value, list):
                query += [(f"{name}[{i}].{k}", str(v)) for i, entry in enumerate(value) for k, v in entry.items()]
            else:
                query.append((name, str(value)))
        return self.server.api([*query, ("signature", sign(query, SECRET_KEY))])

    def call(self, command: str, /, **parameters: Any) -> Any:
        """The answer; of an async command, the job's result. Raises `CloudError`."""
        body = self.envelope(self.request(command, **parameters))
        if "jobid" in body and command != "queryAsyncJobResult":
            body = self.wait(body["jobid"])
        check_declared(command, body)
        return body

    def envelope(self, reply: ApiReply) -> Any:
        answer = msgspec.json.decode(reply.body)
        assert len(answer) == 1
        (body,) = answer.values()
        if reply.status != 200:
            assert body["errorcode"] == reply.status
            assert "internal error" not in body["errortext"], body
            raise CloudError(reply.status, body["errortext"])
        return body

    def wait(self, job_id: str) -> Any:
        deadline = self.runtime.monotonic() + 3600
        while self.runtime.monotonic() < deadline:
            job = self.envelope(self.request("queryAsyncJobResult", jobid=job_id))
            if job["jobstatus"] == 1:
                return job["jobresult"]
            if job["jobstatus"] == 2:
                assert "internal error" not in job["jobresult"]["errortext"], job
                raise CloudError(job["jobresult"]["errorcode"], job["jobresult"]["errortext"])
            self.runtime.sleep(0.002)
        raise TimeoutError(job_id)

    def rows(self, kind: type[Row], **columns: Any) -> list[Any]:
        with self.records.read() as tx:
            return list(tx.all(kind, **columns))

    # Given: what most tests begin with.

    def zone(self) -> str:
        return str(self.call("listZones")["zone"][0]["id"])

    def pool(self, name: str = "fast", capacity: int = 1000 * GIB, **parameters: Any) -> Json:
        pool: Json = self.call(
            "createStoragePool",
            name=name,
            zoneid=self.zone(),
            url=f"storpool://{TOKEN}@sp:81/{name}",
            provider="StorPool",
            scope="zone",
            capacitybytes=capacity,
            **parameters,
        )["storagepool"]
        return pool

    def template(self) -> str:
        made = self.call(
            "registerTemplate",
            name="guest",
            displaytext="guest",
            format="QCOW2",
            hypervisor="KVM",
            url="http://images/guest.qcow2",
            zoneid=self.zone(),
        )["template"][0]
        self.until(lambda: self.find("template", made["id"], templatefilter="self")["isready"])
        return str(made["id"])

    def until(self, condition: Callable[[], object]) -> None:
        deadline = self.runtime.monotonic() + 60
        while not condition():
            assert self.runtime.monotonic() < deadline
            self.runtime.sleep(0.002)

    def compute(self, tags: str = "fast") -> str:
        made = self.call("createServiceOffering", name="small", cpunumber=1, cpuspeed=500, memory=128, tags=tags)
        return str(made["serviceoffering"]["id"])

    def disk_offering(self, size: int = 1, tags: str = "fast", **parameters: Any) -> str:
        made = self.call("createDiskOffering", name=f"disk{size}", disksize=size, tags=tags, **parameters)
        return str(made["diskoffering"]["id"])

    def ready(self) -> tuple[str, str]:
        """A pool, a service offering and a template; ids of the last two."""
        self.pool()
        return self.compute(), self.template()

    def deploy(self, compute: str, template: str, **parameters: Any) -> Json:
        vm: Json = self.call(
            "deployVirtualMachine", zoneid=self.zone(), serviceofferingid=compute, templateid=template, **parameters
        )["virtualmachine"]
        return vm

    def volume(self, **parameters: Any) -> Json:
        parameters.setdefault("diskofferingid", self.disk_offering())
        made: Json = self.call("createVolume", name="data", zoneid=self.zone(), **parameters)["volume"]
        return made

    def find(self, noun: str, id: str, **parameters: Any) -> Any:
        command = {
            "volume": "listVolumes",
            "virtualmachine": "listVirtualMachines",
            "template": "listTemplates",
            "snapshot": "listSnapshots",
            "storagepool": "listStoragePools",
        }[noun]
        found = self.call(command, id=id, **parameters).get(noun, [])
        return found[0] if found else None

    def host_calls(self) -> Counter[str]:
        return Counter(call for host in self.hosts.values() for call in host.calls)

    def check_at_rest(self) -> None:
        """Records, StorPool, hosts and domains agree, and nothing is in transition."""
        volumes = self.rows(Volume, removed=None)
        vms = {vm.id: vm for vm in self.rows(Vm, removed=None)}
        assert all(row.state in ("Allocated", "Ready", "Destroy") for row in volumes), volumes
        assert all(vm.state in ("Running", "Stopped", "Destroyed", "Error") for vm in vms.values()), vms
        assert {row.path for row in volumes if row.path} == set(self.storpool.volumes)
        expected: dict[str, set[str]] = {}
        for row in volumes:
            vm = vms.get(row.instance_id)
            if vm is not None and vm.state == "Running":
                host = HOSTS[vm.host_id - 1]
                expected[row.path] = {host}
                assert row.path in self.hosts[host].domains[vm.instance_name]
        assert {path: held for path, held in self.storpool.attached.items() if held} == expected
        running = {vm.instance_name for vm in vms.values() if vm.state == "Running"}
        assert {name for host in self.hosts.values() for name in host.domains} == running
        refs = [row.local_path for row in self.rows(TemplatePool)] + [
            row.install_path for row in self.rows(SnapshotStore) if row.state != "Allocated"
        ]
        assert sorted(path or "" for path in refs) == sorted(self.storpool.snapshots)

    def reborn(self, runtime: Runtime) -> Rig:
        """The next management server, not started yet, with the same records, StorPool and hosts."""
        for party in (self.storpool, *self.hosts.values()):
            party.runtime = runtime
        return Rig(runtime, self.records.reopen(runtime), self.config, self.storpool, self.hosts)
