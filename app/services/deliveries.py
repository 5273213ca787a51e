"""Delivering events to webhooks (Standard Webhooks 1.0): signed, tried again, at least once.

A delivery is claimed, sent without a transaction, and settled. Whoever dies in between leaves a lease that ends, and
the event is sent again with the same ``webhook-id``.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from operator import itemgetter
from typing import TYPE_CHECKING
from urllib.parse import quote

import orjson
import structlog

from app.db import Database
from app.errors import Internal, Unavailable
from app.metrics import deliveries
from app.schemas.base import format_rfc3339
from app.schemas.enums import DeliveryState, DisabledReason, WebhookEvent
from app.schemas.webhook_rows import AttemptRow, ClaimedDelivery, EndpointRow
from app.security.targets import Refused, Targets
from app.services.webhooks import opened
from app.services.workspaces import WorkspaceService
from app.telemetry import log_failure

if TYPE_CHECKING:
    from app.security.outbound import Answer

LEASE = timedelta(seconds=30)
"""How long a delivery is a worker's; sending takes half of it at the most."""
SETTLE_S = 0.2
"""After how long the database is asked again to write down what came of an attempt."""
POLL_S = 1.0
LANES = 100
"""How many deliveries a process sends at the same time; a workspace has at most a third of those that are left then."""
LANES_EACH = 5
"""How many of them to one webhook; to one that is failing, only one."""
TURN_S = 1.0
"""After how long what is sent to a webhook makes room for other webhooks."""
STOP_GRACE_S = 8.0
DROPPED = 1_000

RETRIES = [timedelta(seconds=s) for s in (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)]
"""When an event is tried again after each failure, as Standard Webhooks proposes."""
JITTER = 0.2
"""By how much of itself a wait may be longer."""
LONGEST_WAIT = timedelta(days=1)
FAILING_FOR = timedelta(days=5)
"""After how long without any success a webhook is disabled."""

GONE = 410
RESULTS = {
    DeliveryState.DELIVERED: deliveries.labels("delivered"),
    DeliveryState.PENDING: deliveries.labels("failed"),
    DeliveryState.FAILED: deliveries.labels("given_up"),
}
"""Where what came of an attempt is counted."""

_log = structlog.get_logger(__name__)

_PATHS = {
    WebhookEvent.SUMMARY_CREATED: "/chats/{}/summary",
    WebhookEvent.QUESTION_UNANSWERED: "/chats/{}/summary",
    WebhookEvent.INSIGHTS_CREATED: "/chats/{}/insights",
    WebhookEvent.JOB_FINISHED: "/jobs/{}",
}


