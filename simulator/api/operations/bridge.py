"""What clusters ask each other, and themselves as a step of a longer call; no part of StorPool's API.

Each serves one question so that what it changes is one change, durable before it is answered, as with any other call.
"""

from __future__ import annotations

from simulator.api.operation import Operation, post
from simulator.api.schema import answers, transfers
from simulator.cluster import attachments, copies, exports, moves
from simulator.cluster.plan import Handler
from simulator.multicluster import copying, moving


def _step(
    name: str, handler: Handler | None, request: object, answer: object = answers.Ok, *, capacity: bool = False
) -> Operation:
    return post(f"bridge{name}", name, handler=handler, request=request, answer=answer, capacity=capacity)


BRIDGE: tuple[Operation, ...] = (
    _step("Locate", exports.locate, transfers.Locate, transfers.Located),
    _step("Offers", exports.offers, transfers.OffersAsked, transfers.Offers),
    _step("Recovering", exports.recovering, transfers.Recovering, transfers.Answered),
    _step("Done", exports.done, transfers.DoneDesc),
    _step("Unexport", exports.unexport, transfers.SnapshotUnexportDesc),
    _step("Fetch", copies.fetch, transfers.FetchDesc, transfers.Answered, capacity=True),
    _step("BackupBegin", copies.backup_begin, transfers.VolumesGroupBackupDesc, answers.GroupSnapshots, capacity=True),
    _step("BackingUp", exports.backing_up, transfers.BackupDone),
    _step("Reconcile", copies.reconcile, transfers.ReconcileDesc),
    _step("Begin", moves.begin, transfers.BeginDesc, transfers.Begun),
    _step("Depart", moves.depart, transfers.DepartDesc, transfers.Departure),
    _step("Arrive", moves.arrive, transfers.ArriveDesc, capacity=True),
    _step("Departed", moves.departed, transfers.Moved),
    _step("Stay", moves.stay, transfers.Moved),
    _step("Arrived", moves.arrived, transfers.Moved, transfers.Answered),
    _step("Settled", moves.settled, transfers.Moved),
    _step("Reassign", attachments.foreign_reassign, transfers.ForeignReassign),
    post(
        "bridgeTakeBackup",
        "TakeBackup",
        flow=copying.take_backup,
        request=transfers.TakeBackupDesc,
        answer=transfers.Answered,
    ),
    post("bridgeAcquire", "Acquire", flow=moving.acquire, request=transfers.TakeOver, answer=answers.Ok),
)
