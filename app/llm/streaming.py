"""Answers that are shown while they are written.

Whoever listens is told the whole text so far, again and again: so nothing is missed by who comes late, and who is slow
has one text to read, not a queue.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pydantic_core

from app.llm.parse import ANSWER_CHARACTERS, InvalidAnswer

FIELD = "summary"
"""What of an answer is shown: its first field, so that it comes before all the rest."""
SHOWN_CHARACTERS = 20_000
"""A longer text is not valid."""
SHOW_S = 0.1
"""How often a growing text is told at the most: what a model writes in between comes together."""
MOST_TOKENS = 10**9
"""More than any call takes: who says so, or fewer than none, is not believed."""
HOLD_S = 0.01
"""For how long chunks that came together may hold up everything else: each takes litellm a millisecond."""


class Listener(Protocol):
    """Who watches an answer being written."""

    @property
    def listening(self) -> bool:
        """Whether anybody is there."""
        ...

    def wrote(self, text: str) -> None:
        """Takes the text so far."""
        ...

    def restarted(self, reason: str) -> None:
        """Takes it that the text so far is void, and why."""
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """What a provider said and took; ``finish`` tells why it ended, ``cost_usd`` is None if nobody knows.

    ``tokens`` are those of the prompt, of the answer, and those of the prompt that the provider knew already.
    """

    text: object
    finish: str | None
    tokens: tuple[int, int, int] = (0, 0, 0)
    cost_usd: float | None = None


def whole(response: Any) -> Reply:
    """Returns the reply in litellm's response."""
    return _reply(response.choices[0].message.content, response.choices[0].finish_reason, response)


def _reply(text: object, finish: str | None, bill: Any) -> Reply:
    usage = bill.usage
    cached = getattr(getattr(usage, "prompt_tokens_details", None), "cached_tokens", None)
    tokens = usage.prompt_tokens or 0, usage.completion_tokens or 0, cached or 0
    if not all(0 <= each <= MOST_TOKENS for each in tokens):
        return Reply(text, finish)
    return Reply(text, finish, tokens, max(bill._hidden_params.get("response_cost") or 0.0, 0.0))


async def written(chunks: Any, listener: Listener) -> Reply:
    """Returns the reply in litellm's stream when it is over, and tells it until then.

    Raises:
        InvalidAnswer: if it is too long.
        Exception: whatever the stream broke with.
    """
    text, finish, last, length = _Growing(listener), None, None, 0
    held_since = time.perf_counter()
    try:
        async for chunk in chunks:
            for choice in chunk.choices:
                finish = choice.finish_reason or finish
                if piece := choice.delta.content:
                    length += len(piece)
                    text.add(piece)
            if getattr(chunk, "usage", None):
                last = chunk
            if length > ANSWER_CHARACTERS:
                raise InvalidAnswer("answer_too_long")
            if time.perf_counter() - held_since > HOLD_S:
                await asyncio.sleep(0)
                held_since = time.perf_counter()
    except Exception as error:  # noqa: BLE001 — litellm wraps what broke the stream
        raise getattr(error, "original_exception", None) or error from None
    finally:
        text.close()
    return _reply(text.whole(), finish, last) if last else Reply(text.whole(), finish)


class Edited:
    """A listener who is told texts as ``edit`` makes them."""

    def __init__(self, listener: Listener, edit: Callable[[str], str]) -> None:
        self._listener = listener
        self._edit = edit
        self.restarted = listener.restarted

    @property
    def listening(self) -> bool:
        """Whether anybody is there."""
        return self._listener.listening

    def wrote(self, text: str) -> None:
        """Tells a text."""
        self._listener.wrote(self._edit(text))


class _Growing:
    """An answer that is being written, told now and then."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._parts: list[str] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, piece: str) -> None:
        self._parts.append(piece)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SHOW_S, self._show)

    def whole(self) -> str:
        self._parts = ["".join(self._parts)]
        return self._parts[0]

    def close(self) -> None:
        """Tells nothing any more."""
        if self._timer:
            self._timer.cancel()

    def _show(self) -> None:
        self._timer = None
        if not self._listener.listening:
            return
        try:
            answer = pydantic_core.from_json(self.whole(), allow_partial="trailing-strings")
        except ValueError:
            return  # no JSON, which is found out at the end
        text = answer.get(FIELD) if isinstance(answer, dict) else None
        if isinstance(text, str) and 0 < len(text) <= SHOWN_CHARACTERS:
            self._listener.wrote(text)
