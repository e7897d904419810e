"""Compares CloudStack's records with StorPool, mends drift, and tells what it may not touch (design section 4).

StorPool's lists are read first, the records after them, and each repair reads both again while it holds the object:
what changed meanwhile is left to the next pass. One list of each kind is asked for in a pass and StorPool cluster.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from harness.driver import tags
from harness.driver.check_volume import DETAIL
from harness.driver.leaks import Leaks
from harness.driver.operations import Operations
from harness.driver.orphans import Orphans
from harness.driver.pools import Pool, Pools, StorPoolCluster
from harness.driver.tiers import placement
from harness.spi.driver import DriverRecords
from harness.spi.errors import Error, InvalidParameter
from harness.spi.inventory import (
    Client,
    Finding,
    FindingKind,
    HostRecord,
    Inventory,
    SnapshotRecord,
    VmRecord,
    VolumeRecord,
)
from harness.spi.objects import storpool_id
from harness.spi.states import VmSnapshotState, VmState
from harness.storpool import Attachment, ObjectDoesNotExist, VolumeSummary
from harness.storpool.types import Limit

REMEMBERED = 4096
"""Volumes whose limit was set that are remembered."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What one pass sees of a StorPool cluster, and the records after it."""

    cluster: StorPoolCluster
    began: float
    objects: Sequence[VolumeSummary]
    by_name: dict[str, VolumeSummary]
    """By `~globalId` and by name."""
    holders: dict[str, frozenset[Client]]
    """StorPool clients that have an object attached, by its global id."""
    unread: Sequence[str]
    """What of StorPool's lists could not be read."""
    sure_of_holders: bool
    """Whether all attachments could be read."""
    seen: Inventory
    hosts: dict[int, list[HostRecord]]
    """Rows by the number of their StorPool client, those Up first: a host that was added again may have two."""
    vms: dict[str, VmRecord]
    pools: dict[int | None, Pool]

    def by_client(self, clients: frozenset[Client]) -> list[tuple[Client, list[HostRecord]]]:
        """The rows of each of these StorPool clients that has any."""
        rows = (
            (client, [host for host in self.hosts.get(client.number, ()) if host.is_client(client)])
            for client in sorted(clients, key=str)
        )
        return [(client, found) for client, found in rows if found]

    def at(self, path: str) -> VolumeSummary | None:
        try:
            return self.by_name.get(storpool_id(path))
        except InvalidParameter:
            return None


