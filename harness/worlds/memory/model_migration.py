"""Live migration between two model machines, as libvirt conducts it peer to peer (spec/lab-facts.md section 4).

Both QEMUs have the disks open all the time; one of them may write. The steps:

    begin       the destination's QEMU starts, opens the disks and waits
    perform     memory is copied while the guest runs at the source
    hand over   the source stops; from here on it does not know what the destination does
    finish      the guest runs at the destination
    confirm     the source's QEMU ends, and its domain is forgotten

Before the hand over anything that fails leaves the guest where it was. A libvirtd that dies after it leaves the source
paused, for whoever knows whether the destination runs the guest.

Kinder than the real thing: memory is copied at one speed, whatever the guest writes and whether it converges; and what
is in the CD drive is not opened at the destination, as CloudStack migrates no VM with an ISO.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from urllib.parse import urlsplit

from harness.spi.errors import Error
from harness.spi.ports import DomainState
from harness.worlds.memory.machine import Machine
from harness.worlds.memory.model_domain import ModelDomain, ModelMigration
from harness.worlds.memory.model_domain_xml import read_domain

COPY_SECONDS = (1.0, 3.0)
"""How long the memory of a guest takes."""
SLOWDOWN = 64.0
NOTICED_SECONDS = 1.0
_ON = (DomainState.RUNNING, DomainState.PAUSED)


class _Broken(Exception):
    """The migration comes to nothing; the text is libvirt's."""


def begin(source: Machine, domain: ModelDomain, uri: str, xml: str) -> ModelMigration:
    """Start to move the domain to the libvirtd at `uri`, where it becomes `xml`; it goes on by itself.

    Raises `Error` for what libvirt refuses at once.
    """
    if domain.migration is not None:
        raise Error(f"cannot acquire state change lock: domain '{domain.name}' is being migrated")
    peer = source.peers.get(urlsplit(uri).hostname or "")
    if peer is None or peer.libvirtd_gone or peer.unreached:
        raise Error(f"unable to connect to server at '{uri}': Connection refused")
    wanted = read_domain(xml)
    live = [(disk.source, disk.target, disk.serial) for disk in domain.disks]
    if (wanted.name, wanted.uuid) != (domain.name, domain.uuid):
        raise Error("unsupported configuration: target domain name or uuid does not match source")
    if [(disk.source, disk.target, disk.serial) for disk in wanted.disks] != live:
        raise Error("unsupported configuration: target domain's disks do not match the source's")
    job = domain.migration = ModelMigration(source.runtime.event(f"cancelling the migration of {domain.name}"))
    source.runtime.spawn(f"migrate {domain.name}", lambda: _conduct(source, domain, peer, wanted, job))
    return job


def _conduct(source: Machine, domain: ModelDomain, peer: Machine, wanted: ModelDomain, job: ModelMigration) -> None:
    try:
        _steps(source, domain, peer, wanted, job)
    except _Broken as error:
        job.error = str(error)
    domain.migration = None
    job.over = True
    for listener in job.listeners:
        listener.deliver()


def _steps(source: Machine, domain: ModelDomain, peer: Machine, wanted: ModelDomain, job: ModelMigration) -> None:
    runtime, name, boot_id = source.runtime, domain.name, domain.boot_id
    runtime.point("effect-begin", f"{source.name}: migration of {name} begins")
    _check_source(source, domain, boot_id)
    arriving = _incoming(domain, wanted)
    try:
        _at(source, peer, "arrives", name, lambda: _take_in(peer, arriving))
        low, high = COPY_SECONDS
        seconds = low + (high - low) * runtime.random()
        seconds *= SLOWDOWN if domain.slow else 1.0
        for _ in range(2):
            runtime.point("effect-begin", f"{source.name}: migration of {name} copies memory")
            _copy(seconds / 2, job, lambda: _check(source, domain, boot_id, peer, arriving))
    except _Broken:
        _give_up(peer, arriving)
        raise
    _hand_over(source, domain, peer, arriving, boot_id)


def _copy(seconds: float, job: ModelMigration, check: Callable[[], None]) -> None:
    """Copy for so long, and notice soon when one of the two QEMUs, or libvirtds, is gone."""
    while seconds > 0:
        if job.cancel.wait(min(seconds, NOTICED_SECONDS)):
            raise _Broken("operation aborted: migration out job: canceled by client")
        check()
        seconds -= NOTICED_SECONDS


