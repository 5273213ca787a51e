"""Who pays for models: a row for each call, and budgets that are reserved before it and settled after it."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from app.db import Database
from app.errors import NotFound, Problem
from app.llm.hops import OverBudget
from app.llm.hops import Usage as CallUsage
from app.metrics import near_budget
from app.schemas.enums import BudgetPeriod, Role
from app.schemas.rows import ModelCallRow
from app.schemas.usage import BudgetIn, BudgetLeft, ModelUsage, Usage, UsageQuery
from app.schemas.viewer import Viewer
from app.services.auth import confirm

WORKSPACE = "workspace"
"""The scope of a budget that is for all of a workspace; others are an actor, such as ``key:17``."""
RANGE = timedelta(days=30)
FIRST_MOMENT = datetime.min.replace(tzinfo=UTC)
RUNNING = "running"
NEARLY = Decimal("0.9")
"""From which part on a budget is nearly gone."""


class UsageService:
    """What the viewer's workspace spends on models."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def ledger(self, caller: tuple[int, str], task: str) -> "CallLedger":
        """Returns where the calls for a caller are paid."""
        return CallLedger(self._db, caller, task)

    async def used(self, viewer: Viewer, query: UsageQuery) -> Usage:
        """Returns calls, tokens and cost by day and model, and what is left of the budgets."""
        until = query.until or datetime.now(UTC)
        since = query.since or until - min(RANGE, until - FIRST_MOMENT)
        today = datetime.now(UTC).date()
        async with self._db.read() as unit:
            rows = await unit.usage.used(viewer.workspace_id, since, until)
            budgets = await unit.usage.budgets(viewer.workspace_id, [(p, _start(p, today)) for p in BudgetPeriod])
        return Usage(
            data=[ModelUsage(**{**row._asdict(), "cost_usd": float(row.cost_usd)}) for row in rows],
            cost_usd=float(sum(row.cost_usd for row in rows)),
            budgets=[
                BudgetLeft(
                    scope=row.scope,
                    period=BudgetPeriod(row.period),
                    limit_usd=float(row.limit_usd),
                    spent_usd=float(row.spent_usd),
                    left_usd=float(max(row.limit_usd - row.spent_usd, Decimal(0))),
                )
                for row in budgets
            ],
        )

    async def set_budget(self, viewer: Viewer, scope: str, budget: BudgetIn) -> None:
        """Sets what the workspace, or one of its keys or members, may spend; raises ``NotFound`` for anybody else."""
        limits = {BudgetPeriod.DAY: budget.day_usd, BudgetPeriod.MONTH: budget.month_usd}
        async with self._db.write() as unit:
            await confirm(unit, viewer, Role.ADMIN)
            kind, _, number = scope.partition(":")
            actor = int(number) if number.isascii() and number.isdigit() else 0
            if scope != WORKSPACE and not await unit.auth.is_actor(viewer.workspace_id, kind, actor):
                raise NotFound("There is no such scope: `workspace`, `key:<id>` or `member:<id>`.")
            for period, usd in limits.items():
                limit = None if usd is None else Decimal(str(usd))
                await unit.usage.put_budget(viewer.workspace_id, scope, period, limit)
            details = {f"{period}_usd": usd for period, usd in limits.items()}
            await unit.audit.add(viewer.caller, "budget.changed", scope, **details)


class CallLedger:
    """The ledger of one caller."""

    def __init__(self, db: Database, caller: tuple[int, str], task: str) -> None:
        self._db = db
        self._workspace_id, self._actor = caller
        self._task = task
        self._reserved: dict[int, tuple[date, Decimal]] = {}

    async def reserve(self, model: str, cost_usd: float | None) -> int:
        """Reserves what a call may cost and writes it down; raises ``OverBudget``.

        If nobody knows what it may cost, any budget at all is too small.
        """
        today, usd = datetime.now(UTC).date(), _exact(cost_usd or 0.0)
        async with self._db.write() as unit:
            if cost_usd is None and await unit.usage.has_budget(self._workspace_id, [WORKSPACE, self._actor]):
                raise OverBudget
            used = await unit.usage.spend(self._workspace_id, list(self._places(today)), usd)
            if used > NEARLY:
                near_budget.inc()
            if used > 1:
                raise OverBudget
            call = ModelCallRow(self._workspace_id, self._actor, self._task, model, RUNNING, 0, 0, usd, 0)
            call_id = await unit.usage.add_call(call)
        self._reserved[call_id] = today, usd
        return call_id

    async def settle(self, call_id: int, outcome: str, usage: CallUsage) -> None:
        """Writes down what a call cost; if the database is away, what was reserved stays spent."""
        today, reserved = self._reserved.pop(call_id)
        usd = _exact(usage.cost_usd)
        with suppress(Problem):
            async with self._db.write() as unit:
                await unit.usage.spend(self._workspace_id, list(self._places(today)), usd - reserved)
                await unit.usage.end_call(
                    self._workspace_id,
                    call_id,
                    outcome=outcome,
                    prompt_tokens=usage.prompt_tokens,
                    completion_tokens=usage.completion_tokens,
                    cached_tokens=usage.cached_tokens,
                    cost_usd=usd,
                    latency_ms=usage.latency_ms,
                )

    def _places(self, today: date) -> Iterator[tuple[str, str, date]]:
        for scope in (WORKSPACE, self._actor):
            for period in BudgetPeriod:
                yield scope, period, _start(period, today)


def _start(period: BudgetPeriod, today: date) -> date:
    return today if period is BudgetPeriod.DAY else today.replace(day=1)


def _exact(usd: float) -> Decimal:
    return Decimal(usd).quantize(Decimal("1e-9"))
