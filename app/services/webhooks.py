"""Webhooks: made, listed, changed, deleted; their deliveries looked at and sent again."""

import base64
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from app.db import Database
from app.errors import FieldError, Invalid, NotFound, NotReplayable, TooManyWebhooks
from app.schemas.accounts import PageQuery
from app.schemas.enums import DeliveryState, Role, WebhookEvent
from app.schemas.viewer import Viewer
from app.schemas.webhook_rows import DeliveryRow, WebhookRow
from app.schemas.webhooks import (
    Delivery,
    DeliveryList,
    NewWebhook,
    Webhook,
    WebhookChange,
    WebhookIn,
    WebhookList,
)
from app.security.api_keys import random_id
from app.security.cursors import CursorSigner, time_at
from app.security.encryption import WorkspaceKeys, seal, unseal
from app.security.targets import Targets, parse_target
from app.services.auth import confirm
from app.services.workspaces import WorkspaceService

WEBHOOKS = 20
"""How many webhooks a workspace may have."""
SECRET_BYTES = 32
PREVIOUS_SIGNS = timedelta(hours=24)
"""How long the secret before signs as well."""

NO_WEBHOOK = "There is no such webhook in this workspace."


class WebhookService:
    """The webhooks of the viewer's workspace."""

    def __init__(self, db: Database, workspaces: WorkspaceService, cursors: CursorSigner, targets: Targets) -> None:
        self._db = db
        self._workspaces = workspaces
        self._cursors = cursors
        self._targets = targets

    async def create(self, viewer: Viewer, wanted: WebhookIn) -> NewWebhook:
        """Makes a webhook; its secret is shown this once.

        Raises:
            Invalid: if the URL leads to nowhere public.
            TooManyWebhooks: if there are as many as there may be.
        """
        self._check(wanted.url)
        keys = await self._workspaces.keys(viewer.workspace_id)
        webhook_id, secret = random_id(), new_secret()
        sealed = _sealed(keys, webhook_id, "url", wanted.url), _sealed(keys, webhook_id, "secret", secret)
        async with self._db.write() as unit:
            await confirm(unit, viewer, Role.ADMIN)
            if await unit.webhooks.count(viewer.workspace_id) >= WEBHOOKS:
                raise TooManyWebhooks(f"A workspace has at most {WEBHOOKS} webhooks. Delete one first.")
            row = await unit.webhooks.add(viewer.workspace_id, webhook_id, *sealed, _listed(wanted.events))
            await unit.audit.add(viewer.caller, "webhook.created", f"webhook:{webhook_id}", events=row.events)
        return NewWebhook(**dict(_shown(keys, row)), secret=secret)

    async def page(self, viewer: Viewer, query: PageQuery) -> WebhookList:
        """Returns a page of webhooks, newest first."""
        context = ["webhooks", viewer.workspace_id]
        after = None
        if query.cursor:
            time, webhook_id = self._cursors.read(context, query.cursor)
            after = time_at(time), webhook_id
        keys = await self._workspaces.keys(viewer.workspace_id)
        async with self._db.read() as unit:
            found = await unit.webhooks.page(viewer.workspace_id, after, query.limit + 1)
        shown, has_more, cursor = self._cursors.cut(
            context, found, query.limit, lambda row: [row.created_at, row.webhook_id]
        )
        return WebhookList(data=[_shown(keys, row) for row in shown], has_more=has_more, next_cursor=cursor)

    async def change(self, viewer: Viewer, webhook_id: int, wanted: WebhookChange) -> NewWebhook:
        """Changes what is given; a new secret is shown this once, and the one before signs as well for a day.

        Raises:
            NotFound: if there is no such webhook.
            Invalid: if the URL leads to nowhere public.
        """
        if wanted.url is not None:
            self._check(wanted.url)
        keys = await self._workspaces.keys(viewer.workspace_id)
        secret = new_secret() if wanted.rotate_secret else None
        async with self._db.write() as unit:
            await confirm(unit, viewer, Role.ADMIN)
            row = await unit.webhooks.get(viewer.workspace_id, webhook_id, lock=True)
            if row is None:
                raise NotFound(NO_WEBHOOK)
            if wanted.url is not None:
                row = row._replace(url=_sealed(keys, webhook_id, "url", wanted.url), failing_since=None)
            if wanted.events is not None:
                row = row._replace(events=_listed(wanted.events))
            if wanted.enabled is not None:
                row = row._replace(enabled=wanted.enabled, disabled_reason=None, failing_since=None)
            if secret:
                until = datetime.now(UTC) + PREVIOUS_SIGNS
                row = row._replace(previous_secret=row.secret, previous_until=until)
                row = row._replace(secret=_sealed(keys, webhook_id, "secret", secret))
            await unit.webhooks.put(row)
            changed = sorted(wanted.model_fields_set)
            details = {"changed": changed, "events": row.events, "enabled": row.enabled}
            await unit.audit.add(viewer.caller, "webhook.changed", f"webhook:{webhook_id}", **details)
        return NewWebhook(**dict(_shown(keys, row)), secret=secret)

    async def delete(self, viewer: Viewer, webhook_id: int) -> None:
        """Deletes a webhook with its deliveries; raises ``NotFound``."""
        async with self._db.write() as unit:
            await confirm(unit, viewer, Role.ADMIN)
            if not await unit.webhooks.remove(viewer.workspace_id, webhook_id):
                raise NotFound(NO_WEBHOOK)
            await unit.audit.add(viewer.caller, "webhook.deleted", f"webhook:{webhook_id}")

    async def deliveries(self, viewer: Viewer, webhook_id: int, query: PageQuery) -> DeliveryList:
        """Returns a page of what was or is to be sent to a webhook, newest first; raises ``NotFound``."""
        context = ["deliveries", viewer.workspace_id, webhook_id]
        after = None
        if query.cursor:
            time, delivery_id = self._cursors.read(context, query.cursor)
            after = time_at(time), UUID(delivery_id)
        async with self._db.read() as unit:
            found = await unit.webhooks.deliveries(viewer.workspace_id, webhook_id, after, query.limit + 1)
            if not found and await unit.webhooks.get(viewer.workspace_id, webhook_id) is None:
                raise NotFound(NO_WEBHOOK)
        shown, has_more, cursor = self._cursors.cut(
            context, found, query.limit, lambda row: [row.created_at, str(row.delivery_id)]
        )
        return DeliveryList(data=[_logged(row) for row in shown], has_more=has_more, next_cursor=cursor)

    async def replay(self, viewer: Viewer, webhook_id: int, delivery_id: UUID) -> Delivery:
        """Sends a delivery again, with the same id, as if it had never been tried.

        Raises:
            NotFound: if there is no such webhook or delivery.
            NotReplayable: if the webhook is disabled, or the delivery is about a conversation that is gone.
        """
        async with self._db.write() as unit:
            await confirm(unit, viewer, Role.ADMIN)
            webhook = await unit.webhooks.get(viewer.workspace_id, webhook_id, lock=True)
            if webhook is None:
                raise NotFound(NO_WEBHOOK)
            if await unit.webhooks.delivery(viewer.workspace_id, webhook_id, delivery_id) is None:
                raise NotFound("There is no such delivery.")
            if not webhook.enabled:
                raise NotReplayable("The webhook is disabled. Enable it first.")
            row = await unit.webhooks.replay(viewer.workspace_id, webhook_id, delivery_id)
            if row is None:
                raise NotReplayable("The id of a deleted conversation is not kept once its deletion was told.")
            target = f"webhook:{webhook_id}"
            await unit.audit.add(viewer.caller, "delivery.replayed", target, delivery=str(delivery_id))
        return _logged(row)

    def _check(self, url: str) -> None:
        for code, check in (("invalid_url", parse_target), ("not_public", self._targets.check)):
            try:
                check(url)
            except ValueError as error:
                detail = f"The URL {error}."
                raise Invalid(detail, (FieldError("/url", code, detail),)) from None


