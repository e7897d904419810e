"""What exists in the memory world before a scenario starts: made through StorPool's and CloudStack's APIs."""

from __future__ import annotations

import msgspec

from harness.observers import Environment, Json, Pool, World
from harness.storpool import Request, Transport
from harness.worlds.memory.image import guest_image, guest_image_sha256, guest_iso
from harness.worlds.memory.processes import ENDPOINT, HOSTS, STORPOOL_TOKEN

IMAGE_URL = "http://images/guest.qcow2"
ISO_URL = "http://images/guest.iso"
POOL_CAPACITY = 1 << 40
"""Bytes that CloudStack may allocate on a pool."""
TEMPLATES = {"fast": "ssd", "large": "hdd"}
"""StorPool templates by name, and the placement group each puts data in; the CloudStack pools are called so too."""


def make_templates(storpool: Transport) -> None:
    """StorPool templates for two pools."""
    for name, group in TEMPLATES.items():
        body = {"name": name, "replication": 3, "placeAll": group, "placeTail": group, "placeHead": group}
        request = Request("POST", "VolumeTemplateCreate", msgspec.json.encode(body), 60.0)
        reply = storpool.call(request)
        if reply.status != 200:
            raise RuntimeError(f"StorPool refuses template {name}: {reply.body.decode()}")


def bootstrap(world: World) -> Environment:
    """Pools, a service offering, and every host connected. `world.environment` may not be used yet."""
    call = world.cloud.call
    zone_id = str(_first(call("listZones"), "zone")["id"])
    os_type_id = str(_first(call("listOsTypes"), "ostype")["id"])
    world.wait_until("every host is Up", lambda: _hosts_up(world))
    pools = tuple(_pool(world, zone_id, name) for name in TEMPLATES)
    offering = call(
        "createServiceOffering",
        name="small",
        displaytext="small",
        cpunumber=1,
        cpuspeed=500,
        memory=128,
        storagetype="shared",
        tags=pools[0].tag,
    )
    return Environment(
        zone_id=zone_id,
        pools=pools,
        image_url=IMAGE_URL,
        image_size=guest_image().size,
        image_sha256=guest_image_sha256(),
        iso_url=ISO_URL,
        iso_size=len(guest_iso()),
        service_offering_id=str(offering["serviceoffering"]["id"]),
        os_type_id=os_type_id,
        storpool_endpoints=ENDPOINT,
        storpool_token=STORPOOL_TOKEN,
    )


def _pool(world: World, zone_id: str, name: str) -> Pool:
    answer = world.cloud.call(
        "createStoragePool",
        name=name,
        zoneid=zone_id,
        scope="zone",
        provider="StorPool",
        hypervisor="KVM",
        managed=False,
        capacitybytes=POOL_CAPACITY,
        url=f"storpool://{STORPOOL_TOKEN}@{ENDPOINT}/{name}",
        tags=name,
    )
    return Pool(id=str(answer["storagepool"]["id"]), name=name, tag=name, storpool_template=name)


def _hosts_up(world: World) -> bool:
    hosts = world.cloud.call("listHosts", type="Routing").get("host", [])
    return sorted(str(host["name"]) for host in hosts if host["state"] == "Up") == sorted(HOSTS)


def _first(answer: Json, key: str) -> Json:
    found: Json = answer[key][0]
    return found
