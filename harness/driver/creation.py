"""StorPool objects that an operation makes, found again by name after a lost answer or a restart.

StorPool finds objects by name or id only, so each create carries a name derived from the operation's id: a second
create of that name is refused with `objectExists`, and that means found. Every sending whose answer is outstanding is
counted in the operation's record before it leaves. While one is outstanding that did not make the object that was
found, it may still arrive and make another: then the name must stay taken, or the operation open.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.driver.operations import ANSWERED, Operation, Operations
from harness.spi.errors import Error, Unknown
from harness.storpool import ObjectDoesNotExist, ObjectExists, StorPoolClient

SENDINGS = 3
"""How often one call sends a create whose answer gets lost."""
AWAY = 3600.0
"""Seconds between the last sending of a create and the start of a server that may still undo it.

A server that starts later may have got its records from a backup, in which the operation is open because the backup was
made in the midst of it. It went on after that, and what it made may have an owner.
"""


class Creation:
    """One object of an operation. `key` (`volume` or `snapshot`) says which kind of object, and names its data."""

    def __init__(self, operations: Operations, operation: Operation, key: str, client: StorPoolClient) -> None:
        self._operations = operations
        self._operation = operation
        self._client = client
        self.key = key

    @property
    def name(self) -> str:
        """The StorPool name it is created under."""
        return self._operation.data.get(f"{self.key}.name") or f"cs-{self._operation.id}-{self.key}"

    @property
    def global_id(self) -> str | None:
        return self._operation.data.get(f"{self.key}.id") or None

    @property
    def unanswered(self) -> int:
        """Sendings that may still arrive."""
        return int(self._operation.data.get(f"{self.key}.unanswered") or 0)

    @property
    def settled(self) -> bool:
        """Whether no sending can arrive any more."""
        return not self.unanswered or self.over

    @property
    def over(self) -> bool:
        """Whether the last sending was so long ago that no copy of it is under way."""
        return self._operations.passed(self._operation, f"{self.key}.settles", self._operations.settle_time)

    @property
    def settles_at(self) -> float:
        return float(self._operation.data.get(f"{self.key}.settles") or 0)

    def make(self, send: Callable[[str], str], made_step: str) -> str:
        """The object's bare global id, made now or before; then the operation is at `made_step`.

        `send` creates the object under the name it is given. Raises `Unknown` when it cannot be said whether the object
        will exist: the operation must stay open. After any other error nothing was made by this call.
        """
        if self.global_id is not None:
            if self._operation.step != ANSWERED:
                self._operation.advance(made_step)
            return self.global_id
        for left in reversed(range(SENDINGS)):
            before = self.unanswered
            self._count(before + 1)
            try:
                return self._made(send(self.name), before, made_step)
            except ObjectExists:
                found = self.find()
                if found is None:
                    self._count(before)
                    raise
                return self._made(found, max(before - 1, 0), made_step)
            except Unknown as lost:
                found = self._read_back(lost)
                if found is not None:
                    return self._made(found, before, made_step)
                if not left:
                    raise
            except Error:
                self._count(before)
                raise
        raise AssertionError("the last sending returns or raises")

    def unmake(self, remove: Callable[[str], None], *, copies: bool = False) -> bool:
        """Remove whatever was made. False while a sending may still arrive: then call again later.

        With `copies` a second copy of a sending that was answered may arrive, too: now that the name is free it would
        make another object.
        """
        for _ in range(self.unanswered + 2):
            global_id = self.global_id
            if global_id is None and (self.unanswered or (copies and self.over)):
                global_id = self.find()
                if global_id is not None:
                    self._made(global_id, max(self.unanswered - 1, 0), self._operation.step)
            if global_id is None:
                break
            remove(f"~{global_id}")
            self.forget()
        return self.over if copies else self.settled

    def unmake_late(self, remove: Callable[[str], None]) -> None:
        """The object was deleted since, so its name turned no request away that came late: remove what that made."""
        late = self.find()
        if late is not None:
            remove(f"~{late}")

    def find(self) -> str | None:
        """Global id of the object that has the name now."""
        return self._look(self.name)

    def exists(self) -> bool:
        """Whether the object that was made is still there."""
        return self.global_id is not None and self._look(f"~{self.global_id}") is not None

    def doubt(self) -> str | None:
        """Why what was made may have an owner that these records do not know, so that no recovery may remove it.

        None when it may, or nothing is there. Snapshots keep their names, so of them only the time tells.
        """
        if self.global_id is None and not self.unanswered:
            return None
        sent_at = self.settles_at - self._operations.settle_time
        # Of its own sendings this process knows that they are of these records, whatever the clock said then.
        own = self._operation.data.get(f"{self.key}.process") == self._operations.incarnation
        late = not own and self._operations.started - sent_at > AWAY
        if not late and (self.key == "snapshot" or self.global_id is None):
            return None
        look = self._client.snapshot if self.key == "snapshot" else self._client.volume
        try:
            found = look(f"~{self.global_id}" if self.global_id else self.name)
        except ObjectDoesNotExist:
            return None
        if late:
            why = f"this server started more than {AWAY:g} s after it was asked for"
        elif found.name != self.name:
            why = f"its name was changed to {found.name}, as is done when a volume has its owner"
        else:
            return None
        return (
            f"left open, and {self.key} ~{found.global_id} left in StorPool, because {why}; if these records were "
            "restored from a backup, it may be in use; otherwise delete it in StorPool"
        )

    def forget(self) -> None:
        """The object is gone from StorPool."""
        self._operation.note({f"{self.key}.id": ""})

    def handover(self) -> dict[str, str]:
        """Data with which another operation can take the object over."""
        return {
            f"{self.key}.name": self.name,
            f"{self.key}.id": self.global_id or "",
            f"{self.key}.unanswered": str(self.unanswered),
            f"{self.key}.settles": str(self.settles_at),
            f"{self.key}.process": self._operation.data.get(f"{self.key}.process", ""),
        }

    def _look(self, name: str) -> str | None:
        try:
            if self.key == "snapshot":
                return self._client.snapshot(name).global_id
            return self._client.volume(name).global_id
        except ObjectDoesNotExist:
            return None

    def _read_back(self, lost: Unknown) -> str | None:
        try:
            return self.find()
        except Error as error:
            raise lost from error

    def _made(self, global_id: str, unanswered: int, step: str) -> str:
        self._operation.advance(
            step,
            {f"{self.key}.id": global_id, f"{self.key}.unanswered": str(unanswered), f"{self.key}.name": self.name},
        )
        return global_id

    def _count(self, unanswered: int) -> None:
        self._operation.note(
            {
                f"{self.key}.unanswered": str(unanswered),
                f"{self.key}.settles": str(self._operations.now() + self._operations.settle_time),
                f"{self.key}.process": self._operations.incarnation,
            }
        )
