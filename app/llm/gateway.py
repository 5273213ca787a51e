"""Asking models: Grok, then Gemini, then the built-in engine, each within its own deadline."""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Generic, TypeVar

import structlog

from app.errors import Unavailable
from app.llm.chunking import fit
from app.llm.local.text import MESSAGE_CHARS
from app.llm.parse import InvalidAnswer, parse_answer, response_format
from app.llm.privacy import Pseudonyms
from app.llm.provider import LOCAL_MODEL, http_client, litellm
from app.llm.tasks import Task
from app.schemas.analyses import Fallback, Provenance
from app.schemas.drafts import TURNS, Draft, Turn

D = TypeVar("D", bound=Draft)

NO_LIMIT = 2**62
MAX_ANSWER_TOKENS = 16_384

# By class name, most specific first: litellm's errors are subclasses of one another.
_REASONS = (
    ("Timeout", "timeout"),
    ("TimeoutError", "timeout"),
    ("RateLimitError", "rate_limited"),
    ("AuthenticationError", "unauthorized"),
    ("ContentPolicyViolationError", "refused"),
    ("ContextWindowExceededError", "too_long"),
    ("BadRequestError", "rejected"),
    ("NotFoundError", "rejected"),
)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Hop:
    """A model to ask: ``timeout_s`` bounds the whole answer, ``max_chars`` what it is shown.

    ``message_chars`` is how much it reads of one message.
    """

    model: str
    timeout_s: float
    max_chars: int
    api_key: str | None = field(default=None, repr=False)
    api_base: str | None = None
    message_chars: int = NO_LIMIT


@dataclass(frozen=True, slots=True)
class Answer(Generic[D]):
    """A valid answer, who gave it, and how many messages were read to their end."""

    draft: D
    provenance: Provenance
    messages_read: int


class Gateway:
    """The models in the order they are asked; the last one is always the built-in engine."""

    def __init__(self, hops: Sequence[Hop], *, local_timeout_s: float = 60.0) -> None:
        self._hops = [*hops, Hop(LOCAL_MODEL, local_timeout_s, NO_LIMIT, message_chars=MESSAGE_CHARS)]

    async def answer(
        self, task: Task[D], turns: Sequence[Turn], *, redact: bool = True, conversation_id: str = ""
    ) -> Answer[D]:
        """Returns the first valid answer; what failed before it stands in its provenance.

        With ``redact`` every model but the built-in engine sees placeholders, and what it says of them is put right.
        """
        fallbacks: list[Fallback] = []
        names: Pseudonyms | None = None
        for hop in self._hops:
            try:
                if hop.model == LOCAL_MODEL or not redact:
                    return await self._ask(hop, task, turns, fallbacks)
                if names is None:
                    names = await asyncio.to_thread(Pseudonyms, turns, conversation_id)
                answer = await self._ask(hop, task, names.hidden, fallbacks)
                return replace(answer, draft=names.reveal(answer.draft))
            except Exception as error:  # noqa: BLE001 — a provider may fail in any way; the next one is asked
                reason = _reason(error)
                # Never the error's text: it is the provider's, and may hold the prompt.
                _log.warning("model_failed", model=hop.model, reason=reason, error=type(error).__name__)
                fallbacks.append(Fallback(model=hop.model, reason=reason))
        raise Unavailable("No model could answer.")

    async def _ask(self, hop: Hop, task: Task[D], turns: Sequence[Turn], fallbacks: list[Fallback]) -> Answer[D]:
        shown = fit(turns, hop.max_chars)
        if not shown:
            raise InvalidAnswer("too_long")
        transcript = TURNS.dump_json(shown).decode()
        library = await litellm()
        started = time.perf_counter()
        async with http_client(hop.timeout_s) as client, asyncio.timeout(hop.timeout_s):
            response = await library.acompletion(
                model=hop.model,
                messages=[{"role": "system", "content": task.prompt}, {"role": "user", "content": transcript}],
                response_format=response_format(task),
                api_key=hop.api_key,
                api_base=hop.api_base,
                client=client,
                timeout=hop.timeout_s,
                max_tokens=MAX_ANSWER_TOKENS,
                max_retries=0,
                num_retries=0,
            )
        choice = response.choices[0]
        if choice.finish_reason in ("length", "content_filter"):
            raise InvalidAnswer("cut_answer" if choice.finish_reason == "length" else "refused")
        draft = parse_answer(task, choice.message.content)
        provenance = Provenance(
            model=hop.model,
            provider=hop.model.partition("/")[0],
            fallbacks=fallbacks,
            prompt_version=task.version,
            input_sha256=hashlib.sha256(transcript.encode()).hexdigest(),
            latency_ms=round((time.perf_counter() - started) * 1000),
            **_usage(response),
        )
        return Answer(draft, provenance, sum(len(turn.text) <= hop.message_chars for turn in shown))


def _usage(response: Any) -> dict[str, Any]:
    usage = response.usage
    return {
        "prompt_tokens": usage.prompt_tokens or 0,
        "completion_tokens": usage.completion_tokens or 0,
        "cost_usd": response._hidden_params.get("response_cost") or 0.0,
    }


def _reason(error: Exception) -> str:
    if isinstance(error, InvalidAnswer):
        return error.reason
    if getattr(error, "status_code", None) == HTTPStatus.FORBIDDEN:
        return "unauthorized"
    names = {cls.__name__ for cls in type(error).__mro__}
    return next((reason for name, reason in _REASONS if name in names), "unavailable")
