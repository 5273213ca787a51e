"""The API over HTTP."""

import ssl
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, TypeVar, cast
from urllib.parse import quote
from uuid import uuid4

import httpx
import orjson
from pydantic import BaseModel, TypeAdapter, ValidationError

from app.client.errors import ApiError
from app.schemas.accounts import AuditList, Key, KeyList, Me, Member, MemberList, NewKey, Providers, Tokens, Workspace
from app.schemas.analyses import Insights, Summary
from app.schemas.chats import ConversationList, ConversationPage, DeletedConversation, Imported, Stored
from app.schemas.jobs import Job, JobEstimate
from app.schemas.topics import Topics
from app.schemas.trends import Trends
from app.schemas.usage import Usage
from app.schemas.webhooks import NewWebhook, Webhook, WebhookList

T = TypeVar("T")

TIMEOUT_S = 30.0
ANALYSIS_S = 120.0
"""How long an answer that a model writes may take: somewhat longer than the service itself waits."""
STREAM_S = 300.0
"""How long the service may think about a stream's end."""


@cache
def _connections(url: str) -> httpx.Client:
    # Shared by everybody, so it keeps no cookies, follows nobody elsewhere and reads no credentials from a .netrc.
    jar = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=20)
    verify = ssl.create_default_context()
    return httpx.Client(base_url=url, cookies=jar, limits=limits, verify=verify, trust_env=False, timeout=TIMEOUT_S)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def segment(value: str) -> str:
    """Returns an id as one segment of a path, whatever it is made of."""
    return quote(value, safe="")


