"""A host, a hypervisor and a StorPool API in memory, whose every step can be told to fail."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType

import msgspec

from harness.agent.agent import Agent
from harness.agent.config import AgentConfig
from harness.agent.operations import Record
from harness.spi.errors import Conflict, NotFound
from harness.spi.objects import DataStore, Disk, Nic, VirtualMachine, VolumeType, device_path
from harness.spi.passphrase import Passphrase
from harness.spi.ports import CommandResult, DomainState, Output, Secondary
from harness.spi.runtime import Event, Task
from harness.storpool import AnswerLost, NotSent, Reply, Request, RetryPolicy, StorPoolClient

MIB = 1024 * 1024
CLIENT = 2
OTHER_CLIENT = 7
CONF = "SP_CLUSTER_ID=d.n\nSP_OURID=9\nSP_AUTH_TOKEN=a=b\n[kvm1]\nSP_OURID=2\n"

MARKED = (("qemu-img", "convert"), ("cryptsetup", "luksFormat"), ("cryptsetup", "open"), ("prlimit", "--core=0"))
"""Programs that change something, or have a device open, so that they must be found again."""


class FakeLock:
    def __init__(self, clock: ClockRuntime) -> None:
        self._clock = clock
        self.held = False

    def acquire(self, timeout: float | None = None) -> bool:
        if self.held:
            # One task: whoever holds it will not let go while this one waits.
            assert timeout is not None, "this wait would never end"
            self._clock.sleep(timeout)
            return False
        self.held = True
        return True

    def release(self) -> None:
        assert self.held
        self.held = False

    def __enter__(self) -> object:
        assert self.acquire(0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class FakeEvent:
    def __init__(self, name: str) -> None:
        self.name = name
        self.happened = False

    def set(self) -> None:
        self.happened = True

    def is_set(self) -> bool:
        return self.happened

    def wait(self, timeout: float | None = None) -> bool:
        raise NotImplementedError(f"handlers wait for no event: {self.name} {timeout}")


class ClockRuntime:
    """A runtime of one task, whose time passes in `sleep` only."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.uuids = 0
        self.at_sleep: Callable[[], None] = lambda: None

    @property
    def process(self) -> str:
        return "agent"

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        # Never quite zero, so that a loop that forgot its end fails the test instead of hanging it.
        self.time += max(seconds, 0.001)
        self.at_sleep()

    def spawn(self, name: str, function: Callable[[], None]) -> Task:
        raise NotImplementedError(f"handlers spawn nothing: {name} {function}")

    def lock(self, name: str) -> FakeLock:  # noqa: ARG002 - the contract's signature
        return FakeLock(self)

    def event(self, name: str) -> Event:
        return FakeEvent(name)

    def random(self) -> float:
        return 0.5

    def random_bytes(self, count: int) -> bytes:
        return b"\7" * count

    def uuid(self) -> str:
        self.uuids += 1
        return f"00000000-0000-4000-8000-{self.uuids:012d}"

    def point(self, kind: str, detail: str) -> None:
        pass

    def transaction(self) -> AbstractContextManager[None]:
        return nullcontext()


