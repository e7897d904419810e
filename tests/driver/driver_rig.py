"""A driver on the in-process simulator, with faults at every StorPool call and every message to an agent."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import msgspec

import simulator.ports
from harness.driver import StorPoolProvider
from harness.runtime.threads import ThreadRuntime, ThreadTask
from harness.spi.commands import (
    Answer,
    AnyAnswer,
    AnyCommand,
    CancelCommand,
    CopyCmdAnswer,
    ResizeVolumeAnswer,
    StorPoolDownloadTemplateCommand,
    StorPoolModifyStoragePoolAnswer,
    StorPoolResizeVolumeCommand,
    StorPoolSetVolumeEncryptionAnswer,
    StorPoolSetVolumeEncryptionCommand,
)
from harness.spi.driver import OperationRecord
from harness.spi.errors import Conflict, Dead, InsufficientCapacity, Unavailable, Unknown
from harness.spi.inventory import (
    CacheRecord,
    HostRecord,
    Inventory,
    MirrorRecord,
    SnapshotCopy,
    SnapshotRecord,
    VmRecord,
    VmSnapshotRecord,
    VolumeRecord,
)
from harness.spi.objects import (
    LUKS_HEADER,
    DataStore,
    ImageFormat,
    SnapshotObject,
    StoreRole,
    TemplateObject,
    VolumeObject,
    VolumeType,
)
from harness.spi.passphrase import Passphrase
from harness.spi.states import StoreRefState
from harness.storpool import (
    AnswerLost,
    Connection,
    NotSent,
    Reply,
    Request,
    RetryPolicy,
    StorPoolClient,
    VolumeReassignDesc,
)
from simulator.blocks.memory import MemoryBlocks
from simulator.journal.memory import MemoryJournal
from simulator.service import Service
from simulator.settings import Settings

TOKEN = "1556129910218014736"
SETTLE = 600.0
MIB = 1 << 20
POOL = DataStore(id=1, uuid="hdd;p", name="pool", role=StoreRole.PRIMARY, provider="StorPool", url="storpool:hdd")
IMAGES = DataStore(id=2, uuid="i", name="images", role=StoreRole.IMAGE, provider="NFS", url="nfs://h/export")


class Fault(enum.Enum):
    """What befalls one exchange."""

    NOT_SENT = "not sent"
    TRANSIENT = "transient"
    REQUEST_LOST = "request lost"
    REQUEST_LATE = "request late"
    """Its sender gives up; it arrives after the next calls."""
    ANSWER_LOST = "answer lost"
    ANSWER_CUT = "answer cut"
    KILLED_BEFORE = "killed before"
    KILLED_AFTER = "killed after"
    KILLED_LATE = "killed late"
    """Its sender dies; it arrives after the next calls."""
    COPY_LATE = "copy late"
    """It is answered, and a copy of it arrives after the next calls."""


DEATHS = (Fault.KILLED_BEFORE, Fault.KILLED_AFTER, Fault.KILLED_LATE)
UNSERVED = (
    Fault.NOT_SENT,
    Fault.TRANSIENT,
    Fault.REQUEST_LOST,
    Fault.REQUEST_LATE,
    Fault.KILLED_BEFORE,
    Fault.KILLED_LATE,
)


class Clock(ThreadRuntime):
    """A process on virtual time: sleeping costs none."""

    def __init__(self, name: str, time: list[float]) -> None:
        super().__init__(name)
        self._time = time

    def now(self) -> float:
        self.check_alive()
        return self._time[0]

    def monotonic(self) -> float:
        return self.now()

    def spawn(self, name: str, function: Callable[[], None]) -> ThreadTask:
        # Time passes only when a test says so: `Rig.settle` does by hand what this task does by itself.
        return super().spawn(name, (lambda: None) if name == "storpool-settle" else function)

    def sleep(self, seconds: float) -> None:
        self.check_alive()
        self._time[0] += seconds


class FakeRecords:
    """`DriverRecords` in dictionaries; survives the processes that use it."""

    def __init__(self) -> None:
        self.operations: dict[str, OperationRecord] = {}
        self.outcomes: dict[str, str] = {}
        self.purges: list[float] = []
        self.to_purge = False
        """Whether there is always more that may be forgotten."""
        self.listings = 0
        """How often all open operations were asked for."""
        self.settings: dict[str, str] = {"primary.storage.download.wait": "10800"}
        self.details: dict[int, dict[str, str]] = {
            1: {"SP_API_HTTP_HOST": "sp:81", "SP_AUTH_TOKEN": TOKEN, "SP_TEMPLATE": "hdd"}
        }
        self.offerings: dict[int, dict[str, str]] = {}
        self.compute_offerings: dict[int, dict[str, str]] = {}
        """Details of the compute offering behind a disk offering."""
        self.vm_tags: dict[tuple[str, str], str] = {}
        self.templates: dict[tuple[int, int], str] = {}
        """Paths of cached templates; empty while they are being seeded."""
        self.volumes: dict[str, VolumeRecord] = {}
        """By uuid, as `snapshots` and `vms`; those that are removed too."""
        self.snapshots: dict[str, SnapshotRecord] = {}
        self.vm_snapshots: dict[str, VmSnapshotRecord] = {}
        self.known_templates: set[str] = set()
        self.mirrors: dict[str, MirrorRecord] = {}
        self.vms: dict[str, VmRecord] = {}
        self.hosts: list[HostRecord] = []
        self.after_inventory: Callable[[], object] = lambda: None

    def begin_operation(self, operation: OperationRecord) -> OperationRecord:
        kept = self.open_operation(operation.kind, operation.subject)
        if kept is None:
            kept = self.operations[operation.id] = operation
        return kept

    def step_operation(self, operation_id: str, from_step: str, to_step: str, data: Mapping[str, str]) -> None:
        kept = self.operations[operation_id]
        if kept.step != from_step:
            raise Conflict(f"operation {operation_id} is at {kept.step}")
        self.operations[operation_id] = msgspec.structs.replace(kept, step=to_step, data={**kept.data, **data})

    def end_operation(self, operation_id: str, outcome: str) -> None:
        del self.operations[operation_id]
        self.outcomes[operation_id] = outcome

    def open_operations(self) -> list[OperationRecord]:
        self.listings += 1
        return list(self.operations.values())

    def open_operation(self, kind: str, subject: str) -> OperationRecord | None:
        for kept in self.operations.values():
            if (kept.kind, kept.subject) == (kind, subject):
                return kept
        return None

    def is_worked_on(self, subjects: Collection[str]) -> bool:
        return any(kept.subject in subjects for kept in self.operations.values())

    def operation_known(self, operation_id: str) -> bool:
        return operation_id in self.operations or operation_id in self.outcomes

    def purge_operations(self, ended_before: float, limit: int) -> int:
        self.purges.append(ended_before)
        assert limit > 0
        return limit if self.to_purge else 0

    def setting(self, name: str, *, pool_id: int | None = None, cluster_id: int | None = None) -> str | None:
        del pool_id, cluster_id
        return self.settings.get(name)

    def pool_ids(self) -> list[int]:
        return sorted(self.details)

    def pool_details(self, pool_id: int) -> dict[str, str]:
        return dict(self.details[pool_id])

    def set_pool_detail(self, pool_id: int, key: str, value: str | None) -> None:
        if value is None:
            self.details[pool_id].pop(key, None)
        else:
            self.details[pool_id][key] = value

    def disk_offering_details(self, disk_offering_id: int) -> dict[str, str]:
        return self.offerings[disk_offering_id]

    def compute_offering_details(self, disk_offering_id: int) -> dict[str, str]:
        return self.compute_offerings.get(disk_offering_id, {})

    def vm_tag(self, vm_uuid: str, key: str) -> str | None:
        return self.vm_tags.get((vm_uuid, key))

    def inventory(self) -> Inventory:
        """As the real ones: without what is removed. What `after_inventory` changes, it does not show any more."""
        found = self._inventory()
        self.after_inventory()
        return found

    def _inventory(self) -> Inventory:
        volumes = [record for record in self.volumes.values() if not record.removed and record.path]
        snapshots = [record for record in self.snapshots.values() if not record.removed]
        busy = {text for op in self.operations.values() for text in (op.id, op.subject, *op.data.values())}
        templates = {details["SP_TEMPLATE"] for details in self.offerings.values() if "SP_TEMPLATE" in details}
        return Inventory(
            volumes=tuple(volumes),
            snapshots=tuple(snapshots),
            templates=tuple(self._caches()),
            vms=tuple(self.vms.values()),
            hosts=tuple(self.hosts),
            paths=frozenset(self._paths()),
            offering_templates=frozenset(templates),
            tiers=frozenset(details["SP_QOSCLASS"] for details in self.offerings.values() if "SP_QOSCLASS" in details),
            busy=frozenset(busy),
            vm_snapshots=tuple(record for record in self.vm_snapshots.values() if not record.removed),
        )

    def _paths(self) -> set[str]:
        named = {record.path for record in self.volumes.values() if not record.removed}
        named |= {record.path for record in self.snapshots.values() if not record.removed}
        named |= {path for record in self.vm_snapshots.values() if not record.removed for path in record.paths}
        named |= {entry.path for entry in self._caches()}
        named |= {value for details in self.details.values() for value in details.values()}
        return {path for path in named if path is not None and path.startswith("/dev/storpool")}

    def passphrase(self, volume_uuid: str) -> Passphrase:
        return Passphrase(f"passphrase of {volume_uuid}")

    def volume(self, uuid: str) -> VolumeRecord | None:
        return self.volumes.get(uuid)

    def snapshot(self, uuid: str) -> SnapshotRecord | None:
        return self.snapshots.get(uuid)

    def snapshot_copy(self, uuid: str, pool_id: int) -> SnapshotCopy | None:
        record = self.snapshots.get(uuid)
        if record is None or record.pool_id != pool_id:
            return None
        return SnapshotCopy(snapshot_uuid=uuid, pool_id=pool_id, state=StoreRefState.READY, path=record.path)

    def cluster_of(self, storpool_cluster_id: str) -> int | None:
        del storpool_cluster_id
        return None

    def vm_snapshot(self, uuid: str) -> VmSnapshotRecord | None:
        return self.vm_snapshots.get(uuid)

    def vm(self, uuid: str) -> VmRecord | None:
        return self.vms.get(uuid)

    def template_mirror(self, uuid: str) -> MirrorRecord | None:
        known = MirrorRecord(uuid=uuid, removed=False, state=None, path=None)
        return self.mirrors.get(uuid) or (known if uuid in self.known_templates else None)

    def template_cache(self, template_id: int, pool_id: int) -> CacheRecord | None:
        found = [entry for entry in self._caches() if (entry.template_id, entry.pool_id) == (template_id, pool_id)]
        return found[0] if found else None

    def _caches(self) -> list[CacheRecord]:
        return [
            CacheRecord(
                template_id=template_id,
                template_uuid=f"tmpl-{template_id}",
                pool_id=pool_id,
                state=StoreRefState.READY if path else StoreRefState.CREATING,
                path=path or None,
            )
            for (template_id, pool_id), path in self.templates.items()
        ]

    def names_object(self, paths: Collection[str]) -> bool:
        return not self._paths().isdisjoint(paths)


@dataclass
class Cluster:
    """The simulator, and the wire to it."""

    time: list[float]
    faults: dict[int, Fault] = field(default_factory=dict)
    """By number of the sending, from 0."""
    calls: list[str] = field(default_factory=list)
    late: list[tuple[int, Request]] = field(default_factory=list)
    """Number of the call before which each arrives."""
    lateness: list[int] = field(default_factory=list)
    """By how many calls the next late requests are late; then 4."""

    def __post_init__(self) -> None:
        self.blocks = MemoryBlocks(1 << 40)
        self.service = Service(self.blocks, MemoryJournal(), Settings(), lambda: self.time[0], TOKEN)
        for template in ("hdd", "ssd"):
            groups = dict.fromkeys(("placeAll", "placeTail", "placeHead"), "default")
            desc = {"name": template, "replication": 3, **groups}
            assert self.serve(Request("POST", "VolumeTemplateCreate", msgspec.json.encode(desc), 1)).status == 200

    def serve(self, request: Request, token: str = TOKEN) -> Reply:
        replies: list[simulator.ports.Reply] = []
        path = f"/ctrl/1.0/{request.path}"
        self.service.submit(simulator.ports.Request(request.verb, path, request.body or b"", token), replies.append)
        while not replies:
            due = self.service.tick()
            assert due is not None, f"{request.path} never answers"
            self.time[0] += max(due, 0.01)
        return Reply(replies[0].status, replies[0].body)

    def strike(self, *faults: Fault, after: int = 0) -> None:
        """The next calls suffer these faults, but for the first `after` of them."""
        self.faults = {len(self.calls) + after + index: fault for index, fault in enumerate(faults)}

    def exchange(self, request: Request, runtime: ThreadRuntime) -> Reply:
        runtime.check_alive()
        number = len(self.calls)
        self.calls.append(request.path)
        for due, waiting in list(self.late):
            if due <= number:
                self.late.remove((due, waiting))
                self.serve(waiting)
        fault = self.faults.get(number)
        if fault in DEATHS:
            runtime.kill()
        if fault in (Fault.REQUEST_LATE, Fault.KILLED_LATE, Fault.COPY_LATE):
            self.late.append((number + (self.lateness.pop(0) if self.lateness else 4), request))
        reply = None if fault in UNSERVED else self.serve(request)
        if fault in DEATHS:
            raise Dead("killed")
        return self._deliver(fault, reply)

    @staticmethod
    def _deliver(fault: Fault | None, reply: Reply | None) -> Reply:
        if fault is Fault.NOT_SENT:
            raise NotSent("sp:81: refused")
        if fault is Fault.TRANSIENT:
            return Reply(503, b'{"error": {"name": "busyNow", "descr": "later", "transient": true}}')
        if reply is None or fault is Fault.ANSWER_LOST:
            raise AnswerLost("lost")
        return Reply(200, reply.body[:10]) if fault is Fault.ANSWER_CUT else reply


@dataclass
class Wire:
    cluster: Cluster
    runtime: ThreadRuntime
    connection: Connection

    def call(self, request: Request) -> Reply:
        if self.connection.endpoints == ("down:81",):
            raise NotSent("down:81: refused")
        if self.connection.token.reveal() != TOKEN:
            return self.cluster.serve(request, self.connection.token.reveal())
        return self.cluster.exchange(request, self.runtime)


@dataclass
class Agent:
    """Agent of one host, `select`ed for every pool. Copies write the template's name to the volume."""

    rig: Rig
    commands: list[AnyCommand] = field(default_factory=list)
    answer: Callable[[AnyCommand], AnyAnswer] | None = None
    """Instead of carrying commands out."""
    faults: list[Fault] = field(default_factory=list)
    """Of the next commands."""
    name: str = "kvm-1"
    cancels: list[str] = field(default_factory=list)
    """Paths of copies that were to be cancelled; these commands are no others' places, and no fault strikes them."""
    deaf: bool = False
    """Whether no answer comes to those."""
    at_cancel: Callable[[], None] = lambda: None
    """What an agent does for one."""
    cancel_answer: Answer = field(default_factory=lambda: Answer(result=True))
    encrypts: bool = True

    def select(
        self,
        pool: DataStore,
        storpool_cluster_id: str | None = None,
        *,
        encrypting: bool = False,
        also: DataStore | None = None,
    ) -> Agent:
        del pool, storpool_cluster_id, also
        if encrypting and not self.encrypts:
            raise InsufficientCapacity("no host can encrypt")
        return self

    def host(self, host_id: int) -> Agent:
        del host_id
        return self

    def named(self, name: str) -> Agent:
        assert name == self.name
        return self

    def tell(self, host_id: int, command: AnyCommand) -> AnyAnswer:
        assert isinstance(command, StorPoolResizeVolumeCommand) and host_id > 0
        answer = self.send(command, timeout=command.wait + 1.0)
        if not answer.result:
            raise Unavailable(answer.details)
        return answer

    def send(self, command: AnyCommand, *, timeout: float) -> AnyAnswer:
        assert timeout > command.wait
        if isinstance(command, CancelCommand):
            self.cancels.append(command.path)
            if self.deaf:
                raise Unknown("no answer from the agent")
            self.at_cancel()
            return self.cancel_answer
        self.commands.append(command)
        fault = self.faults.pop(0) if self.faults else None
        if fault is Fault.NOT_SENT:
            raise Unavailable("agent not connected")
        if fault is Fault.REQUEST_LOST:
            raise Unknown("no answer from the agent")
        answer = self.answer(command) if self.answer else self.carry_out(command)
        if fault is Fault.ANSWER_LOST:
            raise Unknown("no answer from the agent")
        return answer

    def carry_out(self, command: AnyCommand) -> AnyAnswer:
        if isinstance(command, StorPoolDownloadTemplateCommand):
            assert command.destination.path is not None and command.source.store.role is StoreRole.IMAGE
            self.rig.write(command.destination.path, command.source.name.encode())
            return CopyCmdAnswer(result=True, path=command.destination.path, size=command.source.size)
        if isinstance(command, StorPoolSetVolumeEncryptionCommand):
            self.rig.write(command.path, f"LUKS {command.source or 'blank'}".encode())
            return StorPoolSetVolumeEncryptionAnswer(result=True, size=command.size - LUKS_HEADER)
        if isinstance(command, StorPoolResizeVolumeCommand):
            return ResizeVolumeAnswer(result=True, size=command.size)
        return StorPoolModifyStoragePoolAnswer(result=True, client_node_id=7, cluster_id="splab.b")


