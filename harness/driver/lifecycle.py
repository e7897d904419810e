"""Adding and deleting a pool (spec/cloudstack-plugin.md 5.1).

Adding makes nothing on StorPool, so there is nothing to undo."""

from __future__ import annotations

from collections.abc import Callable

from harness.driver.check_volume import CheckVolumes
from harness.driver.pools import Connect
from harness.spi.driver import DriverRecords, PoolDescription, PoolRequest
from harness.spi.errors import Error, InvalidParameter, Unavailable, Unknown
from harness.spi.runtime import Runtime
from harness.storpool import AuthenticationFailed, Connection, ObjectDoesNotExist, Template, from_details, parse_url
from harness.storpool.connection import TEMPLATE

SCOPE = "ZONE"
PATH = "/dev/storpool"


class StorPoolLifeCycle:
    """Checks what is asked for against StorPool before CloudStack records the pool."""

    def __init__(
        self,
        runtime: Runtime,
        records: DriverRecords,
        connect: Connect,
        conclude: Callable[[int], None],
        check_volumes: CheckVolumes,
    ) -> None:
        """`conclude` finishes or undoes what is open on a pool; raises while that is not possible."""
        self._conclude = conclude
        self._check_volumes = check_volumes
        self._runtime = runtime
        self._records = records
        self._connect = connect

    def initialize(self, request: PoolRequest) -> PoolDescription:
        if request.scope.upper() != SCOPE:
            raise InvalidParameter(
                f"pool {request.name}: StorPool pools are zone-wide, not of scope {request.scope}; use scope=zone"
            )
        if request.capacity_bytes is None or request.capacity_bytes <= 0:
            raise InvalidParameter(f"pool {request.name}: capacitybytes is required and must be positive")
        connection = parse_url(request.url)
        self._refuse_second(request.name, connection)
        self._check(request.name, connection)
        return PoolDescription(
            uuid=f"{connection.template};{self._runtime.uuid()}",
            path=PATH,
            tags=request.tags or (request.name,),
            details=connection.details(),
        )

    def change_connection(self, pool_id: int, url: str) -> dict[str, str]:
        wanted, name = parse_url(url), str(pool_id)
        template = self._records.pool_details(pool_id).get(TEMPLATE)
        if wanted.template != template:
            raise InvalidParameter(
                f"pool {name}: its StorPool template is {template} and cannot be changed to {wanted.template}; add "
                "another pool"
            )
        self._check(name, wanted)
        self._check_volumes.check(pool_id, self._connect(wanted))
        return wanted.details()

    def remove(self, pool_id: int) -> None:
        self._conclude(pool_id)
        self._check_volumes.remove(pool_id)

    def _refuse_second(self, name: str, connection: Connection) -> None:
        """Two pools of one template would count its space, and clean up its objects, twice.

        A cluster may be given by another address; its token is its own.
        """
        for pool_id in self._records.pool_ids():
            try:
                other = from_details(self._records.pool_details(pool_id))
            except InvalidParameter:
                # A pool whose details were damaged serves nothing, and must not keep others from being added.
                continue
            same_cluster = other.token == connection.token or set(other.endpoints) & set(connection.endpoints)
            if same_cluster and other.template == connection.template:
                raise InvalidParameter(
                    f"pool {name}: StorPool template {connection.template} serves pool {pool_id} already; "
                    "use another template"
                )

    def _check(self, name: str, connection: Connection) -> None:
        where = f"pool {name}: StorPool API {', '.join(connection.endpoints)}"
        try:
            template = self._connect(connection).volume_template_describe(connection.template)
        except ObjectDoesNotExist:
            raise InvalidParameter(f"{where} has no template {connection.template}; create it first") from None
        except AuthenticationFailed:
            raise InvalidParameter(f"{where} refuses the token; check SP_AUTH_TOKEN") from None
        except Unavailable as error:
            raise Unavailable(f"{where} cannot be reached; check address and network ({error})") from error
        except Unknown as error:
            raise Unavailable(f"{where} gives no usable answer; is it a StorPool API? ({error})") from error
        except Error as error:
            raise InvalidParameter(f"{where} refuses the template {connection.template}: {error}") from error
        lacking = _lacking(template)
        if lacking:
            raise InvalidParameter(f"{where}: template {connection.template} lacks {', '.join(lacking)}; set it there")


def _lacking(template: Template) -> list[str]:
    """What a template must have before volumes can be placed with it."""
    required = {
        "placeAll": bool(template.place_all),
        "placeTail": bool(template.place_tail),
        "placeHead": bool(template.place_head),
        "replication": template.replication != "-",
    }
    return [name for name, present in required.items() if not present]