@dataclass
class Rig:
    """The world of one agent: what is attached, which devices exist, which domains run."""

    clock: ClockRuntime = field(default_factory=ClockRuntime)
    volumes: dict[str, int] = field(default_factory=dict)
    """Size by global id."""
    snapshots: set[str] = field(default_factory=set)
    """Those of `volumes` that are snapshots."""
    attached: set[str] = field(default_factory=set)
    elsewhere: dict[str, bool] = field(default_factory=dict)
    """Volumes attached read-write to another host's client, and whether they are open there."""
    registered: bool = True
    api_hangs: bool = False
    """No request to the API is answered, and each takes all the time that it is given."""
    domains: dict[str, str] = field(default_factory=dict)
    states: dict[str, DomainState] = field(default_factory=dict)
    device_delay: float = 0.0
    device_size: int | None = None
    """When not None, what every device shows instead of its volume's size."""
    ignored_shutdowns: int = 0
    lying_detaches: int = 0
    """Detaches that libvirt confirms although the guest keeps the disk."""
    busy_detaches: int = 0
    failures: dict[str, list[BaseException]] = field(default_factory=dict)
    late_failures: dict[str, list[BaseException]] = field(default_factory=dict)
    after: dict[str, Callable[[], None]] = field(default_factory=dict)
    """What happens once a step has acted."""
    strike: tuple[int, BaseException, bool] | None = None
    """The number of the step that fails (from 0, counted from the last `steps.clear()`), how, and whether late."""
    steps: list[str] = field(default_factory=list)
    secrets: dict[str, bytes] = field(default_factory=dict)
    """What libvirt knows, by device path."""
    passphrase: bytes = b"a-passphrase-of-the-rig"
    """What programs that need one must get on their standard input, and nobody as an argument."""
    cryptsetup: bool = True
    guest_sizes: dict[tuple[str, str], int] = field(default_factory=dict)
    """What guests see, by domain and target."""
    mounts: int = 0
    unmounts: int = 0
    held: dict[str, str] = field(default_factory=dict)
    """Images that domains hold, by holder."""
    appears: dict[str, float] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    """XML of the domains that were migrated, as the other host has them."""
    files: dict[str, str] = field(default_factory=dict)
    """What the agent wrote, by path."""
    programs: Callable[[tuple[str, ...]], CommandResult] | None = None
    config: AgentConfig = field(
        default_factory=lambda: AgentConfig(host_uuid="h-1", host_name="kvm1", storpool_conf_directory=None)
    )

    def fail(self, step: str, error: BaseException, *, late: bool = False, times: int = 1) -> None:
        """Let `step` fail before it acts, or (`late`) after it has acted."""
        (self.late_failures if late else self.failures).setdefault(step, []).extend([error] * times)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        strike = self.strike if self.strike is not None and self.strike[0] == len(self.steps) else None
        self.steps.append(name)
        if strike is not None and not strike[2]:
            raise strike[1]
        if self.failures.get(name):
            raise self.failures[name].pop(0)
        yield
        if name in self.after:
            self.after[name]()
        if strike is not None:
            raise strike[1]
        if self.late_failures.get(name):
            raise self.late_failures[name].pop(0)

    def refuse(self, name: str) -> None:
        """Fail, if that was told of something that is no step: it changes nothing."""
        if self.failures.get(name):
            raise self.failures[name].pop(0)

    def agent(self, secondary: Secondary | None = None) -> Agent:
        """A new agent that has found what the one before it left, and has done nothing about it yet."""
        client = StorPoolClient(FakeApi(self), self.clock, RetryPolicy(attempts=1))
        stores = secondary or FakeSecondary(self)
        agent = Agent(self.clock, FakeHost(self), FakeHypervisor(self), stores, client, self.config)
        agent.recovery.load()
        return agent

    def records(self) -> list[Record]:
        """Of open operations, the oldest first."""
        found = [msgspec.json.decode(text, type=Record) for text in self.files.values()]
        return sorted(found, key=lambda record: record.began_at)

    def volume(self, number: int, size: int = 64 * MIB) -> Disk:
        """A volume that exists, as the disk a command names; number 0 is the ROOT disk."""
        global_id = f"d.n.{number + 1}"
        self.volumes[global_id] = size
        return Disk(
            path=device_path(global_id),
            serial=f"{number:020d}",
            device_id=number,
            size=size,
            type=VolumeType.DATADISK if number else VolumeType.ROOT,
        )

    def vm(self, disks: int = 3) -> VirtualMachine:
        return VirtualMachine(
            uuid="5e8a9d5c-0f6e-4e41-9c46-0b0d4f6f5f11",
            name="i-2-7-VM",
            cpus=2,
            memory=128 * MIB,
            disks=tuple(self.volume(number) for number in range(disks)),
            nics=(Nic(mac="06:00:00:00:00:01", ip="10.77.0.9", bridge="cloudbr0"),),
        )

    def sources(self, name: str) -> list[str]:
        found = ET.fromstring(self.domains[name]).iterfind("./devices/disk/source")
        return [source.attrib["dev"] for source in found if "dev" in source.attrib]

    def running(self, name: str) -> bool:
        return self.states.get(name) in (DomainState.RUNNING, DomainState.PAUSED)

    def open(self, global_id: str) -> bool:
        return any(device_path(global_id) in self.sources(name) for name in self.domains if self.running(name))


