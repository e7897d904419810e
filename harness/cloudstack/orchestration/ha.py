"""Hosts that are lost: fenced first, then their VMs are stopped in the records, and started elsewhere if they may be
(spec/cloudstack-plugin.md 5.6).

Nothing that a lost host had goes elsewhere until it is known to be switched off. The original reset a host when one
look at StorPool failed, and detached by force without knowing whether the old QEMU was dead.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from harness.cloudstack.orchestration import objects
from harness.cloudstack.orchestration.context import Context
from harness.cloudstack.orchestration.hosts import HostManager, host_object
from harness.cloudstack.orchestration.vm import VmManager
from harness.cloudstack.records.rows import HaWork, HostRow, ItWork, ServiceOffering, Vm
from harness.spi.errors import Conflict, Error, Unknown
from harness.spi.states import VmState

_log = logging.getLogger("harness.cloudstack.ha")

TRIES = 5
"""Starts of a VM after its host was lost."""
SHUN_SECONDS = 600.0
"""After which a request that was never answered is taken to be dead."""


class Fence(Protocol):
    """How one host is switched off from outside, whatever its system does."""

    def fence(self) -> None:
        """Returns when nothing runs on the host any more, also when it was off. Any `Error`: that is not known."""
        ...


class HighAvailability:
    def __init__(
        self,
        context: Context,
        vms: VmManager,
        hosts: HostManager,
        fences: Mapping[str, Fence],
    ) -> None:
        """A host is lost when it has not answered pings of this server for as long as `HostManager.patience` says.

        One that is Down may only be slow: it is so at its first silence when another server died, or when this one was
        busy for so long.
        """
        self._context = context
        self._vms = vms
        self._hosts = hosts
        self._fences = dict(fences)

    def tend(self) -> None:
        """Now and then: fence hosts that are Down and may be, see to their VMs, start those that wait for it."""
        with self._context.records.read() as tx:
            down = [(host, self._hosts.patience(tx, host)) for host in tx.all(HostRow, status="Down", ha_enabled=True)]
        for host, patience in down:
            if self._hosts.silent_for(host.id) < patience:
                continue
            try:
                self._lost(host)
            except Error as error:
                _log.warning("host %s is lost, its VMs stay as they are: %s", host.name, error)
        with self._context.records.read() as tx:
            waiting = tx.select(Vm, "removed IS NULL AND state = 'Stopped' AND ha_tries > 0 ORDER BY id")
        for vm in waiting:
            self._start(vm)

    def _lost(self, host: HostRow) -> None:
        with self._context.records.read() as tx:
            vms = tx.all(Vm, host_id=host.id, state=VmState.RUNNING, removed=None)
            works = tx.all(HaWork, host_id=host.id)
            migrations = tx.select(ItWork, "source_id = ? OR resource_id = ?", (host.id, host.id))
        if not vms and not works and not migrations:
            return
        with self._context.records.read() as tx:
            host = tx.get(HostRow, host.id)
        if host.status != "Down":
            return
        if not host.fenced:
            self._fence(host)
        for vm_id in dict.fromkeys([*(vm.id for vm in vms), *(work.instance_id for work in works)]):
            try:
                with self._context.vm_locks.hold(str(vm_id), 0.0):
                    self._release(vm_id, host)
            except Conflict:
                continue  # an operation is under way on this VM; the next turn comes

    def _fence(self, host: HostRow) -> None:
        fence = self._fences.get(host.name)
        if fence is None:
            raise Error(f"there is no way to switch host {host.name} off; see that it is off, then start it again")
        fence.fence()
        _log.warning("host %s was fenced", host.name)
        with self._context.records.transaction("host fenced") as tx:
            row = tx.get(HostRow, host.id)
            if row.status == "Down":
                tx.update(row, fenced=True)

    def _release(self, vm_id: int, host: HostRow) -> None:
        """Detach the VM's volumes from the host, which is off; then the VM is stopped. The caller holds the VM."""
        with self._context.records.read() as tx:
            row, vm = tx.get(HostRow, host.id), tx.get(Vm, vm_id)
            volumes = [objects.volume_object(tx, volume) for volume in objects.volumes_of(tx, vm_id) if volume.path]
            offering = tx.get(ServiceOffering, vm.service_offering_id)
        if row.status != "Down" or not row.fenced:
            return
        for volume in volumes:
            try:
                self._context.driver.release_fenced(volume, host_object(row))
            except Unknown:
                with self._context.records.transaction("host shunned") as tx:
                    tx.update(tx.get(HostRow, host.id), shunned_until=tx.now + SHUN_SECONDS)
                raise
        self._vms.lost(vm_id, host.id, TRIES if offering.ha_enabled else 0)

    def _start(self, vm: Vm) -> None:
        try:
            started = self._vms.start_lost(vm.id)
        except Conflict:
            return
        except Error as error:
            _log.warning("VM %s is not started elsewhere yet: %s", vm.instance_name, error)
            return
        if started:
            _log.warning("VM %s was started elsewhere, for its host was lost", vm.instance_name)
