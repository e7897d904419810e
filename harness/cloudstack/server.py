"""The management server: records, orchestration and API of one process, and its background tasks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from harness.cloudstack import settings
from harness.cloudstack.api.dispatch import ApiReply, Dispatcher
from harness.cloudstack.bootstrap import bootstrap
from harness.cloudstack.config import CloudConfig
from harness.cloudstack.orchestration.agents import Agents
from harness.cloudstack.orchestration.context import Context
from harness.cloudstack.orchestration.ha import Fence
from harness.cloudstack.primary.default_driver import DefaultPrimaryDriver
from harness.cloudstack.primary.drivers import Drivers
from harness.cloudstack.primary.files import PoolFiles
from harness.cloudstack.records import Records, RecordsOfDriver
from harness.cloudstack.records.passphrases import Passphrases
from harness.cloudstack.services import Services, assemble
from harness.cloudstack.settings import POOL_STATS, SNAPSHOT_CHECKUP, VOLUME_CHECKUP, VOLUME_STATS
from harness.cloudstack.vault import Vault
from harness.spi.driver import DataStoreProvider, DriverRecords, HostEndpoints
from harness.spi.errors import Error, MisuseError
from harness.spi.inventory import Finding
from harness.spi.locks import KeyedLocks
from harness.spi.ports import Endpoint
from harness.spi.runtime import Runtime, Task

_log = logging.getLogger("harness.cloudstack")

SETTLED_SECONDS = 1200.0
"""After the start, until what the driver found at work at the first comparison is surely settled: twice as long as a
request may be under way."""

ProviderFactory = Callable[[DriverRecords, HostEndpoints], DataStoreProvider]


class ManagementServer:
    """Started once; after a kill a new one is made from the same records."""

    def __init__(
        self,
        runtime: Runtime,
        records: Records,
        provider_factory: ProviderFactory,
        endpoints: Mapping[str, Endpoint],
        secondary: Endpoint,
        config: CloudConfig,
        fences: Mapping[str, Fence] = MappingProxyType({}),
    ) -> None:
        passphrases = Passphrases(runtime, Vault(runtime, config.database_key))
        agents = Agents(runtime, records, endpoints, passphrases)
        provider = provider_factory(RecordsOfDriver(records, passphrases), agents)
        files = PoolFiles(runtime, records, secondary)
        context = Context(
            runtime=runtime,
            records=records,
            passphrases=passphrases,
            provider=provider,
            driver=Drivers(records, provider.driver, DefaultPrimaryDriver(agents, files), files),
            files=files,
            agents=agents,
            secondary=secondary,
            vm_locks=KeyedLocks(runtime, "vm"),
            volume_locks=KeyedLocks(runtime, "volume"),
            template_locks=KeyedLocks(runtime, "template"),
        )
        self._services = assemble(config, context, fences)
        self._dispatcher = Dispatcher(self._services)
        self._stopping = runtime.event("management server stopping")
        self._tasks: list[Task] = []
        self._told: dict[str, frozenset[str]] = {}
        """What each kind of the driver's work said last, so that the log tells it once."""

    @property
    def services(self) -> Services:
        return self._services

    def start(self) -> None:
        """Bootstrap, finish what the server before left, connect the hosts, start the background tasks.

        Returns when the API may be used; hosts that do not answer are tried again by the ping task.
        """
        services = self._services
        bootstrap(services.runtime, services.records, services.config)
        services.jobs.fail_interrupted()
        services.recovery.reset()
        services.hosts.poll()
        services.recovery.resume()
        self.serve(compare=True)

    def serve(self, *, compare: bool = False) -> None:
        """The last step of `start` alone, for records in which a server left nothing to finish and its hosts Up.

        With `compare` records and storage are compared soon: the server before may have died between the two.
        """
        services = self._services
        self._spawn("ping", services.config.ping_interval, self.tend)
        # Apart from the pings: a storage API that hangs must not make hosts look silent, nor hold up the start.
        self._spawn("recover", services.config.ping_interval, self.recover, (0.0,) if compare else ())
        # Apart too: a backup takes as long as its disk is large.
        self._spawn("backups", services.config.ping_interval, services.backups.tend)
        self._spawn("files on pools", services.config.ping_interval, services.context.files.tend)
        self._spawn("templates", services.config.ping_interval, services.template_removal.tend)
        self._spawn("downloads", services.config.ping_interval, services.extractions.tend)
        self._spawn("collect templates", services.config.ping_interval, services.template_collector.tend)
        self._spawn("cleanup", services.config.cleanup_interval, services.recovery.clean_up)
        first = (services.config.ping_interval, SETTLED_SECONDS) if compare else ()
        self._spawn("compare volumes", VOLUME_CHECKUP, self._reconcile_volumes, first)
        self._spawn("compare snapshots", SNAPSHOT_CHECKUP, self._reconcile_snapshots, first)
        soon = (services.config.ping_interval,)
        self._spawn("pool statistics", POOL_STATS, self._collect_pool_stats, soon)
        self._spawn("volume statistics", VOLUME_STATS, self._collect_volume_stats, soon)

    def stop(self, timeout: float = 30.0) -> bool:
        """End orderly: no new jobs, background tasks ended; False when something still ran after `timeout` seconds."""
        self._stopping.set()
        idle = self._services.jobs.stop(timeout)
        ended = [task.join(timeout) for task in self._tasks]
        return all(ended) and idle

    def api(self, query: Sequence[tuple[str, str]]) -> ApiReply:
        """Answer one API request; `query` holds the decoded names and values as sent."""
        return self._dispatcher.handle(query)

    def recover(self) -> None:
        """Have the storage driver finish or undo what it left open."""
        self._tell(logging.INFO, "recovery", self._services.context.driver.recover())

    def _reconcile_volumes(self) -> None:
        self._report("volumes", self._services.context.driver.reconcile_volumes())

    def _reconcile_snapshots(self) -> None:
        self._report("snapshots", self._services.context.driver.reconcile_snapshots())

    def _collect_pool_stats(self) -> None:
        self._tell(logging.WARNING, "pool statistics", self._services.context.driver.collect_pool_stats())

    def _collect_volume_stats(self) -> None:
        self._tell(logging.WARNING, "volume statistics", self._services.context.driver.collect_volume_stats())

    def _report(self, work: str, findings: Sequence[Finding]) -> None:
        self._tell(logging.INFO, f"mended {work}", [str(finding) for finding in findings if finding.mended])
        self._tell(logging.WARNING, work, [str(finding) for finding in findings if not finding.mended])

    def _tell(self, level: int, work: str, said: Sequence[str]) -> None:
        lines = frozenset(said)
        for line in sorted(lines - self._told.get(work, frozenset())):
            _log.log(level, "storage driver: %s", line)
        self._told[work] = lines

    def tend(self) -> None:
        """What the ping task does each time: ping the hosts, then settle what was left open with them."""
        self._services.hosts.poll()
        self._services.ha.tend()
        self._services.recovery.settle()

    def _spawn(self, name: str, interval: float | str, work: Callable[[], None], first: Sequence[float] = ()) -> None:
        """Do `work` every `interval` seconds, or as often as the setting of this name says, 0 for never.

        `first` are the pauses, where they are shorter, until it has been done so often without an error.
        """

        def loop() -> None:
            seconds = self._seconds(interval) if isinstance(interval, str) else interval
            ahead = [min(pause, seconds) for pause in first]
            while seconds > 0 and not self._stopping.wait(ahead[0] if ahead else seconds):
                try:
                    work()
                    del ahead[:1]
                except MisuseError:
                    raise
                except Error as error:
                    _log.warning("background task %s: %s", name, error)
                except Exception:
                    # A full disk, or a bug: the next turn may go better, and without one nothing is ever settled.
                    _log.exception("background task %s ended early", name)

        self._tasks.append(self._services.runtime.spawn(name, loop))

    def _seconds(self, setting: str) -> float:
        with self._services.records.read() as tx:
            return settings.seconds(tx, setting)
