"""Attachments of volumes to hosts where no VM has them: taken away without force.

Attaching is the agents' work, so holding a volume here keeps no attach away. But CloudStack records what it is about to
start or attach before it asks a host. So the records are read right before the detach, and again after it: what they
want by then is attached again.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.driver.check_volume import use
from harness.driver.operations import Operation, Operations
from harness.driver.pools import Pool
from harness.spi.driver import DriverRecords
from harness.spi.errors import Error, NotFound, Unknown
from harness.spi.inventory import Client, Finding, FindingKind, HostRecord, VolumeRecord
from harness.spi.objects import storpool_id
from harness.storpool import Busy, VolumeReassignDesc

DETACH_WAIT = 10
"""Seconds StorPool waits for a client that is down."""


class Leaks:
    """Detaches leaked attachments. One step: detach; open while a lost detach may still arrive."""

    kind = "detach-leaked"

    def __init__(self, operations: Operations, records: DriverRecords) -> None:
        self._operations = operations
        self._records = records

    def detach(
        self, volume: VolumeRecord, path: str, pool: Pool, client: Client, hosts: Sequence[HostRecord]
    ) -> Finding | None:
        """Take the attachment away, unless it turns out to be wanted or somebody works on the volume: then None.

        `hosts` are all rows of the StorPool `client` that has it, the one to name first. It is asked for at the
        client's own cluster: another one may have a client of the same number.
        """
        host, host_ids = hosts[0], [row.id for row in hosts]
        api = pool.at(client.cluster_id)
        subject, name = f"volume:{volume.uuid}", storpool_id(path)
        where = f"volume {volume.uuid} ({path})"
        at_host = f"attached to host {host.name} (StorPool client {client}), where no VM has it"

        def found(text: str, *, mended: bool = False) -> Finding:
            return Finding(kind=FindingKind.LEAKED_ATTACHMENT, where=where, text=text, mended=mended)

        with self._operations.idle(subject) as free:
            if not free or self._wanted(volume.uuid, path, host_ids):
                return None
            data = {"pool": str(pool.id), "object": name, "client": str(client.number)}
            operation = self._operations.begin(self.kind, subject, "detach", data)
            desc = VolumeReassignDesc(volume=name, detach=(client.number,), force=False)
            try:
                api.volumes_reassign_wait([desc], DETACH_WAIT)
            except Unknown as error:
                return found(f"{at_host}; whether it was detached is not known: {error}")
            except NotFound:
                operation.undone()
                return None
            except Error as error:
                operation.undone()
                state = "not detached, because it is open there" if isinstance(error, Busy) else "not detached"
                return found(f"{at_host}; {state}: {error}")
            if self._wanted(volume.uuid, path, host_ids):
                api.volumes_reassign_wait([VolumeReassignDesc(volume=name, rw=(client.number,))], DETACH_WAIT)
                operation.undone()
                return None
            operation.done()
        return found(f"was {at_host}; detached", mended=True)

    def detach_check_volume(
        self, detail: str, path: str, pool: Pool, client: Client, hosts: Sequence[HostRecord]
    ) -> Finding | None:
        """Take the check volume from a host that is not asked to prove itself with it now; `hosts` as in `detach`.

        An agent that is at it all the same, because a server that died asked it, or one that meets this detach when it
        comes late, fails once and is asked again.
        """
        host = hosts[0]
        with self._operations.idle(*(use(pool.id, detail, row.id) for row in hosts)) as free:
            if not free:
                return None
            desc = VolumeReassignDesc(volume=storpool_id(path), detach=(client.number,), force=False)
            mended, text = True, "detached"
            try:
                pool.at(client.cluster_id).volumes_reassign_wait([desc], DETACH_WAIT)
            except NotFound:
                return None
            except Error as error:
                mended, text = False, f"not detached: {error}"
        return Finding(
            kind=FindingKind.LEAKED_ATTACHMENT,
            where=f"check volume {detail} of pool {pool.id} ({path})",
            text=f"was attached to host {host.name} (StorPool client {client}); {text}",
            mended=mended,
        )

    def recover(self, operation: Operation) -> str:
        if "settles" not in operation.data:
            operation.note(self._operations.settling())
        elif self._operations.settled(operation):
            operation.undone()
            return f"{operation}: ended; the next pass looks again"
        return f"{operation}: open until a lost detach can no longer arrive"

    def _wanted(self, uuid: str, path: str, host_ids: Sequence[int]) -> bool:
        """Whether the attachment may be needed, by the records as they are now."""
        record = self._records.volume(uuid)
        if record is None or record.path != path or not record.steady:
            return True
        vm = None if record.vm_uuid is None else self._records.vm(record.vm_uuid)
        return vm is not None and any(map(vm.may_use, host_ids))