class FakeApi:
    """The calls of the StorPool API that an agent makes."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    def call(self, request: Request) -> Reply:
        if self._rig.api_hangs:
            self._rig.clock.sleep(request.timeout)
            raise AnswerLost("no answer in time")
        call, _, name = request.path.removeprefix("MultiCluster/").partition("/")
        if call == "Volume":
            return self._volume(name.removeprefix("~"))
        if call == "Snapshot":
            return self._snapshot(name.removeprefix("~"))
        assert call == "VolumesReassignWait", call
        (item,) = json.loads(request.body or b"")["reassign"]
        assert item.get("force", False) is False
        kind, wish = ("snapshot", "ro") if "snapshot" in item else ("volume", "rw")
        global_id = item[kind].removeprefix("~")
        if (global_id in self._rig.snapshots) != (kind == "snapshot"):
            return refusal("objectDoesNotExist", f"no such {kind}")
        assert item.get(wish, item.get("detach")) == [CLIENT]
        if wish in item:
            with self._rig.step(f"attach {global_id}"):
                return self._attach(global_id, alone=item.get("detach") == "all")
        with self._rig.step(f"detach {global_id}"):
            return self._detach(global_id)

    def _attach(self, global_id: str, *, alone: bool) -> Reply:
        rig = self._rig
        if not rig.registered:
            return refusal("invalidParam", "No such client registered")
        if global_id not in rig.volumes:
            return refusal("objectDoesNotExist", "no such volume")
        if alone:
            if rig.elsewhere.get(global_id):
                return refusal("busy", f"'~{global_id}' is open at client {OTHER_CLIENT}")
            rig.elsewhere.pop(global_id, None)
        if global_id not in rig.attached:
            rig.appears[global_id] = rig.clock.time + rig.device_delay
        rig.attached.add(global_id)
        return Reply(200, b'{"generation":"1","data":{"ok":true}}')

    def _detach(self, global_id: str) -> Reply:
        rig = self._rig
        if global_id not in rig.volumes:
            return refusal("objectDoesNotExist", "no such volume")
        if rig.open(global_id) or rig.busy_detaches:
            rig.busy_detaches = max(0, rig.busy_detaches - 1)
            return refusal("busy", f"'~{global_id}' is open at client {CLIENT}")
        rig.attached.discard(global_id)
        return Reply(200, b'{"generation":"1","data":{"ok":true}}')

    def _volume(self, global_id: str) -> Reply:
        if global_id not in self._rig.volumes or global_id in self._rig.snapshots:
            return refusal("objectDoesNotExist", "no such volume")
        return self._described(global_id)

    def _snapshot(self, global_id: str) -> Reply:
        if global_id not in self._rig.snapshots:
            return refusal("objectDoesNotExist", "no such snapshot")
        return self._described(global_id)

    def _described(self, global_id: str) -> Reply:
        data = {"name": f"~{global_id}", "globalId": global_id, "size": self._rig.volumes[global_id]}
        return Reply(200, json.dumps({"generation": "1", "data": [data]}).encode())


def refusal(name: str, descr: str) -> Reply:
    return Reply(500, json.dumps({"error": {"name": name, "descr": descr}}).encode())


class FakeHost:
    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    def block_device_size(self, path: str) -> int | None:
        rig = self._rig
        global_id = path.rpartition("/")[2]
        if global_id not in rig.attached or rig.clock.time < rig.appears.get(global_id, 0):
            return None
        return rig.device_size if rig.device_size is not None else rig.volumes[global_id]

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float,
        operation: str | None = None,
        output: Output | None = None,  # noqa: ARG002 - the contract's signature
    ) -> CommandResult:
        assert timeout > 0
        if tuple(argv) == ("cryptsetup", "--version"):
            return CommandResult(tuple(argv), 0 if self._rig.cryptsetup else 127, b"", b"")
        assert (operation is not None) == (tuple(argv[:2]) in MARKED)
        if "curl" not in argv:
            assert stdin == (self._rig.passphrase if argv[0] == "cryptsetup" or "--object" in argv else b"")
        assert not any(self._rig.passphrase.decode() in word for word in argv)
        with self._rig.step(" ".join(argv[:2])):
            assert self._rig.programs is not None, f"nothing should be run: {argv}"
            return self._rig.programs(tuple(argv))

    def read_text(self, path: str) -> str:
        if path in self._rig.files:
            self._rig.refuse("read record")
            return self._rig.files[path]
        if path != "/etc/storpool.conf":
            raise NotFound(path)
        return CONF

    def end_programs(self, operation: str, *, timeout: float) -> None:
        assert timeout > 0
        with self._rig.step("end programs"):
            assert any(operation in name for name in self._rig.files), "no record tells of what it was run for"

    def write_durably(self, path: str, text: str) -> None:
        with self._rig.step("write record"):
            self._rig.files[path] = text

    def remove(self, path: str) -> None:
        with self._rig.step("remove record"):
            self._rig.files.pop(path, None)

    def list_directory(self, path: str) -> tuple[str, ...]:
        self._rig.refuse("list records")
        return tuple(sorted(name.removeprefix(f"{path}/") for name in self._rig.files))


class FakeHypervisor:
    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    def domains(self) -> dict[str, DomainState]:
        with self._rig.step("domains"):
            return dict(self._rig.states)

    def create(self, xml: str) -> None:
        rig = self._rig
        with rig.step("create"):
            name = ET.fromstring(xml).findtext("name", "")
            if rig.running(name):
                raise Conflict(f"{name} runs")
            rig.domains[name] = xml
            rig.states[name] = DomainState.SHUT_OFF
            for source in rig.sources(name):
                assert source.rpartition("/")[2] in rig.attached, f"libvirt cannot open {source}"
            with rig.step("start domain"):
                rig.states[name] = DomainState.RUNNING

    def xml(self, name: str) -> str:
        with self._rig.step("xml"):
            if name not in self._rig.domains:
                raise NotFound(name)
            return self._rig.domains[name]

    def shutdown(self, name: str) -> None:
        with self._rig.step("shutdown"):
            if self._rig.ignored_shutdowns:
                self._rig.ignored_shutdowns -= 1
            else:
                self._rig.states[name] = DomainState.SHUT_OFF

    def destroy(self, name: str) -> None:
        with self._rig.step("destroy"):
            if name in self._rig.states:
                self._rig.states[name] = DomainState.SHUT_OFF

    def undefine(self, name: str) -> None:
        with self._rig.step("undefine"):
            assert not self._rig.running(name)
            self._rig.domains.pop(name, None)
            self._rig.states.pop(name, None)

    def attach_device(self, name: str, xml: str) -> None:
        with self._rig.step("attach_device"):
            domain = ET.fromstring(self._rig.domains[name])
            devices = domain.find("devices")
            assert devices is not None
            devices.append(ET.fromstring(xml))
            self._rig.domains[name] = ET.tostring(domain, encoding="unicode")

    def detach_device(self, name: str, xml: str) -> None:
        with self._rig.step("detach_device"):
            if self._rig.lying_detaches:
                self._rig.lying_detaches -= 1
                return
            domain = ET.fromstring(self._rig.domains[name])
            devices = domain.find("devices")
            target = ET.fromstring(xml).find("target")
            assert devices is not None
            assert target is not None
            for disk in devices.findall("disk"):
                shown = disk.find("target")
                if shown is not None and shown.attrib["dev"] == target.attrib["dev"]:
                    devices.remove(disk)
            self._rig.domains[name] = ET.tostring(domain, encoding="unicode")

    def update_device(self, name: str, xml: str) -> None:
        with self._rig.step("update_device"):
            domain = ET.fromstring(self._rig.domains[name])
            devices, drive = domain.find("devices"), domain.find("./devices/disk[@device='cdrom']")
            assert devices is not None and drive is not None
            devices.remove(drive)
            devices.append(ET.fromstring(xml))
            self._rig.domains[name] = ET.tostring(domain, encoding="unicode")

    def migratable_xml(self, name: str) -> str:
        with self._rig.step("migratable_xml"):
            return self._rig.domains[name]

    def migrate(self, name: str, uri: str, xml: str, *, converge: bool, timeout: float) -> None:
        assert uri.startswith("qemu+") and xml and timeout > 0 and not converge
        with self._rig.step("migrate"):
            self._rig.moved[name] = xml
            del self._rig.domains[name], self._rig.states[name]

    def cancel_migration(self, name: str, *, timeout: float) -> None:  # noqa: ARG002 - the contract's signature
        with self._rig.step("cancel_migration"):
            pass

    def resume(self, name: str) -> None:
        with self._rig.step("resume"):
            self._rig.states[name] = DomainState.RUNNING

    def disk_size(self, name: str, target: str) -> int:
        with self._rig.step("disk_size"):
            return self._rig.guest_sizes[name, target]

    def secrets(self) -> tuple[str, ...]:
        self._rig.refuse("secrets")
        return tuple(sorted(self._rig.secrets))

    def define_secret(self, device: str, passphrase: Passphrase) -> None:
        with self._rig.step("define secret"):
            self._rig.secrets[device] = passphrase.reveal()

    def undefine_secret(self, device: str) -> None:
        with self._rig.step("undefine secret"):
            self._rig.secrets.pop(device, None)

    def resize_disk(self, name: str, target: str, size: int) -> None:
        with self._rig.step("resize_disk"):
            self._rig.guest_sizes[name, target] = size


class FakeSecondary:
    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    @contextmanager
    def file(self, store: DataStore, path: str) -> Iterator[str]:
        assert store.url.startswith("nfs:")
        with self._rig.step("mount"):
            self._rig.mounts += 1
        try:
            yield f"/mnt/store/{path}"
        finally:
            self._rig.unmounts += 1

    def new_file(self, store: DataStore, path: str) -> AbstractContextManager[str]:
        return self.file(store, path)

    def hold(self, store: DataStore, path: str, holder: str) -> str:
        assert store.url.startswith("nfs:")
        with self._rig.step("hold"):
            self._rig.held[holder] = path
        return f"/mnt/store/{path}"

    def let_go(self, holder: str) -> None:
        self._rig.held.pop(holder, None)

    def clean_up(self) -> None:
        raise NotImplementedError("for the start of an agent only")


def unreachable() -> NotSent:
    return NotSent("connection refused")
