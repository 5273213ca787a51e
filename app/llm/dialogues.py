"""Dialogues to measure summaries on, and reading them from a file."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from app.schemas.drafts import Turn
from app.schemas.enums import Outcome, Sentiment, UserType

_ROLES = {
    **dict.fromkeys(("customer", "user", "client"), UserType.CUSTOMER),
    **dict.fromkeys(("support_agent", "agent", "system", "assistant"), UserType.SUPPORT_AGENT),
}
_LABELS: Mapping[str, type[Sentiment] | type[Outcome]] = {"sentiment": Sentiment, "outcome": Outcome}
_CLOCK_START = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation and what people said about it; ``redact`` when a provider is to see placeholders."""

    turns: list[Turn]
    references: list[str]
    labels: dict[str, str]
    keywords: list[str]
    conversation_id: str = ""
    redact: bool = True


def read(path: Path) -> list[Dialogue]:
    """Returns the dialogues of a JSON Lines file.

    A line is ``{id, messages: [{speaker, role, text}], references: [...], labels: {sentiment, outcome, keywords}}``;
    only the messages are required. A line that cannot be read raises ``ValueError`` with its number.
    """
    dialogues = list(_read(path))
    if not dialogues:
        raise ValueError(f"{path.name} holds no dialogues")
    return dialogues


def _read(path: Path) -> Iterator[Dialogue]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield _dialogue(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number}: not valid JSON: {error.msg} at column {error.colno}") from error
            except (TypeError, ValueError) as error:
                raise ValueError(f"line {number}: {error}") from error


def _dialogue(data: object) -> Dialogue:
    if not isinstance(data, dict):
        raise TypeError("expected a JSON object")
    if not isinstance(messages := data.get("messages"), list):
        raise TypeError("'messages' must be a list")
    if not isinstance(labels := data.get("labels") or {}, dict):
        raise TypeError("'labels' must be an object")
    return Dialogue(
        turns=[_turn(message, number) for number, message in enumerate(messages, start=1)],
        references=[reference for reference in _strings(data, "references") if reference.strip()],
        labels={name: str(kind(labels[name])) for name, kind in _LABELS.items() if labels.get(name) is not None},
        keywords=_strings(labels, "keywords"),
    )


def _strings(data: dict[str, Any], name: str) -> list[str]:
    found = data.get(name) or []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise TypeError(f"'{name}' must be a list of strings")
    return found


def _turn(message: object, number: int) -> Turn:
    if not isinstance(message, dict) or not isinstance(message.get("text"), str):
        raise TypeError(f"message {number} must be an object with a string 'text'")
    role = message.get("role") or message.get("speaker")
    user_type = _ROLES.get(str(role).lower())
    if user_type is None:
        raise ValueError(f"message {number} has the role {role!r}; known are {', '.join(_ROLES)}")
    return Turn(
        message_id=str(number),
        user_id=str(message.get("speaker") or user_type),
        user_type=user_type,
        timestamp=_CLOCK_START + timedelta(seconds=number),
        text=message["text"],
    )
