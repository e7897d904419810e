"""What all rows have in common."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from harness.spi.states import StateMachine


class Row(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Base of all rows; `id` 0 means not stored yet."""

    TABLE: ClassVar[str]
    MACHINE: ClassVar[StateMachine[Any, Any] | None] = None
    """The only way to change `state`; Any because each table has its own states."""
    UNIQUE: ClassVar[tuple[str, ...]] = ()
    """Columns that together are unique."""
    INDEX: ClassVar[tuple[str, ...]] = ()

    id: int = 0
