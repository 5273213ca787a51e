"""Summaries in bulk: accepted at once, made by a worker, one conversation independent of the others."""

import asyncio
from contextlib import suppress
from typing import NamedTuple

import structlog

from app.db import Database
from app.errors import FieldError, Invalid, NotFound, Problem
from app.llm.prices import cost_usd
from app.llm.tasks import SUMMARY
from app.schemas.analyses import AnalysisRequest, Summary
from app.schemas.enums import ItemState, Role
from app.schemas.jobs import ERRORS_SHOWN, JOB_SIZE, Job, JobError, JobEstimate, JobRequest
from app.schemas.rows import ItemRow
from app.schemas.viewer import Viewer
from app.security.api_keys import random_id
from app.services.auth import confirm
from app.services.search import SearchService
from app.services.summaries import SummaryService

TRIES = 3
"""How often a conversation is begun, counting those that ended with their worker."""
ITEMS_AT_ONCE = 8
"""How many conversations a process works on at the same time."""
STOP_GRACE_S = 8.0
"""How long a worker that is to stop waits for what it has begun."""
BUSY_S = 0.5
"""When a job whose last conversations others hold is looked at again."""

CHARACTERS_PER_TOKEN = 4
ANSWER_TOKENS = 400
"""How long a summary usually is."""

_log = structlog.get_logger(__name__)


class Replaced(Exception):
    """Another worker has the job now: this one was not heard of and believed dead."""


class Run(NamedTuple):
    """A worker's turn at a job."""

    workspace_id: int
    job_id: int
    run_id: int


