"""Temporary objects that could not be removed at once: each is an operation of its own until it is gone."""

from __future__ import annotations

from harness.driver.creation import Creation
from harness.driver.in_use import COPIED_BY, IN_USE, IN_USE_FOR, cut_short, in_use_no_more
from harness.driver.operations import Operation, Operations, log
from harness.driver.pools import Pools
from harness.driver.removal import remover
from harness.spi.driver import HostEndpoints
from harness.spi.errors import Error
from harness.spi.objects import device_path
from harness.storpool import StorPoolClient

_WAITING = "removed; open until neither a lost request nor a copy of one can arrive any more"


class Discards:
    """Removes what an operation left, and looks once more when nothing can arrive any more. One step: discard."""

    kind = "discard"

    def __init__(self, operations: Operations, pools: Pools, endpoints: HostEndpoints) -> None:
        self._operations = operations
        self._pools = pools
        self._endpoints = endpoints

    def take_over(self, creation: Creation, pool_id: int, *, in_use_until: float = 0.0, copied_by: str = "") -> None:
        """Record the object as to be removed, and try at once.

        Until `in_use_until` an agent may use it: that of the host `copied_by` is told to end that. Never raises an
        `Error` of StorPool: what stays is removed by `recover`.
        """
        use = {IN_USE: str(in_use_until), IN_USE_FOR: str(max(0.0, in_use_until - self._operations.now()))}
        data = {**creation.handover(), "key": creation.key, **use, COPIED_BY: copied_by}
        self._take_over(creation.name, data, pool_id)

    def take_from(self, operation: Operation, creation: Creation) -> None:
        """As `take_over`, of one of an operation that is undone, if there is or may come such an object."""
        if creation.global_id is None and not creation.unanswered:
            return
        until = 0.0 if in_use_no_more(self._operations, operation) else float(operation.data[IN_USE])
        host = operation.data.get(COPIED_BY, "")
        self.take_over(creation, operation.pool_id, in_use_until=until, copied_by=host)

    def take_over_snapshot(self, name: str, unanswered: int, settles_at: float, pool_id: int) -> None:
        """As `take_over`, of what has this name: one snapshot of a group."""
        # One more than there are: then it is looked for by its name.
        data = _of_name("snapshot", name, unanswered + 1, settles_at)
        self._take_over(name, data, pool_id)

    def _take_over(self, name: str, more: dict[str, str], pool_id: int) -> None:
        subject, data = f"storpool:{name}", {**more, "pool": str(pool_id)}
        with self._operations.exclusive(subject):
            operation = self._operations.begin(self.kind, subject, "discard", data)
            try:
                self._remove(operation, self._pools.get(pool_id).client)
            except Error as error:
                log.warning("%s: not removed yet: %s", operation, error)

    def look_out(self, creation: Creation, pool_id: int) -> None:
        """The object has given its name away: a copy of its create that still arrives makes one that nobody wants.

        To be called when the name is free for certain; what has it when nothing can arrive any more is removed then.
        """
        if creation.over:
            return
        data = _of_name(creation.key, creation.name, 0, creation.settles_at)
        self._operations.begin(self.kind, f"storpool:{creation.name}", "discard", {**data, "pool": str(pool_id)})

    def look_out_for(self, name: str, creation: Creation, pool_id: int) -> None:
        """As `look_out`, of a name that the object had after its own; a copy of the request for it may still arrive."""
        data = _of_name(creation.key, name, 0, self._operations.now() + self._operations.settle_time)
        self._operations.begin(self.kind, f"storpool:{name}", "discard", {**data, "pool": str(pool_id)})

    def waiting(self, operation: Operation) -> str | None:
        """What is to be said of one that nothing but time is wanted for; None when it should be recovered.

        Most that are open are such, for ten minutes each, and they are looked at again and again.
        """
        key = operation.data["key"]
        if operation.data.get(f"{key}.id") or int(operation.data.get(f"{key}.unanswered") or 0):
            return None
        if not self._operations.ahead(operation, f"{key}.settles", self._operations.settle_time):
            return None
        return f"{operation}: {_WAITING}"

    def recover(self, operation: Operation) -> str:
        if self._remove(operation, self._pools.get(operation.pool_id).client):
            return f"{operation}: removed"
        return f"{operation}: {_WAITING}"

    def _remove(self, operation: Operation, client: StorPoolClient) -> bool:
        creation = Creation(self._operations, operation, operation.data["key"], client)
        remove = remover(client, creation.key)
        if creation.global_id is not None:
            cut_short(self._operations, operation, self._endpoints, device_path(creation.global_id))
        if not in_use_no_more(self._operations, operation):
            # An agent may be about to open it: an attachment that nobody has opened yet is not known to be unused.
            remove = remover(client, creation.key, detach_unused=False)
        if not creation.unmake(remove, copies=True):
            return False
        operation.done()
        return True


def _of_name(key: str, name: str, unanswered: int, settles_at: float) -> dict[str, str]:
    """Data of a discard of what has this name, if there is or may come such an object; no agent uses it."""
    return {
        "key": key,
        f"{key}.name": name,
        f"{key}.id": "",
        f"{key}.unanswered": str(unanswered),
        f"{key}.settles": str(settles_at),
        IN_USE: "0",
        IN_USE_FOR: "0",
    }
