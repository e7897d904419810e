"""The management server's parts, as the API's functions are handed them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.cloudstack.config import CloudConfig
from harness.cloudstack.jobs import JobManager
from harness.cloudstack.orchestration.attachment import AttachmentManager
from harness.cloudstack.orchestration.backup import BackupManager
from harness.cloudstack.orchestration.context import Context
from harness.cloudstack.orchestration.extraction import ExtractionManager
from harness.cloudstack.orchestration.ha import Fence, HighAvailability
from harness.cloudstack.orchestration.hosts import HostManager
from harness.cloudstack.orchestration.iso import IsoManager
from harness.cloudstack.orchestration.migration import MigrationManager
from harness.cloudstack.orchestration.migration_with_volumes import VolumesMigrationManager
from harness.cloudstack.orchestration.pool import PoolManager
from harness.cloudstack.orchestration.recovery import Recovery
from harness.cloudstack.orchestration.replication import ReplicationManager
from harness.cloudstack.orchestration.resize import ResizeManager
from harness.cloudstack.orchestration.revert import RevertManager
from harness.cloudstack.orchestration.snapshot import SnapshotManager
from harness.cloudstack.orchestration.storage_migration import StorageMigrationManager
from harness.cloudstack.orchestration.template import TemplateManager
from harness.cloudstack.orchestration.template_collector import TemplateCollector
from harness.cloudstack.orchestration.template_creation import TemplateCreation
from harness.cloudstack.orchestration.template_removal import TemplateRemoval
from harness.cloudstack.orchestration.vm import VmManager
from harness.cloudstack.orchestration.vm_snapshot import VmSnapshotManager
from harness.cloudstack.orchestration.volume import VolumeManager
from harness.cloudstack.records import Records
from harness.spi.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Services:
    config: CloudConfig
    context: Context
    jobs: JobManager
    templates: TemplateManager
    template_creation: TemplateCreation
    template_removal: TemplateRemoval
    template_collector: TemplateCollector
    extractions: ExtractionManager
    volumes: VolumeManager
    attachments: AttachmentManager
    vms: VmManager
    snapshots: SnapshotManager
    backups: BackupManager
    reverts: RevertManager
    replications: ReplicationManager
    resizes: ResizeManager
    vm_snapshots: VmSnapshotManager
    isos: IsoManager
    pools: PoolManager
    ha: HighAvailability
    migrations: MigrationManager
    volumes_migrations: VolumesMigrationManager
    storage_migrations: StorageMigrationManager
    hosts: HostManager
    recovery: Recovery

    @property
    def runtime(self) -> Runtime:
        return self.context.runtime

    @property
    def records(self) -> Records:
        return self.context.records


def assemble(config: CloudConfig, context: Context, fences: Mapping[str, Fence]) -> Services:
    """Wire the managers together. `fences` are those of the hosts that have one, by name."""
    runtime, records = context.runtime, context.records
    templates = TemplateManager(context)
    removal = TemplateRemoval(context, templates)
    extractions = ExtractionManager(context)
    volumes = VolumeManager(context, templates)
    attachments = AttachmentManager(context, volumes)
    vm_snapshots = VmSnapshotManager(context)
    vms = VmManager(context, volumes, attachments, vm_snapshots)
    backups = BackupManager(context)
    reverts = RevertManager(context)
    snapshots = SnapshotManager(context, backups)
    resizes = ResizeManager(context)
    storage_migrations = StorageMigrationManager(context, volumes)
    replications = ReplicationManager(context)
    isos = IsoManager(context)
    hosts = HostManager(context, vms, config.ping_interval)
    pools = PoolManager(context, vms, volumes, templates, hosts)
    migrations = MigrationManager(context)
    return Services(
        config=config,
        context=context,
        jobs=JobManager(runtime, records, config.workers),
        templates=templates,
        template_creation=TemplateCreation(context, removal),
        template_removal=removal,
        template_collector=TemplateCollector(context, templates),
        extractions=extractions,
        volumes=volumes,
        attachments=attachments,
        vms=vms,
        snapshots=snapshots,
        backups=backups,
        reverts=reverts,
        replications=replications,
        resizes=resizes,
        vm_snapshots=vm_snapshots,
        storage_migrations=storage_migrations,
        isos=isos,
        pools=pools,
        ha=HighAvailability(context, vms, hosts, fences),
        hosts=hosts,
        recovery=Recovery(
            context=context,
            volumes=volumes,
            attachments=attachments,
            vms=vms,
            templates=templates,
            template_removal=removal,
            extractions=extractions,
            snapshots=snapshots,
            backups=backups,
            reverts=reverts,
            resizes=resizes,
            vm_snapshots=vm_snapshots,
            replications=replications,
            isos=isos,
            pools=pools,
            migrations=migrations,
            storage_migrations=storage_migrations,
        ),
        migrations=migrations,
        volumes_migrations=VolumesMigrationManager(context, migrations, storage_migrations),
    )