class Rig:
    """Cluster, records and agent that outlive the management server, which `restart` replaces."""

    def __init__(self) -> None:
        self.time = [1_700_000_000.0]
        self.cluster = Cluster(self.time)
        self.records = FakeRecords()
        self.agent = Agent(self)
        self._starts = itertools.count()
        # What the test itself looks with: no faults, not counted.
        looker = Clock("looker", self.time)
        self.look = StorPoolClient(_Direct(self.cluster), looker)
        self.restart()

    def restart(self) -> None:
        runtime = Clock(f"management-{next(self._starts)}", self.time)
        self.runtime = runtime

        def connect(connection: Connection) -> StorPoolClient:
            return StorPoolClient(Wire(self.cluster, runtime, connection), runtime, RetryPolicy(attempts=3))

        self.provider = StorPoolProvider(runtime, self.records, self.agent, connect, SETTLE)
        self.driver = self.provider.driver

    def settle(self) -> list[str]:
        """Let every late request arrive, and recover until nothing more happens."""
        self.cluster.faults.clear()
        lines: list[str] = []
        for _ in range(4):
            lines += self.driver.recover()
            while self.cluster.late:
                self.cluster.serve(self.cluster.late.pop(0)[1])
            self.time[0] += 2 * SETTLE
        self.time[0] += 20_000
        lines += self.driver.recover()
        self.cluster.service.tick()
        return lines

    def unfinished(self) -> list[OperationRecord]:
        """Open operations whose answer was not given, but for those that only look out for late copies of a request."""
        return [
            operation
            for operation in self.records.open_operations()
            if operation.step != "answered" and not looks_out(operation)
        ]

    def volumes(self) -> list[str]:
        return [f"/dev/storpool-byid/{volume.global_id}" for volume in self.look.volumes_list()]

    def snapshots(self) -> list[str]:
        found = self.look.snapshots_list()
        return [f"/dev/storpool-byid/{snapshot.global_id}" for snapshot in found if not snapshot.deleted]

    def tags(self, path: str | None) -> dict[str, str]:
        assert path is not None
        return self.look.volume("~" + path.rpartition("/")[2]).tags

    def write(self, path: str, data: bytes) -> None:
        volume = VolumeReassign(path)
        self.look.volumes_reassign_wait([volume.attach()])
        self.blocks_of(path, lambda key: self.cluster.blocks.write(key, 0, data))
        self.look.volumes_reassign_wait([volume.detach()])

    def read(self, path: str, length: int) -> bytes:
        """First bytes of a volume."""
        got: list[bytes] = []
        volume = VolumeReassign(path)
        self.look.volumes_reassign_wait([volume.attach()])
        self.blocks_of(path, lambda key: got.append(self.cluster.blocks.read(key, 0, length)))
        self.look.volumes_reassign_wait([volume.detach()])
        return got[0]

    def blocks_of(self, path: str, use: Callable[[int], None]) -> None:
        """Use the blocks of an object that client 1 has attached."""
        use(self.cluster.blocks.links_by_id(1)[path.rpartition("/")[2]])


