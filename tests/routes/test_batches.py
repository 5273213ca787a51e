"""Jobs of which one prompt shows a model several short conversations."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from app.factory import Services
from app.llm.tasks import SUMMARIES, SUMMARY
from app.repositories.runs import LOST
from app.services.jobs import BATCH, TRIES
from app.settings import Settings
from tests.routes.test_usage import COST, RESERVED
from tests.support.api import Workspace, message
from tests.support.jobs import items, queued, run_all
from tests.support.providers import Reply, Request, StandIn, failure, grok_reply, open_providers, summary_answer
from tests.test_worker import PATIENCE_S, doomed

POISON = "This conversation is poison to whoever reads it."
PLACE = "conversation"
Batch = list[dict[str, Any]]


def summary_of(chat: dict[str, Any]) -> dict[str, Any]:
    """Returns a model's good summary of one of several conversations."""
    first = chat["messages"][0]
    evidence = [{"message_id": first["message_id"], "quote": first["text"][:1_000]}]
    return summary_answer(
        conversation=chat[PLACE],
        summary=f"It is about {first['text']}",
        decisions=[{"text": "Decided.", "evidence": evidence}],
    )


class Model(StandIn):
    """A provider that reads: one conversation well, and of several says whatever ``say`` makes of good summaries."""

    say: Callable[[Batch, Batch], Any] = staticmethod(lambda good, _: good)
    manner = "whole"
    """How it sends what it says of several."""
    ended = asyncio.Event()

    @property
    def batches(self) -> list[Batch]:
        """What was shown in prompts with several conversations."""
        return [each for each in self.shown if isinstance(each, list) and PLACE in each[0]]

    @property
    def shown(self) -> list[Any]:
        """What was shown in each prompt."""
        return [json.loads(each.body["messages"][1]["content"]) for each in self.requests]

    def respond(self, request: Request) -> Reply:
        shown = json.loads(request.body["messages"][1]["content"])
        if POISON in json.dumps(shown):
            self.ended.set()
            return Reply(b"", manner="hang")
        if isinstance(shown, dict) or PLACE not in shown[0]:
            answer = summary_of({PLACE: 0, "messages": shown["messages"] if isinstance(shown, dict) else shown})
            del answer[PLACE]
            return grok_reply(answer)
        said = self.say([summary_of(chat) for chat in shown], shown)
        said = {"summaries": said} if isinstance(said, list) else said
        return replace(grok_reply(said, prompt_tokens=1_001), manner=self.manner)


@pytest.fixture
async def model() -> Model:
    model = Model(failure(503))
    model.ended = asyncio.Event()
    model.gate.set()
    return model


@pytest.fixture
async def settings(settings: Settings, model: Model) -> AsyncIterator[Settings]:
    async with open_providers() as opened:
        opened.grok = model
        yield settings.model_copy(update=opened.settings)


def text_of(number: int) -> str:
    return f"parcel {number}, ask ana{number}@example.com" + " please" * number


async def store(workspace: Workspace, count: int = 3, **more: str) -> list[str]:
    names = [f"c{number}" for number in range(count)]
    sent = [message(name, f"m-{name}", message_content=text_of(number), **more) for number, name in enumerate(names)]
    assert (await workspace.editor.post("/chats", json=sent)).status_code == 201
    return names


async def run(
    workspace: Workspace, services: Services, database: psycopg.Connection, names: list[str], **more: Any
) -> dict[str, Any]:
    """Makes a job with batches, carries it on until it is over and returns it; its cost is that of its calls."""
    before = calls(database)
    body = {"conversation_ids": names, "batch": True, **more}
    answer = await workspace.editor.post("/jobs/summarize", json=body)
    assert answer.status_code == 202, answer.text
    await run_all(services, database)
    job: dict[str, Any] = (await workspace.viewer.get(answer.headers["Location"])).json()
    assert job["cost_usd"] == pytest.approx(sum(cost for *_, cost in calls(database)[len(before) :]), abs=1e-12)
    return job


def calls(database: psycopg.Connection) -> list[tuple[Any, ...]]:
    database.rollback()
    return database.execute(
        "SELECT actor, task, outcome, prompt_tokens, completion_tokens, cost_usd::float FROM llm_calls ORDER BY call_id"
    ).fetchall()


