"""Live migration of a VM to another host (spec/cloudstack-plugin.md 4.6, in the order of VMM.migrate).

    op_it_work Prepare     Running at the source; PrepareForMigrationCommand to the destination
    op_it_work Migrating   Migrating, with the destination as its host; MigrateCommand to the source
    no op_it_work          Running at one of the two, and the other one has nothing of it, or must confirm that

The row is written before the first command, so whoever comes later, also after a kill, knows which two hosts to ask.
CloudStack takes a MigrateCommand that timed out for a failure and restarts the VM, which may run twice then; here
nothing is decided before a host has said where the guest is.
"""

from __future__ import annotations

import enum
import logging
from contextlib import ExitStack

from harness.cloudstack import settings
from harness.cloudstack.orchestration import objects, placement
from harness.cloudstack.orchestration.confirmation import confirm_stopped, expect_stop
from harness.cloudstack.orchestration.context import LOCK_TIMEOUT, Context
from harness.cloudstack.orchestration.errors import reworded
from harness.cloudstack.orchestration.vm_snapshot_rules import check_idle
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import ATTACHING, CHANGING, DETACHING, HostRow, ItWork, Vm
from harness.spi.commands import (
    AnyCommand,
    CancelMigrationCommand,
    CheckVirtualMachineAnswer,
    CheckVirtualMachineCommand,
    MigrateCommand,
    PrepareForMigrationAnswer,
    PrepareForMigrationCommand,
)
from harness.spi.errors import Conflict, Error, InvalidParameter, Unavailable, Unknown
from harness.spi.objects import VmPower, is_storpool_path
from harness.spi.states import VmEvent, VmState, VolumeState

_log = logging.getLogger("harness.cloudstack.migration")

PREPARE, MIGRATING = "Prepare", "Migrating"
"""Steps of an `op_it_work` row."""
PREPARE_WAIT = 300.0
LOOK_WAIT = 60.0
TRIES = 3
PAUSE = 5.0


class Place(enum.Enum):
    SOURCE = "source"
    """Also when the guest has ended: the source's report, and its stop, follow."""
    DESTINATION = "destination"


