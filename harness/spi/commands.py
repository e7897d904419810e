"""Commands that the management server sends to agents, and their answers (spec/cloudstack-plugin.md section 2.4).

Every command can be sent again with the same effect. An answer with `result` false carries the reason in `details` and
how to go on in `error_class`; after it nothing that the command made is left on the host unless `details` says so.
Times are seconds.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from harness.spi.errors import ErrorClass
from harness.spi.objects import DataStore, Disk, SnapshotObject, TemplateObject, VirtualMachine, VmPower, VolumeObject
from harness.spi.passphrase import Passphrase


def shown(url: str) -> str:
    """The URL without what may be secret: user, password and query."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # With its parts not told apart, any of it may be the secret.
        return "a URL that is none"
    return f"{parts.scheme}://{parts.hostname or ''}{f':{port}' if port else ''}{parts.path}"[:300]


GUEST_WAIT = 10.0
"""Seconds that a guest may take to let a disk go, where nothing else is said."""


class Command(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="command", forbid_unknown_fields=True
):
    """Base of all commands; `wait` bounds the work of the agent.

    Defaults are not sent, so that a party of the release before takes everything that needs no new field.
    """

    wait: float = 60.0
    sequence: int = 0
    """Place among the commands for one VM: one that arrives after a later one is not carried out. 0 has no place."""


class PingCommand(Command, frozen=True, kw_only=True, tag="PingCommand"):
    """Is the agent there, and which domains does the host have?"""


class StartCommand(Command, frozen=True, kw_only=True, tag="StartCommand"):
    """Attach every disk of the VM to this host, then start its domain. A running domain of that name is success."""

    vm: VirtualMachine


class StopCommand(Command, frozen=True, kw_only=True, tag="StopCommand"):
    """Stop the domain, then detach its disks and `volumes_to_disconnect` from this host.

    A missing domain is success.
    """

    vm_name: str
    force: bool = False
    """Power off at once instead of asking the guest first."""
    volumes_to_disconnect: tuple[str, ...] = ()
    """Device paths to detach even if the domain no longer exists."""


class AttachCommand(Command, frozen=True, kw_only=True, tag="AttachCommand"):
    """Attach the volume to this host and give the disk to the running domain."""

    vm_name: str
    disk: Disk


class DettachCommand(Command, frozen=True, kw_only=True, tag="DettachCommand"):
    """Take the disk from the running domain, then detach the volume from this host (CloudStack's spelling)."""

    vm_name: str
    disk: Disk
    guest_wait: float = GUEST_WAIT
    """Seconds that the guest may take to let the disk go; part of `wait`."""


class AttachIsoCommand(Command, frozen=True, kw_only=True, tag="AttachIsoCommand"):
    """Put this ISO into the CD drive of the running domain, or without one empty the drive.

    A domain that does not run here is success: its next start is told what is in the drive.
    """

    vm_name: str
    iso: TemplateObject | None = None


class PrepareForMigrationCommand(Command, frozen=True, kw_only=True, tag="PrepareForMigrationCommand"):
    """To the destination: attach every disk of the VM here too, while the source goes on with them.

    With `rollback`, take away what a migration that came to nothing left here: a domain that waits for its memory, and
    the disks. `Conflict` when the guest runs here, and nothing is done then.
    """

    vm: VirtualMachine
    rollback: bool = False


class MigrateCommand(Command, frozen=True, kw_only=True, tag="MigrateCommand"):
    """To the source: move the running domain, live, then detach its disks from this host.

    After an error that is not `Unknown` it runs here as before; after `Unknown` it may be at either host, or at none.
    """

    vm_name: str
    destination: str
    """As the destination answered its PrepareForMigrationCommand: where its libvirtd is reached."""
    console: str | None = None
    """Also from that answer."""
    auto_convergence: bool = False
    """Slow a guest down that writes to its memory faster than that can be copied."""


class CancelMigrationCommand(Command, frozen=True, kw_only=True, tag="CancelMigrationCommand"):
    """To the source: end a migration of the domain that is under way, and tell what is here once none is."""

    vm_name: str
    resume: bool = False
    """Let a domain go on that libvirt left paused in the middle. Only when the destination surely does not run it."""


class CheckVirtualMachineCommand(Command, frozen=True, kw_only=True, tag="CheckVirtualMachineCommand"):
    """Does the domain run here?"""

    vm_name: str


class StorPoolResizeVolumeCommand(Command, frozen=True, kw_only=True, tag="StorPoolResizeVolumeCommand"):
    """Have the running guest see the disk at `path` in its new size, once the device here has `size` bytes.

    A domain that does not run here is success: nobody has to be told. After an error that is not `Unknown` the guest
    sees what it saw before.
    """

    vm_name: str
    path: str
    size: int
    overhead: int = 0
    """Bytes of the device that the guest does not see: those of a LUKS header."""


class StorPoolModifyStoragePoolCommand(Command, frozen=True, kw_only=True, tag="StorPoolModifyStoragePoolCommand"):
    """Make the pool known on this host and prove that the host reaches StorPool by attaching the check volume."""

    pool: DataStore
    volume_path: str
    add: bool = True


