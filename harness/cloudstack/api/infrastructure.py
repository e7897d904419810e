"""Zones, pods, clusters, hosts, OS types, capabilities, users, accounts and domains."""

from __future__ import annotations

import base64

from harness.cloudstack.api.command import Command, Json, listing, sync
from harness.cloudstack.api.errors import PARAMETER, ApiError
from harness.cloudstack.api.lookup import clean, entity, matching, time, visible
from harness.cloudstack.api.parameters import LIST, OWNED, Request
from harness.cloudstack.orchestration.encryption import host_encrypts
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import Account, Cluster, Domain, GuestOs, HostRow, Pod, User, Zone
from harness.cloudstack.services import Services

VERSION = "4.22.0.0"


def list_zones(services: Services, request: Request) -> list[Json]:
    with services.records.read() as tx:
        rows = [
            {
                "id": row.uuid,
                "name": row.name,
                "networktype": "Advanced",
                "securitygroupsenabled": False,
                "allocationstate": "Enabled",
                "type": "Core",
                "localstorageenabled": False,
                "tags": [],
            }
            for row in tx.all(Zone)
        ]
    return matching(rows, request, "id", "name")


def list_pods(services: Services, request: Request) -> list[Json]:
    with services.records.read() as tx:
        zones = {row.id: row for row in tx.all(Zone)}
        rows = [
            {
                "id": row.uuid,
                "name": row.name,
                "zoneid": zones[row.data_center_id].uuid,
                "zonename": zones[row.data_center_id].name,
                "allocationstate": "Enabled",
            }
            for row in tx.all(Pod)
        ]
    return matching(rows, request, "id", "name", "zoneid", "allocationstate")


def list_clusters(services: Services, request: Request) -> list[Json]:
    with services.records.read() as tx:
        rows = [_cluster(tx, row) for row in tx.all(Cluster)]
    return matching(rows, request, "id", "name", "zoneid", "podid", "allocationstate")


def list_hosts(services: Services, request: Request) -> list[Json]:
    with services.records.read() as tx:
        rows = [host_view(tx, row) for row in tx.all(HostRow)]
    return matching(
        rows, request, "id", "name", "zoneid", "clusterid", "podid", "type", "state", "hypervisor", "resourcestate"
    )


def list_os_types(services: Services, request: Request) -> list[Json]:
    with services.records.read() as tx:
        rows = [
            {"id": row.uuid, "description": row.display_name, "name": row.display_name, "oscategoryname": row.category}
            for row in tx.all(GuestOs)
        ]
    return matching(rows, request, "id", "description")


def list_capabilities(services: Services, request: Request) -> Json:  # noqa: ARG001 - every command has this form
    return {
        "cloudstackversion": VERSION,
        "securitygroupsenabled": False,
        "kvmsnapshotenabled": True,
        "allowuserexpungerecovervm": True,
        "allowuserexpungerecovervolume": True,
        "customdiskofferingminsize": 1,
        "customdiskofferingmaxsize": 1024,
    }


def list_users(services: Services, request: Request) -> list[Json]:
    with services.records.read() as tx:
        rows = [_user(tx, row) for row in tx.all(User)]
    return matching(rows, request, "id", "username", "account", "accounttype", "domainid", "state")


def list_accounts(services: Services, request: Request) -> list[Json]:
    with services.records.read() as tx:
        domains = {row.id: row for row in tx.all(Domain)}
        rows = [
            {
                "id": row.uuid,
                "name": row.account_name,
                "accounttype": row.type,
                "domainid": domains[row.domain_id].uuid,
                "domain": domains[row.domain_id].name,
                "state": "enabled",
                "user": [_user(tx, user) for user in tx.all(User, account_id=row.id)],
            }
            for row in tx.all(Account)
        ]
    return matching(rows, request, "id", "name", "domainid")


def list_domains(services: Services, request: Request) -> list[Json]:
    with services.records.read() as tx:
        rows = [
            {"id": row.uuid, "name": row.name, "path": row.path, "level": 0, "state": "Active"}
            for row in tx.all(Domain)
        ]
    return matching(rows, request, "id", "name")


def get_user_keys(services: Services, request: Request) -> Json:
    with services.records.read() as tx:
        user = entity(tx, User, request, "id")
    return clean(apikey=user.api_key, secretkey=user.secret_key)


def register_user_keys(services: Services, request: Request) -> Json:
    keys = [base64.urlsafe_b64encode(services.runtime.random_bytes(64)).decode().rstrip("=") for _ in range(2)]
    with services.records.transaction("user keys") as tx:
        user = entity(tx, User, request, "id")
        if user.id == request.user_id and user.api_key == services.config.api_key:
            raise ApiError(PARAMETER, "the keys of this user come from the configuration; they are changed there")
        user = tx.update(user, api_key=keys[0], secret_key=keys[1])
    return clean(apikey=user.api_key, secretkey=user.secret_key)


