"""Which copies are the driver's, of everything it could be asked for."""

from __future__ import annotations

import msgspec
import pytest
from driver_rig import IMAGES, POOL, Rig, image, on_pool, snapshot_of, volume

from harness.spi.errors import InvalidParameter
from harness.spi.objects import DataObject, DataStore, StoreRole

OTHER = DataStore(id=9, uuid="ssd;p", name="other", role=StoreRole.PRIMARY, provider="StorPool", url="storpool:ssd")
NFS = DataStore(id=8, uuid="n", name="nfs", role=StoreRole.PRIMARY, provider="DefaultPrimary", url="nfs://h/export/p")
STORES = {"pool": POOL, "other": OTHER, "images": IMAGES, "nfs": NFS}
KINDS: dict[str, DataObject] = {"volume": volume(), "snapshot": snapshot_of(volume()), "template": on_pool(image())}
OBJECTS: dict[str, DataObject] = {
    f"{kind}@{place}": msgspec.structs.replace(item, store=store)
    for kind, item in KINDS.items()
    for place, store in STORES.items()
}
OURS = ("pool", "other")
COPIES = {
    *((f"{kind}@{one}", f"{kind}@{two}") for kind in ("volume", "snapshot") for one, two in (OURS, OURS[::-1])),
    *((f"{kind}@{ours}", f"{kind}@images") for kind in ("volume", "snapshot") for ours in OURS),
    *((f"volume@{ours}", "volume@nfs") for ours in OURS),
    *(("volume@nfs", f"volume@{ours}") for ours in OURS),
    *((f"snapshot@{place}", f"volume@{ours}") for place in (*OURS, "images") for ours in OURS),
    *((f"{kind}@{ours}", "template@images") for kind in ("volume", "snapshot") for ours in OURS),
    *(("template@images", f"template@{ours}") for ours in OURS),
    *((f"template@{ours}", f"volume@{ours}") for ours in OURS),
}


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.records.details[OTHER.id] = {**rig.records.details[POOL.id], "SP_TEMPLATE": "ssd"}
    return rig


def test_the_copies_that_the_driver_makes_are_these_and_no_others(rig: Rig) -> None:
    can = {
        (source, destination)
        for source, one in OBJECTS.items()
        for destination, other in OBJECTS.items()
        if rig.driver.can_copy(one, other)
    }
    assert can == COPIES


@pytest.mark.parametrize(("source", "destination"), [("volume@nfs", "volume@pool"), ("snapshot@images", "volume@pool")])
def test_what_is_not_encrypted_becomes_no_volume_that_is_said_to_be(rig: Rig, source: str, destination: str) -> None:
    said = msgspec.structs.replace(OBJECTS[destination], encrypted=True)
    with pytest.raises(InvalidParameter, match="both be encrypted, or neither"):
        rig.driver.copy(OBJECTS[source], said)
    assert (rig.volumes(), rig.agent.commands, rig.records.open_operations()) == ([], [], [])
