"""What a lab's cloud has before a scenario starts: made through the signed API, or found from an earlier run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from harness.observers import Cloud, Environment, Json, OtherZone, Pool
from lab.file import Lab, StorPoolCluster

POOL_CAPACITY = 1 << 40
"""Bytes that CloudStack may allocate on a pool."""
HOSTS_SECONDS = 120.0
GUEST_MEMORY = 128
"""MiB; what the lab's guest image needs."""


def fill_zone(cloud: Cloud, lab: Lab, endpoints: Sequence[str], token: str) -> Environment:
    """Two pools at `endpoints` of StorPool, an offering; every host Up. What exists by its name is used as it is.

    A second zone gets pools of the second StorPool cluster.
    """
    zones = [str(zone["id"]) for zone in cloud.call("listZones")["zone"]]
    zone_id = zones[0]
    os_type_id = str(_only(cloud.call("listOsTypes"), "ostype")["id"])
    _wait_for_hosts(cloud, lab)
    pools = tuple(_pool(cloud, endpoints, zone_id, template, token) for template in lab.storpool.templates)
    second = lab.second_storpool
    return Environment(
        zone_id=zone_id,
        pools=pools,
        image_url=lab.guest_image.url,
        image_size=lab.guest_image.virtual_size,
        image_sha256=lab.guest_image.sha256,
        iso_url=lab.guest_image.iso_url,
        iso_size=lab.guest_image.iso_size,
        idle_image_url=lab.guest_image.idle_url,
        idle_image_sha256=lab.guest_image.idle_sha256,
        service_offering_id=_offering(cloud, pools[0].tag),
        os_type_id=os_type_id,
        location="" if second is None else lab.storpool.location,
        other_zone=None if second is None or len(zones) == 1 else _other_zone(cloud, zones[1], second),
        storpool_endpoints=",".join(endpoints),
        storpool_token=token,
    )


def _other_zone(cloud: Cloud, zone_id: str, cluster: StorPoolCluster) -> OtherZone:
    token = cluster.token_file.read_text().strip()
    pools = tuple(
        _pool(cloud, cluster.endpoints, zone_id, template, token, f"storpool-{template}-2")
        for template in cluster.templates
    )
    return OtherZone(zone_id=zone_id, pools=pools, location=cluster.location)


def _pool(
    cloud: Cloud, endpoints: Sequence[str], zone_id: str, template: str, token: str, name: str | None = None
) -> Pool:
    name = name or f"storpool-{template}"

    def make() -> Json:
        return cloud.call(
            "createStoragePool",
            name=name,
            zoneid=zone_id,
            scope="zone",
            provider="StorPool",
            hypervisor="KVM",
            managed=False,
            capacitybytes=POOL_CAPACITY,
            url=f"SP_API_HTTP={','.join(endpoints)};SP_AUTH_TOKEN={token};SP_TEMPLATE={template}",
            tags=template,
        )

    pool_id = _existing_or_made(cloud, "listStoragePools", "storagepool", name, make)
    return Pool(id=pool_id, name=name, tag=template, storpool_template=template)


def _offering(cloud: Cloud, tag: str) -> str:
    def make() -> Json:
        return cloud.call(
            "createServiceOffering",
            name="small",
            displaytext="small",
            cpunumber=1,
            cpuspeed=500,
            memory=GUEST_MEMORY,
            storagetype="shared",
            tags=tag,
        )

    return _existing_or_made(cloud, "listServiceOfferings", "serviceoffering", "small", make)


def _existing_or_made(cloud: Cloud, listing: str, key: str, name: str, make: Callable[[], Json]) -> str:
    found = cloud.call(listing, name=name).get(key) or [make()[key]]
    return str(found[0]["id"])


def _wait_for_hosts(cloud: Cloud, lab: Lab) -> None:
    wanted = sorted(host.name for host in lab.hosts)
    deadline = time.monotonic() + HOSTS_SECONDS
    while True:
        listed = cloud.call("listHosts", type="Routing").get("host", [])
        up = sorted(str(host["name"]) for host in listed if host["state"] == "Up")
        if up == wanted:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"hosts {', '.join(wanted)} are not all Up in CloudStack; Up are: {', '.join(up) or 'none'}"
            )
        time.sleep(0.5)


def _only(answer: Json, key: str) -> Json:
    found: Json = answer[key][0]
    return found