async def summary(workspace: Workspace, name: str) -> dict[str, Any]:
    answer = await workspace.viewer.get(f"/chats/{name}/summary")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_one_prompt_shows_several_conversations_and_each_pays_its_share(
    workspace: Workspace, services: Services, model: Model, postgresql: psycopg.Connection
) -> None:
    names = await store(workspace)
    job = await run(workspace, services, postgresql, names)
    assert (job["status"], job["done"], job["cost_usd"]) == ("completed", 3, pytest.approx(COST + 1.25e-6))
    [shown] = model.batches
    assert len(model.requests) == 1
    assert [each[PLACE] for each in shown] == [0, 1, 2]
    assert [each["messages"][0]["text"].split()[3] for each in shown] == ["[EMAIL_1]", "[EMAIL_2]", "[EMAIL_3]"]
    actor = (await workspace.editor.get("/auth/me")).json()["credential"]["actor"]
    assert [each[:5] for each in calls(postgresql)] == [(actor, "summary", "answered", 1_001, 100)]
    made = [await summary(workspace, name) for name in names]
    by = [each["provenance"] for each in made]
    assert [sum(each[name] for each in by) for name in ("prompt_tokens", "completion_tokens")] == [1_001, 100]
    assert sum(round(each["cost_usd"] * 1e9) for each in by) == round((COST + 1.25e-6) * 1e9)
    assert by[0]["prompt_tokens"] < by[1]["prompt_tokens"] < by[2]["prompt_tokens"], "by their length"
    assert {(each["model"], each["prompt_version"]) for each in by} == {("xai/grok-4.3", SUMMARIES.version)}
    for number, each in enumerate(made):
        [decision] = each["decisions"]
        assert decision["evidence"] == [{"message_id": f"m-c{number}", "quote": text_of(number)}]
        assert decision["verified"]
        assert each["summary"] == f"It is about {text_of(number)}"
        assert each["coverage"] == {"messages_read": 1, "messages_total": 1, "complete": True}
    assert set(items(postgresql).values()) == {("done", 1, None)}
    again = await run(workspace, services, postgresql, names)
    assert (again["done"], again["cost_usd"], len(model.requests)) == (3, 0.0, 1)


async def test_by_default_each_prompt_shows_one_conversation(
    workspace: Workspace, services: Services, model: Model, postgresql: psycopg.Connection
) -> None:
    names = await store(workspace)
    await run(workspace, services, postgresql, names, batch=False)
    assert [len(each) for each in model.shown] == [1, 1, 1]
    assert model.batches == []


async def test_the_fixed_part_comes_first_and_is_the_same_each_time(
    workspace: Workspace, services: Services, model: Model, postgresql: psycopg.Connection
) -> None:
    names = await store(workspace, 4)
    for batch, task in ((False, SUMMARY), (True, SUMMARIES)):
        model.requests.clear()
        await run(workspace, services, postgresql, names[:2], batch=batch, force=True)
        await run(workspace, services, postgresql, names[2:], batch=batch, force=True)
        bodies = [each.body for each in model.requests]
        assert len(bodies) == (2 if batch else 4)
        data = [body["messages"].pop() for body in bodies]
        assert all(one == other for one, other in itertools.pairwise(map(json.dumps, bodies)))
        assert bodies[0]["messages"] == [{"role": "system", "content": task.prompt}]
        assert len({each["content"] for each in data}) == len(data)


def swapped(good: Batch, _: Batch) -> Any:
    return [{**good[0], PLACE: 1}, {**good[1], PLACE: 0}, good[2]]


def doubled(good: Batch, _: Batch) -> Any:
    return [*good, {**good[0], "summary": "Another one."}]


def missing(good: Batch, _: Batch) -> Any:
    return good[1:]


def unknown(good: Batch, _: Batch) -> Any:
    return [{**good[0], PLACE: 77}, *good[1:]]


def citing_another(good: Batch, _: Batch) -> Any:
    return [{**good[0], "decisions": good[1]["decisions"]}, *good[1:]]


