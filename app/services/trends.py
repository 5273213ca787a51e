"""How conversations develop over time."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import orjson

from app.db import Database
from app.errors import FieldError, TooManyConversations, TooManyIntervals, Unavailable
from app.repositories.trend_statement import LABELS, SCANNED
from app.repositories.trends import LAST, SealedKeywords, TrendCriteria, TrendRows
from app.schemas.enums import Interval, Metric
from app.schemas.trends import INTERVALS, KEYWORDS, TrendInterval, TrendQuery, Trends, TrendTotals
from app.schemas.viewer import Viewer
from app.security.blind_index import keyword_hash
from app.security.encryption import WorkspaceKeys
from app.services.workspaces import WorkspaceService

SHOWN = 30
"""Of how many intervals a trend is if nothing is said."""

FOLD_FROM = 2_000
"""From how many changed conversations on who reads them also sees to their being counted, whatever the worker does."""

FIRST = datetime.min.replace(tzinfo=UTC)
_STEPS = {Interval.HOUR: timedelta(hours=1), Interval.DAY: timedelta(days=1), Interval.WEEK: timedelta(weeks=1)}


class TrendService:
    """Trends of the viewer's workspace."""

    def __init__(self, db: Database, workspaces: WorkspaceService) -> None:
        self._db = db
        self._workspaces = workspaces
        self._folding: dict[int, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Ends what was begun for readers."""
        for task in list(self._folding.values()):
            task.cancel()
        await asyncio.gather(*self._folding.values(), return_exceptions=True)

    async def trends(self, viewer: Viewer, query: TrendQuery) -> Trends:
        """Returns counts of the conversations that began in each interval of a range.

        Raises:
            TooManyIntervals: if the range holds more than ``INTERVALS``.
            TooManyConversations: if more than ``SCANNED`` would have to be read one by one.
        """
        keys = await self._workspaces.keys(viewer.workspace_id)
        since, until = await self._range(viewer.workspace_id, query)
        starts = list(_starts(query.interval, since, until))
        if len(starts) > INTERVALS:
            detail = f"The range holds more than {INTERVALS:,} intervals. Choose longer ones, or a shorter range."
            raise TooManyIntervals(detail, (FieldError("interval", TooManyIntervals.code, detail),))
        criteria = _criteria(keys, query, since, until)
        try:
            async with self._db.read() as unit:
                found = await unit.trends.counts(criteria)
                sealed = await unit.trends.texts(viewer.workspace_id, list(found.totals)) if found.totals else {}
        except Unavailable:
            self.fold_soon(viewer.workspace_id)  # so much may have changed that it takes too long
            raise
        if found.changed and found.read > FOLD_FROM:
            self.fold_soon(viewer.workspace_id)
        elif not found.changed and found.read > SCANNED:
            detail = f"More than {SCANNED:,} conversations would have to be read one by one."
            raise TooManyConversations(detail + " Choose a shorter range, or fewer filters.")
        texts = {name: text for name in found.totals if (text := _text(keys, name, sealed.get(name)))}
        totals, data = _counted(query.metric, starts, found, texts)
        return {
            "metric": query.metric,
            "interval": query.interval,
            "from": since,
            "to": until,
            "min_count": query.min_count,
            "complete": found.complete,
            "totals": totals,
            "data": data,
        }

    async def _range(self, workspace_id: int, query: TrendQuery) -> tuple[datetime, datetime]:
        """Returns when the first interval begins and the last one ends."""
        until = query.until
        if until is None:
            until = now = datetime.now(UTC)
            if query.since is None:
                async with self._db.read() as unit:
                    newest = await unit.trends.newest(workspace_id, now)
                if newest and newest < _earlier(query.interval, _start(query.interval, now), SHOWN - 1):
                    until = newest + timedelta(microseconds=1)
        end = _start(query.interval, until)
        end = end if end == until else _next(query.interval, end)
        since = query.since
        return _earlier(query.interval, end, SHOWN) if since is None else _start(query.interval, since), end

    def fold_soon(self, workspace_id: int) -> None:
        """Begins to add what has changed to the counts, whatever the worker does."""
        if workspace_id not in self._folding:
            task = self._folding[workspace_id] = asyncio.create_task(self._fold([workspace_id]))
            task.add_done_callback(lambda done: self._folded(workspace_id, done))

    def _folded(self, workspace_id: int, done: asyncio.Task[None]) -> None:
        self._folding.pop(workspace_id, None)
        if not done.cancelled():
            done.exception()  # what was not folded is read as it is

    async def _fold(self, workspaces: Sequence[int], stopping: asyncio.Event | None = None) -> None:
        """Adds what has changed to the counts, in turns, until so little is left that it is what came meanwhile."""
        while workspaces and not (stopping and stopping.is_set()):
            left = []
            for workspace_id in workspaces:
                async with self._db.read() as unit:
                    if await unit.trends.fold(workspace_id):
                        left.append(workspace_id)
            workspaces = left

    async def fold_all(self, stopping: asyncio.Event) -> None:
        """Adds what has changed in any workspace to the counts; several may do so at the same time."""
        async with self._db.read() as unit:
            found = await unit.trends.to_fold()
        await self._fold(found, stopping)


def _start(interval: Interval, time: datetime) -> datetime:
    """Returns when the interval began that holds a time."""
    if interval is Interval.HOUR:
        return time.replace(minute=0, second=0, microsecond=0)
    day = time.replace(hour=0, minute=0, second=0, microsecond=0)
    if interval is Interval.WEEK:
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if interval is Interval.MONTH else day


def _next(interval: Interval, start: datetime) -> datetime:
    """Returns when the next interval begins; at the end of time, its last moment."""
    try:
        if interval is Interval.MONTH:
            return start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
        return start + _STEPS[interval]
    except (OverflowError, ValueError):
        return LAST


def _earlier(interval: Interval, start: datetime, count: int) -> datetime:
    """Returns when the interval began that is so many before; the first one if there are not so many."""
    try:
        if interval is Interval.MONTH:
            months = start.year * 12 + start.month - 1 - count
            # The end of time is no beginning of a month.
            return _start(interval, start).replace(year=months // 12, month=months % 12 + 1)
        return _start(interval, start - count * _STEPS[interval])
    except (OverflowError, ValueError):
        return FIRST


def _starts(interval: Interval, since: datetime, until: datetime) -> Iterator[datetime]:
    """Yields the beginnings of the intervals, at most one more than an answer holds."""
    start = since
    for _ in range(INTERVALS + 1):
        if start >= until or start == LAST:
            return
        yield start
        start = _next(interval, start)


def _criteria(keys: WorkspaceKeys, query: TrendQuery, since: datetime, until: datetime) -> TrendCriteria:
    first, last = _start(Interval.MONTH, since), _start(Interval.MONTH, until)
    first = first if first == since else _next(Interval.MONTH, first)
    if until == LAST and query.interval is Interval.MONTH:
        last = LAST
    return TrendCriteria(
        workspace_id=keys.workspace_id,
        metric=query.metric,
        interval=query.interval,
        since=since,
        until=until,
        first_month=first if first < last else until,
        last_month=last if first < last else until,
        user_id=query.user_id,
        sentiment=query.sentiment and str(query.sentiment),
        outcome=query.outcome and str(query.outcome),
        keyword_hash=keyword_hash(keys.search_key, query.keyword) if query.keyword is not None else None,
        min_count=query.min_count,
        shown=KEYWORDS,
    )


def _text(keys: WorkspaceKeys, name: str, sealed: SealedKeywords | None) -> str | None:
    """Returns the keyword of a hash; None if the last conversation that had it is gone, or has another by now."""
    if sealed is None:
        return None
    cipher = keys.conversation(sealed.conversation_id)
    words: list[str] = []
    if sealed.summary_keywords:
        words += orjson.loads(cipher.open("summary", "keywords", sealed.summary_keywords))
    if sealed.insights_details:
        details = orjson.loads(cipher.open("insights", "details", sealed.insights_details))
        words += [keyword["text"] for keyword in details["keywords"]]
    return next((word for word in words if keyword_hash(keys.search_key, word) == name), None)


def _counted(
    metric: Metric, starts: list[datetime], found: TrendRows, texts: dict[str, str]
) -> tuple[TrendTotals, list[TrendInterval]]:
    labels = LABELS.get(metric, ())
    totals: TrendTotals = {"conversations": 0, "analysed": 0, "counts": dict.fromkeys(labels, 0)}
    data: dict[datetime, TrendInterval] = {
        start: {"start": start, "conversations": 0, "analysed": 0, "counts": dict.fromkeys(labels, 0)}
        for start in starts
    }
    for row in found.intervals:
        each = data[row.starts_at]
        each["conversations"], each["analysed"] = row.conversations, row.analysed
        each["counts"] = dict(zip(labels, row.by_label, strict=True))
        totals["conversations"] += row.conversations
        totals["analysed"] += row.analysed
        for label, count in each["counts"].items():
            totals["counts"][label] += count
    commonest = sorted(texts, key=lambda name: (-found.totals[name], texts[name]))
    totals["counts"].update({texts[name]: found.totals[name] for name in commonest})
    courses = {row.keyword_hash: row for row in found.keywords}
    for name in commonest:
        if course := courses.get(name):
            for start, count in zip(course.starts, course.conversations, strict=True):
                data[start]["counts"][texts[name]] = count
    return totals, [*data.values()]
