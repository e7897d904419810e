"""A world that writes down what a scenario does and sees: its checks, and every call of the four observers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from harness.observers import (
    Cloud,
    CloudApiError,
    DomainDisk,
    Environment,
    Guest,
    Host,
    Json,
    Secondary,
    StorPool,
    World,
)
from harness.report.stream import Check, Evidence, Listener, Timeline

TIMELINE_LIMIT = 2000
TEXT_LIMIT = 2000
EVIDENCE_LIMIT = 64 * 1024


@dataclass(slots=True)
class Recorder:
    """Turns what happens in one case into events."""

    world: str
    case: str
    listen: Listener
    now: Callable[[], float]
    """Seconds since the run began."""
    entries: int = 0
    failed_check: str = ""
    """The check that the case's error came out of."""
    failed: bool = False
    """Set by the judge, so that the world may add what helps to find out why."""
    polled: set[tuple[str, str]] | None = None
    """While something is waited for: what was noted since, so that a poll is noted once and not every time."""

    def timeline(self, source: str, text: str, at: float | None = None) -> None:
        """One entry; entries beyond `TIMELINE_LIMIT` of a case are dropped, and the last one says so."""
        if self.polled is not None:
            if (source, text) in self.polled:
                return
            self.polled.add((source, text))
        self.entries += 1
        if self.entries > TIMELINE_LIMIT:
            return
        if self.entries == TIMELINE_LIMIT:
            source, text = "splab", "more entries than are kept; the rest is left out"
        when = self.now() if at is None else at
        self.listen(Timeline(at=when, world=self.world, case=self.case, source=source, text=shorten(text, TEXT_LIMIT)))

    def evidence(self, title: str, text: str) -> None:
        shown = shorten(text, EVIDENCE_LIMIT)
        self.listen(Evidence(at=self.now(), world=self.world, case=self.case, title=title, text=shown))

    def check(self, name: str, error: BaseException | None) -> None:
        text = "" if error is None else shorten(f"{type(error).__name__}: {error}", TEXT_LIMIT)
        if error is not None and not self.failed_check:
            self.failed_check = name
        event = Check(at=self.now(), world=self.world, case=self.case, name=name, passed=error is None, error=text)
        self.listen(event)