class Client:
    """Asks the API on behalf of one caller, with the headers that say who that is. Any thread may use it.

    Every method raises ``ApiError`` if the API refuses or does not answer. What the API tells beyond what is known here
    is kept.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self.url = url
        self._headers = dict(headers)

    def request(self, method: str, path: str, **request: Any) -> bytes:
        """Returns the body of the answer to a request."""
        headers = {**self._headers, **request.pop("headers", {})}
        try:
            answer = _connections(self.url).request(method, path, headers=headers, **request)
        except (httpx.HTTPError, OSError):
            raise ApiError.unreachable(self.url) from None
        if not answer.is_success:
            raise ApiError.read(answer.status_code, answer.headers, answer.content)
        return answer.content

    def _read(self, kind: type[T], method: str, path: str, **request: Any) -> T:
        body = self.request(method, path, **request)
        try:
            found: T = _adapter(cast("Hashable", kind)).validate_json(body, extra="allow")
        except ValidationError:
            raise ApiError(200, "unexpected", "The answer is not what this version of the interface knows.") from None
        return found

    def _get(self, kind: type[T], path: str, **params: Any) -> T:
        given = {name.rstrip("_"): value for name, value in params.items() if value not in (None, "")}
        return self._read(kind, "GET", path, params=given)

    def _post(self, kind: type[T], path: str, body: Any, **request: Any) -> T:
        content = body.model_dump_json() if isinstance(body, BaseModel) else orjson.dumps(body)
        headers = {"Content-Type": "application/json", "Idempotency-Key": uuid4().hex}
        return self._read(kind, "POST", path, content=content, headers=headers, **request)

    def providers(self) -> Providers:
        """Returns with whom people can sign in."""
        return self._get(Providers, "/auth/providers")

    def me(self) -> Me:
        """Returns who is asking."""
        return self._get(Me, "/auth/me")

    def access_token(self) -> str:
        """Returns a token of 15 minutes for the same caller."""
        return self._read(Tokens, "POST", "/auth/token").access_token

    def sign_out(self) -> None:
        """Ends the session of the cookie."""
        self.request("POST", "/auth/logout")

    def conversations(self, **query: Any) -> ConversationList:
        """Returns a page of conversations; ``from_`` and ``to`` are RFC 3339."""
        return self._get(ConversationList, "/chats", **query)

    def conversation(self, conversation_id: str, **query: Any) -> ConversationPage:
        """Returns a conversation with a page of its messages."""
        return self._get(ConversationPage, f"/chats/{segment(conversation_id)}", **query)

    def send(self, conversation_id: str, user_id: str, user_type: str, text: str, message_id: str = "") -> Stored:
        """Stores a message that was written now; with the same ``message_id`` again, it stays one."""
        sender = {"user_id": user_id, "user_type": user_type, "message_content": text}
        message = {"conversation_id": conversation_id, "message_id": message_id or str(uuid4()), **sender}
        return self._post(Stored, "/chats", message)

    def import_csv(self, blocks: Iterable[bytes]) -> Imported:
        """Stores a CSV as it comes."""
        timeout = httpx.Timeout(TIMEOUT_S, read=STREAM_S, write=STREAM_S)
        return self._read(
            Imported, "POST", "/chats", content=blocks, headers={"Content-Type": "text/csv"}, timeout=timeout
        )

    def delete_conversation(self, conversation_id: str) -> DeletedConversation:
        """Deletes a conversation and everything that was made from it."""
        return self._read(DeletedConversation, "DELETE", f"/chats/{segment(conversation_id)}")

    def summarize(self, conversation_id: str, *, force: bool = False) -> Summary:
        """Makes the summary of a conversation."""
        wanted = {"conversation_id": conversation_id, "force": force}
        return self._post(Summary, "/chats/summarize", wanted, timeout=ANALYSIS_S)

    def insights(self, conversation_id: str) -> Insights:
        """Returns the insights that are stored."""
        return self._get(Insights, f"/chats/{segment(conversation_id)}/insights")

    def analyze(self, conversation_id: str, *, force: bool = False) -> Insights:
        """Makes the insights into a conversation."""
        wanted = {"conversation_id": conversation_id, "force": force}
        return self._post(Insights, "/chats/insights", wanted, timeout=ANALYSIS_S)

    def rate(self, conversation_id: str, rating: str) -> None:
        """Says whether a summary is good: ``up`` or ``down``."""
        path = f"/chats/{segment(conversation_id)}/summary/feedback"
        self.request("POST", path, json={"rating": rating})

    def estimate(self, **filters: Any) -> JobEstimate:
        """Returns what it would take to summarise the conversations that pass the filters."""
        return self._post(JobEstimate, "/jobs/summarize", {"filter": filters, "dry_run": True})

    def summarize_all(self, **filters: Any) -> Job:
        """Begins to summarise them."""
        return self._post(Job, "/jobs/summarize", {"filter": filters})

    def job(self, job_id: str) -> Job:
        """Returns how far a job is."""
        return self._get(Job, f"/jobs/{segment(job_id)}")

    def cancel_job(self, job_id: str) -> Job:
        """Ends a job before its time."""
        return self._read(Job, "DELETE", f"/jobs/{segment(job_id)}")

    def trends(self, **query: Any) -> Trends:
        """Returns counts over time."""
        return self._get(Trends, "/analytics/trends", **query)

    def topics(self, **query: Any) -> Topics:
        """Returns what the conversations of a range are about."""
        return self._get(Topics, "/analytics/topics", **query)

    def usage(self, **query: Any) -> Usage:
        """Returns what models were asked and what it cost."""
        return self._get(Usage, "/analytics/usage", **query)

    def set_budget(self, scope: str, day_usd: float | None, month_usd: float | None) -> None:
        """Sets what models may cost; None takes a limit away."""
        self.request("PUT", f"/analytics/budgets/{segment(scope)}", json={"day_usd": day_usd, "month_usd": month_usd})

    def keys(self, **query: Any) -> KeyList:
        """Returns a page of API keys."""
        return self._get(KeyList, "/auth/keys", **query)

    def make_key(self, name: str, role: str, expires_at: str | None) -> NewKey:
        """Makes an API key."""
        return self._post(NewKey, "/auth/keys", {"name": name, "role": role, "expires_at": expires_at})

    def rotate_key(self, key: Key) -> NewKey:
        """Makes the next key; the old one works for another day."""
        return self._post(NewKey, f"/auth/keys/{segment(key.id)}/rotate", {})

    def delete_key(self, key: Key) -> None:
        """Ends an API key."""
        self.request("DELETE", f"/auth/keys/{segment(key.id)}")

    def members(self, **query: Any) -> MemberList:
        """Returns a page of members and invitations."""
        return self._get(MemberList, "/workspace/members", **query)

    def invite(self, email: str, role: str) -> Member:
        """Invites somebody."""
        return self._post(Member, "/workspace/members", {"email": email, "role": role})

    def change_member(self, member: Member, role: str) -> None:
        """Gives a member another role."""
        self.request("PATCH", f"/workspace/members/{segment(member.id)}", json={"role": role})

    def remove_member(self, member: Member) -> None:
        """Removes a member, or takes an invitation back."""
        self.request("DELETE", f"/workspace/members/{segment(member.id)}")

    def workspace(self) -> Workspace:
        """Returns the workspace's settings."""
        return self._get(Workspace, "/workspace")

    def set_redaction(self, *, redact: bool) -> None:
        """Says whether providers of models see placeholders for addresses, numbers and ids."""
        self.request("PATCH", "/workspace", json={"redact": redact})

    def audit(self, **query: Any) -> AuditList:
        """Returns a page of the audit log."""
        return self._get(AuditList, "/audit", **query)

    def webhooks(self, **query: Any) -> WebhookList:
        """Returns a page of webhooks."""
        return self._get(WebhookList, "/webhooks", **query)

    def make_webhook(self, url: str, events: Sequence[str]) -> NewWebhook:
        """Makes a webhook; the answer holds its secret."""
        return self._post(NewWebhook, "/webhooks", {"url": url, "events": events})

    def delete_webhook(self, webhook: Webhook) -> None:
        """Deletes a webhook."""
        self.request("DELETE", f"/webhooks/{segment(webhook.id)}")
