"""Asking providers: Grok, then Gemini, each call within a deadline, paid for, counted, and checked before it counts."""

import asyncio
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import structlog

from app import metrics
from app.errors import Problem
from app.llm import prices
from app.llm.breaker import Breaker
from app.llm.failures import reason_of, retry_after, unpaid
from app.llm.parse import InvalidAnswer, parse_answer, response_format
from app.llm.provider import http_client, litellm
from app.llm.streaming import Listener, Reply, whole, written
from app.llm.tasks import Task
from app.schemas.analyses import Fallback
from app.schemas.drafts import Draft
from app.telemetry import span

D = TypeVar("D", bound=Draft)

MOST_CALLS = 3
"""How often providers are called for one prompt at the most, repairs and fallback included."""
PATIENCE_S = 3.0
"""For how long a provider that asks for patience is waited for; for longer the next one is asked."""
TIMER_S = 0.01
"""By how much a timer may be early; before its time the provider would be left alone still."""
MAX_ANSWER_TOKENS = 16_384

_REPAIRED = ("invalid_answer", "empty_answer", "cut_answer")
_REPAIR = "That was no JSON object of the given schema. Answer again with that object alone, complete, and shorter."

_settling: set[asyncio.Task[None]] = set()
"""What is written down, also if nobody waits for it any more."""
_log = structlog.get_logger(__name__)


class NoAnswer(Exception):
    """No provider answered usefully."""


class OverBudget(Exception):
    """The call would cost more than is left."""


class Ledger(Protocol):
    """Where calls are paid: what one may cost is reserved before it, and settled after it."""

    async def reserve(self, model: str, cost_usd: float | None) -> int:
        """Returns the number of a call that costs so much at the most, None if nobody knows; raises ``OverBudget``."""
        ...

    async def settle(self, call_id: int, outcome: str, usage: "Usage") -> None:
        """Writes down what became of the call."""
        ...


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call took; ``cached_tokens`` are those of the prompt that the provider knew already."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost_usd: float
    latency_ms: int


@dataclass(frozen=True, slots=True)
class Hop:
    """A model to ask: ``timeout_s`` bounds one whole answer, ``max_chars`` what it is shown."""

    model: str
    timeout_s: float
    max_chars: int
    api_key: str | None = field(default=None, repr=False)
    api_base: str | None = None
    breaker: Breaker = field(default_factory=Breaker, compare=False, repr=False)


@dataclass
class Run:
    """One question: until when it may take (seconds of the loop's clock), who pays, and what came of it so far."""

    ends_at: float
    ledger: Ledger
    model: str = ""
    fallbacks: list[Fallback] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    digest: Any = field(default_factory=hashlib.sha256)

    @property
    def left_s(self) -> float:
        """How many seconds are left."""
        return self.ends_at - asyncio.get_running_loop().time()

    def fell(self, model: str, reason: str) -> None:
        """Notes why a model was not the one."""
        if (fallback := Fallback(model=model, reason=reason)) not in self.fallbacks:
            self.fallbacks.append(fallback)
            metrics.fallbacks.labels(model, reason).inc()


