"""Files of templates on secondary storage: known for as long as somebody may write them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cloud_rig import Rig

from harness.cloudstack.orchestration import secondary_files
from harness.cloudstack.records.rows import TemplateStore
from harness.runtime.threads import ThreadRuntime
from harness.spi.errors import Unknown


@pytest.fixture
def rig() -> Iterator[Rig]:
    runtime = ThreadRuntime("management")
    rig = Rig(runtime)
    rig.server.start()
    yield rig
    assert rig.server.stop()
    runtime.kill()


def test_a_file_whose_download_was_not_answered_is_deleted_again_when_it_cannot_be_written_any_more(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.secondary.fail("DownloadCommand", Unknown("the connection broke"))
    made = rig.call(
        "registerTemplate",
        name="guest",
        displaytext="guest",
        format="QCOW2",
        hypervisor="KVM",
        url="http://images/guest.qcow2",
        zoneid=rig.zone(),
    )["template"][0]
    rig.until(lambda: "connection" in rig.find("template", made["id"], templatefilter="self")["status"])
    rig.call("deleteTemplate", id=made["id"])
    rig.server.services.template_removal.tend()
    assert [row.state for row in rig.rows(TemplateStore)] == ["Destroyed"]
    assert rig.secondary.calls.count("DeleteCommand") == 1
    for name in ("primary.storage.download.wait", "backup.snapshot.wait"):
        rig.call("updateConfiguration", name=name, value="0")
    monkeypatch.setattr(secondary_files, "LATE", 0.0)
    rig.server.services.template_removal.tend()
    assert rig.rows(TemplateStore) == []
    assert rig.secondary.calls.count("DeleteCommand") == 2
