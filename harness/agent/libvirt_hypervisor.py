"""`harness.spi.ports.Hypervisor` over libvirt-python.

Every call opens a connection of its own (a few milliseconds on the local socket), so that a libvirtd that was restarted
is met afresh, and runs in a task of its own, so that one that hangs costs the caller no more than `timeout`.
"""

from __future__ import annotations

import logging
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, cast

from harness.agent.libvirt_library import Connection, Domain, Secret, error_code, error_text, load_library
from harness.spi.errors import Conflict, Error, InvalidParameter, NotFound, Unavailable, Unknown
from harness.spi.passphrase import Passphrase
from harness.spi.ports import DomainState
from harness.spi.runtime import Runtime

T = TypeVar("T")

_log = logging.getLogger("harness.agent.libvirt")

CALL_SECONDS = 30.0
CREATE_SECONDS = 120.0
"""Starting a domain includes QEMU's start, and on a fresh host a probe of what QEMU can do."""
STUCK_LIMIT = 8
"""Calls that libvirtd may leave hanging before no more are made."""

_XML_ERROR = 27
_XML_DETAIL = 35
_NO_DOMAIN = 42
_OPERATION_INVALID = 55
_NO_SECRET = 66
_CONFIG_UNSUPPORTED = 67
_TIMED_OUT = 68
_DEVICE_MISSING = 99
_AFFECT_LIVE = 1
_FORCE = 4
_SIZE_IN_BYTES = 1
_USAGE_VOLUME = 1
"""virSecretUsageType: the passphrase of an encrypted volume, found by its path."""
_SECURE, _MIGRATABLE = 1, 8
_LIVE, _PEER_TO_PEER, _PERSIST_DESTINATION, _UNDEFINE_SOURCE = 1, 2, 8, 16
_ABORT_ON_ERROR, _AUTO_CONVERGE = 1 << 12, 1 << 13
_MIGRATION = _LIVE | _PEER_TO_PEER | _PERSIST_DESTINATION | _UNDEFINE_SOURCE | _ABORT_ON_ERROR
"""Peer to peer: the libvirtds go through its phases by themselves, so an agent that dies leaves none of them open."""
_NO_JOB = 0
JOB_POLL_SECONDS = 0.2
_UNDEFINE_ALL = 1 | 2 | 4 | 16
"""With managed save, snapshots' metadata, NVRAM, checkpoints' metadata: nothing of the domain stays."""

STATES = {
    0: DomainState.RUNNING,
    1: DomainState.RUNNING,
    2: DomainState.RUNNING,
    3: DomainState.PAUSED,
    4: DomainState.RUNNING,
    5: DomainState.SHUT_OFF,
    6: DomainState.CRASHED,
    7: DomainState.PAUSED,
}
"""virDomainState; one that is being shut down still runs."""


class HypervisorRefused(Error):
    """libvirt or QEMU said no; the text is libvirt's."""


_BY_CODE: dict[int, type[Error]] = {
    _NO_DOMAIN: NotFound,
    _XML_ERROR: InvalidParameter,
    _XML_DETAIL: InvalidParameter,
    _CONFIG_UNSUPPORTED: InvalidParameter,
    _OPERATION_INVALID: Conflict,
    _TIMED_OUT: Unavailable,
}