def _cluster(tx: Transaction, row: Cluster) -> Json:
    zone, pod = tx.get(Zone, row.data_center_id), tx.get(Pod, row.pod_id)
    return {
        "id": row.uuid,
        "name": row.name,
        "zoneid": zone.uuid,
        "zonename": zone.name,
        "podid": pod.uuid,
        "podname": pod.name,
        "hypervisortype": "KVM",
        "clustertype": "CloudManaged",
        "allocationstate": "Enabled",
        "managedstate": "Managed",
        "resourcedetails": visible(tx.details("cluster_details", row.id)),
    }


def host_view(tx: Transaction, row: HostRow) -> Json:
    zone, pod, cluster = tx.get(Zone, row.data_center_id), tx.get(Pod, row.pod_id), tx.get(Cluster, row.cluster_id)
    return clean(
        id=row.uuid,
        name=row.name,
        state=row.status,
        type="Routing",
        resourcestate=row.resource_state,
        hypervisor="KVM",
        zoneid=zone.uuid,
        zonename=zone.name,
        podid=pod.uuid,
        podname=pod.name,
        clusterid=cluster.uuid,
        clustername=cluster.name,
        encryptionsupported=host_encrypts(tx, row.id),
        hostha={"haenable": row.ha_enabled, "status": True},
        lastpinged=time(row.last_ping),
        created=time(row.created),
    )


def _user(tx: Transaction, row: User) -> Json:
    account = tx.get(Account, row.account_id)
    domain = tx.get(Domain, account.domain_id)
    return clean(
        id=row.uuid,
        username=row.username,
        firstname=row.firstname,
        lastname=row.lastname,
        email=row.email,
        account=account.account_name,
        accountid=account.uuid,
        accounttype=account.type,
        domain=domain.name,
        domainid=domain.uuid,
        state="enabled",
        apikey=row.api_key,
        created=time(row.created),
    )


_ZONE = (
    "id:string name:string networktype:string securitygroupsenabled:boolean localstorageenabled:boolean"
    " allocationstate:string type:string tags:set"
)
_KEYS = "apikey:string secretkey:string"
_PLACE = "zoneid:string zonename:string podid:string podname:string"
HOST_FIELDS = (
    f"id:string name:string {_PLACE} clusterid:string clustername:string state:string type:string"
    " resourcestate:string hypervisor:string encryptionsupported:boolean hostha:map lastpinged:date created:date"
)

COMMANDS: tuple[Command, ...] = (
    listing("listZones", "zone", f"{LIST} id:uuid name:string domainid:uuid available:boolean", _ZONE, list_zones),
    listing(
        "listPods",
        "pod",
        f"{LIST} id:uuid name:string zoneid:uuid allocationstate:string",
        "id:string name:string zoneid:string zonename:string allocationstate:string",
        list_pods,
    ),
    listing(
        "listClusters",
        "cluster",
        f"{LIST} id:uuid name:string podid:uuid zoneid:uuid hypervisor:string allocationstate:string",
        f"id:string name:string {_PLACE} allocationstate:string hypervisortype:string clustertype:string"
        " managedstate:string resourcedetails:map",
        list_clusters,
    ),
    listing(
        "listHosts",
        "host",
        f"{LIST} listall:boolean id:uuid name:string type:string state:string zoneid:uuid"
        " clusterid:uuid podid:uuid hypervisor:string resourcestate:string",
        HOST_FIELDS,
        list_hosts,
    ),
    listing(
        "listOsTypes",
        "ostype",
        f"{LIST} id:uuid description:string oscategoryid:uuid",
        "id:string description:string name:string oscategoryname:string",
        list_os_types,
    ),
    sync(
        "listCapabilities",
        "capability",
        "",
        "cloudstackversion:string securitygroupsenabled:boolean kvmsnapshotenabled:boolean"
        " allowuserexpungerecovervm:boolean allowuserexpungerecovervolume:boolean customdiskofferingminsize:long"
        " customdiskofferingmaxsize:long",
        list_capabilities,
    ),
    listing(
        "listUsers",
        "user",
        f"{OWNED} id:uuid username:string state:string accounttype:integer",
        "id:string username:string firstname:string lastname:string email:string account:string accountid:string"
        " accounttype:integer domain:string domainid:string state:string apikey:string created:date",
        list_users,
    ),
    listing(
        "listAccounts",
        "account",
        f"{OWNED} id:uuid name:string accounttype:integer",
        "id:string name:string domain:string domainid:string accounttype:integer state:string user:list",
        list_accounts,
    ),
    listing(
        "listDomains",
        "domain",
        f"{LIST} listall:boolean id:uuid name:string level:integer",
        "id:string name:string path:string level:integer state:string",
        list_domains,
    ),
    sync("getUserKeys", "userkeys", "id:uuid*", _KEYS, get_user_keys),
    sync("registerUserKeys", "userkeys", "id:uuid*", _KEYS, register_user_keys),
)
