"""Cutting a conversation into parts that a model reads at once."""

from collections.abc import Iterator, Sequence

from app.schemas.drafts import Turn

EARLIER_SHARE = 10
"""The messages before a part that are shown with it have at most this fraction of the room."""


def split(turns: Sequence[Turn], room: int) -> list[list[Turn]]:
    """Returns the conversation in parts of at most ``room`` characters of JSON, cut between messages.

    A message that is longer than that is cut into several turns of the same id.
    """
    parts: list[list[Turn]] = [[]]
    left = room
    for turn in _short(turns, room):
        size = _size(turn)
        if parts[-1] and size > left:
            parts.append([])
            left = room
        parts[-1].append(turn)
        left -= size
    return parts


def earlier(part: Sequence[Turn], room: int) -> list[Turn]:
    """Returns the last messages of a part, as many as stand before the next one."""
    kept: list[Turn] = []
    left = room // EARLIER_SHARE
    for turn in reversed(part):
        left -= _size(turn)
        if left < 0:
            break
        kept.insert(0, turn)
    return kept


def _short(turns: Sequence[Turn], room: int) -> Iterator[Turn]:
    for turn in turns:
        size = _size(turn)
        if size <= room:
            yield turn
            continue
        # How much of the text fits, as JSON: a control character takes six.
        step = max(1, len(turn.text) * room // (2 * size))
        for start in range(0, len(turn.text), step):
            yield turn.model_copy(update={"text": turn.text[start : start + step]})


def _size(turn: Turn) -> int:
    return len(turn.model_dump_json()) + 1