def _check(source: Machine, domain: ModelDomain, boot_id: str, peer: Machine, arriving: ModelDomain) -> None:
    _check_source(source, domain, boot_id)
    _check_peer(peer, arriving)


def _hand_over(source: Machine, domain: ModelDomain, peer: Machine, arriving: ModelDomain, boot_id: str) -> None:
    runtime, name = source.runtime, domain.name
    before, arriving.state = domain.state, DomainState.PAUSED
    arriving.unplugging = list(domain.unplugging)
    domain.state, domain.inactive = DomainState.PAUSED, True
    source.storage.touch(domain)
    runtime.point("effect-begin", f"{source.name}: migration of {name} hands over")
    gone = domain.boot_id != boot_id
    if gone or source.libvirtd_gone:
        # The destination's libvirtd sees the connection end, and its QEMU with it.
        _give_up(peer, arriving)
        raise _Broken("domain is not running" if gone else "End of file while reading data: Input/output error")
    try:
        _at(source, peer, "finishes", name, lambda: _finish(peer, arriving, before))
    except _Broken:
        _give_up(peer, arriving)
        if domain.boot_id == boot_id and not source.libvirtd_gone:
            domain.state, domain.inactive = before, False
            source.storage.touch(domain)
        raise
    domain.moved_to = (peer, arriving)
    runtime.point("effect-end", f"{source.name}: migration of {name} is confirmed")
    if domain.boot_id != boot_id:
        return
    if source.libvirtd_gone:
        raise _Broken("End of file while reading data: Input/output error")
    source.power_off(domain)
    source.domains.pop(name, None)


def _at(source: Machine, peer: Machine, verb: str, name: str, step: Callable[[], None]) -> None:
    """Have a task of the other host do its part."""
    done = source.runtime.event(f"the migration of {name} {verb} at {peer.name}")
    problems: list[_Broken] = []

    def work() -> None:
        try:
            peer.runtime.point("effect-begin", f"{peer.name}: migration of {name} {verb}")
            step()
        except _Broken as error:
            problems.append(error)
        finally:
            done.deliver()

    peer.runtime.spawn(f"migration of {name}", work)
    done.wait()
    if problems:
        raise problems[0]


def _incoming(domain: ModelDomain, wanted: ModelDomain) -> ModelDomain:
    """What the destination's QEMU starts with; libvirt brings the definition for later starts along."""
    devices = wanted.defined.find("devices")
    if devices is not None:
        for disk in devices.findall("disk"):
            devices.remove(disk)
        devices.extend(copy.deepcopy(disk) for disk in domain.defined.iterfind("./devices/disk"))
    wanted.ports = domain.ports
    wanted.transient = wanted.inactive = True
    wanted.state = DomainState.PAUSED
    wanted.boot, wanted.boot_id, wanted.up_at = domain.boot, domain.boot_id, domain.up_at
    return wanted


def _take_in(peer: Machine, arriving: ModelDomain) -> None:
    present = peer.domains.get(arriving.name)
    if peer.libvirtd_gone:
        raise _Broken("unable to connect to server: Connection refused")
    if present is not None and (present.state in _ON or present.uuid != arriving.uuid):
        raise _Broken(f"operation failed: domain '{arriving.name}' already exists with uuid {present.uuid}")
    try:
        peer.storage.open_all(arriving)
    except Error as error:
        raise _Broken(str(error)) from error
    peer.domains[arriving.name] = arriving


def _finish(peer: Machine, arriving: ModelDomain, state: DomainState) -> None:
    _check_peer(peer, arriving)
    arriving.state = state
    arriving.transient = arriving.inactive = False
    peer.storage.touch(arriving)
    if arriving.unplugging and state is DomainState.RUNNING:
        peer.let_go(arriving)


def _give_up(peer: Machine, arriving: ModelDomain) -> None:
    """The QEMU that waited ends, and its domain is forgotten."""
    if peer.domains.get(arriving.name) is arriving and arriving.inactive:
        peer.power_off(arriving)


def _check_source(source: Machine, domain: ModelDomain, boot_id: str) -> None:
    if domain.boot_id != boot_id:
        raise _Broken("operation failed: domain is not running")
    if source.libvirtd_gone:
        raise _Broken("End of file while reading data: Input/output error")


def _check_peer(peer: Machine, arriving: ModelDomain) -> None:
    if peer.domains.get(arriving.name) is not arriving:
        raise _Broken("operation failed: migration out job: Unable to write to socket: Broken pipe")
    if peer.libvirtd_gone:
        raise _Broken("internal error: client socket is closed")
