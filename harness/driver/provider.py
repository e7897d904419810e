"""The StorPool storage provider, put together."""

from __future__ import annotations

from harness.driver.check_volume import CheckVolumes
from harness.driver.driver import StorPoolDriver
from harness.driver.lifecycle import StorPoolLifeCycle
from harness.driver.listener import StorPoolHostListener
from harness.driver.operations import ANSWER_TIME, SETTLE_TIME, Operations
from harness.driver.pools import PROVIDER, Connect, Pools
from harness.driver.settling import Settler
from harness.driver.vm_strategy import StorPoolVmSnapshots
from harness.spi.driver import DriverRecords, HostEndpoints
from harness.spi.runtime import Runtime


class StorPoolProvider:
    """`StorPool` in CloudStack's provider list. `connect` gives the API client of a connection.

    `settle_time`: seconds after which a request whose answer was lost is taken to be dead. `answer_time`: seconds after
    which CloudStack has surely recorded an answer of the driver, or is dead.
    """

    def __init__(
        self,
        runtime: Runtime,
        records: DriverRecords,
        endpoints: HostEndpoints,
        connect: Connect,
        settle_time: float = SETTLE_TIME,
        answer_time: float = ANSWER_TIME,
    ) -> None:
        operations = Operations(runtime, records, settle_time, answer_time)
        pools = Pools(records, connect)
        check_volumes = CheckVolumes(operations, pools, records)
        self._driver = StorPoolDriver(
            operations, pools, records, endpoints, check_volumes, Settler(runtime, operations), connect
        )
        self._host_listener = StorPoolHostListener(endpoints, check_volumes, records)
        self._life_cycle = StorPoolLifeCycle(runtime, records, connect, self._driver.conclude, check_volumes)

    @property
    def name(self) -> str:
        return PROVIDER

    @property
    def driver(self) -> StorPoolDriver:
        return self._driver

    @property
    def life_cycle(self) -> StorPoolLifeCycle:
        return self._life_cycle

    @property
    def host_listener(self) -> StorPoolHostListener:
        return self._host_listener

    @property
    def vm_snapshots(self) -> StorPoolVmSnapshots:
        return self._driver.vm_snapshots
