"""What Schemathesis cannot know from the document: how streams are written, and that cursors are the server's."""

import csv
import io
import json
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode, HookContext

from app.schemas.chats import DELETE_SIZE

ids = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20).filter(
    lambda text: text not in (".", "..")
)
messages = st.fixed_dictionaries(
    {
        "conversation_id": ids,
        "message_id": ids,
        "user_id": ids,
        "user_type": st.sampled_from(["customer", "support_agent"]),
        "message_content": ids.map("About {}".format),
        "timestamp": st.datetimes().map(lambda time: time.isoformat() + "Z"),
    }
)


def as_csv(rows: list[dict[str, str]]) -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(
        stream, ["conversation_id", "message_id", "user_id", "user_type", "message_content", "timestamp"]
    )
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def as_ndjson(rows: list[dict[str, str]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


schemathesis.openapi.media_type("text/csv", st.lists(messages, max_size=5).map(as_csv))
schemathesis.openapi.media_type("application/x-ndjson", st.lists(messages, max_size=5).map(as_ndjson))


@schemathesis.hook
def before_load_schema(context: HookContext, raw_schema: dict[str, Any]) -> None:
    """Takes out the examples of streams: with the strategies above only bytes can be sent, and they are text."""
    for media in ("text/csv", "application/x-ndjson"):
        del raw_schema["paths"]["/chats"]["post"]["requestBody"]["content"][media]["example"]


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Keeps to the rules of valid requests: a cursor is one that was given out, a deletion has a filter and
    room, an idempotency key is used once, a key ends in the future, and a webhook leads somewhere. No text is an id as
    well: ids may be found."""
    if not case.meta or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    if case.headers:
        case.headers.pop("Idempotency-Key", None)
    if case.operation.label == "POST /auth/keys" and isinstance(case.body, dict):
        case.body.pop("expires_at", None)
    if "/webhooks" in case.operation.label and isinstance(case.body, dict) and "url" in case.body:
        case.body["url"] = "https://hooks.example.com/"
    if case.operation.label == "POST /chats":
        for each in case.body if isinstance(case.body, list) else [case.body]:
            if isinstance(each, dict) and isinstance(each.get("message_content"), str):
                each["message_content"] = f"About {each['message_content']}"
    if case.query:
        case.query.pop("cursor", None)
        if case.operation.label == "GET /analytics/trends":
            for name in ("from", "to"):  # how long a range may be depends on the interval
                case.query.pop(name, None)
        if case.operation.label == "DELETE /chats":
            case.query.update({"user_id": "nobody"} if set(case.query) <= {"max_delete_count"} else {})
            case.query["max_delete_count"] = DELETE_SIZE