class MigrationManager:
    def __init__(self, context: Context) -> None:
        self._context = context

    def migrate(self, vm_id: int, host_id: int) -> Vm:
        """Running -> Migrating -> Running. After an error it is Running at the source as before, except after an
        `Unknown` whose text says otherwise: then it is Migrating until `settle` knows."""
        with self._context.vm_locks.hold(str(vm_id), LOCK_TIMEOUT):
            # A stop that a host has not confirmed yet would meet the VM there.
            confirm_stopped(self._context, vm_id)
            work, command = self._begin(vm_id, host_id)
            try:
                prepared = self._prepare(work, command)
                vm = self._request(work)
            except Error as error:
                self._stays(work)
                raise self._failed(work, error) from error
            migrate = self._migrate_command(vm, prepared)
            try:
                self._context.agents.send(work.source_id, migrate)
            except Unknown as error:
                return self._look_again(work, error)
            except Error as error:
                self._stays(work)
                raise self._failed(work, error) from error
            return self._moved(work, confirmed=True)

    def settle(self, vm_id: int) -> None:
        """For background tasks: end a migration that nobody works on any more, where the guest is; raises while no host
        can tell."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._context.vm_locks.hold(str(vm_id), 0.0))
            except Conflict:
                return  # it is under way
            with self._context.records.read() as tx:
                work = tx.find(ItWork, instance_id=vm_id)
            if work is None:
                return
            if work.step == PREPARE or self._find(work) is Place.SOURCE:
                self._stays(work)
            else:
                self._moved(work, confirmed=False)

    def _begin(self, vm_id: int, host_id: int) -> tuple[ItWork, PrepareForMigrationCommand]:
        with self._context.records.transaction("vm migration") as tx:
            vm = tx.get(Vm, vm_id)
            source_id = check_migratable(tx, vm, tx.get(HostRow, host_id))
            work = tx.insert(
                ItWork(instance_id=vm_id, step=PREPARE, source_id=source_id, resource_id=host_id, created=tx.now)
            )
            machine = objects.virtual_machine(tx, vm)
        return work, PrepareForMigrationCommand(vm=machine, wait=PREPARE_WAIT)

    def _prepare(self, work: ItWork, command: PrepareForMigrationCommand) -> PrepareForMigrationAnswer:
        answer = self._context.agents.send(work.resource_id, command)
        if not isinstance(answer, PrepareForMigrationAnswer):
            raise Error(f"the destination answered a PrepareForMigrationCommand with {type(answer).__name__}")
        return answer

    def _request(self, work: ItWork) -> Vm:
        with self._context.records.transaction("vm migrating") as tx:
            tx.update(work, step=MIGRATING)
            return tx.transition(
                tx.get(Vm, work.instance_id),
                VmEvent.MIGRATION_REQUESTED,
                host_id=work.resource_id,
                last_host_id=work.source_id,
                update_time=tx.now,
            )

    def _migrate_command(self, vm: Vm, prepared: PrepareForMigrationAnswer) -> MigrateCommand:
        with self._context.records.read() as tx:
            return MigrateCommand(
                vm_name=vm.instance_name,
                destination=prepared.destination,
                console=prepared.console,
                auto_convergence=settings.flag(tx, "kvm.auto.convergence"),
                wait=settings.seconds(tx, "migratewait"),
            )

    def _look_again(self, work: ItWork, error: Unknown) -> Vm:
        """After a MigrateCommand without an answer: a success, or an error, as the hosts say by now."""
        for attempt in range(TRIES):
            if attempt:
                self._context.runtime.sleep(PAUSE)
            try:
                place = self._find(work)
            except Error as later:
                _log.warning("where VM %s runs is not known yet: %s", work.instance_id, later)
                continue
            if place is Place.DESTINATION:
                return self._moved(work, confirmed=False)
            self._stays(work)
            raise self._failed(work, error) from error
        failed = self._failed(work, error)
        raise Unknown(f"{failed}; which host runs it is not known, it stays Migrating until they answer") from error

    def _find(self, work: ItWork) -> Place:
        """Where the guest is, once no migration is under way; raises while that is not certain."""
        with self._context.records.read() as tx:
            vm = tx.get(Vm, work.instance_id)
            machine = objects.virtual_machine(tx, vm)
        name = vm.instance_name
        here, problem = self._ask(work.source_id, CancelMigrationCommand(vm_name=name, wait=LOOK_WAIT))
        if here is VmPower.ON:
            return Place.SOURCE
        there, other = self._ask(work.resource_id, CheckVirtualMachineCommand(vm_name=name, wait=LOOK_WAIT))
        if there is VmPower.ON:
            # It ran there only after it had stopped at the source for good.
            return Place.DESTINATION
        for unreached in (problem, other):
            if unreached is not None:
                raise unreached
        if here is VmPower.OFF:
            # No QEMU waits there any longer for one that is gone: a paused one is the guest.
            return Place.DESTINATION if there is VmPower.PAUSED else Place.SOURCE
        if not self._fenced(work.resource_id):
            self._roll_back(work, PrepareForMigrationCommand(vm=machine, rollback=True, wait=PREPARE_WAIT))
        resume = CancelMigrationCommand(vm_name=name, resume=True, wait=LOOK_WAIT)
        here, problem = self._ask(work.source_id, resume)
        if here is None:
            raise problem or Unavailable(f"VM {name} is paused, and its host did not say what it is now")
        return Place.SOURCE

    def _ask(self, host_id: int, command: AnyCommand) -> tuple[VmPower | None, Error | None]:
        """What the host has of the VM, or the error that keeps it from being known."""
        if self._fenced(host_id):
            return VmPower.OFF, None
        try:
            answer = self._context.agents.send(host_id, command)
        except Error as error:
            return None, error
        if not isinstance(answer, CheckVirtualMachineAnswer):
            return None, Error(f"{type(command).__name__} was answered with {type(answer).__name__}")
        return answer.power, None

    def _fenced(self, host_id: int) -> bool:
        """Whether the host is known to be switched off."""
        with self._context.records.read() as tx:
            host = tx.get(HostRow, host_id)
        return host.status == "Down" and host.fenced

    def _roll_back(self, work: ItWork, command: PrepareForMigrationCommand) -> None:
        self._context.agents.send(work.resource_id, command)

    def _stays(self, work: ItWork) -> None:
        """At the source. What the destination has of it is taken away, at once or when it answers."""
        with self._context.records.read() as tx:
            machine = objects.virtual_machine(tx, tx.get(Vm, work.instance_id))
        clean = True
        try:
            self._roll_back(work, PrepareForMigrationCommand(vm=machine, rollback=True, wait=PREPARE_WAIT))
        except Error as error:
            _log.warning("the destination keeps disks of VM %s for now: %s", machine.name, error)
            clean = False
        with self._context.records.transaction("vm not migrated") as tx:
            vm = tx.get(Vm, work.instance_id)
            tx.delete(tx.get(ItWork, work.id))
            if not clean:
                expect_stop(tx, vm, work.resource_id)
            if vm.state is VmState.MIGRATING:
                tx.transition(vm, VmEvent.OPERATION_FAILED, host_id=work.source_id, update_time=tx.now)

    def _moved(self, work: ItWork, *, confirmed: bool) -> Vm:
        """At the destination. Unless it is `confirmed`, the source must still let the disks go."""
        with self._context.records.transaction("vm migrated") as tx:
            vm = tx.get(Vm, work.instance_id)
            tx.delete(tx.get(ItWork, work.id))
            if not confirmed:
                expect_stop(tx, vm, work.source_id)
            vm = tx.transition(vm, VmEvent.OPERATION_SUCCEEDED, host_id=work.resource_id, update_time=tx.now)
        # As CloudStack does; the destination ends what it prepared then.
        _, problem = self._ask(work.resource_id, CheckVirtualMachineCommand(vm_name=vm.instance_name, wait=LOOK_WAIT))
        if problem is not None:
            _log.warning("VM %s was migrated, and its host does not say so yet: %s", vm.instance_name, problem)
        if not confirmed:
            try:
                confirm_stopped(self._context, vm.id)
            except Error as error:
                _log.warning(
                    "VM %s was migrated, and its disks stay at the source for now: %s", vm.instance_name, error
                )
        return vm

    def _failed(self, work: ItWork, error: Error) -> Error:
        with self._context.records.read() as tx:
            vm, host = tx.get(Vm, work.instance_id), tx.get(HostRow, work.resource_id)
        return reworded(error, f"Unable to migrate VM {vm.display_name} to host {host.name}; {error}")


def check_migratable(tx: Transaction, vm: Vm, host: HostRow) -> int:
    """The host that the VM runs on; raises CloudStack's own refusals, close to its words."""
    if vm.state is not VmState.RUNNING or vm.host_id is None:
        raise InvalidParameter(f"VM is not Running, unable to migrate the vm {vm.display_name}: it is {vm.state.value}")
    if host.id == vm.host_id:
        raise InvalidParameter(
            "Cannot migrate VM, VM is already present on this host, please specify valid destination host to migrate"
            f" the VM; {vm.display_name} runs on {host.name}"
        )
    if host.status != "Up" or host.resource_state != "Enabled":
        raise InvalidParameter(
            f"Cannot migrate VM, destination host {host.name} is not in correct state, has status: {host.status},"
            f" state: {host.resource_state}"
        )
    if vm.iso_id is not None or vm.iso_changing:
        raise InvalidParameter(
            f"Cannot migrate VM {vm.display_name}: it has an ISO attached, or one is being attached or detached; detach"
            " it first"
        )
    check_idle(tx, vm.id)
    for volume in objects.volumes_of(tx, vm.id):
        details = tx.details("volume_details", volume.id)
        if volume.state is not VolumeState.READY or any(name in details for name in (ATTACHING, DETACHING, CHANGING)):
            raise InvalidParameter(
                f"Cannot migrate VM {vm.display_name}: its volume {volume.name} is {volume.state.value}, or is being"
                " attached, detached or changed; try again when that is over"
            )
        if volume.path is not None and not is_storpool_path(volume.path):
            raise InvalidParameter(
                f"Cannot migrate VM {vm.display_name}: its volume {volume.name} is not on StorPool, and goes to another"
                " host only while the VM is stopped"
            )
    placement.host_for(tx, vm, wanted=host.id)
    return vm.host_id