def naming_another(good: Batch, shown: Batch) -> Any:
    placeholder = shown[1]["messages"][0]["text"].split()[3]
    assert placeholder.startswith("[EMAIL_")
    return [{**good[0], "keywords": [f"by {placeholder.strip('[]').lower()}"]}, *good[1:]]


ADVERSARIES = [(swapped, 2), (doubled, 1), (missing, 1), (unknown, 1), (citing_another, 1)]


@pytest.mark.parametrize(
    ("say", "alone", "redact"),
    [*((*each, True) for each in ADVERSARIES), (naming_another, 1, True), *((*each, False) for each in ADVERSARIES)],
)
async def test_what_is_not_said_once_of_one_conversation_is_asked_again_alone(
    workspace: Workspace,
    services: Services,
    model: Model,
    postgresql: psycopg.Connection,
    say: Callable[..., Any],
    alone: int,
    redact: bool,
) -> None:
    assert (await workspace.admin.patch("/workspace", json={"redact": redact})).status_code == 200
    names = await store(workspace)
    model.say = say
    job = await run(workspace, services, postgresql, names)
    assert (job["done"], job["failed"], len(model.requests)) == (3, 0, 1 + alone)
    made = [await summary(workspace, name) for name in names]
    versions = [each["provenance"]["prompt_version"] for each in made]
    assert versions == [SUMMARY.version] * alone + [SUMMARIES.version] * (3 - alone)
    for number, each in enumerate(made):
        assert each["conversation_id"] == f"c{number}"
        assert each["decisions"][0]["evidence"] == [{"message_id": f"m-c{number}", "quote": text_of(number)}]
        assert each["decisions"][0]["verified"]
        others = [text_of(other).split(",")[0] for other in range(3) if other != number]
        assert not any(other in json.dumps(each) for other in others)
    assert set(items(postgresql).values()) == {("done", 1, None)}


@pytest.mark.parametrize("redact", [True, False])
async def test_a_quote_from_another_conversation_is_never_verified(
    workspace: Workspace, services: Services, model: Model, postgresql: psycopg.Connection, redact: bool
) -> None:
    assert (await workspace.admin.patch("/workspace", json={"redact": redact})).status_code == 200
    sent = [message(f"c{number}", "m1", message_content=f"The code is {number} tulips.") for number in range(2)]
    await workspace.editor.post("/chats", json=sent)

    def crossed(good: Batch, shown: Batch) -> Any:
        ids = [chat["messages"][0]["message_id"] for chat in shown]
        texts = [chat["messages"][0]["text"] for chat in reversed(shown)]
        evidence = [[{"message_id": id, "quote": text}] for id, text in zip(ids, texts, strict=True)]
        return [
            {**each, "summary": "Tulips.", "decisions": [{"text": "Tulips.", "evidence": quotes}]}
            for each, quotes in zip(good, evidence, strict=True)
        ]

    model.say = crossed
    assert (await run(workspace, services, postgresql, ["c0", "c1"]))["done"] == 2
    for name in ("c0", "c1"):
        [decision] = (await summary(workspace, name))["decisions"]
        assert (decision["evidence"][0]["message_id"], decision["verified"]) == ("m1", False)


@pytest.mark.parametrize("said", ["Sure!", {"summaries": [{"conversation": 0}]}, {"summaries": None}, []])
async def test_if_no_answer_can_be_used_all_are_asked_about_alone_and_the_job_says_what_it_cost(
    workspace: Workspace, services: Services, model: Model, postgresql: psycopg.Connection, said: Any
) -> None:
    names = await store(workspace)
    model.say = lambda _, __: said
    job = await run(workspace, services, postgresql, names)
    wasted = 1 if said == [] else 2
    assert (job["done"], len(model.batches)) == (3, wasted)
    assert job["cost_usd"] == pytest.approx(3 * COST + wasted * COST, rel=0.01)
    made = [await summary(workspace, name) for name in names]
    assert {each["provenance"]["prompt_version"] for each in made} == {SUMMARY.version}


