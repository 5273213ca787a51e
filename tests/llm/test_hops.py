"""How often, for how long and in what parts providers are asked."""

import asyncio
import functools
import itertools
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from app.llm import provider
from app.llm.breaker import FAILURES, OPEN_S, Breaker
from app.llm.gateway import Free, Gateway
from app.llm.hops import MOST_CALLS, Hop
from app.llm.local.engine import LOCAL_MODEL
from app.llm.streaming import SHOW_S
from app.llm.tasks import INSIGHTS, SUMMARY, Task
from app.schemas.drafts import Turn
from tests.llm.test_gateway import GEMINI, GROK, TURNS, turn
from tests.support.providers import (
    GEMINI_KEY,
    XAI_KEY,
    Providers,
    Reply,
    failure,
    gemini_reply,
    grok_reply,
    insights_answer,
    open_providers,
    summary_answer,
)

GOOD = grok_reply(summary_answer())


class Clock:
    """A clock that is moved by hand."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def providers() -> AsyncIterator[Providers]:
    async with open_providers() as opened:
        opened.grok.reply = GOOD
        opened.gemini.reply = gemini_reply(summary_answer())
        yield opened


def gateway(
    providers: Providers, *, room: int = 100_000, deadline_s: float = 60.0, clock: Clock | None = None
) -> Gateway:
    breakers = [Breaker(clock=clock or Clock()) for _ in range(2)]
    return Gateway(
        [
            Hop(GROK, 30.0, room, XAI_KEY, f"{providers.url}/xai/v1", breakers[0]),
            Hop(GEMINI, 30.0, room, GEMINI_KEY, f"{providers.url}/gemini/v1beta", breakers[1]),
        ],
        deadline_s=deadline_s,
    )


def chat(messages: int) -> list[Turn]:
    return [turn(f"m{number:03}", f"Parcel number {number} is late.") for number in range(messages)]


def shown(providers: Providers) -> list[Any]:
    """Returns what Grok was shown, call by call."""
    return [json.loads(request.body["messages"][1]["content"]) for request in providers.grok.requests]


# Whole conversations


@pytest.mark.parametrize(("task", "said"), [(SUMMARY, summary_answer()), (INSIGHTS, insights_answer())])
async def test_a_long_conversation_is_read_in_parts_that_are_merged_as_deep_as_needed(
    providers: Providers, task: Task[Any], said: dict[str, Any]
) -> None:
    providers.grok.reply = grok_reply(said)
    turns = chat(600)
    answer = await gateway(providers, room=3_000).answer(task, turns, redact=False)
    assert (answer.draft.model_dump(mode="json"), answer.messages_read) == (said, 600)
    parts = sorted((each for each in shown(providers) if isinstance(each, dict)), key=lambda each: each["part"])
    assert [each["part"] for each in parts] == list(range(1, len(parts) + 1))
    assert {each["of"] for each in parts} == {len(parts)}
    assert [each["message_id"] for part in parts for each in part["messages"]] == [each.message_id for each in turns]
    for before, part in itertools.pairwise(parts):
        assert part["earlier"] == before["messages"][len(before["messages"]) - len(part["earlier"]) :] != []
    merged = [each for each in shown(providers) if isinstance(each, list)]
    assert all(each == said for group in merged for each in group)
    assert sum(len(group) for group in merged) == len(parts) + len(merged) - 1, "every answer is merged once"
    assert len(merged) > 2
    assert max(len(json.dumps(group)) for group in merged) < 4_000
    prompts = {request.body["messages"][0]["content"] for request in providers.grok.requests}
    assert prompts == {task.part, task.merge}
    assert all(prompt.startswith(task.prompt) for prompt in prompts)
    made = answer.provenance
    assert made.prompt_tokens == 1_000 * len(providers.grok.requests)
    assert made.cost_usd == pytest.approx(len(providers.grok.requests) * (1_000 * 1.25e-6 + 100 * 2.5e-6))


async def test_a_part_that_nobody_answers_leaves_the_whole_to_the_built_in_engine(providers: Providers) -> None:
    providers.grok.replies = [GOOD, failure(400)]
    providers.gemini.reply = failure(400)
    answer = await gateway(providers, room=3_000).answer(SUMMARY, chat(100))
    assert (answer.provenance.model, answer.messages_read) == (LOCAL_MODEL, 100)
    assert [(each.model, each.reason) for each in answer.provenance.fallbacks] == [
        (GROK, "rejected"),
        (GEMINI, "rejected"),
    ]


# Money


class Reserving(Free):
    """A ledger that keeps what was reserved."""

    def __init__(self) -> None:
        self.usd: list[float] = []

    async def reserve(self, model: str, cost_usd: float | None) -> int:
        assert cost_usd is not None
        self.usd.append(cost_usd)
        return 0


@pytest.mark.parametrize(
    ("text", "per_token"), [("late ", 1.25e-6), ("日本", 1.25e-6), ("😀", 1.25e-6), ("日" * 100_000, 2.5e-6)]
)
async def test_what_is_reserved_is_never_less_than_what_is_charged(
    providers: Providers, text: str, per_token: float
) -> None:
    ledger = Reserving()
    await gateway(providers, room=1_000_000).answer(SUMMARY, [turn("m1", text)], ledger)
    [usd] = ledger.usd
    assert usd > len(text.encode()) * per_token + 16_384 * 2.5e-6


# Once more, and no more


@pytest.mark.parametrize("bad", [None, "Sure!", {"summary": "x"}, [1]])
async def test_an_answer_that_cannot_be_used_is_asked_for_once_more(providers: Providers, bad: object) -> None:
    providers.grok.replies = [grok_reply(bad)]
    answer = await gateway(providers).answer(SUMMARY, TURNS)
    assert (answer.provenance.model, answer.provenance.fallbacks) == (GROK, [])
    assert answer.provenance.prompt_tokens == 2_000, "both calls are paid for"
    first, second = [request.body["messages"] for request in providers.grok.requests]
    assert second[: len(first)] == first
    said = bad if isinstance(bad, str) else "null" if bad is None else json.dumps(bad)
    assert second[2] == {"role": "assistant", "content": said}
    assert (second[3]["role"], len(second)) == ("user", 4)


async def test_a_provider_that_asks_for_a_moment_is_given_it(providers: Providers) -> None:
    providers.grok.replies = [replace(failure(429), retry_after="0")]
    answer = await gateway(providers).answer(SUMMARY, TURNS)
    assert (answer.provenance.model, len(providers.requests)) == (GROK, 2)


async def test_a_provider_that_asks_for_patience_is_left_alone_for_as_long(providers: Providers) -> None:
    clock = Clock()
    asked = gateway(providers, clock=clock)
    providers.grok.replies = [replace(failure(429), retry_after="100")]
    for expected in (["rate_limited"], ["circuit_open"]):
        answer = await asked.answer(SUMMARY, TURNS)
        assert answer.provenance.model == GEMINI
        assert [each.reason for each in answer.provenance.fallbacks] == expected
    assert len(providers.grok.requests) == 1
    clock.now += 100
    assert (await asked.answer(SUMMARY, TURNS)).provenance.model == GROK


@pytest.mark.parametrize("reply", [failure(503), grok_reply("Sure!"), failure(401), Reply(b"", manner="reset")])
async def test_no_prompt_is_sent_more_than_three_times(providers: Providers, reply: Reply) -> None:
    providers.grok.reply = reply
    providers.gemini.reply = reply if reply.manner == "reset" or reply.status != 200 else gemini_reply("Sure!")
    answer = await gateway(providers).answer(SUMMARY, TURNS)
    assert answer.provenance.model == LOCAL_MODEL
    assert 2 <= len(providers.requests) <= MOST_CALLS


async def test_a_provider_that_keeps_failing_is_left_alone_and_tried_again_later(providers: Providers) -> None:
    clock = Clock()
    asked = gateway(providers, clock=clock)
    providers.grok.reply = failure(500)
    for _ in range(FAILURES + 3):
        assert (await asked.answer(SUMMARY, TURNS)).provenance.model == GEMINI
    assert len(providers.grok.requests) == FAILURES
    clock.now += OPEN_S
    providers.grok.reply = GOOD
    for _ in range(2):
        assert (await asked.answer(SUMMARY, TURNS)).provenance.model == GROK


def test_a_breaker_lets_one_call_try_and_opens_again_if_it_fails() -> None:
    clock = Clock()
    breaker = Breaker(clock=clock)
    for _ in range(FAILURES):
        assert breaker.allows()
        breaker.failed()
    assert not breaker.allows()
    clock.now += OPEN_S
    assert [breaker.allows(), breaker.allows()] == [True, False]
    breaker.failed()
    assert not breaker.allows()
    clock.now += OPEN_S
    assert breaker.allows()
    breaker.answered()
    assert [breaker.allows() for _ in range(3)] == [True] * 3


@pytest.mark.parametrize("manner", ["hang", "drip"])
async def test_the_answer_comes_within_the_deadline_whatever_providers_do(providers: Providers, manner: str) -> None:
    providers.grok.reply = Reply(GOOD.body, manner=manner)
    providers.gemini.reply = Reply(gemini_reply(summary_answer()).body, manner=manner)
    for turns, room in ((TURNS, 100_000), (chat(100), 3_000)):
        async with asyncio.timeout(3):
            answer = await gateway(providers, room=room, deadline_s=1.0).answer(SUMMARY, turns)
        assert answer.provenance.model == LOCAL_MODEL
        assert {each.reason for each in answer.provenance.fallbacks} == {"timeout"}


async def test_who_does_not_wait_for_litellm_gets_an_answer_and_it_is_loaded_all_the_same(
    providers: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, may_load, load = threading.Event(), threading.Event(), provider._load

    @functools.cache
    def slowly() -> Any:
        may_load.wait()
        loaded.set()
        return load()

    monkeypatch.setattr(provider, "_load", slowly)
    asked = gateway(providers, deadline_s=0.2)
    try:
        async with asyncio.timeout(2.2):
            answer = await asked.answer(SUMMARY, TURNS)
        assert answer.provenance.model == LOCAL_MODEL
        assert [(each.model, each.reason) for each in answer.provenance.fallbacks] == [(GROK, "timeout")]
        assert not providers.requests
    finally:
        may_load.set()
    assert await asyncio.to_thread(loaded.wait, 20)
    assert (await gateway(providers).answer(SUMMARY, TURNS)).provenance.model == GROK


# Streams


class Watching:
    """A listener who writes down what is told, as long as there is one."""

    def __init__(self, *, listening: bool = True) -> None:
        self.listening = listening
        self.told: list[str] = []

    def wrote(self, text: str) -> None:
        self.told.append(text)

    def restarted(self, reason: str) -> None:
        self.told.append(f"restarted: {reason}")


async def test_thousands_of_small_chunks_are_told_now_and_then(providers: Providers) -> None:
    said = summary_answer(summary="".join(f"{number:05}" for number in range(600)))
    providers.grok.reply = grok_reply(said, pieces=list(json.dumps(said)))
    watching, turns_of_the_loop, loop = Watching(), 0, asyncio.get_running_loop()

    async def count() -> None:
        nonlocal turns_of_the_loop
        while True:
            await asyncio.sleep(0)
            turns_of_the_loop += 1

    counting = asyncio.create_task(count())
    began = loop.time()
    answer = await gateway(providers).answer(SUMMARY, TURNS, listener=watching)
    took_s = loop.time() - began
    counting.cancel()
    assert answer.draft.model_dump() == said
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(watching.told))
    assert watching.told[-1] == said["summary"]
    assert len(watching.told) <= took_s / SHOW_S + 2
    assert turns_of_the_loop > 50


async def test_without_anybody_there_nothing_is_streamed_and_the_end_is_told(providers: Providers) -> None:
    watching = Watching(listening=False)
    await gateway(providers).answer(SUMMARY, TURNS, listener=watching)
    assert watching.told == [summary_answer()["summary"]]
    assert "stream" not in providers.requests[0].body


async def test_a_field_that_comes_twice_is_shown_as_it_counts(providers: Providers) -> None:
    said = json.dumps(summary_answer(summary="The last one."))
    providers.grok.reply = grok_reply('{"summary": "The first one.", ' + said[1:])
    providers.grok.reply = replace(providers.grok.reply, manner="drip")
    watching = Watching()
    answer = await gateway(providers).answer(SUMMARY, TURNS, listener=watching)
    assert answer.draft.summary == watching.told[-1] == "The last one."
