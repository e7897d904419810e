"""ISOs: one that is in a drive stays, whoever asks first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cloud_rig import Rig

from harness.cloudstack.records.rows import Template, Vm
from harness.runtime.threads import ThreadRuntime
from harness.spi.errors import InvalidParameter, NotFound


@pytest.fixture
def rig() -> Iterator[Rig]:
    runtime = ThreadRuntime("management")
    rig = Rig(runtime)
    rig.server.start()
    yield rig
    assert rig.server.stop()
    runtime.kill()


def test_an_iso_is_not_deleted_under_a_vm_nor_attached_when_it_is_gone(rig: Rig) -> None:
    """As of two jobs whose refusals were asked for before either had begun."""
    vm = rig.deploy(*rig.ready())
    rig.call("stopVirtualMachine", id=vm["id"])
    os_type = rig.call("listOsTypes")["ostype"][0]["id"]
    made = rig.call("registerIso", name="tools", url="http://images/t.iso", zoneid=rig.zone(), ostypeid=os_type)
    (iso,) = rig.rows(Template, uuid=made["iso"][0]["id"])
    rig.until(lambda: rig.call("listIsos", id=iso.uuid)["iso"][0]["isready"])
    services = rig.server.services
    services.isos.change(1, iso.id)
    with pytest.raises(InvalidParameter, match="it's used by other Instances"):
        services.template_removal.remove(iso.id)
    services.isos.change(1, None)
    services.template_removal.remove(iso.id)
    with pytest.raises(NotFound):
        services.isos.change(1, iso.id)
    assert rig.rows(Vm)[0].iso_id is None
    rig.call("startVirtualMachine", id=vm["id"])