async def test_a_batch_that_broke_off_is_paid_by_the_job_as_reserved(
    workspace: Workspace, services: Services, model: Model, postgresql: psycopg.Connection
) -> None:
    names = await store(workspace)
    model.manner = "cut"
    job = await run(workspace, services, postgresql, names)
    assert (job["done"], len(model.batches)) == (3, 1)
    assert job["cost_usd"] > 3 * COST + 16_384 * 2.5e-6


async def test_only_short_conversations_go_together_and_no_more_than_fit(
    workspace: Workspace, services: Services, model: Model, postgresql: psycopg.Connection
) -> None:
    names = await store(workspace, BATCH.conversations + 3)
    await workspace.editor.post("/chats", json=message("c1", "long", message_content="w " * BATCH.characters_each))
    ours = await run(workspace, services, postgresql, names)
    assert ours["done"] == len(names)
    assert sorted(len(each) for each in model.batches) == [2, BATCH.conversations]
    assert len(model.requests) == 3
    for name in ("d0", "d1", "d2", "d3", "d4"):
        await workspace.editor.post("/chats", json=message(name, message_content="x" * (BATCH.characters_each - 200)))
    model.requests.clear()
    assert (await run(workspace, services, postgresql, [f"d{number}" for number in range(5)]))["done"] == 5
    assert [len(each) for each in model.batches] == [4]
    assert len(model.requests) == 2


async def test_what_is_fresh_or_grew_is_not_read_again_with_others(
    workspace: Workspace, services: Services, model: Model, postgresql: psycopg.Connection
) -> None:
    names = await store(workspace, 4)
    sent = [message("c1", f"more-{number}", message_content="More of it.") for number in range(3)]
    await workspace.editor.post("/chats", json=sent)
    for name in names[:2]:
        await workspace.editor.post("/chats/summarize", json={"conversation_id": name})
    await workspace.editor.post("/chats", json=message("c1", "new", message_content="New."))
    model.requests.clear()
    job = await run(workspace, services, postgresql, names)
    assert job["done"] == 4
    assert [len(each) for each in model.batches] == [2]
    assert (await summary(workspace, "c1"))["changes"] is not None
    assert len(model.requests) == 2


async def test_who_asks_meanwhile_makes_no_call_of_their_own(
    workspace: Workspace, services: Services, model: Model, postgresql: psycopg.Connection
) -> None:
    names = await store(workspace)
    model.hold()
    first = asyncio.create_task(workspace.editor.post("/chats/summarize", json={"conversation_id": "c0"}))
    await asyncio.wait_for(model.asked.wait(), PATIENCE_S)
    model.asked.clear()
    body = {"conversation_ids": names, "batch": True}
    path = (await workspace.editor.post("/jobs/summarize", json=body)).headers["Location"]
    job = asyncio.create_task(run_all(services, postgresql))
    await asyncio.wait_for(model.asked.wait(), PATIENCE_S)
    second = asyncio.create_task(workspace.editor.post("/chats/summarize", json={"conversation_id": "c2"}))
    await asyncio.wait({second}, timeout=0.3)
    model.gate.set()
    answers = [(await each).json() for each in (first, second)]
    assert [each["provenance"]["prompt_version"] for each in answers] == [SUMMARY.version, SUMMARIES.version]
    await job
    assert (await workspace.viewer.get(path)).json()["done"] == 3
    assert [len(each) for each in model.shown] == [1, 2]


async def test_a_conversation_deleted_while_its_batch_is_read_stays_deleted_and_its_share_is_paid(
    workspace: Workspace, services: Services, model: Model, postgresql: psycopg.Connection
) -> None:
    names = await store(workspace)
    model.hold()
    job = asyncio.create_task(run(workspace, services, postgresql, names))
    await asyncio.wait_for(model.asked.wait(), PATIENCE_S)
    assert (await workspace.admin.delete("/chats/c1")).status_code == 200
    model.gate.set()
    found = await job
    assert (found["done"], found["failed"], len(model.requests)) == (2, 1, 1)
    postgresql.rollback()
    rows = postgresql.execute("SELECT conversation_id FROM summaries ORDER BY 1").fetchall()
    assert rows == [("c0",), ("c2",)]
    assert postgresql.execute("SELECT count(*) FROM analysis_claims").fetchone() == (0,)


