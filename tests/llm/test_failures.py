"""Whose fault it is that a call failed, and what it cost."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from app.errors import Problem, Unavailable
from app.llm.breaker import FAILURES, OPEN_S, Breaker
from app.llm.gateway import Free, Gateway
from app.llm.hops import Hop, OverBudget, Usage
from app.llm.local.engine import LOCAL_MODEL
from app.llm.provider import litellm
from app.llm.tasks import SUMMARY
from tests.llm.test_gateway import GEMINI, GROK, TURNS
from tests.llm.test_hops import GOOD, Clock, gateway
from tests.support.providers import (
    XAI_KEY,
    Providers,
    Reply,
    failure,
    gemini_reply,
    grok_reply,
    open_providers,
    summary_answer,
)


@pytest.fixture
async def providers() -> AsyncIterator[Providers]:
    await litellm()
    async with open_providers() as opened:
        opened.grok.reply = GOOD
        opened.gemini.reply = gemini_reply(summary_answer())
        yield opened


class Book(Free):
    """A ledger that keeps what was reserved and settled, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.reserved: list[float] = []
        self.settled: list[float] = []

    async def reserve(self, model: str, cost_usd: float | None) -> int:
        if self.error:
            raise self.error
        assert cost_usd is not None
        self.reserved.append(cost_usd)
        return 0

    async def settle(self, call_id: int, outcome: str, usage: Usage) -> None:
        self.settled.append(usage.cost_usd)


async def by(asked: Gateway, book: Book | None = None) -> tuple[str, list[tuple[str, str]]]:
    """Returns who answered, and who did not and why."""
    made = (await asked.answer(SUMMARY, TURNS, book)).provenance
    return made.model, [(each.model, each.reason) for each in made.fallbacks]


async def test_who_is_not_asked_for_want_of_time_has_not_failed(providers: Providers) -> None:
    asked = gateway(providers)
    assert await by(asked) == (GROK, []), "what is loaded by the first call takes no time of the others"
    providers.grok.reply = replace(GOOD, manner="hang")
    asked.deadline_s = 0.3
    for _ in range(FAILURES):
        assert await by(asked) == (LOCAL_MODEL, [(GROK, "timeout")])
    assert not providers.gemini.requests
    asked.deadline_s = 60.0
    assert await by(asked) == (GEMINI, [(GROK, "circuit_open")])


async def test_a_call_that_cannot_be_written_down_is_no_providers_fault(providers: Providers) -> None:
    asked = gateway(providers)
    for _ in range(FAILURES):
        with pytest.raises(Unavailable):
            await by(asked, Book(Unavailable("The database is away.")))
    assert not providers.requests
    assert await by(asked) == (GROK, [])


async def fail(asked: Gateway, providers: Providers, times: int) -> None:
    providers.grok.reply = failure(500)
    for _ in range(times):
        assert await by(asked) == (GEMINI, [(GROK, "unavailable")])


@pytest.mark.parametrize("error", [OverBudget(), Unavailable("The database is away.")])
async def test_a_call_that_is_not_made_leaves_the_try_to_the_next(providers: Providers, error: Exception) -> None:
    clock = Clock()
    asked = gateway(providers, clock=clock)
    await fail(asked, providers, FAILURES)
    clock.now += OPEN_S
    with suppress(Problem):
        await by(asked, Book(error))
    assert len(providers.grok.requests) == FAILURES
    providers.grok.reply = GOOD
    assert await by(asked) == (GROK, [])


async def test_a_call_that_is_cancelled_leaves_the_try_to_the_next(providers: Providers) -> None:
    clock = Clock()
    asked = gateway(providers, clock=clock)
    await fail(asked, providers, FAILURES)
    clock.now += OPEN_S
    providers.grok.hold()
    trying = asyncio.create_task(by(asked))
    await providers.grok.asked.wait()
    assert await by(asked) == (GEMINI, [(GROK, "circuit_open")])
    trying.cancel()
    await asyncio.wait({trying})
    providers.grok.reply = GOOD
    providers.grok.gate.set()
    assert await by(asked) == (GROK, [])


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (grok_reply("Sure!"), "invalid_answer"),
        (grok_reply(None), "empty_answer"),
        (grok_reply("{", finish="length"), "cut_answer"),
        (grok_reply("", finish="content_filter"), "refused"),
        (failure(400), "rejected"),
        (failure(400, code="context_length_exceeded"), "too_long"),
        (failure(429), "rate_limited"),
    ],
)
async def test_who_answers_badly_is_there_again(providers: Providers, reply: Reply, reason: str) -> None:
    clock = Clock()
    asked = gateway(providers, clock=clock)
    await fail(asked, providers, FAILURES)
    clock.now += OPEN_S
    providers.grok.reply = reply
    assert await by(asked) == (GEMINI, [(GROK, reason)])
    providers.grok.reply = GOOD
    assert await by(asked) == (GROK, [])


