"""Attaching and detaching through the StorPool API: one client, one object, never with force."""

from __future__ import annotations

from harness.spi.errors import NotFound, Unavailable, Unknown
from harness.storpool import SnapshotReassignDesc, StorPoolClient, VolumeReassignDesc

ATTEMPTS = 3
"""Sendings of a request whose answers were lost. Both requests only say how things should be, so that a repetition
or a late twin of one that succeeded changes nothing."""


class ClientAttachments:
    """`harness.agent.adaptor.Attachments` over the StorPool client. A path does not tell a volume from a snapshot, so a
    volume is asked for first."""

    def __init__(self, client: StorPoolClient) -> None:
        self._client = client

    def attach(self, object_id: str, client: int, *, timeout: int) -> None:
        try:
            self._reassign(VolumeReassignDesc(volume=object_id, rw=(client,)), timeout)
        except NotFound:
            self._reassign(SnapshotReassignDesc(snapshot=object_id, ro=(client,)), timeout)

    def detach(self, object_id: str, client: int, *, timeout: int) -> None:
        try:
            self._reassign(VolumeReassignDesc(volume=object_id, detach=(client,), force=False), timeout)
        except NotFound:
            self._reassign(SnapshotReassignDesc(snapshot=object_id, detach=(client,), force=False), timeout)

    def size(self, object_id: str) -> int:
        try:
            return self._client.volume(object_id).size
        except NotFound:
            return self._client.snapshot(object_id).size

    def _reassign(self, item: VolumeReassignDesc | SnapshotReassignDesc, timeout: int) -> None:
        lost: Unknown | None = None
        for _ in range(ATTEMPTS):
            try:
                self._client.volumes_reassign_wait([item], attach_timeout=timeout)
                return
            except Unknown as error:
                lost = error
            except Unavailable as error:
                # Nothing was done this time; what an earlier sending did stays unknown.
                raise lost or error from error
        if lost is not None:
            raise lost
