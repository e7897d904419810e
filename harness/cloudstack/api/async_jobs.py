"""Async jobs as clients poll them (spec/cloudstack-api.md section 4)."""

from __future__ import annotations

import msgspec

from harness.cloudstack.api.command import Command, Json, Shape, listing
from harness.cloudstack.api.errors import PARAMETER, ApiError
from harness.cloudstack.api.lookup import clean, time
from harness.cloudstack.api.parameters import OWNED, Request, declare
from harness.cloudstack.jobs import IN_PROGRESS
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import Account, AsyncJob, User
from harness.cloudstack.services import Services


def query_async_job_result(services: Services, request: Request) -> Json:
    with services.records.read() as tx:
        row = tx.find(AsyncJob, uuid=request.need("jobid"))
        if row is None:
            raise ApiError(PARAMETER, f"Unable to find a job with id {request.need('jobid')[:64]}")
        return _job(services, tx, row)


def list_async_jobs(services: Services, request: Request) -> list[Json]:  # noqa: ARG001 - every command has this form
    with services.records.read() as tx:
        return [_job(services, tx, row) for row in tx.all(AsyncJob, job_status=IN_PROGRESS)]


def _job(services: Services, tx: Transaction, row: AsyncJob) -> Json:
    user, account = tx.get(User, row.user_id), tx.get(Account, row.account_id)
    done = row.job_status != IN_PROGRESS
    return clean(
        jobid=row.uuid,
        cmd=f"org.apache.cloudstack.api.command.{row.job_cmd}",
        userid=user.uuid,
        accountid=account.uuid,
        created=time(row.created),
        completed=time(row.completed),
        jobstatus=row.job_status,
        jobprocstatus=services.context.agents.progress.of(row.uuid),
        jobresultcode=row.job_result_code,
        jobresulttype="object" if done else None,
        jobresult=msgspec.Raw(row.job_result.encode()) if done else None,
        jobinstancetype=row.instance_type,
        jobinstanceid=row.instance_uuid,
    )


_FIELDS = (
    "jobid:string jobstatus:integer accountid:string userid:string cmd:string created:date completed:date"
    " jobprocstatus:integer jobresultcode:integer jobresulttype:string jobresult:responseobject"
    " jobinstancetype:string jobinstanceid:string"
)

COMMANDS: tuple[Command, ...] = (
    Command("queryAsyncJobResult", declare("jobid:uuid*"), Shape.BARE, "asyncjobs", _FIELDS, query_async_job_result),
    listing("listAsyncJobs", "asyncjobs", f"{OWNED} startdate:date", _FIELDS, list_async_jobs),
)
