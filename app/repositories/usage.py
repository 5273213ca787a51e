"""What models were asked and what it cost."""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal

from sqlalchemy import and_, delete, func, insert, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.models import Budget, ModelCall, Spending
from app.schemas.rows import BudgetRow, ModelCallRow, UsageRow

OVER = Decimal("Infinity")
Place = tuple[str, str, date]
"""Scope, period, and the day on which it began."""


class UsageRepository:
    """The tables of model calls, budgets and spending."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add_call(self, call: ModelCallRow) -> int:
        """Writes down a call that begins; returns its number."""
        statement = insert(ModelCall).values(call._asdict()).returning(ModelCall.call_id)
        call_id: int = (await self._connection.execute(statement)).scalar_one()
        return call_id

    async def end_call(self, workspace_id: int, call_id: int, **values: object) -> None:
        """Writes down how a call ended."""
        of_call = ModelCall.workspace_id == workspace_id, ModelCall.call_id == call_id
        await self._connection.execute(update(ModelCall).where(*of_call).values(**values))

    async def spend(self, workspace_id: int, places: Sequence[Place], usd: Decimal) -> Decimal:
        """Adds to what was spent; returns which part of a budget that is, of the one that has the least left.

        More than 1 is what no budget allows: then nothing may be committed.

        The rows stay locked until the transaction ends, so that budgets are never overspent by two at once.
        """
        rows = [
            {"workspace_id": workspace_id, "scope": scope, "period": period, "starts_on": start, "spent_usd": usd}
            for scope, period, start in sorted(places)
        ]
        statement = upsert(Spending).values(rows)
        statement = statement.on_conflict_do_update(
            index_elements=["workspace_id", "scope", "period", "starts_on"],
            set_={"spent_usd": Spending.spent_usd + statement.excluded.spent_usd},
        )
        await self._connection.execute(statement)
        budgets = (
            select(Spending.spent_usd, Budget.limit_usd)
            .join(
                Spending,
                and_(
                    Spending.workspace_id == workspace_id,
                    Spending.scope == Budget.scope,
                    Spending.period == Budget.period,
                    tuple_(Spending.scope, Spending.period, Spending.starts_on).in_(places),
                ),
            )
            .where(Budget.workspace_id == workspace_id)
        )
        found = (await self._connection.execute(budgets)).all()
        return max((spent / limit if limit else spent and OVER for spent, limit in found), default=Decimal(0))

    async def used(self, workspace_id: int, since: datetime, until: datetime) -> list[UsageRow]:
        """Returns calls, tokens and cost by day and model, oldest first."""
        day = func.date(func.timezone("UTC", ModelCall.created_at))
        statement = (
            select(
                day,
                ModelCall.model,
                func.count(),
                func.count().filter(ModelCall.outcome == "answered"),
                func.sum(ModelCall.prompt_tokens),
                func.sum(ModelCall.completion_tokens),
                func.sum(ModelCall.cached_tokens),
                func.sum(ModelCall.cost_usd),
            )
            .where(ModelCall.workspace_id == workspace_id, ModelCall.created_at >= since, ModelCall.created_at < until)
            .group_by(day, ModelCall.model)
            .order_by(day, ModelCall.model)
        )
        return [UsageRow._make(row) for row in await self._connection.execute(statement)]

    async def budgets(self, workspace_id: int, starts: Sequence[tuple[str, date]]) -> list[BudgetRow]:
        """Returns the budgets with what was spent of them in the periods that began on the given days."""
        statement = (
            select(Budget.scope, Budget.period, Budget.limit_usd, func.coalesce(Spending.spent_usd, 0))
            .outerjoin(
                Spending,
                and_(
                    Spending.workspace_id == workspace_id,
                    Spending.scope == Budget.scope,
                    Spending.period == Budget.period,
                    tuple_(Spending.period, Spending.starts_on).in_(starts),
                ),
            )
            .where(Budget.workspace_id == workspace_id)
            .order_by(Budget.scope, Budget.period)
        )
        return [BudgetRow._make(row) for row in await self._connection.execute(statement)]

    async def has_budget(self, workspace_id: int, scopes: Sequence[str]) -> bool:
        """Says whether there is a budget for one of the scopes."""
        statement = select(Budget.scope).where(Budget.workspace_id == workspace_id, Budget.scope.in_(scopes)).limit(1)
        return (await self._connection.execute(statement)).first() is not None

    async def put_budget(self, workspace_id: int, scope: str, period: str, limit_usd: Decimal | None) -> None:
        """Sets a budget, or removes it."""
        if limit_usd is None:
            one = Budget.workspace_id == workspace_id, Budget.scope == scope, Budget.period == period
            await self._connection.execute(delete(Budget).where(*one))
            return
        statement = upsert(Budget).values(workspace_id=workspace_id, scope=scope, period=period, limit_usd=limit_usd)
        await self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=["workspace_id", "scope", "period"], set_={"limit_usd": limit_usd}
            )
        )
