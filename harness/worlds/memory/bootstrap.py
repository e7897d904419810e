"""What exists in the memory world before a scenario starts: made through StorPool's and CloudStack's APIs."""

from __future__ import annotations

import msgspec

from harness.observers import Environment, Json, OtherZone, Pool, World
from harness.storpool import Request, Transport
from harness.worlds.memory.image import guest_image, guest_image_sha256, guest_iso, idle_image_sha256
from harness.worlds.memory.processes import ENDPOINT, STORPOOL_TOKEN
from harness.worlds.memory.site import ClusterSite, Site

IMAGE_URL = "http://images/guest.qcow2"
ISO_URL = "http://images/guest.iso"
IDLE_URL = "http://images/idle.qcow2"
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


def bootstrap(world: World, site: Site) -> Environment:
    """Pools, a service offering, and every host connected. `world.environment` may not be used yet.

    A second zone has pools of its own, of the last StorPool cluster of the site.
    """
    call = world.cloud.call
    zones = [str(zone["id"]) for zone in call("listZones")["zone"]]
    zone_id = zones[0]
    os_type_id = str(_first(call("listOsTypes"), "ostype")["id"])
    world.wait_until("every host is Up", lambda: _hosts_up(world, site))
    first, last = site.clusters[0], site.clusters[-1]
    pools = tuple(_pool(world, zone_id, first, name, name) for name in TEMPLATES)
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
        idle_image_url=IDLE_URL,
        idle_image_sha256=idle_image_sha256(),
        service_offering_id=str(offering["serviceoffering"]["id"]),
        os_type_id=os_type_id,
        location="" if first is last else first.known.location,
        other_zone=None if len(zones) == 1 else _other_zone(world, zones[1], last),
        storpool_endpoints=ENDPOINT,
        storpool_token=STORPOOL_TOKEN,
    )


def _other_zone(world: World, zone_id: str, cluster: ClusterSite) -> OtherZone:
    pools = tuple(_pool(world, zone_id, cluster, f"{name}-2", name) for name in TEMPLATES)
    return OtherZone(zone_id=zone_id, pools=pools, location=cluster.known.location)


def _pool(world: World, zone_id: str, cluster: ClusterSite, name: str, template: str) -> Pool:
    answer = world.cloud.call(
        "createStoragePool",
        name=name,
        zoneid=zone_id,
        scope="zone",
        provider="StorPool",
        hypervisor="KVM",
        managed=False,
        capacitybytes=POOL_CAPACITY,
        url=f"storpool://{cluster.token}@{cluster.endpoint}/{template}",
        tags=template,
    )
    return Pool(id=str(answer["storagepool"]["id"]), name=name, tag=template, storpool_template=template)


def _hosts_up(world: World, site: Site) -> bool:
    hosts = world.cloud.call("listHosts", type="Routing").get("host", [])
    return sorted(str(host["name"]) for host in hosts if host["state"] == "Up") == sorted(
        host.name for host in site.hosts
    )


def _first(answer: Json, key: str) -> Json:
    found: Json = answer[key][0]
    return found