def new_secret() -> str:
    """Returns a fresh secret as Standard Webhooks writes it: the receiver checks signatures with it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def opened(keys: WorkspaceKeys, webhook_id: int, name: str, sealed: bytes) -> str:
    """Returns a webhook's ``url`` or ``secret``."""
    return unseal(keys.webhook_key, sealed, f"{webhook_id} {name}".encode()).decode()


def _sealed(keys: WorkspaceKeys, webhook_id: int, name: str, text: str) -> bytes:
    return seal(keys.webhook_key, text.encode(), f"{webhook_id} {name}".encode())


def _listed(events: Iterable[WebhookEvent]) -> list[str]:
    return sorted(set(events))


def _shown(keys: WorkspaceKeys, row: WebhookRow) -> Webhook:
    return Webhook(
        id=str(row.webhook_id),
        url=opened(keys, row.webhook_id, "url", row.url),
        events=[WebhookEvent(event) for event in row.events],
        enabled=row.enabled,
        disabled_reason=row.disabled_reason,
        failing_since=row.failing_since,
        created_at=row.created_at,
    )


def _logged(row: DeliveryRow) -> Delivery:
    return Delivery(
        id=str(row.delivery_id),
        event=WebhookEvent(row.event),
        state=row.state,
        conversation_id=row.conversation_id,
        job_id=row.data.get("job_id"),
        attempts=row.attempts,
        created_at=row.created_at,
        last_attempt_at=row.attempted_at,
        next_attempt_at=row.due_at if row.state is DeliveryState.PENDING else None,
        status_code=row.status_code,
        error=row.error,
        duration_ms=row.duration_ms,
    )
