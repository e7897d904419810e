"""Makes `cloud_rig` importable for the tests of this folder, whichever way pytest is started."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest

from harness.cloudstack.records import Records
from harness.spi.runtime import Runtime


@pytest.fixture(autouse=True)
def stores_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Closes what the test opened, also in tests that kill the process that would have."""
    opened: list[Records] = []
    really = Records.open

    def tracked(path: Path | None, runtime: Runtime, image: bytes | None = None) -> Records:
        opened.append(really(path, runtime, image))
        return opened[-1]

    monkeypatch.setattr(Records, "open", tracked)
    yield
    for records in opened:
        records.close()
