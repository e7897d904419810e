"""Attaching and detaching through the StorPool API: one client, one object, never with force."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import UNSET, UnsetType

from harness.agent.deadline import Deadline
from harness.spi.errors import InvalidParameter, NotFound, Unavailable, Unknown
from harness.storpool import NotSent, SnapshotReassignDesc, StorPoolClient, VolumeReassignDesc

ATTEMPTS = 3
"""Sendings of a request whose answers were lost. Both requests only say how things should be, so that a repetition
or a late twin of one that succeeded changes nothing."""

SHORTEST_SENDING = 1.0
"""Seconds that a sending is given at least."""


def _nothing() -> None:
    """For a change that may come late without harm."""


class ClientAttachments:
    """`harness.agent.adaptor.Attachments` over the StorPool client. A path does not tell a volume from a snapshot, so a
    volume is asked for first.

    An attach whose answer was lost may arrive after a later detach, and reading back shows only what has arrived. What
    it leaves is an attachment that nobody opens: `late` is called, so that it is looked for once it can come no more,
    and the next attach elsewhere takes it away too.
    """

    def __init__(self, client: StorPoolClient) -> None:
        self._client = client

    def attach(
        self, object_id: str, client: int, *, shared: bool, timeout: int, late: Callable[[], None] = _nothing
    ) -> None:
        try:
            # One step, all of it or nothing (spec/storpool-api.md 0.3): what is open here stays as it is, and a device
            # that is open elsewhere keeps it from being attached here, also when this arrives late.
            others: Literal["all"] | UnsetType = UNSET if shared else "all"
            # One of another cluster that is attached there stays there and leads here: what StorPool does unasked.
            desc = VolumeReassignDesc(volume=object_id, rw=(client,), detach=others, force=False)
            self._reassign(desc, timeout, late)
        except NotFound:
            self._reassign(SnapshotReassignDesc(snapshot=object_id, ro=(client,)), timeout, late)

    def detach(self, object_id: str, client: int, *, timeout: int, within: Deadline | None = None) -> None:
        try:
            volume = VolumeReassignDesc(volume=object_id, detach=(client,), force=False)
            self._reassign(volume, timeout, within=within)
        except NotFound:
            snapshot = SnapshotReassignDesc(snapshot=object_id, detach=(client,), force=False)
            self._reassign(snapshot, timeout, within=within)

    def size(self, object_id: str) -> int:
        try:
            return self._client.volume(object_id).size
        except NotFound:
            return self._client.snapshot(object_id).size

    def _reassign(
        self,
        item: VolumeReassignDesc | SnapshotReassignDesc,
        timeout: int,
        late: Callable[[], None] = _nothing,
        within: Deadline | None = None,
    ) -> None:
        lost: Unknown | None = None
        for _ in range(ATTEMPTS):
            left = None if within is None else within.remaining
            if lost is not None and left is not None and left < SHORTEST_SENDING:
                break
            try:
                self._client.volumes_reassign_wait(
                    [item],
                    attach_timeout=timeout if left is None else max(1, min(timeout, int(left))),
                    timeout=None if left is None else max(SHORTEST_SENDING, left),
                )
                return
            except Unknown as error:
                lost = error
                late()
            except (Unavailable, InvalidParameter) as error:
                # Nothing was done this time; what an earlier sending did stays unknown. StorPool may go on with what
                # it gave up waiting for.
                if isinstance(error, Unavailable) and not isinstance(error, NotSent):
                    late()
                if lost is None:
                    raise
                raise lost from error
        if lost is not None:
            raise lost