async def test_only_failures_in_a_row_count(providers: Providers) -> None:
    asked = gateway(providers)
    await fail(asked, providers, FAILURES - 1)
    providers.grok.reply = failure(400)
    assert await by(asked) == (GEMINI, [(GROK, "rejected")])
    await fail(asked, providers, FAILURES - 1)


def test_what_a_provider_asked_for_outlasts_an_answer() -> None:
    clock = Clock()
    breaker = Breaker(clock=clock)
    breaker.hold(100)
    breaker.answered()
    assert not breaker.allows()
    clock.now += 100
    assert breaker.allows()


@pytest.mark.parametrize(("status", "reason"), [(429, "rate_limited"), (503, "unavailable")])
@pytest.mark.parametrize("as_date", [True, False])
async def test_a_provider_is_left_alone_until_the_moment_that_it_names(
    providers: Providers, status: int, reason: str, as_date: bool
) -> None:
    clock = Clock()
    asked = gateway(providers, clock=clock)
    moment = datetime.now(UTC) + timedelta(seconds=1_000)
    header = format_datetime(moment, usegmt=True) if as_date else "1000"
    providers.grok.replies = [replace(failure(status), retry_after=header)]
    assert await by(asked) == (GEMINI, [(GROK, reason)])
    clock.now += 900
    assert await by(asked) == (GEMINI, [(GROK, "circuit_open")])
    clock.now += 100
    assert await by(asked) == (GROK, [])


@pytest.mark.parametrize("header", ["soon", "-1", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "1e", "Fri, 31"])
async def test_nonsense_for_a_moment_is_none(providers: Providers, header: str) -> None:
    asked = gateway(providers)
    providers.grok.replies = [replace(failure(503), retry_after=header)]
    assert await by(asked) == (GEMINI, [(GROK, "unavailable")])
    assert await by(asked) == (GROK, [])


async def test_the_last_one_is_not_asked_again_before_the_moment_that_it_names(providers: Providers) -> None:
    providers.grok.reply = failure(400)
    providers.gemini.reply = replace(failure(503), retry_after="1000")
    assert await by(gateway(providers)) == (LOCAL_MODEL, [(GROK, "rejected"), (GEMINI, "unavailable")])
    assert len(providers.gemini.requests) == 1


# Money

BROKEN = {
    "cut": replace(GOOD, manner="cut"),
    "reset": replace(GOOD, manner="reset"),
    "too long to be read": replace(GOOD, body=GOOD.body + b" " * 2**21),
    "no JSON": replace(GOOD, body=b'{"id": nonsense'),
}


@pytest.mark.parametrize("reply", BROKEN.values(), ids=BROKEN.keys())
async def test_a_call_that_broke_off_costs_what_was_reserved(providers: Providers, reply: Reply) -> None:
    providers.grok.reply = reply
    book = Book()
    made = (await gateway(providers).answer(SUMMARY, TURNS, book)).provenance
    assert made.model == GEMINI
    assert book.settled[0] == book.reserved[0] > 16_384 * 2.5e-6
    assert made.cost_usd == pytest.approx(sum(book.settled))


async def test_what_timed_out_is_part_of_what_it_cost(providers: Providers) -> None:
    asked, book = gateway(providers), Book()
    await by(asked)
    providers.grok.reply = replace(GOOD, manner="hang")
    asked.deadline_s = 0.3
    made = (await asked.answer(SUMMARY, TURNS, book)).provenance
    assert made.model == LOCAL_MODEL
    assert [made.cost_usd] == book.settled == book.reserved


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody answers."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503, 302])
async def test_an_error_costs_nothing(providers: Providers, status: int) -> None:
    providers.grok.reply = failure(status)
    book = Book()
    assert (await by(gateway(providers), book))[0] == GEMINI
    assert book.settled[0] == 0


async def test_who_cannot_be_reached_costs_nothing(nobody: str) -> None:
    book = Book()
    asked = Gateway([Hop(GROK, 30.0, 100_000, XAI_KEY, f"{nobody}/xai/v1")])
    assert await by(asked, book) == (LOCAL_MODEL, [(GROK, "unavailable")])
    assert book.settled == [0, 0]