class JobService:
    """Jobs of the viewer's workspace. ``model`` is the one that is asked first."""

    def __init__(self, db: Database, search: SearchService, summaries: SummaryService, model: str) -> None:
        self._db = db
        self._search = search
        self._summaries = summaries
        self._model = model
        self._slots = asyncio.Semaphore(ITEMS_AT_ONCE)
        self._suspects = asyncio.Lock()

    async def estimate(self, viewer: Viewer, request: JobRequest) -> JobEstimate:
        """Returns what a job would take; nothing is decrypted for it."""
        ids = await self._selected(viewer, request)
        async with self._db.read() as unit:
            size = await unit.jobs.size(viewer.workspace_id, ids, force=request.force)
        characters = size.characters + size.to_read * len(SUMMARY.prompt)
        prompt, answer = characters // CHARACTERS_PER_TOKEN, size.to_read * ANSWER_TOKENS
        each = await cost_usd(self._model, prompt // max(size.to_read, 1), ANSWER_TOKENS)
        return JobEstimate(
            conversations=size.conversations,
            to_read=size.to_read,
            tokens=prompt + answer,
            cost_usd=each and each * size.to_read,
            model=self._model,
        )

    async def create(self, viewer: Viewer, request: JobRequest) -> Job:
        """Stores a job and puts it into the queue, both or neither.

        Ids of no conversation count as failed from the beginning.

        Raises:
            Invalid: if the filter lets too many conversations through.
            NotFound: if there are ids, and none of them is a conversation's.
            Unauthenticated, Forbidden: if the viewer may not ask any more; afterwards it does not matter.
        """
        ids = await self._selected(viewer, request)
        job_id = random_id()
        async with self._db.write() as unit:
            found = await unit.jobs.create(viewer.caller, job_id, ids, ERRORS_SHOWN, force=request.force)
            if not found and request.conversation_ids:
                raise NotFound("There is no such conversation.")
            await confirm(unit, viewer, Role.EDITOR)
        return await self.get(viewer, job_id)

    async def get(self, viewer: Viewer, job_id: int) -> Job:
        """Returns how far a job is; raises ``NotFound``."""
        async with self._db.read() as unit:
            row = await unit.jobs.get(viewer.workspace_id, job_id)
            failed = await unit.jobs.errors(viewer.workspace_id, job_id, ERRORS_SHOWN) if row else []
        if row is None:
            raise NotFound("There is no such job.")
        errors = [*failed, *((each, NotFound.code) for each in row.absent)][:ERRORS_SHOWN]
        return Job(
            id=str(row.job_id),
            status=row.status,
            total=row.total,
            done=row.done,
            failed=row.failed,
            errors=[JobError(conversation_id=conversation_id, code=code) for conversation_id, code in errors],
            cost_usd=row.cost_usd,
        )

    async def cancel(self, viewer: Viewer, job_id: int) -> Job:
        """Ends a job: no further conversation is begun. One that is over stays as it is. Raises ``NotFound``."""
        async with self._db.write() as unit:
            await unit.jobs.cancel(viewer.workspace_id, job_id)
        return await self.get(viewer, job_id)

    async def _selected(self, viewer: Viewer, request: JobRequest) -> list[str]:
        if request.filter is None:
            return list(dict.fromkeys(request.conversation_ids or []))
        ids = await self._search.ids(viewer, request.filter, JOB_SIZE + 1)
        if len(ids) > JOB_SIZE:
            detail = f"More than {JOB_SIZE:,} conversations match: narrow the filter."
            raise Invalid(detail, (FieldError("/filter", "too_many_conversations", detail),))
        return ids

    async def run(self, workspace_id: int, job_id: int, stopping: asyncio.Event) -> bool:
        """Carries a job on until it is over; returns False if the worker is to stop before that.

        Raises:
            Replaced: if another worker has taken it over.
            Unavailable, ExceptionGroup: if the database does not answer; what was begun counts as tried.
        """
        run = Run(workspace_id, job_id, random_id())
        async with self._db.write() as unit:
            force = await unit.jobs.start(*run, TRIES)
        if force is None:
            return True
        working = asyncio.ensure_future(self._work(run, stopping, force=force))
        stopped = asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({working}, timeout=STOP_GRACE_S)
        finally:
            working.cancel()
            stopped.cancel()
            await asyncio.wait({working, stopped})
        over = not working.cancelled() and working.result()
        if not over:
            async with self._db.write() as unit:
                await unit.jobs.release(*run)
        return over

    async def _work(self, run: Run, stopping: asyncio.Event, *, force: bool) -> bool:
        while not stopping.is_set():
            async with asyncio.TaskGroup() as lanes:
                for _ in range(ITEMS_AT_ONCE):
                    lanes.create_task(self._lane(run, stopping, force=force))
            # What may have ended a worker is tried again alone: it takes nobody along, and so is found out.
            async with self._suspects:
                await self._lane(run, stopping, force=force, tried=(1, TRIES - 1))
            async with self._db.write() as unit:
                over = await unit.jobs.finish(*run)
            if over is None:
                raise Replaced
            if over:
                return True
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), BUSY_S)
        return False

    async def _lane(self, run: Run, stopping: asyncio.Event, *, force: bool, tried: tuple[int, int] = (0, 0)) -> None:
        while not stopping.is_set():
            async with self._slots:
                async with self._db.write() as unit:
                    item = await unit.jobs.claim(*run, tried)
                if item is None:
                    return
                state, error, cost = await self._attempt(run.workspace_id, item, force=force)
                async with self._db.write() as unit:
                    await unit.jobs.settle(*run, item.conversation_id, state, error, cost)

    async def _attempt(self, workspace_id: int, item: ItemRow, *, force: bool) -> tuple[ItemState, str | None, float]:
        """Returns what became of a conversation, the code if it failed, and what it cost in US dollars."""
        try:
            summary = await self._summary(workspace_id, item, force=force)
        except Problem as problem:
            code, final = problem.code, problem.status < 500
        except Exception as error:  # noqa: BLE001 — whatever happens to one conversation, the others go on
            _log.warning("job_item_failed", error=type(error).__name__)
            code, final = "internal", False
        else:
            return ItemState.DONE, None, summary.provenance.cost_usd if summary.updated_at >= item.started_at else 0.0
        final = final or item.attempts >= TRIES
        return (ItemState.FAILED, code, 0.0) if final else (ItemState.QUEUED, None, 0.0)

    async def _summary(self, workspace_id: int, item: ItemRow, *, force: bool) -> Summary:
        # Nobody's key: once accepted, a job no longer depends on who asked for it.
        viewer = Viewer(workspace_id, Role.EDITOR)
        if force and item.attempts > 1:
            with suppress(NotFound):
                stored = await self._summaries.get(viewer, item.conversation_id)
                force = stored.updated_at < item.started_at  # else the attempt before had got that far
        request = AnalysisRequest.model_construct(conversation_id=item.conversation_id, force=force)
        return await self._summaries.make(viewer, request)
