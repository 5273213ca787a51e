"""The example of each object in the OpenAPI document: one conversation, all the way through.

None of them holds a null: FastAPI leaves nulls out of the document.
"""

from typing import Any

_TIMES = {"first_message_at": "2026-11-22T10:00:00.000000Z", "last_message_at": "2026-11-22T10:02:00.000000Z"}
_CURSOR = "M01MxMp9okUvkGBVNJZWPFsiMjAyNi0xMS0yMlQxMDowMDowMCswMDowMCIsMTYzODVd"
_ASKED = "Hi, my parcel has not arrived yet. Can I get a refund?"
_ANSWERED = "It is lost, so I have refunded 25 dollars to your card."
_REFUNDED = [{"message_id": "m-2", "quote": _ANSWERED}]

MESSAGE_IN: dict[str, Any] = {
    "conversation_id": "order-1042",
    "message_id": "m-1",
    "user_id": "ana",
    "user_type": "customer",
    "message_content": _ASKED,
    "timestamp": "2026-11-22T10:00:00Z",
}
STORED: dict[str, Any] = {"stored": 1, "duplicates": 0, "conversations": 1, "message_ids": ["m-1"]}
IMPORTED: dict[str, Any] = {
    "stored": 2,
    "duplicates": 0,
    "rejected": 1,
    "errors": [
        {"line": 4, "code": "enum", "detail": "user_type: Input should be 'customer' or 'support_agent'"},
    ],
}
_CONVERSATION: dict[str, Any] = {
    "conversation_id": "order-1042",
    "message_count": 3,
    **_TIMES,
    "participants": [
        {"user_id": "ana", "user_type": "customer", "message_count": 2},
        {"user_id": "bob", "user_type": "support_agent", "message_count": 1},
    ],
    "sentiment": "positive",
    "outcome": "yes",
}
CONVERSATION_PAGE: dict[str, Any] = {
    **_CONVERSATION,
    "messages": [
        {
            "message_id": "m-1",
            "user_id": "ana",
            "user_type": "customer",
            "message_content": _ASKED,
            "timestamp": "2026-11-22T10:00:00.000000Z",
        }
    ],
    "has_more": True,
    "next_cursor": _CURSOR,
}
_FOUND = {**_CONVERSATION, "matches": [{"message_id": "m-2", "snippet": _ANSWERED}]}
CONVERSATION_LIST: dict[str, Any] = {"data": [_FOUND], "has_more": True, "next_cursor": _CURSOR}
NUMBERED_CONVERSATION_LIST: dict[str, Any] = {
    "data": [_CONVERSATION],
    "has_more": False,
    "page": 1,
    "total": 1,
    "pages": 1,
}
_DELETED = {"conversations": 1, "messages": 3, "participants": 2, "summaries": 1, "insights": 1, "feedback": 1}
DELETED_CONVERSATION: dict[str, Any] = {"conversation_id": "order-1042", "deleted": _DELETED}
DELETED_CONVERSATIONS: dict[str, Any] = {"deleted": _DELETED}
ANALYSIS_REQUEST: dict[str, Any] = {"conversation_id": "order-1042", "force": False}
_ANALYSIS: dict[str, Any] = {
    "conversation_id": "order-1042",
    "coverage": {"messages_read": 3, "messages_total": 3, "complete": True},
    "provenance": {
        "model": "local/extractive",
        "provider": "local",
        "fallbacks": [{"model": "xai/grok-4.3", "reason": "rate_limited"}],
        "prompt_version": "summary-cedcad88b84c",
        "input_sha256": "88b9f404e12cbf3850cf1ab9144d89eff0bd44b820220cc0da5cb45bd20fa7e5",
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "cost_usd": 0.0,
        "latency_ms": 7,
    },
    "stale": False,
    "created_at": "2026-11-22T10:05:00.000000Z",
    "updated_at": "2026-11-22T10:05:00.000000Z",
}
SUMMARY: dict[str, Any] = {
    "summary": (
        "The customer says: my parcel has not arrived yet. Can I get a refund? "
        "The agent says: It is lost, so I have refunded 25 dollars to your card."
    ),
    "action_items": [],
    "decisions": [{"text": _ANSWERED, "evidence": _REFUNDED, "verified": True}],
    "questions": [
        {
            "text": "Can I get a refund?",
            "evidence": [{"message_id": "m-1", "quote": "Can I get a refund?"}],
            "verified": True,
            "status": "answered",
            "answer": _ANSWERED,
        }
    ],
    "sentiment": "positive",
    "outcome": "yes",
    "keywords": ["refund", "parcel", "arrived"],
    **_ANALYSIS,
}
FEEDBACK_IN: dict[str, Any] = {
    "rating": "down",
    "comment": "She got a refund, and was glad.",
    "corrections": {"sentiment": "positive", "outcome": "yes", "keywords": ["refund"]},
}
FEEDBACK: dict[str, Any] = {
    "conversation_id": "order-1042",
    **FEEDBACK_IN,
    "summary_version": {
        "prompt_version": "summary-cedcad88b84c",
        "input_sha256": "88b9f404e12cbf3850cf1ab9144d89eff0bd44b820220cc0da5cb45bd20fa7e5",
        "model": "local/extractive",
        "updated_at": "2026-11-22T10:05:00.000000Z",
    },
    "created_at": "2026-11-22T10:10:00.000000Z",
    "updated_at": "2026-11-22T10:10:00.000000Z",
}
INSIGHTS: dict[str, Any] = {
    "sentiment": {
        "label": "positive",
        "score": 0.5028,
        "confidence": 0.775,
        "by_participant": [{"user_id": "ana", "user_type": "customer", "label": "positive", "score": 0.5028}],
        "timeline": [{"message_id": "m-1", "timestamp": "2026-11-22T10:00:00.000000Z", "score": -0.1159}],
    },
    "outcome": {
        "label": "yes",
        "confidence": 0.798,
        "reason": "At the end the matter was settled, or the customer was content with the answer.",
        "evidence": _REFUNDED,
        "verified": True,
    },
    "customer_effort": {
        "label": "low",
        "score": 0.0,
        "reason": "Nothing shows that it took the customer more than asking.",
        "evidence": [],
        "verified": False,
    },
    "escalation_risk": {
        "label": "medium",
        "score": 0.3,
        "reasons": [
            {
                "text": "The customer is angry.",
                "evidence": [{"message_id": "m-1", "quote": "This is unacceptable."}],
                "verified": True,
            }
        ],
    },
    "topics": ["parcel", "refund"],
    "keywords": [{"text": "refund", "score": 1.0}],
    "resolution": "The matter was settled.",
    **_ANALYSIS,
}
JOB_REQUEST: dict[str, Any] = {"conversation_ids": ["order-1042"]}
JOB_ESTIMATE: dict[str, Any] = {
    "conversations": 1,
    "to_read": 1,
    "calls": 1,
    "tokens": 1040,
    "cost_usd": 0.00155,
    "model": "xai/grok-4.3",
}
JOB: dict[str, Any] = {
    "id": "2983478923478923",
    "status": "completed",
    "total": 2,
    "done": 1,
    "failed": 1,
    "errors": [{"conversation_id": "order-1043", "code": "not_found"}],
    "cost_usd": 0.0012,
}
HEALTH: dict[str, Any] = {"status": "ok", "checks": {"database": "ok", "schema": "ok", "queue": "ok"}}
METRICS = """# HELP messages_total Messages that came, by what became of them.
# TYPE messages_total counter
messages_total{result="stored"} 4711.0
"""
PROBLEM: dict[str, Any] = {
    "type": "urn:chat-insights:problem:invalid",
    "title": "The request is invalid",
    "status": 422,
    "detail": "A parameter is invalid.",
    "code": "invalid",
    "request_id": "1b320d1ac94b4fb7892ffc016f763a79",
    "errors": [
        {
            "pointer": "limit",
            "code": "less_than_equal",
            "detail": "Input should be less than or equal to 100",
        }
    ],
}
_EXPIRES = "2026-12-06T10:00:00.000000Z"
TOKEN_REQUEST: dict[str, Any] = {"refresh_token": "cr_afkfe3tgma5xqvz4yvxw4o2u5n3l6hqkq2jzv7b4mx2yq5s7wtnc6ipd"}
TOKENS: dict[str, Any] = {
    "access_token": "eyJhbGciOiJIUzI1NiIsImtpZCI6IjljMWYiLCJ0eXAiOiJhdCtqd3QifQ.eyJzdWIiOiJrZXk6MjgifQ.c2lnbmF0dXJl",
    "token_type": "Bearer",
    "expires_in": 900,
    "refresh_token": TOKEN_REQUEST["refresh_token"],
    "refresh_expires_at": _EXPIRES,
}
WORKSPACE: dict[str, Any] = {"id": "2734823948239482", "name": "acme", "redact": True}
_WORKSPACE = {"id": "2734823948239482", "name": "acme", "role": "admin"}
ME: dict[str, Any] = {
    "user": {"id": "17", "email": "ana@example.com", "name": "Ana Person", "provider": "google"},
    "workspace": _WORKSPACE,
    "workspaces": [_WORKSPACE],
    "role": "admin",
    "credential": {"kind": "api_key", "actor": "key:2893478923478923", "key_id": "2893478923478923"},
    "limits": {"read": "60000/minute", "write": "60000/minute", "search": "6000/minute", "llm": "600/minute"},
}
KEY_IN: dict[str, Any] = {"name": "checkout service", "role": "editor"}
_KEY: dict[str, Any] = {
    "id": "2893478923478923",
    **KEY_IN,
    "member_id": "2623894723984723",
    "created_at": "2026-11-22T10:00:00.000000Z",
    "expires_at": "2027-11-22T10:00:00.000000Z",
    "last_used_at": "2026-11-22T10:05:00.000000Z",
}
NEW_KEY: dict[str, Any] = {**_KEY, "key": "ck_" + "a2q7" * 16}
KEY_LIST: dict[str, Any] = {"data": [_KEY], "has_more": True, "next_cursor": _CURSOR}
MEMBER_IN: dict[str, Any] = {"email": "bob@example.com", "role": "viewer"}
MEMBER: dict[str, Any] = {
    "id": "2623894723984723",
    "email": "bob@example.com",
    "name": "Bob Person",
    "role": "viewer",
    "status": "active",
    "created_at": "2026-11-22T10:00:00.000000Z",
    "joined_at": "2026-11-22T11:00:00.000000Z",
    "invitation_expires_at": _EXPIRES,
}
MEMBER_LIST: dict[str, Any] = {"data": [MEMBER], "has_more": True, "next_cursor": _CURSOR}
_ENTRY: dict[str, Any] = {
    "id": "4711",
    "created_at": "2026-11-22T10:00:00.000000Z",
    "actor": "key:2893478923478923",
    "action": "conversation.deleted",
    "target": "conversation:f2hYQ0vVbLw9mJqC",
    "details": {"conversations": 1, "messages": 3},
}
AUDIT_LIST: dict[str, Any] = {"data": [_ENTRY], "has_more": True, "next_cursor": _CURSOR}
USAGE: dict[str, Any] = {
    "data": [
        {
            "day": "2026-11-22",
            "model": "xai/grok-4.3",
            "calls": 12,
            "answered": 11,
            "prompt_tokens": 18_340,
            "completion_tokens": 2_210,
            "cached_tokens": 6_144,
            "cost_usd": 0.02845,
        }
    ],
    "cost_usd": 0.02845,
    "budgets": [
        {"scope": "workspace", "period": "day", "limit_usd": 5.0, "spent_usd": 0.02845, "left_usd": 4.97155},
    ],
}
BUDGET_IN: dict[str, Any] = {"day_usd": 5.0, "month_usd": 50.0}
TOPICS: dict[str, Any] = {
    "from": "2026-11-01T00:00:00.000000Z",
    "to": "2026-12-01T00:00:00.000000Z",
    "status": "ready",
    "conversations": 120,
    "assigned": 113,
    "updated_at": "2026-11-22T10:03:00.000000Z",
    "data": [
        {
            "topic_id": "1",
            "label": "Lost parcels and refunds",
            "keywords": ["parcel", "refund", "tracking number", "arrived"],
            "conversations": 113,
            "share": 1.0,
            "examples": [{"conversation_id": "order-1042", "snippet": _ASKED}],
        }
    ],
}
TRENDS: dict[str, Any] = {
    "metric": "outcome",
    "interval": "day",
    "from": "2026-11-22T00:00:00.000000Z",
    "to": "2026-11-23T00:00:00.000000Z",
    "min_count": 3,
    "complete": True,
    "totals": {"conversations": 41, "analysed": 38, "counts": {"yes": 24, "no": 6, "maybe": 5, "curious": 3}},
    "data": [
        {
            "start": "2026-11-22T00:00:00.000000Z",
            "conversations": 41,
            "analysed": 38,
            "counts": {"yes": 24, "no": 6, "maybe": 5, "curious": 3},
        }
    ],
}
WEBHOOK_IN: dict[str, Any] = {
    "url": "https://hooks.example.com/chats",
    "events": ["summary.created", "question.unanswered"],
}
WEBHOOK_CHANGE: dict[str, Any] = {"events": ["job.finished", "summary.created"], "rotate_secret": True}
WEBHOOK: dict[str, Any] = {
    "id": "2783498234723984",
    "url": "https://hooks.example.com/chats",
    "events": ["question.unanswered", "summary.created"],
    "enabled": True,
    "created_at": "2026-11-22T10:00:00.000000Z",
}
NEW_WEBHOOK: dict[str, Any] = {**WEBHOOK, "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="}
WEBHOOK_LIST: dict[str, Any] = {"data": [WEBHOOK], "has_more": True, "next_cursor": _CURSOR}
DELIVERY: dict[str, Any] = {
    "id": "0b6d8a1e-5c0f-4f5e-9a38-2f4f1f6f0c11",
    "event": "summary.created",
    "state": "pending",
    "conversation_id": "order-1042",
    "attempts": 1,
    "created_at": "2026-11-22T10:00:00.000000Z",
    "last_attempt_at": "2026-11-22T10:00:01.000000Z",
    "next_attempt_at": "2026-11-22T10:00:06.300000Z",
    "status_code": 500,
    "error": "status_500",
    "duration_ms": 42,
}
DELIVERY_LIST: dict[str, Any] = {"data": [DELIVERY], "has_more": True, "next_cursor": _CURSOR}
_ORDER = "https://chat.example.com/chats/order-1042"


def _event(event: str, **data: object) -> dict[str, Any]:
    return {"type": event, "timestamp": "2026-11-22T10:00:00.000000Z", "data": data}


SUMMARY_CREATED = _event("summary.created", conversation_id="order-1042", url=f"{_ORDER}/summary")
INSIGHTS_CREATED = _event("insights.created", conversation_id="order-1042", url=f"{_ORDER}/insights")
QUESTION_UNANSWERED = _event("question.unanswered", conversation_id="order-1042", questions=2, url=f"{_ORDER}/summary")
CONVERSATION_DELETED = _event("conversation.deleted", conversation_id="order-1042")
JOB_FINISHED = _event(
    "job.finished",
    job_id="2893478923478923",
    status="completed",
    url="https://chat.example.com/jobs/2893478923478923",
)
