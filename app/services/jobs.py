"""Summaries in bulk: accepted at once, made by a worker, one conversation independent of the others."""

import asyncio
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from typing import NamedTuple

import structlog

from app.db import Database
from app.errors import FieldError, Invalid, NotFound, Problem
from app.llm.local.engine import LOCAL_MODEL
from app.llm.prices import cost_usd
from app.llm.tasks import SUMMARIES, SUMMARY
from app.schemas.analyses import AnalysisRequest, Summary
from app.schemas.enums import ItemState, Role
from app.schemas.jobs import ERRORS_SHOWN, JOB_SIZE, Job, JobError, JobEstimate, JobRequest
from app.schemas.rows import BatchBounds, ItemRow, OrderRow
from app.schemas.viewer import Viewer
from app.security.api_keys import random_id
from app.services.auth import confirm
from app.services.search import SearchService
from app.services.summaries import SummaryService
from app.services.turns import Turns
from app.telemetry import log_failure

TRIES = 3
"""How often a conversation is begun, counting those that ended with their worker."""
ITEMS_AT_ONCE = 8
"""How many conversations a process works on at the same time; workspaces share them equally, and then their jobs."""
STOP_GRACE_S = 8.0
"""How long a worker that is to stop waits for what it has begun."""
BUSY_S = 0.5
"""When a job whose last conversations others hold is looked at again."""

