"""Virtual machines: start, stop, destroy, expunge, recover, and power states that agents report
(spec/cloudstack-plugin.md 3.4, 4.4, 4.5, 4.7)."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from harness.cloudstack import settings
from harness.cloudstack.orchestration import objects, placement
from harness.cloudstack.orchestration.attachment import AttachmentManager
from harness.cloudstack.orchestration.confirmation import STOP_WAIT, confirm_stopped, expect_stop
from harness.cloudstack.orchestration.context import LOCK_TIMEOUT, Context
from harness.cloudstack.orchestration.errors import reworded
from harness.cloudstack.orchestration.vm_snapshot import VmSnapshotManager
from harness.cloudstack.orchestration.vm_snapshot_rules import check_idle, check_startable
from harness.cloudstack.orchestration.volume import VolumeManager
from harness.cloudstack.records.rows import Vm, Volume
from harness.spi.commands import StartCommand, StopCommand
from harness.spi.errors import Conflict, Error, InsufficientCapacity, InvalidParameter, Unknown
from harness.spi.objects import VmPower, VolumeType
from harness.spi.states import VmEvent, VmState, VolumeEvent, VolumeState

_log = logging.getLogger("harness.cloudstack.vm")

START_WAIT = 300.0
START_TRIES = 3
"""Hosts tried for one start."""


class VmManager:
    def __init__(
        self,
        context: Context,
        volumes: VolumeManager,
        attachments: AttachmentManager,
        vm_snapshots: VmSnapshotManager,
    ) -> None:
        self._context = context
        self._volumes = volumes
        self._attachments = attachments
        self._vm_snapshots = vm_snapshots

    def deploy(self, vm_id: int, host_id: int | None = None) -> Vm:
        """The first start. When it fails the VM is in Error and its new volumes are destroyed."""
        with self._context.vm_locks.hold(str(vm_id), LOCK_TIMEOUT):
            try:
                return self._start(vm_id, host_id)
            except Error:
                # Under the same lock: nobody attaches a volume of his to a VM that is about to be in Error.
                self._fail_deploy(vm_id)
                raise

    def start(self, vm_id: int, host_id: int | None = None) -> Vm:
        """Stopped -> Starting -> Running; after an error Stopped, with nothing left on any host that answered."""
        with self._context.vm_locks.hold(str(vm_id), LOCK_TIMEOUT):
            return self._start(vm_id, host_id)

    def stop(self, vm_id: int, forced: bool = False) -> Vm:
        """Running -> Stopping -> Stopped. After an error Running again, unless `forced`: then Stopped, and the host
        must confirm it before the VM starts anywhere."""
        with self._context.vm_locks.hold(str(vm_id), LOCK_TIMEOUT):
            return self._stop(vm_id, VmEvent.STOP_REQUESTED, forced)

    def destroy(self, vm_id: int) -> Vm:
        """Stop, detach the DATA volumes, delete the VM snapshots, then Destroyed with the ROOT volume in Destroy."""
        with self._context.vm_locks.hold(str(vm_id), LOCK_TIMEOUT):
            with self._context.records.read() as tx:
                vm = tx.get(Vm, vm_id)
                check_idle(tx, vm_id)
                forced = settings.flag(tx, "vm.destroy.forcestop")
            if vm.state is VmState.DESTROYED:
                return vm
            if vm.state not in (VmState.STOPPED, VmState.ERROR):
                self._stop(vm_id, VmEvent.STOP_REQUESTED, forced)
            confirm_stopped(self._context, vm_id)
            self._release_data_volumes(vm_id)
            self._vm_snapshots.delete_all(vm_id)
            with self._context.records.transaction("vm destroyed") as tx:
                vm = tx.transition(tx.get(Vm, vm_id), VmEvent.DESTROY_REQUESTED, update_time=tx.now)
                for row in objects.volumes_of(tx, vm_id):
                    if row.state is not VolumeState.DESTROY:
                        tx.transition(row, VolumeEvent.DESTROY_REQUESTED, updated=tx.now)
                return vm

    def recover(self, vm_id: int) -> Vm:
        """Destroyed -> Stopped, its ROOT volume Destroy -> Ready."""
        with self._context.vm_locks.hold(str(vm_id), LOCK_TIMEOUT):
            with self._context.records.transaction("vm recovered") as tx:
                vm = tx.transition(tx.get(Vm, vm_id), VmEvent.RECOVERY_REQUESTED, update_time=tx.now)
                for row in objects.volumes_of(tx, vm_id):
                    if row.state is not VolumeState.DESTROY:
                        continue
                    row = tx.transition(row, VolumeEvent.RECOVER_REQUESTED, updated=tx.now)
                    if row.path is None and row.pool_id is not None:
                        # Destroyed while it was being made: it is on no pool, and made at its next use.
                        tx.update(row, pool_id=None, last_pool_id=row.pool_id)
                return vm

    def expunge(self, vm_id: int) -> None:
        """Expunging, then removed with its ROOT volume. May be called again after an error."""
        self._expunge(vm_id, LOCK_TIMEOUT)

    def expunge_again(self, vm_id: int) -> None:
        """As `expunge`, for background tasks: `Conflict` when an operation is under way on the VM."""
        self._expunge(vm_id, 0.0)

    def _expunge(self, vm_id: int, patience: float) -> None:
        with self._context.vm_locks.hold(str(vm_id), patience):
            confirm_stopped(self._context, vm_id)
            with self._context.records.transaction("vm expunge") as tx:
                vm = tx.get(Vm, vm_id)
                if vm.removed is not None:
                    return
                check_idle(tx, vm_id)
                vm = tx.transition(vm, VmEvent.EXPUNGE_OPERATION, update_time=tx.now)
            self._release_data_volumes(vm_id)
            self._vm_snapshots.delete_all(vm_id)
            with self._context.records.read() as tx:
                rows = objects.volumes_of(tx, vm_id)
            for row in rows:
                self._expunge_root(row)
            with self._context.records.transaction("vm expunged") as tx:
                tx.update(vm, removed=tx.now)
                tx.execute("UPDATE nics SET removed = ? WHERE instance_id = ?", (tx.now, vm_id))
                tx.execute("DELETE FROM user_vm_details WHERE resource_id = ?", (vm_id,))
                tx.execute("DELETE FROM resource_tags WHERE resource_type = 'UserVm' AND resource_uuid = ?", (vm.uuid,))

    def running_on(self, host_id: int) -> dict[int, Vm]:
        """VMs that run on the host, by row id."""
        with self._context.records.read() as tx:
            return {vm.id: vm for vm in tx.all(Vm, host_id=host_id, state=VmState.RUNNING, removed=None)}

    def power_report(self, host_id: int, report: Mapping[str, VmPower], before: Mapping[int, Vm]) -> None:
        """Stop, in the records and on the host, VMs whose guest shut itself down or whose QEMU is gone.

        `before` is what `running_on` gave before the report was asked for: a VM that changed since is left alone. That
        is seen by comparing, because a wall clock may be set back meanwhile.
        """
        if all(report.get(vm.instance_name, VmPower.OFF) is not VmPower.OFF for vm in before.values()):
            return
        for vm in self.running_on(host_id).values():
            power = report.get(vm.instance_name, VmPower.OFF)
            if power is VmPower.OFF and before.get(vm.id) == vm:
                self._reported_off(vm)

    def confirm_stopped(self, vm_id: int) -> None:
        """Have every host that may still run the VM confirm that it does not; raises while one cannot.

        For background tasks: `Conflict` when an operation is under way on the VM.
        """
        with self._context.vm_locks.hold(str(vm_id), 0.0):
            confirm_stopped(self._context, vm_id)

    def lost(self, vm_id: int, host_id: int, tries: int) -> None:
        """The host was fenced, and has none of the VM's volumes any more: a VM that ran there is Stopped.

        The caller holds the VM. `tries`: how often it may be started elsewhere because of that.
        """
        with self._context.records.transaction("vm lost") as tx:
            tx.execute("DELETE FROM op_ha_work WHERE instance_id = ? AND host_id = ?", (vm_id, host_id))
            vm = tx.get(Vm, vm_id)
            if vm.state is not VmState.RUNNING or vm.host_id != host_id:
                return
            vm = tx.transition(vm, VmEvent.AGENT_REPORT_STOPPED, update_time=tx.now)
            tx.transition(
                vm,
                VmEvent.OPERATION_SUCCEEDED,
                host_id=None,
                last_host_id=host_id,
                update_time=tx.now,
                ha_tries=tries,
            )

    def start_lost(self, vm_id: int) -> bool:
        """Start a VM that was lost, once; whether it was. `Conflict` when an operation is under way on it."""
        with self._context.vm_locks.hold(str(vm_id), 0.0):
            with self._context.records.transaction("ha start") as tx:
                vm = tx.get(Vm, vm_id)
                if vm.removed is not None or vm.state is not VmState.STOPPED or vm.ha_tries == 0:
                    return False
                tx.update(vm, ha_tries=vm.ha_tries - 1)
            self._start(vm_id, None)
            return True

    def reset_interrupted(self, vm_id: int) -> None:
        """After a restart: a VM in Starting or Stopping is stopped where it was."""
        with self._context.vm_locks.hold(str(vm_id), LOCK_TIMEOUT):
            with self._context.records.transaction("vm interrupted") as tx:
                vm = tx.get(Vm, vm_id)
                if vm.state not in (VmState.STARTING, VmState.STOPPING):
                    return
                event = VmEvent.OPERATION_FAILED if vm.state is VmState.STARTING else VmEvent.OPERATION_SUCCEEDED
                if vm.host_id is not None:
                    expect_stop(tx, vm, vm.host_id)
                tx.transition(vm, event, host_id=None, last_host_id=vm.host_id, update_time=tx.now)
            confirm_stopped(self._context, vm_id)

    def _start(self, vm_id: int, host_id: int | None) -> Vm:
        confirm_stopped(self._context, vm_id)
        self._attachments.release_detaching(vm_id)
        failed: dict[int, Error] = {}
        while True:
            vm = self._begin_start(vm_id, host_id, failed)
            error = self._start_on(vm)
            if error is None:
                return self._started(vm)
            self._not_started(vm, error)
            failed[vm.host_id or 0] = error
            if not _worth_another_host(error) or len(failed) >= START_TRIES or host_id is not None:
                raise reworded(error, f"Unable to start VM {vm.display_name}; {error}") from error

    def _begin_start(self, vm_id: int, wanted: int | None, failed: Mapping[int, Error]) -> Vm:
        with self._context.records.transaction("vm start") as tx:
            vm = tx.get(Vm, vm_id)
            check_startable(tx, vm)
            try:
                placement.check_pools(tx, vm)
                host = placement.host_for(tx, vm, failed, wanted)
            except InsufficientCapacity as error:
                cause: Error = list(failed.values())[-1] if failed else error
                raise reworded(cause, f"Unable to start VM {vm.display_name}; {cause}") from error
            return tx.transition(vm, VmEvent.START_REQUESTED, host_id=host.id, update_time=tx.now)

    def _start_on(self, vm: Vm) -> Error | None:
        """Volumes, then the StartCommand. An error of the host is given back: another one may do better."""
        host_id = vm.host_id
        if host_id is None:
            raise InvalidParameter(f"VM {vm.instance_name} has no host to start on")
        try:
            with self._context.records.read() as tx:
                volumes = objects.volumes_of(tx, vm.id)
            for volume in volumes:
                self._volumes.ensure_ready(volume.id, host_id)
        except Error as error:
            self._not_started(vm, None)
            raise reworded(error, f"Unable to start VM {vm.display_name}; {error}") from error
        with self._context.records.read() as tx:
            command = StartCommand(vm=objects.virtual_machine(tx, vm), wait=START_WAIT)
        try:
            self._context.agents.send(host_id, command)
        except Error as error:
            return error
        return None

    def _started(self, vm: Vm) -> Vm:
        with self._context.records.transaction("vm started") as tx:
            return tx.transition(
                vm,
                VmEvent.OPERATION_SUCCEEDED,
                last_host_id=vm.host_id,
                update_time=tx.now,
                ha_tries=0,
            )

    def _not_started(self, vm: Vm, error: Error | None) -> None:
        """Starting -> Stopped. Where the outcome is not known, the host must confirm that the VM is not there."""
        with self._context.records.transaction("vm not started") as tx:
            if isinstance(error, Unknown) and vm.host_id is not None:
                expect_stop(tx, vm, vm.host_id)
            tx.transition(vm, VmEvent.OPERATION_FAILED, host_id=None, update_time=tx.now)
        if isinstance(error, Unknown):
            try:
                confirm_stopped(self._context, vm.id)
            except Error as later:
                _log.warning("VM %s may be starting on a host that does not answer: %s", vm.instance_name, later)

    def _fail_deploy(self, vm_id: int) -> None:
        with self._context.records.transaction("vm error") as tx:
            vm = tx.get(Vm, vm_id)
            if vm.state is not VmState.STOPPED:
                return
            tx.transition(vm, VmEvent.OPERATION_FAILED_TO_ERROR, update_time=tx.now)
            rows = objects.volumes_of(tx, vm_id)
            for row in rows:
                if row.attached is not None:
                    # The deploy did not make it: it is the user's, and the VM only borrowed it.
                    tx.update(row, instance_id=None, device_id=None, attached=None)
                elif row.state is not VolumeState.DESTROY:
                    tx.transition(row, VolumeEvent.DESTROY_REQUESTED, updated=tx.now)
        for row in rows:
            if row.attached is not None:
                # If the start made it, it was made with the VM's tags.
                self._volumes.tell_detached(row)

    def _stop(self, vm_id: int, event: VmEvent, forced: bool) -> Vm:
        with self._context.records.transaction("vm stop") as tx:
            vm = tx.get(Vm, vm_id)
            if vm.ha_tries:
                # Who asks for a stop does not want it started elsewhere either.
                vm = tx.update(vm, ha_tries=0)
            vm = tx.transition(vm, event, update_time=tx.now)
            if vm.state is VmState.STOPPED or vm.host_id is None:
                return vm
            command = StopCommand(
                vm_name=vm.instance_name,
                force=forced or event is VmEvent.AGENT_REPORT_STOPPED,
                volumes_to_disconnect=objects.paths_of(tx, vm_id),
                wait=STOP_WAIT,
            )
            host_id = vm.host_id
        try:
            self._context.agents.send(host_id, command)
        except Error as error:
            if not forced:
                with self._context.records.transaction("vm not stopped") as tx:
                    tx.transition(vm, VmEvent.OPERATION_FAILED, update_time=tx.now)
                raise reworded(error, f"Unable to stop VM {vm.display_name}; {error}") from error
            _log.warning("VM %s is marked Stopped although its host did not confirm: %s", vm.instance_name, error)
            return self._stopped(vm, host_id, confirmed=False)
        return self._stopped(vm, host_id, confirmed=True)

    def _stopped(self, vm: Vm, host_id: int, confirmed: bool) -> Vm:
        with self._context.records.transaction("vm stopped") as tx:
            if not confirmed:
                expect_stop(tx, vm, host_id)
            return tx.transition(
                vm,
                VmEvent.OPERATION_SUCCEEDED,
                host_id=None,
                last_host_id=host_id,
                update_time=tx.now,
            )

    def _reported_off(self, vm: Vm) -> None:
        try:
            with self._context.vm_locks.hold(str(vm.id), 0.0):
                with self._context.records.read() as tx:
                    now = tx.get(Vm, vm.id)
                if now == vm:
                    self._stop(vm.id, VmEvent.AGENT_REPORT_STOPPED, forced=False)
        except Conflict:
            return  # an operation is under way on this VM; the next report comes
        except Error as error:
            _log.warning("VM %s is off, its host could not let its volumes go: %s", vm.instance_name, error)

    def _release_data_volumes(self, vm_id: int) -> None:
        with self._context.records.read() as tx:
            rows = [row for row in objects.volumes_of(tx, vm_id) if row.volume_type is VolumeType.DATADISK]
        for row in rows:
            if row.state is not VolumeState.DESTROY:
                self._attachments.release(row)

    def _expunge_root(self, row: Volume) -> None:
        if row.state is not VolumeState.DESTROY and row.state is not VolumeState.EXPUNGING:
            with self._context.records.transaction("volume destroy") as tx:
                tx.transition(tx.get(Volume, row.id), VolumeEvent.DESTROY_REQUESTED, updated=tx.now)
        self._volumes.expunge(row.id)


def _worth_another_host(error: Error) -> bool:
    """Not when the host may still be starting the VM, and not when the request itself is wrong."""
    return not isinstance(error, Unknown | InvalidParameter | InsufficientCapacity)
