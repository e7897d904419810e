"""Operations on services, clients, peers, tasks and requests under way (spec storpool-api 2.1, 2.2)."""

from __future__ import annotations

from simulator.api.operation import get
from simulator.api.schema import answers
from simulator.api.schema import disks as schema
from simulator.cluster import services

OPERATIONS = (
    get("peersList", "NetworkPeersList", handler=services.peers_list, answer=dict[int, answers.PeerDesc]),
    get("tasksList", "TasksList", handler=services.tasks_list, answer=list[answers.Task]),
    get(
        "servicesList",
        "ServicesList",
        handler=services.services_list,
        answer=answers.ClusterStatus,
        errors=("unavailable",),
    ),
    get(
        "serversListBlocked",
        "ServersListBlocked",
        handler=services.servers_list_blocked,
        answer=answers.ClusterStatus,
    ),
    get(
        "allPeersActiveRequests",
        "AllPeersActiveRequests",
        handler=services.peers_requests,
        request=schema.PeersQuery,
        answer=schema.PeersRequests,
    ),
    get(
        "serversList",
        "ServersList",
        handler=services.servers_list,
        answer=answers.ClusterStatus,
        errors=("unavailable",),
    ),
    get(
        "clientsConfigDump",
        "ClientsConfigDump",
        handler=services.clients_config_dump,
        answer=list[answers.ClientConfigStatus],
    ),
    get(
        "clientConfigWait",
        "ClientConfigWait/{clientId}",
        handler=services.client_config_wait,
        answer=list[answers.ClientConfigStatus],
    ),
    get(
        "clientActiveRequests",
        "ClientActiveRequests/{clientId}",
        handler=services.client_requests,
        answer=schema.ClientRequests,
    ),
)
