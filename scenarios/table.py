"""The action table: the plugin's 23 rows and 11 extras (spec/action-table.md)."""

from __future__ import annotations

from dataclasses import dataclass

RowId = int | str


@dataclass(frozen=True, slots=True)
class Row:
    id: RowId
    """1 to 23, or the name of an extra."""
    title: str


ROWS: tuple[Row, ...] = (
    Row(1, "create ROOT volume from ISO (deploy VM from ISO)"),
    Row(2, "create ROOT volume from template (deploy VM)"),
    Row(3, "create DATA volume"),
    Row(4, "attach ROOT/DATA (start VM, attach volume)"),
    Row(5, "detach ROOT/DATA (stop VM, detach volume)"),
    Row(6, "migrate VM"),
    Row(7, "delete ROOT volume (expunge VM)"),
    Row(8, "delete DATA volume"),
    Row(9, "create ROOT/DATA volume snapshot"),
    Row(10, "create volume from snapshot"),
    Row(11, "create template from ROOT volume"),
    Row(12, "create template from snapshot"),
    Row(13, "download volume"),
    Row(14, "revert volume to snapshot"),
    Row(15, "(live) resize"),
    Row(16, "delete snapshot"),
    Row(17, "delete template"),
    Row(18, "migrate VM or volume to other storage"),
    Row(19, "VM snapshot"),
    Row(20, "revert VM snapshot"),
    Row(21, "delete VM snapshot"),
    Row(22, "VM vc_policy tag"),
    Row(23, "delete VM vc_policy tag"),
    Row("pool", "zone-wide pool: create, maintain, delete"),
    Row("bypass", "bypass of secondary storage, switched with snapshots around"),
    Row("cache", "template cache: seed, reuse, re-seed, collect"),
    Row("qos", "SP_QOSCLASS tiers on disk offerings"),
    Row("offering-template", "SP_TEMPLATE places and moves a volume"),
    Row("iops", "max IOPS from disk offerings"),
    Row("encryption", "encrypted ROOT and DATA volumes"),
    Row("multicluster", "two StorPool clusters"),
    Row("hosts", "tokens, agent restarts, lost and late hosts"),
    Row("direct-download", "template straight to primary storage"),
    Row("scale", "1,000 volumes, 200 snapshots, 64 VMs on one host"),
)

BY_ID = {row.id: row for row in ROWS}
