"""CloudStack's state machines (spec/cloudstack-plugin.md section 3). A transition that is not listed is an error."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Generic, TypeVar

from harness.spi.errors import IllegalTransition

S = TypeVar("S", bound=enum.StrEnum)
E = TypeVar("E", bound=enum.StrEnum)


class StateMachine(Generic[S, E]):
    """A named table of (state, event) -> state."""

    def __init__(self, name: str, transitions: Mapping[tuple[S, E], S]) -> None:
        self.name = name
        self.transitions = dict(transitions)

    def after(self, state: S, event: E) -> S:
        """The state after `event`; raises `IllegalTransition` when the table does not know the pair."""
        try:
            return self.transitions[(state, event)]
        except KeyError:
            raise IllegalTransition(self.name, state, event) from None


class VolumeState(enum.StrEnum):
    """`Volume.State` (section 3.1); those that end in -ing are transitional."""

    ALLOCATED = "Allocated"
    CREATING = "Creating"
    READY = "Ready"
    MIGRATING = "Migrating"
    SNAPSHOTTING = "Snapshotting"
    REVERT_SNAPSHOTTING = "RevertSnapshotting"
    RESIZING = "Resizing"
    ATTACHING = "Attaching"
    DESTROY = "Destroy"
    EXPUNGING = "Expunging"
    EXPUNGED = "Expunged"


class VolumeEvent(enum.StrEnum):
    CREATE_REQUESTED = "CreateRequested"
    OPERATION_RETRY = "OperationRetry"
    OPERATION_SUCCEEDED = "OperationSucceeded"
    OPERATION_FAILED = "OperationFailed"
    RESIZE_REQUESTED = "ResizeRequested"
    SNAPSHOT_REQUESTED = "SnapshotRequested"
    REVERT_SNAPSHOT_REQUESTED = "RevertSnapshotRequested"
    MIGRATION_REQUESTED = "MigrationRequested"
    ATTACH_REQUESTED = "AttachRequested"
    DESTROY_REQUESTED = "DestroyRequested"
    RECOVER_REQUESTED = "RecoverRequested"
    EXPUNGING_REQUESTED = "ExpungingRequested"


def _volume_transitions() -> dict[tuple[VolumeState, VolumeEvent], VolumeState]:
    state, event = VolumeState, VolumeEvent
    table = {
        (state.ALLOCATED, event.CREATE_REQUESTED): state.CREATING,
        (state.CREATING, event.OPERATION_SUCCEEDED): state.READY,
        (state.CREATING, event.OPERATION_FAILED): state.ALLOCATED,
        (state.CREATING, event.OPERATION_RETRY): state.CREATING,
        (state.CREATING, event.CREATE_REQUESTED): state.CREATING,
        (state.READY, event.CREATE_REQUESTED): state.CREATING,
        (state.DESTROY, event.RECOVER_REQUESTED): state.READY,
        (state.DESTROY, event.EXPUNGING_REQUESTED): state.EXPUNGING,
        (state.EXPUNGING, event.EXPUNGING_REQUESTED): state.EXPUNGING,
        (state.EXPUNGING, event.OPERATION_SUCCEEDED): state.EXPUNGED,
        (state.EXPUNGING, event.OPERATION_FAILED): state.DESTROY,
    }
    for requested, during in (
        (event.RESIZE_REQUESTED, state.RESIZING),
        (event.SNAPSHOT_REQUESTED, state.SNAPSHOTTING),
        (event.REVERT_SNAPSHOT_REQUESTED, state.REVERT_SNAPSHOTTING),
        (event.MIGRATION_REQUESTED, state.MIGRATING),
        (event.ATTACH_REQUESTED, state.ATTACHING),
    ):
        table[(state.READY, requested)] = during
        table[(during, event.OPERATION_SUCCEEDED)] = state.READY
        table[(during, event.OPERATION_FAILED)] = state.READY
    for origin in (state.READY, state.ALLOCATED, state.CREATING):
        table[(origin, event.DESTROY_REQUESTED)] = state.DESTROY
    return table


VOLUME_STATES = StateMachine("volume", _volume_transitions())


class SnapshotState(enum.StrEnum):
    """`Snapshot.State` (section 3.2)."""

    ALLOCATED = "Allocated"
    CREATING = "Creating"
    CREATED_ON_PRIMARY = "CreatedOnPrimary"
    BACKING_UP = "BackingUp"
    BACKED_UP = "BackedUp"
    COPYING = "Copying"
    DESTROYING = "Destroying"
    DESTROYED = "Destroyed"
    ERROR = "Error"


class SnapshotEvent(enum.StrEnum):
    CREATE_REQUESTED = "CreateRequested"
    OPERATION_SUCCEEDED = "OperationSucceeded"
    OPERATION_NOT_PERFORMED = "OperationNotPerformed"
    OPERATION_FAILED = "OperationFailed"
    BACKUP_TO_SECONDARY = "BackupToSecondary"
    DESTROY_REQUESTED = "DestroyRequested"
    COPYING_REQUESTED = "CopyingRequested"


SNAPSHOT_STATES = StateMachine(
    "snapshot",
    {
        (SnapshotState.ALLOCATED, SnapshotEvent.CREATE_REQUESTED): SnapshotState.CREATING,
        (SnapshotState.CREATING, SnapshotEvent.OPERATION_SUCCEEDED): SnapshotState.CREATED_ON_PRIMARY,
        (SnapshotState.CREATING, SnapshotEvent.OPERATION_NOT_PERFORMED): SnapshotState.BACKED_UP,
        (SnapshotState.CREATING, SnapshotEvent.OPERATION_FAILED): SnapshotState.ERROR,
        (SnapshotState.CREATED_ON_PRIMARY, SnapshotEvent.BACKUP_TO_SECONDARY): SnapshotState.BACKING_UP,
        (SnapshotState.CREATED_ON_PRIMARY, SnapshotEvent.OPERATION_NOT_PERFORMED): SnapshotState.BACKED_UP,
        (SnapshotState.BACKING_UP, SnapshotEvent.OPERATION_SUCCEEDED): SnapshotState.BACKED_UP,
        (SnapshotState.BACKING_UP, SnapshotEvent.OPERATION_NOT_PERFORMED): SnapshotState.BACKED_UP,
        (SnapshotState.BACKING_UP, SnapshotEvent.OPERATION_FAILED): SnapshotState.ERROR,
        (SnapshotState.BACKING_UP, SnapshotEvent.BACKUP_TO_SECONDARY): SnapshotState.BACKING_UP,
        (SnapshotState.BACKED_UP, SnapshotEvent.DESTROY_REQUESTED): SnapshotState.DESTROYING,
        (SnapshotState.BACKED_UP, SnapshotEvent.COPYING_REQUESTED): SnapshotState.COPYING,
        (SnapshotState.BACKED_UP, SnapshotEvent.BACKUP_TO_SECONDARY): SnapshotState.BACKING_UP,
        (SnapshotState.COPYING, SnapshotEvent.OPERATION_SUCCEEDED): SnapshotState.BACKED_UP,
        (SnapshotState.COPYING, SnapshotEvent.OPERATION_FAILED): SnapshotState.BACKED_UP,
        (SnapshotState.DESTROYING, SnapshotEvent.OPERATION_SUCCEEDED): SnapshotState.DESTROYED,
        (SnapshotState.DESTROYING, SnapshotEvent.OPERATION_FAILED): SnapshotState.BACKED_UP,
    },
)


class StoreRefState(enum.StrEnum):
    """`ObjectInDataStoreStateMachine` (section 3.3), for `template_spool_ref` and the `*_store_ref` rows."""

    ALLOCATED = "Allocated"
    CREATING = "Creating"
    READY = "Ready"
    COPYING = "Copying"
    DESTROYING = "Destroying"
    DESTROYED = "Destroyed"
    FAILED = "Failed"


class StoreRefEvent(enum.StrEnum):
    CREATE_ONLY_REQUESTED = "CreateOnlyRequested"
    OPERATION_SUCCEEDED = "OperationSucceeded"
    OPERATION_FAILED = "OperationFailed"
    COPY_REQUESTED = "CopyRequested"
    DESTROY_REQUESTED = "DestroyRequested"


STORE_REF_STATES = StateMachine(
    "object in store",
    {
        (StoreRefState.ALLOCATED, StoreRefEvent.CREATE_ONLY_REQUESTED): StoreRefState.CREATING,
        (StoreRefState.ALLOCATED, StoreRefEvent.OPERATION_FAILED): StoreRefState.FAILED,
        (StoreRefState.ALLOCATED, StoreRefEvent.OPERATION_SUCCEEDED): StoreRefState.READY,
        (StoreRefState.ALLOCATED, StoreRefEvent.DESTROY_REQUESTED): StoreRefState.DESTROYING,
        (StoreRefState.CREATING, StoreRefEvent.OPERATION_SUCCEEDED): StoreRefState.READY,
        (StoreRefState.CREATING, StoreRefEvent.OPERATION_FAILED): StoreRefState.ALLOCATED,
        (StoreRefState.READY, StoreRefEvent.COPY_REQUESTED): StoreRefState.COPYING,
        (StoreRefState.COPYING, StoreRefEvent.OPERATION_SUCCEEDED): StoreRefState.READY,
        (StoreRefState.COPYING, StoreRefEvent.OPERATION_FAILED): StoreRefState.READY,
        (StoreRefState.READY, StoreRefEvent.DESTROY_REQUESTED): StoreRefState.DESTROYING,
        (StoreRefState.FAILED, StoreRefEvent.DESTROY_REQUESTED): StoreRefState.DESTROYING,
        (StoreRefState.DESTROYING, StoreRefEvent.OPERATION_SUCCEEDED): StoreRefState.DESTROYED,
        (StoreRefState.DESTROYING, StoreRefEvent.OPERATION_FAILED): StoreRefState.DESTROYING,
        (StoreRefState.DESTROYING, StoreRefEvent.DESTROY_REQUESTED): StoreRefState.DESTROYING,
    },
)


class VmState(enum.StrEnum):
    """`VirtualMachine.State` (section 3.4)."""

    STOPPED = "Stopped"
    STARTING = "Starting"
    RUNNING = "Running"
    STOPPING = "Stopping"
    MIGRATING = "Migrating"
    DESTROYED = "Destroyed"
    EXPUNGING = "Expunging"
    ERROR = "Error"


class VmEvent(enum.StrEnum):
    START_REQUESTED = "StartRequested"
    STOP_REQUESTED = "StopRequested"
    DESTROY_REQUESTED = "DestroyRequested"
    RECOVERY_REQUESTED = "RecoveryRequested"
    MIGRATION_REQUESTED = "MigrationRequested"
    STORAGE_MIGRATION_REQUESTED = "StorageMigrationRequested"
    EXPUNGE_OPERATION = "ExpungeOperation"
    OPERATION_SUCCEEDED = "OperationSucceeded"
    OPERATION_FAILED = "OperationFailed"
    OPERATION_FAILED_TO_ERROR = "OperationFailedToError"
    AGENT_REPORT_STOPPED = "AgentReportStopped"


VM_STATES = StateMachine(
    "virtual machine",
    {
        (VmState.STOPPED, VmEvent.START_REQUESTED): VmState.STARTING,
        (VmState.STOPPED, VmEvent.STOP_REQUESTED): VmState.STOPPED,
        (VmState.STOPPED, VmEvent.DESTROY_REQUESTED): VmState.DESTROYED,
        (VmState.STOPPED, VmEvent.EXPUNGE_OPERATION): VmState.EXPUNGING,
        (VmState.STOPPED, VmEvent.OPERATION_FAILED_TO_ERROR): VmState.ERROR,
        (VmState.STOPPED, VmEvent.STORAGE_MIGRATION_REQUESTED): VmState.MIGRATING,
        (VmState.MIGRATING, VmEvent.AGENT_REPORT_STOPPED): VmState.STOPPED,
        (VmState.STARTING, VmEvent.OPERATION_SUCCEEDED): VmState.RUNNING,
        (VmState.STARTING, VmEvent.OPERATION_FAILED): VmState.STOPPED,
        (VmState.STARTING, VmEvent.OPERATION_FAILED_TO_ERROR): VmState.ERROR,
        (VmState.RUNNING, VmEvent.STOP_REQUESTED): VmState.STOPPING,
        (VmState.RUNNING, VmEvent.AGENT_REPORT_STOPPED): VmState.STOPPING,
        (VmState.RUNNING, VmEvent.MIGRATION_REQUESTED): VmState.MIGRATING,
        (VmState.MIGRATING, VmEvent.OPERATION_SUCCEEDED): VmState.RUNNING,
        (VmState.MIGRATING, VmEvent.OPERATION_FAILED): VmState.RUNNING,
        (VmState.STOPPING, VmEvent.OPERATION_SUCCEEDED): VmState.STOPPED,
        (VmState.STOPPING, VmEvent.OPERATION_FAILED): VmState.RUNNING,
        (VmState.STOPPING, VmEvent.STOP_REQUESTED): VmState.STOPPING,
        (VmState.DESTROYED, VmEvent.RECOVERY_REQUESTED): VmState.STOPPED,
        (VmState.DESTROYED, VmEvent.EXPUNGE_OPERATION): VmState.EXPUNGING,
        (VmState.ERROR, VmEvent.DESTROY_REQUESTED): VmState.DESTROYED,
        (VmState.ERROR, VmEvent.EXPUNGE_OPERATION): VmState.EXPUNGING,
        (VmState.EXPUNGING, VmEvent.EXPUNGE_OPERATION): VmState.EXPUNGING,
    },
)


class VmSnapshotState(enum.StrEnum):
    """`VMSnapshot.State` (section 3.4)."""

    ALLOCATED = "Allocated"
    CREATING = "Creating"
    READY = "Ready"
    REVERTING = "Reverting"
    EXPUNGING = "Expunging"
    REMOVED = "Removed"
    ERROR = "Error"


class VmSnapshotEvent(enum.StrEnum):
    CREATE_REQUESTED = "CreateRequested"
    OPERATION_SUCCEEDED = "OperationSucceeded"
    OPERATION_FAILED = "OperationFailed"
    REVERT_REQUESTED = "RevertRequested"
    EXPUNGE_REQUESTED = "ExpungeRequested"


VM_SNAPSHOT_STATES = StateMachine(
    "VM snapshot",
    {
        (VmSnapshotState.ALLOCATED, VmSnapshotEvent.CREATE_REQUESTED): VmSnapshotState.CREATING,
        (VmSnapshotState.CREATING, VmSnapshotEvent.OPERATION_SUCCEEDED): VmSnapshotState.READY,
        (VmSnapshotState.CREATING, VmSnapshotEvent.OPERATION_FAILED): VmSnapshotState.ERROR,
        (VmSnapshotState.READY, VmSnapshotEvent.REVERT_REQUESTED): VmSnapshotState.REVERTING,
        (VmSnapshotState.REVERTING, VmSnapshotEvent.OPERATION_SUCCEEDED): VmSnapshotState.READY,
        (VmSnapshotState.REVERTING, VmSnapshotEvent.OPERATION_FAILED): VmSnapshotState.READY,
        (VmSnapshotState.READY, VmSnapshotEvent.EXPUNGE_REQUESTED): VmSnapshotState.EXPUNGING,
        (VmSnapshotState.ERROR, VmSnapshotEvent.EXPUNGE_REQUESTED): VmSnapshotState.EXPUNGING,
        (VmSnapshotState.EXPUNGING, VmSnapshotEvent.EXPUNGE_REQUESTED): VmSnapshotState.EXPUNGING,
        (VmSnapshotState.EXPUNGING, VmSnapshotEvent.OPERATION_SUCCEEDED): VmSnapshotState.REMOVED,
        (VmSnapshotState.EXPUNGING, VmSnapshotEvent.OPERATION_FAILED): VmSnapshotState.ERROR,
    },
)
