"""Removing StorPool objects: never by force; done when they are gone; a lost answer is resolved by reading back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.spi.errors import Conflict, Error, Unknown
from harness.storpool import (
    Busy,
    ObjectDoesNotExist,
    SnapshotReassignDesc,
    StorPoolClient,
    VolumeReassignDesc,
)

SENDINGS = 3
DETACH_WAIT = 10
"""Seconds to wait for clients that are down when an unused attachment is taken away."""


def remove_volume(client: StorPoolClient, name: str, *, detach_unused: bool = True) -> None:
    """Delete the volume; one that is gone is success.

    Attachments whose device nobody has open are detached first when `detach_unused`. Raises `Conflict` that names the
    StorPool clients which hold it otherwise; then it is as it was.
    """

    def remove() -> None:
        _resolved(lambda: client.volume_delete(name), lambda: client.volume(name))

    try:
        remove()
    except Busy as busy:
        _let_go(client, name, _unused(name) if detach_unused else None, busy)
        remove()


def remove_snapshot(client: StorPoolClient, name: str, *, detach_unused: bool = True) -> None:
    """As `remove_volume`; volumes made from the snapshot keep their data."""

    def remove() -> None:
        _resolved(lambda: client.snapshot_delete(name), lambda: client.snapshot(name))

    try:
        remove()
    except Busy as busy:
        if "exported" in str(busy):
            _take_exports_back(client, name, busy)
            remove()
            return
        unused = SnapshotReassignDesc(snapshot=name, detach="all", force=False) if detach_unused else None
        _let_go(client, name, unused, busy)
        remove()


def _take_exports_back(client: StorPoolClient, name: str, busy: Busy) -> None:
    """At the cluster that has the snapshot. Raises `Conflict` while a copy in another location is still recovering."""
    try:
        cluster_id = client.snapshot(name).cluster_id
        try:
            client.snapshot_unexport(name)
        except ObjectDoesNotExist:
            if cluster_id is None:
                raise
            client.at(cluster_id).snapshot_unexport(name)
    except ObjectDoesNotExist:
        return
    except Busy as recovering:
        raise Conflict(
            f"StorPool {name} is still being copied to another location and was not removed; try again when that is"
            f" over ({recovering})"
        ) from busy


def remover(client: StorPoolClient, key: str, *, detach_unused: bool = True) -> Callable[[str], None]:
    """How objects of this kind (`volume` or `snapshot`) are removed."""
    if key == "snapshot":
        return lambda name: remove_snapshot(client, name, detach_unused=detach_unused)
    return lambda name: remove_volume(client, name, detach_unused=detach_unused)


def release_volume(client: StorPoolClient, name: str) -> None:
    """Detach the volume wherever nobody has its device open; one that is gone, or not attached, is success.

    Raises `Conflict` that names who holds it otherwise; then it is as it was.
    """
    try:
        client.volumes_reassign_wait([_unused(name)], DETACH_WAIT)
    except ObjectDoesNotExist:
        return
    except Busy as busy:
        _let_go(client, name, None, busy)


def release_volumes(client: StorPoolClient, names: Sequence[str]) -> None:
    """As `release_volume`, of several with one request."""
    try:
        client.volumes_reassign_wait([_unused(name) for name in names], DETACH_WAIT)
    except (Busy, ObjectDoesNotExist):
        for name in names:
            release_volume(client, name)


def _unused(name: str) -> VolumeReassignDesc:
    return VolumeReassignDesc(volume=name, detach="all", force=False)


def _let_go(
    client: StorPoolClient, name: str, unused: VolumeReassignDesc | SnapshotReassignDesc | None, busy: Busy
) -> None:
    clients = busy.clients or tuple(attachment.client for attachment in client.attachments(name))
    if not clients:
        # Let go between the refusal and the look; the delete is tried again.
        return
    if unused is not None:
        try:
            client.volumes_reassign_wait([unused], DETACH_WAIT)
            return
        except Busy as held:
            clients = held.clients or clients
    held_by = ", ".join(str(number) for number in sorted(set(clients)))
    raise Conflict(
        f"StorPool {name} is in use by StorPool client {held_by} and was not removed; detach it there first"
    ) from busy


def _resolved(delete: Callable[[], None], look: Callable[[], object]) -> None:
    for left in reversed(range(SENDINGS)):
        try:
            delete()
            return
        except ObjectDoesNotExist:
            return
        except Unknown as lost:
            if _gone(look, lost):
                return
            # Deleting by id can be sent again: ids are never used twice.
            if not left:
                raise


def _gone(look: Callable[[], object], lost: Unknown) -> bool:
    try:
        look()
    except ObjectDoesNotExist:
        return True
    except Error as error:
        raise lost from error
    return False