class StorPoolDownloadTemplateCommand(Command, frozen=True, kw_only=True, tag="StorPoolDownloadTemplateCommand"):
    """Copy an image from secondary storage onto the StorPool volume `destination.path`, attached here meanwhile."""

    source: TemplateObject | SnapshotObject
    destination: TemplateObject | VolumeObject


class StorPoolBackupSnapshotCommand(Command, frozen=True, kw_only=True, tag="StorPoolBackupSnapshotCommand"):
    """Copy the StorPool snapshot `source.path`, attached here meanwhile, into a new qcow2 on secondary storage.

    The file at `destination.path` must not exist: one that does is never written to, and `Conflict` is the answer. So
    a command that arrives twice, or late, spoils no backup. After an error part of the file may be there.
    """

    source: SnapshotObject
    destination: SnapshotObject


class StorPoolDownloadVolumeCommand(Command, frozen=True, kw_only=True, tag="StorPoolDownloadVolumeCommand"):
    """Copy the volume's file `source.path` of an NFS pool onto the StorPool volume `destination.path`, attached here
    meanwhile. The file is only read, as `source.format`."""

    source: VolumeObject
    destination: VolumeObject


class CreateObjectCommand(Command, frozen=True, kw_only=True, tag="CreateObjectCommand"):
    """Make the empty file `volume.path` on an NFS pool. One that is there and as large is success, and left alone."""

    volume: VolumeObject


class ModifyStoragePoolCommand(Command, frozen=True, kw_only=True, tag="ModifyStoragePoolCommand"):
    """Does this host reach the NFS pool?"""

    pool: DataStore


class StorPoolSetVolumeEncryptionCommand(Command, frozen=True, kw_only=True, tag="StorPoolSetVolumeEncryptionCommand"):
    """Make the blank StorPool volume at `path` an encrypted one, attached here meanwhile.

    With `source`, the path of a StorPool snapshot, what is in that is written onto it, encrypted. Sent again it begins
    anew. After an error the volume holds nothing that can be used.
    """

    path: str
    size: int
    """Bytes of the volume's device."""
    passphrase: Passphrase
    source: str | None = None


class StorPoolBackupTemplateFromSnapshotCommand(
    Command, frozen=True, kw_only=True, tag="StorPoolBackupTemplateFromSnapshotCommand"
):
    """As `StorPoolBackupSnapshotCommand`, for a template. `source.path` is that of a StorPool snapshot."""

    source: VolumeObject | SnapshotObject
    destination: TemplateObject


class StorPoolCopyVolumeToSecondaryCommand(
    Command, frozen=True, kw_only=True, tag="StorPoolCopyVolumeToSecondaryCommand"
):
    """As `StorPoolBackupSnapshotCommand`, into a qcow2 to be downloaded, or a volume's on an NFS pool. `source.path` is
    that of a StorPool snapshot."""

    source: VolumeObject
    destination: VolumeObject


class CancelCommand(Command, frozen=True, kw_only=True, tag="CancelCommand"):
    """End the copy that this host makes from or to `path`, and begin none any more: nobody waits for it.

    Only of what is copied once: a StorPool object that was made for it, or the new file of a backup. The copy's command
    cleans up and fails; after a success of this one it has. That nothing of it runs here is success.
    """

    path: str


ToSecondary = (
    StorPoolBackupSnapshotCommand | StorPoolBackupTemplateFromSnapshotCommand | StorPoolCopyVolumeToSecondaryCommand
)
"""An agent copies a StorPool snapshot to a new file."""


class CopyCommand(Command, frozen=True, kw_only=True, tag="CopyCommand"):
    """To the secondary storage role: copy a snapshot's file into the new file of a template, whole or not at all."""

    source: SnapshotObject
    destination: TemplateObject


class CreateEntityDownloadURLCommand(Command, frozen=True, kw_only=True, tag="CreateEntityDownloadURLCommand"):
    """To the secondary storage role: let the qcow2 at `path`, which is written no more, be downloaded.

    Whoever knows the URL may. It ends when `published(token)` is deleted.
    """

    store: DataStore
    path: str
    token: str
    """A uuid that nobody else knows; never logged."""

    def __repr__(self) -> str:
        return f"CreateEntityDownloadURLCommand(path={self.path!r})"


USERDATA = "userdata"
"""Directory of the export that is served to whoever knows a name in it."""


def published(token: str) -> str:
    """Path in the store by which the file with this token can be downloaded."""
    return f"{USERDATA}/{token}.qcow2"


class CheckUrlCommand(Command, frozen=True, kw_only=True, tag="CheckUrlCommand"):
    """Whether this host can fetch the qcow2 at the URL, and how large a disk it is."""

    url: str

    def __repr__(self) -> str:
        return f"CheckUrlCommand(url={shown(self.url)!r})"


class DirectDownloadCommand(Command, frozen=True, kw_only=True, tag="DirectDownloadCommand"):
    """Fetch the image of `source.direct` to this host, and copy it onto the StorPool volume `destination.path`.

    The volume is attached here meanwhile; nothing of the image stays on the host.
    """

    source: TemplateObject
    destination: TemplateObject


