"""Summaries in bulk."""

from fastapi import APIRouter, Request, Response
from pydantic import TypeAdapter

from app.routes.bodies import json_body, read_json, reference, reply
from app.routes.deps import Analyst, App, Editor, Reader, RowId
from app.routes.idempotency import Attempt, IdempotencyKey, once
from app.routes.operations import Operation
from app.routes.problems import describe
from app.schemas.jobs import Job, JobEstimate, JobRequest

router = APIRouter(tags=["jobs"], route_class=Operation)

_request = TypeAdapter(JobRequest)


def accepted(job: Job) -> Response:
    """Returns the answer to a request that a job was made of (RFC 9110, section 15.3.3)."""
    return reply(job, 202, {"Location": f"/jobs/{job.id}"})


@router.post(
    "/jobs/summarize",
    operation_id="createJob",
    summary="Summarise many conversations",
    status_code=202,
    response_model=None,
    responses={
        202: {"model": Job},
        200: {"model": JobEstimate},
        **describe(400, 401, 403, 404, 409, 413, 415, 422, 429, 503),
    },
    openapi_extra=json_body(reference(JobRequest)),
)
async def create_job(request: Request, app: App, viewer: Analyst, key: IdempotencyKey = None) -> Response:
    """Accepts up to 10,000 conversations to summarise one by one, and tells where to look how far it is.

    With `dry_run` it only tells, with 200, how many conversations and tokens that would be, and at what price.
    """
    wanted = await read_json(request, _request)

    async def act(_: Attempt) -> Response:
        if wanted.dry_run:
            return reply(await app.jobs.estimate(viewer, wanted))
        return accepted(await app.jobs.create(viewer, wanted))

    return (await once(request, app, viewer.caller, key, act)).response


@router.get(
    "/jobs/{job_id}",
    operation_id="getJob",
    summary="Read how far a job is",
    response_model=Job,
    responses=describe(400, 401, 403, 404, 422, 429, 503),
)
async def get_job(app: App, viewer: Reader, job_id: RowId) -> Response:
    """Returns how far a job is; it can be read for 30 days after its end."""
    return reply(await app.jobs.get(viewer, job_id))


@router.delete(
    "/jobs/{job_id}",
    operation_id="cancelJob",
    summary="Cancel a job",
    response_model=Job,
    responses=describe(400, 401, 403, 404, 422, 429, 503),
)
async def cancel_job(app: App, viewer: Editor, job_id: RowId) -> Response:
    """Ends a job: no further conversation is begun, and what is done stays. A job that is over stays as it is."""
    return reply(await app.jobs.cancel(viewer, job_id))
