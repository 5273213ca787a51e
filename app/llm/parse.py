"""From a draft's schema to what providers accept, and from their text back to a draft."""

import re
from typing import Any, TypeVar

from pydantic import ValidationError

from app.llm.tasks import Task
from app.schemas.drafts import Draft

D = TypeVar("D", bound=Draft)

ANSWER_CHARACTERS = 1_000_000

# What JSON makes a NUL of: no message holds one, nor does any other text here.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
# xAI and Gemini refuse some of the others; the bounds are checked on the answer instead.
_KEPT = {"type", "properties", "items", "enum", "required", "additionalProperties"}


class InvalidAnswer(Exception):
    """A model's answer that cannot be used; ``reason`` is a stable word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def response_format(task: Task[D]) -> dict[str, Any]:
    """Returns the ``response_format`` of a task: a JSON schema without references, every property required."""
    schema = task.answer.model_json_schema()
    flat = _flatten(schema, schema.get("$defs", {}))
    return {"type": "json_schema", "json_schema": {"name": task.name, "strict": True, "schema": flat}}


def _flatten(node: Any, definitions: dict[str, Any]) -> Any:
    if "$ref" in node:
        return _flatten(definitions[node["$ref"].rpartition("/")[2]], definitions)
    kept = {key: value for key, value in node.items() if key in _KEPT}
    if "properties" in kept:
        kept["properties"] = {name: _flatten(part, definitions) for name, part in kept["properties"].items()}
    if "items" in kept:
        kept["items"] = _flatten(kept["items"], definitions)
    return kept


def parse_answer(task: Task[D], text: object) -> D:
    """Returns the draft in a model's answer.

    Raises:
        InvalidAnswer: if it is empty, too long, no JSON, or not of the task's shape.
    """
    if not isinstance(text, str) or not text.strip():
        raise InvalidAnswer("empty_answer")
    if len(text) > ANSWER_CHARACTERS:
        raise InvalidAnswer("answer_too_long")
    if _NUL.search(text):
        raise InvalidAnswer("invalid_answer")
    try:
        return task.answer.model_validate_json(text)
    except ValidationError:
        raise InvalidAnswer("invalid_answer") from None