class Reconciler:
    """Each pass returns everything it found, mended or not. An error ends nothing but what it befell."""

    def __init__(
        self,
        operations: Operations,
        pools: Pools,
        records: DriverRecords,
        updates: tags.TagUpdates,
        orphans: Orphans,
        leaks: Leaks,
    ) -> None:
        self._operations = operations
        self._pools = pools
        self._records = records
        self._updates = updates
        self._orphans = orphans
        self._leaks = leaks
        self._limits: OrderedDict[str, Limit] = OrderedDict()
        """What the limit of a volume was when this process set it last, by its uuid; the oldest first."""

    def volumes(self) -> list[Finding]:
        return self._pass(self._compare_volumes)

    def snapshots(self) -> list[Finding]:
        return self._pass(self._compare_snapshots)

    def _pass(self, compare: Callable[[StorPoolCluster], Iterator[Finding]]) -> list[Finding]:
        clusters, left_out = self._pools.clusters()
        findings = [_not_compared(f"pool {pool_id}", why) for pool_id, why in left_out.items()]
        for cluster in clusters:
            where = "pool " + ", ".join(str(pool.id) for pool in cluster.pools)
            findings += self._guarded(where, compare(cluster))
        return findings

    @staticmethod
    def _guarded(where: str, work: Iterator[Finding]) -> list[Finding]:
        findings: list[Finding] = []
        try:
            findings.extend(work)
        except Error as error:
            findings.append(_not_compared(where, str(error)))
        return findings

    def _compare_volumes(self, cluster: StorPoolCluster) -> Iterator[Finding]:
        began = self._operations.now()
        unread: list[str] = []
        look = self._look(cluster, began, cluster.client.volumes_list(unread), unread)
        yield from _unread(look)
        for record in look.seen.volumes:
            pool, path = look.pools.get(record.pool_id), record.path
            if pool is None or path is None or not record.steady or f"volume:{record.uuid}" in look.seen.busy:
                continue
            where = f"volume {record.uuid} ({path})"
            found = look.at(path)
            if found is None:
                yield from self._missing(where, pool.client.volume, path, partial(self._volume, record.uuid))
                continue
            yield from self._guarded(where, self._drift(where, look.seen.tiers, record, pool, found))
            yield from self._guarded(where, self._attachments(where, look, record, pool, found))
        for pool in cluster.pools:
            for key, path in self._records.pool_details(pool.id).items():
                if key.startswith(DETAIL):
                    yield from self._check_volume(look, pool, key, path)
        yield from self._unknown(look)

    def _check_volume(self, look: _Look, pool: Pool, key: str, path: str) -> Iterator[Finding]:
        found = look.at(path)
        where = f"check volume {key} of pool {pool.id} ({path})"
        if found is None:
            yield from self._missing(where, pool.client.volume, path, partial(self._detail, pool.id, key))
            return
        holders = look.holders.get(found.global_id, frozenset())
        for client, hosts in look.by_client(holders):
            if hosts[0].up:
                finding = self._leaks.detach_check_volume(key, path, pool, client, hosts)
                if finding is not None:
                    yield finding

    def _compare_snapshots(self, cluster: StorPoolCluster) -> Iterator[Finding]:
        began = self._operations.now()
        unread: list[str] = []
        look = self._look(cluster, began, cluster.client.snapshots_list(unread), unread)
        yield from _unread(look)
        for record in look.seen.snapshots:
            pool, path = look.pools.get(record.pool_id), record.path
            if pool is not None and path is not None and record.steady and look.at(path) is None:
                where = f"snapshot {record.uuid} ({path})"
                yield from self._missing(where, pool.client.snapshot, path, partial(self._snapshot, record))
        for group in look.seen.vm_snapshots:
            pool = look.pools.get(group.pool_id)
            for path in group.paths if pool is not None and group.state is VmSnapshotState.READY else ():
                if pool is not None and look.at(path) is None:
                    where = f"VM snapshot {group.uuid} ({path})"
                    recorded = partial(self._in_group, group.uuid, path)
                    yield from self._missing(where, pool.client.snapshot, path, recorded)
        for entry in look.seen.templates:
            pool, path = look.pools.get(entry.pool_id), entry.path
            if pool is not None and path is not None and entry.steady and look.at(path) is None:
                where = f"template {entry.template_uuid} on pool {pool.id} ({path})"
                recorded = partial(self._cached, entry.template_id, pool.id)
                yield from self._missing(where, pool.client.snapshot, path, recorded)
        yield from self._unknown(look)

    def _look(
        self, cluster: StorPoolCluster, began: float, objects: Sequence[VolumeSummary], unread: Sequence[str]
    ) -> _Look:
        by_name = {name: found for found in objects for name in (found.name, f"~{found.global_id}")}
        odd: list[str] = []
        holders = _holders(by_name, cluster.client.attachments_list(odd))
        seen = self._records.inventory()
        return _Look(
            cluster=cluster,
            began=began,
            objects=objects,
            by_name=by_name,
            holders=holders,
            unread=(*unread, *odd),
            sure_of_holders=not odd,
            seen=seen,
            hosts=_by_number(seen.hosts),
            vms={vm.uuid: vm for vm in seen.vms},
            pools={pool.id: pool for pool in cluster.pools},
        )

    def _unknown(self, look: _Look) -> Iterator[Finding]:
        for found in look.objects:
            holders = look.holders.get(found.global_id, frozenset())
            if holders and not look.sure_of_holders:
                # To remove it would detach it everywhere, and where that is is not known.
                continue
            work = self._orphans.find(look.cluster, found, look.seen, holders)
            yield from self._guarded(f"StorPool object ~{found.global_id}", work)

    def _missing(
        self, where: str, ask: Callable[[str], object], path: str, recorded: Callable[[], str | None]
    ) -> Iterator[Finding]:
        """StorPool's list did not have it: ask for it by name, and see whether the record still says so."""
        try:
            ask(storpool_id(path))
        except ObjectDoesNotExist:
            if recorded() == path:
                text = "StorPool does not have it; its data is gone, or it is in another cluster"
                yield Finding(kind=FindingKind.MISSING_OBJECT, where=where, text=text)
        except Error as error:
            yield _not_compared(where, str(error))

    def _detail(self, pool_id: int, key: str) -> str | None:
        return self._records.pool_details(pool_id).get(key)

    def _volume(self, uuid: str) -> str | None:
        record = self._records.volume(uuid)
        return record.path if record is not None and record.steady and not record.removed else None

    def _snapshot(self, listed: SnapshotRecord) -> str | None:
        """Where it is now on the pool that it was listed for."""
        record = self._records.snapshot(listed.uuid)
        if record is None or record.removed or not record.steady or listed.pool_id is None:
            return None
        copy = self._records.snapshot_copy(listed.uuid, listed.pool_id)
        return copy.path if copy is not None and copy.steady else None

    def _in_group(self, uuid: str, path: str) -> str | None:
        record = self._records.vm_snapshot(uuid)
        ready = record is not None and not record.removed and record.state is VmSnapshotState.READY
        return path if ready and record is not None and path in record.paths else None

    def _cached(self, template_id: int, pool_id: int) -> str | None:
        entry = self._records.template_cache(template_id, pool_id)
        return entry.path if entry is not None and entry.steady else None

    def _drift(
        self, where: str, tiers: frozenset[str], record: VolumeRecord, pool: Pool, found: VolumeSummary
    ) -> Iterator[Finding]:
        wrong, iops = self._differences(tiers, record, found)
        fought_over = iops is not None and self._limits.get(record.uuid) == found.iops
        if fought_over:
            text = f"the limit is {found.iops} IOPS, and should be {iops}; it was set, and somebody set it back"
            hint = "perhaps storpool_qos, to which volumes on a template with the name of a tier belong"
            yield Finding(kind=FindingKind.LIMITS, where=where, text=f"{text}, {hint}")
        if not wrong and (iops is None or fought_over):
            return
        with self._operations.idle(f"volume:{record.uuid}") as free:
            now = self._records.volume(record.uuid)
            if not free or now is None or now.path is None or now.path != record.path or not now.steady:
                return
            try:
                found = pool.client.volume(storpool_id(now.path))
            except ObjectDoesNotExist:
                return
            wrong, iops = self._differences(tiers, now, found)
            if fought_over:
                iops = None
            if wrong or iops is not None:
                self._updates.mend(now, pool, wrong, iops)
            if iops is not None:
                self._remember(record.uuid, found.iops)
        for key, value in wrong.items():
            text = f"tag {key} was {found.tags.get(key, '')!r}; set to {value!r}"
            yield Finding(kind=FindingKind.TAGS, where=where, text=text, mended=True)
        if iops is not None:
            text = f"the limit was {found.iops} IOPS; set to {iops}"
            yield Finding(kind=FindingKind.LIMITS, where=where, text=text, mended=True)

    def _remember(self, uuid: str, limit: Limit) -> None:
        self._limits[uuid] = limit
        self._limits.move_to_end(uuid)
        if len(self._limits) > REMEMBERED:
            self._limits.popitem(last=False)

    def _differences(
        self, tiers: frozenset[str], record: VolumeRecord, found: VolumeSummary
    ) -> tuple[dict[str, str], int | None]:
        """Tags, and the limit, that the volume should have and has not.

        The limit of a volume with a tier, or on a template with the name of one, is storpool_qos's; that of one whose
        offering names a template, or without one in the records, the StorPool template's.
        """
        wanted = tags.recorded(self._records, record)
        wrong = {key: value for key, value in wanted.items() if found.tags.get(key, "") != value}
        of_a_tier = found.template_name in tiers
        iops = None if of_a_tier else placement(self._records, record.disk_offering_id).limit(record.max_iops)
        return wrong, None if iops == found.iops else iops

    def _attachments(
        self, where: str, look: _Look, record: VolumeRecord, pool: Pool, found: VolumeSummary
    ) -> Iterator[Finding]:
        vm = None if record.vm_uuid is None else look.vms.get(record.vm_uuid)
        holders = look.holders.get(found.global_id, frozenset())
        for client, hosts in look.by_client(holders):
            if vm is None or not any(vm.may_use(host.id) for host in hosts):
                yield from self._leaked(where, record, pool, client, hosts)
        at_rest = vm is not None and max(vm.changed_at, record.changed_at) < look.began
        if vm is not None and vm.state is VmState.RUNNING and at_rest and look.sure_of_holders:
            yield from _unattached(where, vm, look.seen.hosts, holders)

    def _leaked(
        self, where: str, record: VolumeRecord, pool: Pool, client: Client, hosts: Sequence[HostRecord]
    ) -> Iterator[Finding]:
        host = hosts[0]
        if not host.up:
            text = f"attached to host {host.name}, where no VM has it; not detached, because the host is not Up"
            yield Finding(kind=FindingKind.LEAKED_ATTACHMENT, where=where, text=text)
            return
        finding = self._leaks.detach(record, record.path or "", pool, client, hosts)
        if finding is not None:
            yield finding


