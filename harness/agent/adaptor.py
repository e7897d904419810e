"""The storage adaptor: StorPool volumes to devices of this host and back.

spec/cloudstack-plugin.md sections 2.3, 4.4 and 4.5.

`connect` answers only when the device is there with the right size (weakness 6); `disconnect` never forces (weakness 2)
and takes "already gone" as done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from harness.agent.config import AgentConfig
from harness.agent.deadline import Deadline
from harness.spi.errors import Conflict, Error, InvalidParameter, NotFound, Unavailable
from harness.spi.objects import storpool_id
from harness.spi.ports import Host
from harness.spi.runtime import Runtime
from harness.storpool import NotSent

POLL_SECONDS = 0.1
BUSY_RETRY_SECONDS = 0.5
LEAST_DETACH_SECONDS = 5.0
"""For a detach whose command has no time left: it is tried nevertheless, for what stays attached is in the way."""


class Attachments(Protocol):
    """The few StorPool calls the adaptor makes; `object_id` is a name or `~globalId`, of a volume or a snapshot.

    All raise errors of `harness.spi.errors`. Attaching and detaching can be repeated with the same effect.
    """

    def attach(self, object_id: str, client: int, *, shared: bool, timeout: int, late: Callable[[], None]) -> None:
        """Attach here, a volume read-write and a snapshot read-only. `NotFound` when there is no such object.

        Unless `shared`, a volume is detached from every other client; when one of them has it open, `Conflict` names
        that one and nothing is changed. `late` is called, at once, when the attachment may also
        be made after this call and whatever follows it: an answer was lost, or StorPool gave up waiting.
        """
        ...

    def detach(self, object_id: str, client: int, *, timeout: int, within: Deadline | None) -> None:
        """Detach from here, without force. `Conflict` while the device is open, `NotFound` when the object is gone.

        `timeout` is how long StorPool may wait for this client, `within` the end of all sendings.
        """
        ...

    def size(self, object_id: str) -> int:
        """Size of the object as StorPool knows it; `NotFound` when there is none."""
        ...


class StorageAdaptor:
    """`client_id` (SP_OURID) is asked for at each call: a corrected storpool.conf needs no restart of the agent.
    `attach_may_come_late` is told the path of an attachment that may be made after a later detach."""

    def __init__(
        self,
        runtime: Runtime,
        host: Host,
        attachments: Attachments,
        config: AgentConfig,
        client_id: Callable[[], int],
        attach_may_come_late: Callable[[str], None],
    ) -> None:
        self._runtime = runtime
        self._host = host
        self._attachments = attachments
        self._config = config
        self._client_id = client_id
        self._attach_may_come_late = attach_may_come_late

    def connect(self, path: str, *, size: int | None, timeout: float, shared: bool = False) -> int:
        """Attach the object at `path` to this host and wait for its device; the device's size.

        Two hosts that write to one volume destroy what is on it, so other hosts lose it unless `shared`; `Conflict`
        names one that has it open. `size` None means the size StorPool gives. After an error it is detached again; when
        that fails too, a note of the error says so. Raises `Unavailable` when the API or the device did not answer in
        time, `NotFound` when the object is gone, `InvalidParameter` when this host is no client of the cluster.
        """
        deadline = Deadline(self._runtime, timeout)
        try:
            self._attach(path, deadline, shared=shared)
        except (NotSent, NotFound, InvalidParameter):
            raise
        except Error as error:
            # Without an answer it may have taken effect, and when StorPool gave up waiting it may do so later.
            self.undo(error, [path])
            raise
        try:
            return self._wait_for_device(path, size, deadline)
        except Error as error:
            self.undo(error, [path])
            raise

    def verify(self, path: str, *, size: int | None, timeout: float) -> int:
        """Like `connect`, but leaves the attachment as it is after an error: for disks that a guest has."""
        deadline = Deadline(self._runtime, timeout)
        self._attach(path, deadline, shared=True)
        return self._wait_for_device(path, size, deadline)

    def await_size(self, path: str, size: int, timeout: float) -> None:
        """Wait until the device, which is attached, has this size; raises `Unavailable` when it does not in time."""
        self._wait_for_device(path, size, Deadline(self._runtime, timeout))

    def disconnect(self, path: str, *, timeout: float | None = None) -> None:
        """Detach the object from this host; what is detached or gone already is done.

        A device that is open is asked for again until the time is over, then `Conflict` names it; it is never forced.
        `timeout` bounds the calls too, but leaves them `LEAST_DETACH_SECONDS`.
        """
        object_id = storpool_id(path)
        client = self._client_id()
        limit = self._config.detach_busy_timeout
        within = None
        if timeout is not None:
            within = Deadline(self._runtime, max(timeout, LEAST_DETACH_SECONDS))
            limit = min(limit, within.remaining)
        deadline = Deadline(self._runtime, limit)
        while True:
            try:
                self._attachments.detach(object_id, client, timeout=self._config.attach_timeout, within=within)
                return
            except NotFound:
                return
            except Conflict as error:
                if deadline.passed:
                    raise Conflict(
                        f"{path} is still open on host {self._config.host_name}, so it stays attached there: {error}; "
                        "close what uses it, then detach again"
                    ) from error
            deadline.pause(BUSY_RETRY_SECONDS)

    def undo(self, error: Error, paths: Iterable[str]) -> None:
        """Detach after a failure; what cannot be detached becomes a note of `error`, which stays the result."""
        for path in paths:
            try:
                self.disconnect(path)
            except Error as problem:
                error.add_note(f"while cleaning up, {path} could not be detached and may still be attached: {problem}")

    def _attach(self, path: str, deadline: Deadline, *, shared: bool) -> None:
        name = self._config.host_name
        object_id = storpool_id(path)
        client = self._client_id()
        timeout = max(1, min(self._config.attach_timeout, int(deadline.remaining)))
        try:
            self._attachments.attach(
                object_id, client, shared=shared, timeout=timeout, late=lambda: self._attach_may_come_late(path)
            )
        except NotSent as error:
            raise NotSent(
                f"host {name} could not attach {path}, because it does not reach the StorPool API: {error}; "
                "check SP_API_HTTP_HOST in its storpool.conf and the network"
            ) from error
        except NotFound as error:
            raise NotFound(f"{path} does not exist in StorPool, so it cannot be attached to host {name}") from error
        except Conflict as error:
            raise Conflict(
                f"{path} was not attached to host {name}, because another host has it open: {error}; "
                "stop what uses it there first"
            ) from error
        except InvalidParameter as error:
            raise InvalidParameter(
                f"StorPool refuses to attach {path} to host {name} as client {client}: {error}; "
                "is storpool_block running there, with this SP_OURID?"
            ) from error

    def _wait_for_device(self, path: str, expected: int | None, deadline: Deadline) -> int:
        """The device's size, once it is the expected one; without one, StorPool is asked which it should be."""
        name = self._config.host_name
        size = self._attachments.size(storpool_id(path)) if expected is None else expected
        limit = Deadline(self._runtime, min(self._config.device_timeout, deadline.remaining))
        while (found := self._host.block_device_size(path)) != size:
            if limit.passed:
                if found is None:
                    raise Unavailable(
                        f"StorPool attached {path} to host {name}, but no block device showed up there in time; "
                        "is storpool_block running on the host?"
                    )
                raise Unavailable(
                    f"{path} on host {name} has {found} bytes, but {size} were expected; it is stale, or was resized"
                )
            limit.pause(POLL_SECONDS)
        return size