def shorten(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return f"{text[:limit]} ... ({len(text) - limit} characters more)"


class RecordingCloud:
    def __init__(self, inner: Cloud, recorder: Recorder) -> None:
        self._inner = inner
        self._recorder = recorder

    def call(self, command: str, /, **parameters: str | int | bool) -> Json:
        with self._noted(_call_text(command, parameters)):
            return self._inner.call(command, **parameters)

    def start(self, command: str, /, **parameters: str | int | bool) -> str:
        with self._noted(f"{_call_text(command, parameters)}, not waiting"):
            return self._inner.start(command, **parameters)

    def wait(self, job_id: str, timeout: float = 600) -> Json:
        with self._noted(f"wait for job {job_id}"):
            return self._inner.wait(job_id, timeout)

    @contextmanager
    def _noted(self, text: str) -> Iterator[None]:
        self._recorder.timeline("CloudStack", text)
        try:
            yield
        except CloudApiError as error:
            self._recorder.timeline("CloudStack", f"{error.command} answers {error.code}: {error.text}")
            raise


def _call_text(command: str, parameters: Mapping[str, str | int | bool]) -> str:
    return " ".join([command, *(f"{key}={_shown(key, str(value))}" for key, value in parameters.items())])


def _shown(key: str, value: str) -> str:
    """A pool's URL holds the token of a StorPool cluster."""
    return "********" if key == "url" and ("token" in value.lower() or "storpool" in value.lower()) else value


class RecordingHost:
    """A host that notes what was asked and what was seen."""

    def __init__(self, inner: Host, recorder: Recorder) -> None:
        self._inner = inner
        self._recorder = recorder

    def _note(self, text: str) -> None:
        self._recorder.timeline(f"host {self._inner.name}", text)

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def client_id(self) -> int:
        return self._inner.client_id

    @property
    def cluster_id(self) -> str:
        return self._inner.cluster_id

    def devices(self) -> Sequence[str]:
        seen = self._inner.devices()
        self._note(f"/dev/storpool-byid: {' '.join(seen) or 'empty'}")
        return seen

    def device_size(self, path: str) -> int | None:
        seen = self._inner.device_size(path)
        self._note(f"{path}: {'no block device' if seen is None else f'{seen} bytes'}")
        return seen

    def read_device(self, path: str, offset: int, length: int) -> bytes:
        self._note(f"read {length} bytes of {path} at {offset}")
        return self._inner.read_device(path, offset, length)

    def unlocks(self, path: str, passphrase: bytes) -> bool:
        seen = self._inner.unlocks(path, passphrase)
        self._note(f"a passphrase {'opens' if seen else 'does not open'} {path}")
        return seen

    def secrets(self) -> Sequence[str]:
        seen = self._inner.secrets()
        self._note(f"libvirt knows passphrases of {', '.join(seen) or 'nothing'}")
        return seen

    def traces(self, text: bytes) -> Sequence[str]:
        seen = self._inner.traces(text)
        self._note(f"{len(text)} bytes that are looked for stand in {', '.join(seen) or 'no place'}")
        return seen

    @contextmanager
    def without_encryption(self) -> Iterator[None]:
        with self._inner.without_encryption():
            self._note("it has no cryptsetup")
            yield
        self._note("it has cryptsetup again")

    def domains(self) -> Mapping[str, str]:
        seen = self._inner.domains()
        self._note(f"domains: {', '.join(f'{name} {state}' for name, state in seen.items()) or 'none'}")
        return seen

    def domain_disks(self, name: str) -> Sequence[DomainDisk]:
        seen = self._inner.domain_disks(name)
        self._note(f"disks of {name}: {'; '.join(f'{d.target} = {d.source} serial {d.serial}' for d in seen)}")
        return seen

    def disk_capacity(self, name: str, target: str) -> int:
        seen = self._inner.disk_capacity(name, target)
        self._note(f"libvirt: {target} of {name} has {seen} bytes")
        return seen

    def domain_xml(self, name: str) -> str:
        return self._inner.domain_xml(name)

    def reads_a_second(self, path: str, seconds: int) -> float:
        rate = self._inner.reads_a_second(path, seconds)
        self._note(f"fio reads {path} {rate:.0f} times a second")
        return rate

    def cd_image(self, name: str) -> str | None:
        seen = self._inner.cd_image(name)
        self._note(f"CD drive of {name}: {seen or 'empty'}")
        return seen

    def kill_qemu(self, name: str) -> None:
        self._note(f"kill -9 the QEMU of {name}")
        self._inner.kill_qemu(name)

    def suspend(self, name: str) -> None:
        self._note(f"suspend {name}")
        self._inner.suspend(name)

    def resume(self, name: str) -> None:
        self._note(f"resume {name}")
        self._inner.resume(name)

    def kill_agent(self) -> None:
        self._note("kill -9 its agent")
        self._inner.kill_agent()

    def start_agent(self) -> None:
        self._inner.start_agent()
        self._note("its agent runs")

    def power_cut(self) -> None:
        self._note("its power is cut")
        self._inner.power_cut()

    def power_on(self) -> None:
        self._inner.power_on()
        self._note("it is on again, and its agent runs")

    @contextmanager
    def storpool_conf(self, **settings: str) -> Iterator[None]:
        with self._inner.storpool_conf(**settings):
            self._note(f"its storpool.conf sets {', '.join(settings)}")
            yield
        self._note("its storpool.conf is as before")

    @contextmanager
    def devices_late(self) -> Iterator[None]:
        with self._inner.devices_late():
            self._note("devices of new attachments do not show up")
            yield
        self._note("devices show up")

    def copies(self) -> Sequence[str]:
        seen = self._inner.copies()
        self._note(f"copies: {'; '.join(seen) or 'none'}")
        return seen

    @contextmanager
    def slow_copies(self) -> Iterator[None]:
        with self._inner.slow_copies():
            self._note("copies are slowed down")
            yield
        self._note("copies are as fast as ever")

    def slow_migration(self, name: str) -> None:
        self._note(f"slow down migrations of {name}")
        self._inner.slow_migration(name)

    @contextmanager
    def libvirt_cut(self) -> Iterator[None]:
        self._note("libvirtd is cut off from other hosts")
        with self._inner.libvirt_cut():
            yield
        self._note("libvirtd is reached again")

    @contextmanager
    def storpool_api_cut(self) -> Iterator[None]:
        with self._inner.storpool_api_cut():
            self._note("its way to the StorPool API is cut")
            yield
        self._note("its way to the StorPool API is open again")


class RecordingGuest:
    def __init__(self, inner: Guest, vm_id: str, recorder: Recorder) -> None:
        self._inner = inner
        self._source = f"guest {vm_id[:8]}"
        self._recorder = recorder

    def ready(self) -> None:
        self._inner.ready()
        self._recorder.timeline(self._source, "is ready")

    def boot_id(self) -> str:
        seen = self._inner.boot_id()
        self._recorder.timeline(self._source, f"boot id {seen}")
        return seen

    def booted_from(self) -> str:
        seen = self._inner.booted_from()
        self._recorder.timeline(self._source, f"booted from its {seen}")
        return seen

    def disks(self) -> Mapping[str, int]:
        seen = self._inner.disks()
        shown = ", ".join(f"{serial} {size} bytes" for serial, size in seen.items())
        self._recorder.timeline(self._source, f"disks: {shown}")
        return seen

    def write(self, serial: str, offset: int, data: bytes) -> None:
        self._recorder.timeline(self._source, f"writes {len(data)} bytes to disk {serial} at {offset}")
        self._inner.write(serial, offset, data)

    def read(self, serial: str, offset: int, length: int) -> bytes:
        self._recorder.timeline(self._source, f"reads {length} bytes of disk {serial} at {offset}")
        return self._inner.read(serial, offset, length)

    @contextmanager
    def counting(self, serials: Sequence[str], offset: int) -> Iterator[None]:
        self._recorder.timeline(self._source, f"counts at {offset} of the disks {', '.join(serials)}")
        with self._inner.counting(serials, offset):
            yield
        self._recorder.timeline(self._source, "counts no more")

    def poweroff(self) -> None:
        self._recorder.timeline(self._source, "shuts itself down")
        self._inner.poweroff()


class RecordingWorld:
    """The world that a scenario gets: the inner one, written down."""

    def __init__(self, inner: World, recorder: Recorder) -> None:
        self._inner = inner
        self._recorder = recorder
        self._cloud = RecordingCloud(inner.cloud, recorder)
        self._hosts = tuple(RecordingHost(host, recorder) for host in inner.hosts)

    @property
    def cloud(self) -> Cloud:
        return self._cloud

    @property
    def storpool(self) -> StorPool:
        return self._inner.storpool

    @property
    def storpools(self) -> Sequence[StorPool]:
        return self._inner.storpools

    @property
    def secondary(self) -> Secondary:
        return self._inner.secondary

    @property
    def hosts(self) -> Sequence[Host]:
        return self._hosts

    @property
    def environment(self) -> Environment:
        return self._inner.environment

    @property
    def real(self) -> bool:
        return self._inner.real

    def guest(self, vm_id: str) -> Guest:
        return RecordingGuest(self._inner.guest(vm_id), vm_id, self._recorder)

    def kill_management(self) -> None:
        self._recorder.timeline("splab", "kill -9 the management server")
        self._inner.kill_management()

    def start_management(self) -> None:
        self._inner.start_management()
        self._recorder.timeline("splab", "the management server runs")

    def name(self, stem: str) -> str:
        return self._inner.name(stem)

    def check(self, name: str) -> AbstractContextManager[None]:
        return self._check(name)

    @contextmanager
    def _check(self, name: str) -> Iterator[None]:
        try:
            with self._inner.check(name):
                yield
        except Exception as error:
            self._recorder.check(name, error)
            raise
        self._recorder.check(name, None)

    def wait_until(self, what: str, condition: Callable[[], bool], timeout: float = 60) -> None:
        self._recorder.timeline("splab", f"wait until {what}")
        self._recorder.polled = set()
        try:
            self._inner.wait_until(what, condition, timeout)
        finally:
            self._recorder.polled = None
