"""StorPool API client that the driver and the agent use (design sections 3 and 4, spec/storpool-api.md)."""

from harness.spi.runtime import Runtime
from harness.storpool.client import StorPoolClient, exists
from harness.storpool.connection import (
    Connection,
    HostConfiguration,
    from_details,
    is_configuration_file,
    parse_configuration,
    parse_url,
)
from harness.storpool.errors import (
    AnswerLost,
    AuthenticationFailed,
    Busy,
    ClientNotRegistered,
    InsufficientResources,
    MalformedAnswer,
    NotSent,
    ObjectDoesNotExist,
    ObjectExists,
    RequestRefused,
    TransientRefusal,
)
from harness.storpool.logged import LoggedTransport
from harness.storpool.retry import RetryPolicy
from harness.storpool.secret import Secret
from harness.storpool.transport import HttpTransport, Reply, Request, Transport
from harness.storpool.types import (
    Attachment,
    ClusterStatus,
    GroupSnapshotDesc,
    GroupSnapshotsDesc,
    SnapshotFromRemoteDesc,
    SnapshotReassignDesc,
    SnapshotSummary,
    SnapshotUpdateDesc,
    Template,
    VolumeCreateDesc,
    VolumeReassignDesc,
    VolumeRevertDesc,
    VolumeSnapshotDesc,
    VolumeSummary,
    VolumeUpdateDesc,
)


def connect_http(connection: Connection, runtime: Runtime) -> StorPoolClient:
    """A client of the API at `connection`, over HTTP."""
    transport = HttpTransport(connection.endpoints, connection.token, monotonic=runtime.monotonic)
    return StorPoolClient(transport, runtime)


__all__ = [
    "AnswerLost",
    "Attachment",
    "AuthenticationFailed",
    "Busy",
    "ClientNotRegistered",
    "ClusterStatus",
    "Connection",
    "GroupSnapshotDesc",
    "GroupSnapshotsDesc",
    "HostConfiguration",
    "HttpTransport",
    "InsufficientResources",
    "LoggedTransport",
    "MalformedAnswer",
    "NotSent",
    "ObjectDoesNotExist",
    "ObjectExists",
    "Reply",
    "Request",
    "RequestRefused",
    "RetryPolicy",
    "Secret",
    "SnapshotFromRemoteDesc",
    "SnapshotReassignDesc",
    "SnapshotSummary",
    "SnapshotUpdateDesc",
    "StorPoolClient",
    "Template",
    "TransientRefusal",
    "Transport",
    "VolumeCreateDesc",
    "VolumeReassignDesc",
    "VolumeRevertDesc",
    "VolumeSnapshotDesc",
    "VolumeSummary",
    "VolumeUpdateDesc",
    "connect_http",
    "exists",
    "from_details",
    "is_configuration_file",
    "parse_configuration",
    "parse_url",
]