BATCH = BatchBounds(conversations=8, characters_each=4_000, characters=16_000)
"""What one prompt shows, if a job lets it show several conversations: so much is answered in good time."""

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
        self._turns = Turns(ITEMS_AT_ONCE)
        self._suspects = asyncio.Lock()
        self._claiming = asyncio.Lock()

    async def estimate(self, viewer: Viewer, request: JobRequest) -> JobEstimate:
        """Returns what a job would take; nothing is decrypted for it."""
        ids = await self._selected(viewer, request)
        async with self._db.read() as unit:
            size = await unit.jobs.size(viewer.workspace_id, ids, force=request.force)
        to_read = len(size.to_read)
        batches = _packed(size.to_read) if self._may_batch(request.batch) else []
        calls = to_read - sum(batches) + len(batches)
        fixed = (calls - len(batches)) * len(SUMMARY.prompt) + len(batches) * len(SUMMARIES.prompt)
        prompt, answer = (sum(size.to_read) + fixed) // CHARACTERS_PER_TOKEN, to_read * ANSWER_TOKENS
        each = await cost_usd(self._model, prompt // max(calls, 1), answer // max(calls, 1))
        return JobEstimate(
            conversations=size.conversations,
            to_read=to_read,
            calls=calls,
            tokens=prompt + answer,
            cost_usd=each and each * calls,
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
            found = await unit.jobs.create(
                viewer.caller, job_id, ids, ERRORS_SHOWN, force=request.force, batch=request.batch
            )
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
            order = await unit.runs.start(*run, TRIES)
        if order is None:
            return True
        working = asyncio.ensure_future(self._work(run, stopping, order))
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
                await unit.runs.release(*run)
        return over

    async def _work(self, run: Run, stopping: asyncio.Event, order: OrderRow) -> bool:
        while not stopping.is_set():
            async with asyncio.TaskGroup() as lanes:
                for _ in range(ITEMS_AT_ONCE):
                    lanes.create_task(self._lane(run, stopping, order))
            if await self._finished(run, stopping):
                return True
            # What may have ended a worker is tried again alone: it takes nobody along, and so is found out.
            await self._lane(run, stopping, order, alone=True)
            if await self._finished(run, stopping):
                return True
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), BUSY_S)
        return False

    async def _finished(self, run: Run, stopping: asyncio.Event) -> bool:
        """Ends the job if nothing of it is open; the run's lanes must have ended."""
        async with self._db.write() as unit:
            over = await unit.runs.finish(*run)
            if over is False and not stopping.is_set():  # what a stop has left begun does not count as tried
                await unit.runs.recover(*run, TRIES)
        if over is None:
            raise Replaced
        return over

    async def _lane(self, run: Run, stopping: asyncio.Event, order: OrderRow, *, alone: bool = False) -> None:
        tried = (1, TRIES - 1) if alone else (0, 0)
        while not stopping.is_set():
            async with self._suspects if alone else nullcontext(), self._turns.turn(run.workspace_id, run.job_id):
                items = await self._claim(run, order, tried)
                if not items:
                    return
                if len(items) == 1:
                    await self._settle(run, items[0], *await self._attempt(run.workspace_id, items[0], order))
                    continue
                for item in await self._together(run, items, order):
                    async with self._db.read() as unit:
                        goes_on = await unit.runs.goes_on(*run)
                    if stopping.is_set() or not goes_on:
                        return
                    await self._settle(run, item, *await self._attempt(run.workspace_id, item, order))

    async def _claim(self, run: Run, order: OrderRow, tried: tuple[int, int]) -> list[ItemRow]:
        """Returns the next conversation, or several that go together; none if there are no such ones."""
        together = tried == (0, 0) and self._may_batch(order.batch)
        # One after another: of two at once, each would lock a part of what goes together.
        async with self._claiming if together else nullcontext(), self._db.write() as unit:
            if together and (items := await unit.runs.claim_short(*run, BATCH)):
                return items
            item = await unit.runs.claim(*run, tried)
            return [item] if item else []

    async def _together(self, run: Run, items: list[ItemRow], order: OrderRow) -> list[ItemRow]:
        """Reads conversations with one prompt; returns those that are left to be read one by one."""
        try:
            made = await self._summaries.make_together(
                _payer(run.workspace_id, order), [item.conversation_id for item in items], force=order.force
            )
        except Exception as error:  # noqa: BLE001 — whatever it was, one by one it befalls only one
            log_failure(_log, "job_batch_failed", error)
            return items
        if made.lost_usd:
            async with self._db.write() as unit:
                await unit.runs.charge(*run, made.lost_usd)
        left = [item for item in items if item.conversation_id not in made.costs]
        for item in items:
            if item not in left:
                await self._settle(run, item, ItemState.DONE, None, made.costs[item.conversation_id])
        return left

    async def _settle(self, run: Run, item: ItemRow, state: ItemState, error: str | None, cost: float) -> None:
        async with self._db.write() as unit:
            await unit.runs.settle(*run, item.conversation_id, state, error, cost)

    async def _attempt(self, workspace_id: int, item: ItemRow, order: OrderRow) -> tuple[ItemState, str | None, float]:
        """Returns what became of a conversation, the code if it failed, and what it cost in US dollars."""
        try:
            summary = await self._summary(workspace_id, item, order)
        except Problem as problem:
            code, final = problem.code, problem.status < 500
        except Exception as error:  # noqa: BLE001 — whatever happens to one conversation, the others go on
            log_failure(_log, "job_item_failed", error)
            code, final = "internal", False
        else:
            return ItemState.DONE, None, summary.provenance.cost_usd if summary.updated_at >= item.started_at else 0.0
        final = final or item.attempts >= TRIES
        return (ItemState.FAILED, code, 0.0) if final else (ItemState.QUEUED, None, 0.0)

    async def _summary(self, workspace_id: int, item: ItemRow, order: OrderRow) -> Summary:
        viewer, force = _payer(workspace_id, order), order.force
        if force and item.attempts > 1:
            with suppress(NotFound):
                stored = await self._summaries.get(viewer, item.conversation_id)
                force = stored.updated_at < item.started_at  # else the attempt before had got that far
        request = AnalysisRequest.model_construct(conversation_id=item.conversation_id, force=force)
        return await self._summaries.make(viewer, request)

    def _may_batch(self, wanted: bool) -> bool:
        return wanted and self._model != LOCAL_MODEL


def _packed(sizes: Iterable[int]) -> list[int]:
    """Returns how many conversations of the given characters each batch would have."""
    batches, left = [0], BATCH.characters
    for size in sizes:
        if size > BATCH.characters_each:
            continue
        if size > left or batches[-1] == BATCH.conversations:
            batches, left = [*batches, 0], BATCH.characters
        batches[-1] += 1
        left -= size
    return [batch for batch in batches if batch > 1]


def _payer(workspace_id: int, order: OrderRow) -> Viewer:
    # Once accepted, a job no longer depends on who asked for it, but it is their budget that it uses up.
    return Viewer(workspace_id, Role.EDITOR, on_behalf_of=order.requested_by)