async def test_a_job_cancelled_while_a_batch_is_read_begins_nothing_more(
    workspace: Workspace, services: Services, model: Model, postgresql: psycopg.Connection
) -> None:
    names = await store(workspace)
    model.say = missing
    model.hold()
    body = {"conversation_ids": names, "batch": True}
    path = (await workspace.editor.post("/jobs/summarize", json=body)).headers["Location"]
    working = asyncio.create_task(run_all(services, postgresql))
    await asyncio.wait_for(model.asked.wait(), PATIENCE_S)
    assert (await workspace.editor.delete(path)).json()["status"] == "cancelled"
    model.gate.set()
    await working
    job = (await workspace.viewer.get(path)).json()
    assert (job["status"], job["done"], len(model.requests)) == ("cancelled", 2, 1)


async def test_what_ended_a_worker_in_a_batch_is_found_out_alone(
    workspace: Workspace, settings: Settings, services: Services, model: Model, postgresql: psycopg.Connection
) -> None:
    names = await store(workspace)
    await workspace.editor.post("/chats", json=message("c1", "m0", message_content=POISON))
    await workspace.editor.post("/jobs/summarize", json={"conversation_ids": names, "batch": True})
    [entry] = queued(postgresql)
    for attempt in range(1, TRIES + 1):
        async with doomed(settings) as dying:
            running = asyncio.create_task(dying.jobs.run(*entry, asyncio.Event()))
            await asyncio.wait_for(model.ended.wait(), PATIENCE_S)
            assert not running.done()
        model.ended.clear()
        assert items(postgresql)["c1"] == ("running", attempt, None)
    await run_all(services, postgresql)
    assert items(postgresql) == {"c0": ("done", 2, None), "c1": ("failed", TRIES, LOST), "c2": ("done", 2, None)}
    assert [len(each) for each in model.batches] == [3], "what was tried is never read with others again"


async def test_a_job_uses_up_the_budget_of_the_key_that_asked_even_when_the_key_is_gone(
    workspace: Workspace, services: Services, postgresql: psycopg.Connection
) -> None:
    names = await store(workspace, 10)
    me = (await workspace.editor.get("/auth/me")).json()["credential"]
    budget = {"day_usd": RESERVED + 0.5 * COST}
    assert (await workspace.admin.put(f"/analytics/budgets/{me['actor']}", json=budget)).status_code == 204
    await workspace.editor.post("/jobs/summarize", json={"conversation_ids": names})
    assert (await workspace.admin.delete(f"/auth/keys/{me['key_id']}")).is_success
    await run_all(services, postgresql)
    by = [(await summary(workspace, name))["provenance"] for name in names]
    reasons = [each["reason"] for made in by if made["provider"] == "local" for each in made["fallbacks"]]
    assert "over_budget" in reasons
    assert "xai" in [made["provider"] for made in by]
    assert {each[0] for each in calls(postgresql)} == {me["actor"]}
    await workspace.admin.post("/jobs/summarize", json={"conversation_ids": names, "force": True})
    await run_all(services, postgresql)
    assert {(await summary(workspace, name))["provenance"]["provider"] for name in names} == {"xai"}


async def test_a_dry_run_counts_the_fixed_part_once_for_each_batch(workspace: Workspace, services: Services) -> None:
    async def estimate(**more: Any) -> dict[str, Any]:
        answer = await workspace.editor.post("/jobs/summarize", json={"filter": {}, "dry_run": True, **more})
        found: dict[str, Any] = answer.json()
        return found

    await store(workspace, BATCH.conversations + 2)
    await workspace.editor.post("/chats", json=message("c1", "long", message_content="w " * BATCH.characters_each))
    alone, together = await estimate(), await estimate(batch=True)
    assert (alone["calls"], together["calls"]) == (BATCH.conversations + 2, 3)
    saved = BATCH.conversations * len(SUMMARY.prompt) - len(SUMMARIES.prompt)
    assert alone["tokens"] - together["tokens"] == pytest.approx(saved / 4, abs=1)
    assert 0 < together["cost_usd"] < alone["cost_usd"]