class DeliveryService:
    """Sends what is due, of all workspaces."""

    def __init__(self, db: Database, workspaces: WorkspaceService, targets: Targets, base_url: str) -> None:
        self._db = db
        self._workspaces = workspaces
        self._targets = targets
        self._base_url = base_url

    async def run(self, stopping: asyncio.Event) -> None:
        """Sends what is due until it is to stop; then what is being sent has some seconds."""
        lanes: dict[asyncio.Task[None], tuple[int, int]] = {}
        try:
            while not stopping.is_set():
                lanes = {lane: endpoint for lane, endpoint in lanes.items() if not lane.done()}
                for endpoint in await self._free(Counter(lanes.values())):
                    lanes[asyncio.create_task(self._lane(*endpoint, stopping))] = endpoint
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), POLL_S)
            if lanes:
                await asyncio.wait(lanes, timeout=STOP_GRACE_S)
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)

    async def drop_old(self) -> None:
        """Removes the deliveries that were kept long enough, and gives up what disabled webhooks still have."""
        async with self._db.read() as unit:
            for workspace_id, webhook_id, enabled in await unit.deliveries.over():
                if not enabled:
                    await unit.deliveries.abandon(workspace_id, webhook_id)
                while await unit.deliveries.drop(workspace_id, webhook_id, DROPPED) == DROPPED:
                    pass

    async def deliver(self, workspace_id: int, webhook_id: int) -> bool:
        """Sends what is longest due for a webhook; returns False if nothing is."""
        begun = asyncio.get_running_loop().time()
        async with self._db.read() as unit:
            claimed = await unit.deliveries.claim(workspace_id, webhook_id, LEASE)
        if claimed is None:
            return False
        attempt = await self._attempt(workspace_id, webhook_id, claimed)
        state = await self._settle(workspace_id, webhook_id, claimed, attempt, begun + LEASE.total_seconds())
        if state is None:
            return True
        RESULTS[state].inc()
        # One lock after another: whoever disables a webhook locks it and then its deliveries.
        async with self._db.read() as unit:
            await unit.deliveries.note(workspace_id, webhook_id, claimed.url, delivered=attempt.delivered)
        if not attempt.delivered:
            await self._disable(workspace_id, webhook_id, claimed.url, gone=attempt.status_code == GONE)
        return True

    async def _settle(
        self, workspace_id: int, webhook_id: int, claimed: ClaimedDelivery, attempt: AttemptRow, ends_at: float
    ) -> DeliveryState | None:
        """Writes down what came of an attempt, while its lease lasts: what is not written down is sent again."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with self._db.read() as unit:
                    return await unit.deliveries.settle(workspace_id, webhook_id, claimed, attempt)
            except Unavailable:
                if loop.time() + SETTLE_S > ends_at:
                    raise
            await asyncio.sleep(SETTLE_S)

    async def _disable(self, workspace_id: int, webhook_id: int, url: bytes, *, gone: bool) -> None:
        """Disables a webhook that is gone, or has been failing for too long."""
        why = (DisabledReason.GONE, None) if gone else (DisabledReason.FAILING, FAILING_FOR)
        async with self._db.write() as unit:
            disabled = await unit.deliveries.disable(workspace_id, webhook_id, url, *why)
        if disabled:
            _log.warning("webhook_disabled", webhook=webhook_id, reason=why[0])

    async def _free(self, busy: Counter[tuple[int, int]]) -> list[tuple[int, int]]:
        """Returns for which webhooks another lane is wanted, once for each lane."""
        room = LANES - busy.total()
        if room <= 0:
            return []
        try:
            async with self._db.read() as unit:
                found = await unit.deliveries.due(LANES_EACH)
        except Unavailable as problem:  # what is being sent goes on
            _log.warning("deliveries_interrupted", error=type(problem.__cause__).__name__)
            return []
        return _dealt(found, busy, room)

    async def _lane(self, workspace_id: int, webhook_id: int, stopping: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + TURN_S
        try:
            while await self.deliver(workspace_id, webhook_id) and loop.time() < ends_at and not stopping.is_set():
                pass
        except Exception as error:  # noqa: BLE001 — its text may hold anything; the lease ends, and it is tried again
            log_failure(_log, "delivery_interrupted", error)

    async def _attempt(self, workspace_id: int, webhook_id: int, claimed: ClaimedDelivery) -> AttemptRow:
        """Sends a delivery and returns what came of it; raises ``Unavailable`` if there is no key to be had."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        status, error, wait = None, None, timedelta(0)
        try:
            answer = await self._send(workspace_id, webhook_id, claimed)
        except Refused as refused:
            error = refused.code
        except Unavailable:
            raise
        except Exception as failure:  # noqa: BLE001 — whatever it was, it may be over by the next attempt
            log_failure(_log, "delivery_failed", failure)
            error = Internal.code
        else:
            status = answer.status
            if not 200 <= status < 300:
                error = "redirect" if 300 <= status < 400 else f"status_{status}"
                wait = _wait(answer.headers)
        duration_ms = round((loop.time() - began) * 1000)
        retry = None
        if error and claimed.attempts <= len(RETRIES):
            usual = RETRIES[claimed.attempts - 1] * (1 + JITTER * random.random())  # noqa: S311 — spreads the load
            retry = max(usual, wait)
        return AttemptRow(error is None, status, error, duration_ms, retry)

    async def _send(self, workspace_id: int, webhook_id: int, claimed: ClaimedDelivery) -> "Answer":
        from standardwebhooks import Webhook

        from app.security.outbound import post  # 4 MB that API processes do without

        keys = await self._workspaces.keys(workspace_id)
        body = orjson.dumps(self._payload(claimed)).decode()
        now = datetime.now(UTC)
        secrets = [sealed for sealed in (claimed.secret, claimed.previous_secret) if sealed]
        signers = [Webhook(opened(keys, webhook_id, "secret", sealed)) for sealed in secrets]
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "chat-insights-webhooks",
            "webhook-id": str(claimed.delivery_id),
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(each.sign(str(claimed.delivery_id), now, body) for each in signers),
        }
        url = opened(keys, webhook_id, "url", claimed.url)
        return await post(self._targets, url, headers, body.encode())

    def _payload(self, claimed: ClaimedDelivery) -> dict[str, object]:
        event = WebhookEvent(claimed.event)
        data = dict(claimed.data)
        if claimed.conversation_id is not None:
            data = {"conversation_id": claimed.conversation_id, **data}
        if path := _PATHS.get(event):
            about = claimed.conversation_id if claimed.conversation_id is not None else str(data["job_id"])
            data["url"] = self._base_url + path.format(quote(about, safe=""))
        return {"type": event, "timestamp": format_rfc3339(claimed.created_at), "data": data}


def _dealt(found: list[EndpointRow], busy: Counter[tuple[int, int]], room: int) -> list[tuple[int, int]]:
    """Returns who gets another lane: workspaces in turn, and in each its webhooks in turn.

    A workspace has at most a third of the lanes that are left then: a quarter of all if it is alone. So who comes next
    finds one, until there are about as many workspaces as lanes.
    """
    random.shuffle(found)
    wanted = [
        (nth, (row.workspace_id, row.webhook_id))
        for row in found
        for nth in range(busy[row.workspace_id, row.webhook_id], 1 if row.failing else row.due)
    ]
    held = Counter[int]()
    for (workspace_id, _), lanes in busy.items():
        held[workspace_id] += lanes
    in_turn = []
    for _, endpoint in sorted(wanted, key=itemgetter(0)):
        in_turn.append((held[endpoint[0]], endpoint))
        held[endpoint[0]] += 1
    dealt: list[tuple[int, int]] = []
    for holds, endpoint in sorted(in_turn, key=itemgetter(0)):
        if 3 * holds >= room - len(dealt):
            break
        dealt.append(endpoint)
    return dealt


def _wait(headers: Mapping[str, str]) -> timedelta:
    """Returns how long an answer asks to wait (RFC 9110, section 10.2.3), at most a day."""
    asked = headers.get("retry-after", "").strip()
    try:
        if asked.isascii() and asked.isdigit():
            wait = timedelta(seconds=int(asked[:9]))
        else:
            wait = parsedate_to_datetime(asked).astimezone(UTC) - datetime.now(UTC)
    except (ValueError, OverflowError):
        return timedelta(0)
    return min(max(wait, timedelta(0)), LONGEST_WAIT)