class Hops:
    """The providers in the order they are asked."""

    def __init__(self, hops: Sequence[Hop]) -> None:
        self._hops = list(hops)

    def __bool__(self) -> bool:
        return bool(self._hops)

    @property
    def room(self) -> int:
        """How many characters every one of them reads at once."""
        return min(hop.max_chars for hop in self._hops)

    async def ask(self, task: Task[D], prompt: str, shown: str, run: Run, listener: Listener | None = None) -> D:
        """Returns the first valid answer, told to the listener while it is written.

        Raises:
            NoAnswer: if there is none; what failed stands in the run.
            Problem: if a call cannot be written down, which is no provider's fault.
        """
        run.digest.update(shown.encode())
        try:
            async with asyncio.timeout_at(run.ends_at):
                await litellm()
        except TimeoutError:  # which is no provider's fault
            run.fell(self._hops[0].model, "timeout")
            raise NoAnswer from None
        calls = _Calls(MOST_CALLS)
        for hop in self._hops:
            answer = await self._ask_one(hop, calls, task, prompt, shown, run, listener)
            if answer is not None:
                run.model = hop.model
                return answer
        raise NoAnswer

    async def _ask_one(
        self, hop: Hop, calls: "_Calls", task: Task[D], prompt: str, shown: str, run: Run, listener: Listener | None
    ) -> D | None:
        messages = [{"role": "system", "content": prompt}, {"role": "user", "content": shown}]
        last = hop is self._hops[-1]
        again, reason = True, ""
        while calls.left and run.left_s > 0:
            if not hop.breaker.allows():
                reason = "circuit_open"
                break
            calls.left -= 1
            said: list[str] = []
            try:
                answer = await self._call(hop, task, messages, run, said, listener)
            except (Problem, asyncio.CancelledError):
                hop.breaker.released()
                raise
            except Exception as error:  # noqa: BLE001 — a provider may fail in any way; the next one is asked
                reason = reason_of(error)
                # Never the error's text: it is the provider's, and may hold the prompt.
                _log.warning("model_failed", model=hop.model, reason=reason, error=type(error).__name__)
                wait_s = _note(hop.breaker, reason, error)
                if listener:
                    listener.restarted(reason)
            else:
                hop.breaker.answered()
                return answer
            if again and reason in _REPAIRED:
                messages += [
                    {"role": "assistant", "content": "".join(said) or "null"},
                    {"role": "user", "content": _REPAIR},
                ]
            elif again and wait_s is not None and wait_s <= min(PATIENCE_S, run.left_s):
                await asyncio.sleep(wait_s + TIMER_S)
            elif not (again and last and reason == "unavailable" and wait_s is None):
                break
            again = False
        if reason:  # else it was not asked
            run.fell(hop.model, reason)
        return None

    async def _call(
        self,
        hop: Hop,
        task: Task[D],
        messages: list[dict[str, str]],
        run: Run,
        said: list[str],
        listener: Listener | None,
    ) -> D:
        library = await litellm()
        seconds = min(hop.timeout_s, run.left_s)
        shape = response_format(task)
        reserved = await prices.cost_usd(hop.model, _most(messages, shape), MAX_ANSWER_TOKENS)
        call_id = await run.ledger.reserve(hop.model, reserved)
        started = time.perf_counter()
        outcome, reply = "cancelled", Reply(None, None)  # until there is one, nobody knows what it costs
        watched = listener if listener and listener.listening else None
        streaming = {"stream": True, "stream_options": {"include_usage": True}} if watched else {}
        with span(f"chat {hop.model}", _of_call(hop.model)) as note:
            try:
                async with http_client(seconds) as client, asyncio.timeout(seconds):
                    response = await library.acompletion(
                        model=hop.model,
                        messages=messages,
                        response_format=shape,
                        api_key=hop.api_key,
                        api_base=hop.api_base,
                        client=client,
                        timeout=seconds,
                        max_tokens=MAX_ANSWER_TOKENS,
                        max_retries=0,
                        num_retries=0,
                        **streaming,
                    )
                    reply = await written(response, watched) if watched else whole(response)
                draft = _draft(task, reply, said)
                outcome = "answered"
            except BaseException as error:
                outcome = reason_of(error)
                if unpaid(error):
                    reply = Reply(None, None, cost_usd=0.0)
                note({"error.type": outcome})
                raise
            finally:
                run.prompt_tokens += reply.tokens[0]
                run.completion_tokens += reply.tokens[1]
                spent = (reserved or 0.0) if reply.cost_usd is None else reply.cost_usd
                run.cost_usd += spent
                took_s = time.perf_counter() - started
                took = round(took_s * 1000)
                note({"gen_ai.usage.input_tokens": reply.tokens[0], "gen_ai.usage.output_tokens": reply.tokens[1]})
                _count_call(hop.model, outcome, took_s, reply.tokens, spent)
                usage = Usage(*reply.tokens, spent, took)
                settling = asyncio.create_task(run.ledger.settle(call_id, outcome, usage))
                _settling.add(settling)
                settling.add_done_callback(_settling.discard)
                await asyncio.shield(settling)
        return draft


def _of_call(model: str) -> dict[str, str]:
    # OpenTelemetry's semantic conventions for generative AI.
    provider = model.partition("/")[0]
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": {"gemini": "gcp.gemini", "xai": "x_ai"}.get(provider, provider),
        "gen_ai.request.model": model,
    }


def _count_call(model: str, outcome: str, seconds: float, tokens: Sequence[int], cost_usd: float) -> None:
    metrics.calls.labels(model, outcome).observe(seconds)
    for kind, number in zip(("prompt", "completion", "cached"), tokens, strict=True):
        metrics.tokens.labels(model, kind).inc(number)
    metrics.cost.labels(model).inc(cost_usd)


class _Calls:
    def __init__(self, left: int) -> None:
        self.left = left


def _draft(task: Task[D], reply: Reply, said: list[str]) -> D:
    if reply.finish == "content_filter":
        raise InvalidAnswer("refused")
    if isinstance(reply.text, str):
        said.append(reply.text[:MAX_ANSWER_TOKENS])
    if reply.finish == "length":
        raise InvalidAnswer("cut_answer")
    return parse_answer(task, reply.text)


def _most(messages: Sequence[dict[str, str]], schema: dict[str, Any]) -> int:
    """Returns how many tokens a prompt can be at the most: no tokenizer makes more of them than there are bytes."""
    shown = [*(message["content"] for message in messages), json.dumps(schema)]
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in shown)


def _note(breaker: Breaker, reason: str, error: Exception) -> float | None:
    """Tells the breaker of a failure; returns how long the provider wants to be left alone, if it said so."""
    if reason in ("timeout", "unavailable", "unauthorized"):
        breaker.failed()
    elif reason in ("rate_limited", "over_budget"):
        breaker.released()
    else:
        breaker.answered()
    wait_s = retry_after(error) if reason in ("rate_limited", "unavailable") else None
    if wait_s is not None:
        breaker.hold(wait_s)
    return wait_s
