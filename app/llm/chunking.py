"""Fitting a conversation into what a model reads at once."""

from collections.abc import Sequence

from app.schemas.drafts import Turn

HEAD_SHARE = 0.25
"""How much of the room goes to the beginning: why the customer came; the rest goes to how it ended."""


def fit(turns: Sequence[Turn], max_chars: int) -> list[Turn]:
    """Returns the whole conversation, or its two ends when it has more than ``max_chars`` characters of JSON.

    Nothing at all, when neither the first message nor the last one fits.
    """
    sizes = [len(turn.model_dump_json()) + 1 for turn in turns]
    if sum(sizes) <= max_chars:
        return list(turns)
    head = _count(sizes, int(max_chars * HEAD_SHARE))
    tail = _count(list(reversed(sizes[head:])), max_chars - sum(sizes[:head]))
    return [*turns[:head], *turns[len(turns) - tail :]]


def _count(sizes: Sequence[int], room: int) -> int:
    count = 0
    for size in sizes:
        room -= size
        if room < 0:
            break
        count += 1
    return count