class DownloadCommand(Command, frozen=True, kw_only=True, tag="DownloadCommand"):
    """To the secondary storage role: fetch `url` into the image store as this template."""

    template: TemplateObject
    url: str
    """May hold a user and a password; log `shown(url)`."""
    checksum: str | None = None

    def __repr__(self) -> str:
        return f"DownloadCommand(template={self.template!r}, url={shown(self.url)!r}, checksum={self.checksum!r})"


class DeleteCommand(Command, frozen=True, kw_only=True, tag="DeleteCommand"):
    """To the secondary storage role: delete what is at `path` in the store. A missing path is success."""

    store: DataStore
    path: str


AnyCommand = (
    PingCommand
    | StartCommand
    | StopCommand
    | AttachCommand
    | DettachCommand
    | AttachIsoCommand
    | PrepareForMigrationCommand
    | MigrateCommand
    | CancelMigrationCommand
    | CheckVirtualMachineCommand
    | StorPoolResizeVolumeCommand
    | StorPoolModifyStoragePoolCommand
    | StorPoolDownloadTemplateCommand
    | StorPoolBackupSnapshotCommand
    | StorPoolDownloadVolumeCommand
    | CreateObjectCommand
    | ModifyStoragePoolCommand
    | StorPoolSetVolumeEncryptionCommand
    | StorPoolBackupTemplateFromSnapshotCommand
    | StorPoolCopyVolumeToSecondaryCommand
    | CancelCommand
    | CopyCommand
    | CreateEntityDownloadURLCommand
    | CheckUrlCommand
    | DirectDownloadCommand
    | DownloadCommand
    | DeleteCommand
)


class Answer(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    tag_field="answer",
    tag="Answer",
    forbid_unknown_fields=True,
):
    result: bool
    details: str = ""
    error_class: ErrorClass | None = None


class PingAnswer(Answer, frozen=True, kw_only=True, tag="PingAnswer"):
    host_uuid: str
    vms: dict[str, VmPower]
    volume_encryption: bool = False
    """Whether the host has what encrypted volumes need (CloudStack's host detail `host.volume.encryption`)."""
    copies: dict[str, int] = {}
    """How far the copies are that run here: whole percents by the paths that they copy to."""


class AttachAnswer(Answer, frozen=True, kw_only=True, tag="AttachAnswer"):
    disk: Disk | None = None


class PrepareForMigrationAnswer(Answer, frozen=True, kw_only=True, tag="PrepareForMigrationAnswer"):
    destination: str = ""
    """URI by which another host's libvirtd reaches the one here."""
    console: str | None = None
    """File that the guest's serial console is to be written to here, if it is written to a file."""


class CheckVirtualMachineAnswer(Answer, frozen=True, kw_only=True, tag="CheckVirtualMachineAnswer"):
    power: VmPower
    """Off also when the host does not know the domain."""


class ResizeVolumeAnswer(Answer, frozen=True, kw_only=True, tag="ResizeVolumeAnswer"):
    size: int | None = None
    """Bytes that the guest sees; None when no guest had to be told."""


class CopyCmdAnswer(Answer, frozen=True, kw_only=True, tag="CopyCmdAnswer"):
    path: str | None = None
    size: int | None = None
    """Virtual size of the image that was copied."""
    physical_size: int | None = None
    """What the file that was written takes, where one was."""


class StorPoolSetVolumeEncryptionAnswer(Answer, frozen=True, kw_only=True, tag="StorPoolSetVolumeEncryptionAnswer"):
    size: int | None = None
    """Bytes that a guest sees of the volume."""


class DownloadAnswer(Answer, frozen=True, kw_only=True, tag="DownloadAnswer"):
    install_path: str | None = None
    virtual_size: int | None = None
    physical_size: int | None = None


class CheckUrlAnswer(Answer, frozen=True, kw_only=True, tag="CheckUrlAnswer"):
    virtual_size: int


class CreateEntityDownloadURLAnswer(Answer, frozen=True, kw_only=True, tag="CreateEntityDownloadURLAnswer"):
    url: str

    def __repr__(self) -> str:
        return f"CreateEntityDownloadURLAnswer(result={self.result})"


class StorPoolModifyStoragePoolAnswer(Answer, frozen=True, kw_only=True, tag="StorPoolModifyStoragePoolAnswer"):
    client_node_id: int | None = None
    """SP_OURID of the host."""
    cluster_id: str | None = None
    """SP_CLUSTER_ID of the host."""


AnyAnswer = (
    Answer
    | PingAnswer
    | AttachAnswer
    | PrepareForMigrationAnswer
    | CheckVirtualMachineAnswer
    | ResizeVolumeAnswer
    | CopyCmdAnswer
    | StorPoolSetVolumeEncryptionAnswer
    | DownloadAnswer
    | CheckUrlAnswer
    | CreateEntityDownloadURLAnswer
    | StorPoolModifyStoragePoolAnswer
)