class LibvirtHypervisor:
    """Domains of the libvirtd at `uri`."""

    def __init__(self, runtime: Runtime, uri: str, timeout: float = CALL_SECONDS) -> None:
        self._runtime = runtime
        self._uri = uri
        self._timeout = timeout
        self._library = load_library()
        self._guard = runtime.lock("libvirt-stuck")
        self._running = 0

    def domains(self) -> dict[str, DomainState]:
        def read(connection: Connection) -> dict[str, DomainState]:
            found = {}
            for domain in connection.listAllDomains():
                try:
                    found[domain.name()] = STATES.get(domain.state()[0], DomainState.RUNNING)
                except self._library.libvirtError as error:
                    if error_code(error) != _NO_DOMAIN:
                        raise
            return found

        return self._call("list the domains", read)

    def create(self, xml: str) -> None:
        name = ET.fromstring(xml).findtext("name", "")

        def start(connection: Connection) -> None:
            old = self._find(connection, name)
            if old is not None and old.isActive():
                raise Conflict(f"domain {name} runs already")
            if old is not None:
                old.undefineFlags(_UNDEFINE_ALL)
            connection.defineXML(xml).create()

        self._call(f"start domain {name}", start, changes=True, timeout=max(self._timeout, CREATE_SECONDS))

    def xml(self, name: str) -> str:
        return self._call(f"read domain {name}", lambda connection: connection.lookupByName(name).XMLDesc())

    def shutdown(self, name: str) -> None:
        self._on(name, "shut down", lambda domain: domain.shutdown(), ignored=(_OPERATION_INVALID,))

    def destroy(self, name: str) -> None:
        self._on(name, "destroy", lambda domain: domain.destroy(), ignored=(_OPERATION_INVALID, _NO_DOMAIN))

    def undefine(self, name: str) -> None:
        self._on(name, "undefine", lambda domain: domain.undefineFlags(_UNDEFINE_ALL), ignored=(_NO_DOMAIN,))

    def attach_device(self, name: str, xml: str) -> None:
        """Live only: what a domain keeps when it is off is what it was started with."""
        self._on(name, f"attach {_device(xml)} to", lambda domain: domain.attachDeviceFlags(xml, _AFFECT_LIVE))

    def detach_device(self, name: str, xml: str) -> None:
        def detach(domain: Domain) -> int:
            try:
                return domain.detachDeviceFlags(xml, _AFFECT_LIVE)
            except self._library.libvirtError as error:
                # Asked before and the guest has not answered yet: the caller reads the XML anyway.
                if "in the process of unplug" in error_text(error):
                    return 0
                raise

        self._on(name, f"detach {_device(xml)} from", detach, ignored=(_DEVICE_MISSING,))

    def update_device(self, name: str, xml: str) -> None:
        """Live only, and with force: a guest may keep its tray locked for ever."""
        self._on(
            name,
            f"change {_device(xml)} of",
            lambda domain: domain.updateDeviceFlags(xml, _AFFECT_LIVE | _FORCE),
        )

    def migratable_xml(self, name: str) -> str:
        def read(connection: Connection) -> str:
            return connection.lookupByName(name).XMLDesc(_SECURE | _MIGRATABLE)

        return self._call(f"read domain {name}", read)

    def migrate(self, name: str, uri: str, xml: str, *, converge: bool, timeout: float) -> None:
        flags = _MIGRATION | (_AUTO_CONVERGE if converge else 0)
        what = f"migrate domain {name} to {uri}"

        def move(connection: Connection) -> int:
            return connection.lookupByName(name).migrateToURI3(uri, {"destination_xml": xml}, flags)

        try:
            self._call(what, move, changes=True, timeout=timeout, bounded=False)
        except Unknown:
            self.cancel_migration(name, timeout=self._timeout)
            raise

    def cancel_migration(self, name: str, *, timeout: float) -> None:
        deadline = self._runtime.monotonic() + timeout
        while self._call(f"cancel the migration of domain {name}", lambda found: self._abort(found, name)):
            if self._runtime.monotonic() >= deadline:
                raise Unknown(f"the migration of domain {name} is still under way after {timeout:g} s")
            self._runtime.sleep(JOB_POLL_SECONDS)

    def resume(self, name: str) -> None:
        self._on(name, "resume", lambda domain: domain.resume(), ignored=(_OPERATION_INVALID,))

    def _abort(self, connection: Connection, name: str) -> bool:
        """Whether a job was there, and was told to end; it ends later."""
        domain = self._find(connection, name)
        try:
            # One that is off has no jobs to ask for.
            if domain is None or not domain.isActive() or domain.jobInfo()[0] == _NO_JOB:
                return False
            domain.abortJob()
        except self._library.libvirtError as error:
            # It was over meanwhile, or is at a step that is not broken off: the next look tells.
            if error_code(error) not in (_OPERATION_INVALID, _NO_DOMAIN):
                raise
        return True

    def disk_size(self, name: str, target: str) -> int:
        def read(connection: Connection) -> int:
            return connection.lookupByName(name).blockInfo(target)[0]

        return self._call(f"read the size of {target} of domain {name}", read)

    def resize_disk(self, name: str, target: str, size: int) -> None:
        self._on(
            name, f"resize {target} to {size} bytes of", lambda domain: domain.blockResize(target, size, _SIZE_IN_BYTES)
        )

    def secrets(self) -> tuple[str, ...]:
        def read(connection: Connection) -> tuple[str, ...]:
            found = (secret for secret in connection.listAllSecrets() if secret.usageType() == _USAGE_VOLUME)
            return tuple(sorted(secret.usageID() for secret in found))

        return self._call("list the secrets", read)

    def define_secret(self, device: str, passphrase: Passphrase) -> None:
        def define(connection: Connection) -> None:
            secret = self._find_secret(connection, device) or connection.secretDefineXML(_secret_xml(device))
            secret.setValue(passphrase.reveal())

        self._call(f"define the secret of {device}", define, changes=True)

    def undefine_secret(self, device: str) -> None:
        def undefine(connection: Connection) -> None:
            secret = self._find_secret(connection, device)
            if secret is not None:
                secret.undefine()

        self._call(f"undefine the secret of {device}", undefine, changes=True)

    def _find_secret(self, connection: Connection, device: str) -> Secret | None:
        try:
            return connection.secretLookupByUsage(_USAGE_VOLUME, device)
        except self._library.libvirtError as error:
            if error_code(error) == _NO_SECRET:
                return None
            raise

    def _on(self, name: str, verb: str, action: Callable[[Domain], int], ignored: Sequence[int] = ()) -> None:
        def act(connection: Connection) -> None:
            try:
                action(connection.lookupByName(name))
            except self._library.libvirtError as error:
                if error_code(error) not in ignored:
                    raise

        self._call(f"{verb} domain {name}", act, changes=True)

    def _find(self, connection: Connection, name: str) -> Domain | None:
        try:
            return connection.lookupByName(name)
        except self._library.libvirtError as error:
            if error_code(error) == _NO_DOMAIN:
                return None
            raise

    def _call(
        self,
        what: str,
        action: Callable[[Connection], T],
        *,
        changes: bool = False,
        timeout: float | None = None,
        bounded: bool = True,
    ) -> T:
        """Make the call in a task of its own and wait for it no longer than `timeout`.

        One that is not `bounded` takes as long as it takes, and does not count as one that libvirtd leaves hanging.
        """
        outcome: _Outcome[T] = _Outcome()
        done = self._runtime.event("libvirt-call")
        counts = 1 if bounded else 0
        with self._guard:
            if bounded and self._running >= STUCK_LIMIT:
                raise Unavailable(f"cannot {what}: libvirtd at {self._uri} leaves {self._running} calls unanswered")
            self._running += counts

        def work() -> None:
            try:
                outcome.value = self._logged(what, action, changes)
                outcome.good = True
            except Error as error:
                outcome.error = error
            finally:
                with self._guard:
                    self._running -= counts
                done.set()

        self._runtime.spawn("libvirt", work)
        limit = self._timeout if timeout is None else timeout
        if not done.wait(limit):
            text = f"cannot {what}: libvirtd at {self._uri} did not answer within {limit:g} s"
            raise Unknown(f"{text}; it may do it later") if changes else Unavailable(text)
        return outcome.get()

    def _logged(self, what: str, action: Callable[[Connection], T], changes: bool) -> T:
        """One line for each call, in the words of its error: changes and failures at info, good looks at debug."""
        began = self._runtime.monotonic()
        try:
            value = self._exchange(what, action, changes)
        except Error as error:
            _log.info("%s in %.3f s", error, self._runtime.monotonic() - began)
            raise
        level = logging.INFO if changes else logging.DEBUG
        _log.log(level, "%s: done in %.3f s", what, self._runtime.monotonic() - began)
        return value

    def _exchange(self, what: str, action: Callable[[Connection], T], changes: bool) -> T:
        try:
            connection = self._library.open(self._uri)
        except self._library.libvirtError as error:
            raise Unavailable(f"cannot {what}: libvirtd at {self._uri} is not reached: {error_text(error)}") from error
        try:
            return action(connection)
        except self._library.libvirtError as error:
            if not connection.isAlive():
                text = f"cannot {what}: the connection to libvirtd broke: {error_text(error)}"
                raise (Unknown(text) if changes else Unavailable(text)) from error
            raise _translate(what, error) from error
        finally:
            try:
                connection.close()
            except self._library.libvirtError:
                pass


class _Outcome(Generic[T]):
    """Result of a call that ran in another task."""

    def __init__(self) -> None:
        self.value: T | None = None
        self.good = False
        self.error: Error | None = None

    def get(self) -> T:
        if self.good:
            return cast(T, self.value)
        raise self.error or HypervisorRefused("libvirt call ended with an unexpected error; see the agent's log")


def _device(xml: str) -> str:
    """What to call a device in logs and errors: its source, without the rest of its XML."""
    try:
        element = ET.fromstring(xml)
    except ET.ParseError:
        return "a device"
    source = element.find("source")
    return f"{element.tag} {source.get('dev', '')}".strip() if source is not None else element.tag


def _secret_xml(device: str) -> str:
    """Ephemeral: never on disk. Private: given to nobody who asks libvirt."""
    secret = ET.Element("secret", ephemeral="yes", private="yes")
    usage = ET.SubElement(secret, "usage", type="volume")
    ET.SubElement(usage, "volume").text = device
    return ET.tostring(secret, encoding="unicode")


def _translate(what: str, error: Exception) -> Error:
    text = f"cannot {what}: {error_text(error)} (libvirt error {error_code(error)})"
    return _BY_CODE.get(error_code(error), HypervisorRefused)(text)