def _unread(look: _Look) -> Iterator[Finding]:
    where = "pool " + ", ".join(str(pool.id) for pool in look.cluster.pools)
    for text in look.unread:
        yield _not_compared(where, text)


def _holders(by_name: dict[str, VolumeSummary], attachments: Sequence[Attachment]) -> dict[str, frozenset[Client]]:
    holders: dict[str, set[Client]] = {}
    for attachment in attachments:
        found = by_name.get(f"~{attachment.global_id}") or by_name.get(attachment.volume)
        if found is not None:
            holders.setdefault(found.global_id, set()).add(Client(attachment.client, attachment.cluster_id))
    return {global_id: frozenset(clients) for global_id, clients in holders.items()}


def _by_number(hosts: Sequence[HostRecord]) -> dict[int, list[HostRecord]]:
    found: dict[int, list[HostRecord]] = {}
    for host in sorted(hosts, key=lambda row: not row.up):
        if host.storpool_client_id is not None:
            found.setdefault(host.storpool_client_id, []).append(host)
    return found


def _unattached(where: str, vm: VmRecord, hosts: Sequence[HostRecord], holders: frozenset[Client]) -> Iterator[Finding]:
    for host in hosts:
        known = host.id == vm.host_id and host.storpool_client_id is not None
        if known and not any(map(host.is_client, holders)):
            text = f"not attached to host {host.name}, where VM {vm.uuid} runs; stop and start the VM"
            yield Finding(kind=FindingKind.MISSING_ATTACHMENT, where=where, text=text)


def _not_compared(where: str, why: str) -> Finding:
    return Finding(kind=FindingKind.NOT_COMPARED, where=where, text=f"not compared, or not mended: {why}")