class VolumeReassign:
    """Attach and detach requests for the volume at a path."""

    def __init__(self, path: str) -> None:
        self.name = "~" + path.rpartition("/")[2]

    def attach(self) -> VolumeReassignDesc:
        return VolumeReassignDesc(volume=self.name, rw=(1,))

    def detach(self) -> VolumeReassignDesc:
        return VolumeReassignDesc(volume=self.name, detach=(1,), force=False)


@dataclass
class _Direct:
    cluster: Cluster

    def call(self, request: Request) -> Reply:
        return self.cluster.serve(request)


def volume(number: int = 1, size: int = 4 * MIB, **more: object) -> VolumeObject:
    base = VolumeObject(
        id=number, uuid=f"vol-{number}", name=f"DATA-{number}", type=VolumeType.DATADISK, size=size, store=POOL
    )
    return msgspec.structs.replace(base, **more)


def image(number: int = 5, size: int = 8 * MIB) -> TemplateObject:
    return TemplateObject(
        id=number,
        uuid=f"tmpl-{number}",
        name=f"guest-{number}",
        format=ImageFormat.QCOW2,
        size=size,
        store=IMAGES,
        path="template/guest.qcow2",
    )


def on_pool(template: TemplateObject) -> TemplateObject:
    return msgspec.structs.replace(template, store=POOL, path=None, format=ImageFormat.RAW)


def snapshot_of(source: VolumeObject, number: int = 9) -> SnapshotObject:
    return SnapshotObject(id=number, uuid=f"snap-{number}", name="s", volume=source, size=source.size, store=POOL)


def looks_out(operation: OperationRecord) -> bool:
    """Whether what was to be discarded is gone, and nothing that was sent is without an answer."""
    data, key = operation.data, operation.data.get("key", "")
    return operation.kind == "discard" and not data[f"{key}.id"] and data[f"{key}.unanswered"] == "0"
