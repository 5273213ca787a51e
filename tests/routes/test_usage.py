"""What models cost: a row for each call, and budgets that nobody overspends."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import httpx
import psycopg
import pytest

from app.schemas.enums import Role
from app.settings import Settings
from tests.support.accounts import Accounts, open_accounts, outcome
from tests.support.api import message
from tests.support.providers import Providers, failure, gemini_reply, grok_reply, open_providers, summary_answer

FINE = (200, None)
DONE = (204, None)
INVALID = (422, "invalid")
COST = 1_000 * 1.25e-6 + 100 * 2.5e-6
"""What the stand-in for Grok says that it took."""
RESERVED = 0.05
"""A little more than is reserved for a call about one short message."""


@pytest.fixture
async def models() -> AsyncIterator[Providers]:
    async with open_providers() as opened:
        opened.grok.reply = grok_reply(summary_answer())
        opened.gemini.reply = gemini_reply(summary_answer())
        yield opened


@pytest.fixture
async def accounts(postgresql: psycopg.Connection, settings: Settings, models: Providers) -> AsyncIterator[Accounts]:
    async with open_accounts(postgresql, settings.model_copy(update=models.settings)) as opened:
        yield opened


@pytest.fixture
async def admin(accounts: Accounts) -> httpx.AsyncClient:
    opened = accounts.client(await accounts.key())
    sent = [message(f"c{number}") for number in range(12)]
    assert (await opened.post("/chats", json=sent)).status_code == 201
    return opened


async def summarize(client: httpx.AsyncClient, number: int = 0, **more: Any) -> dict[str, Any]:
    answer = await client.post("/chats/summarize", json={"conversation_id": f"c{number}", **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def usage(client: httpx.AsyncClient, **params: str) -> dict[str, Any]:
    answer = await client.get("/analytics/usage", params=params)
    assert outcome(answer) == FINE
    found: dict[str, Any] = answer.json()
    return found


async def test_every_call_is_a_row_and_the_report_adds_them_up(
    accounts: Accounts, admin: httpx.AsyncClient, models: Providers
) -> None:
    actor = (await admin.get("/auth/me")).json()["credential"]["actor"]
    await summarize(admin)
    await summarize(admin)
    models.grok.reply = failure(503)
    await summarize(admin, 1)
    rows = accounts.rows(
        "SELECT actor, task, model, outcome, prompt_tokens, completion_tokens, cost_usd::float FROM llm_calls"
        " ORDER BY call_id"
    )
    gemini = 2_000 * 0.3e-6 + 200 * 2.5e-6
    assert rows == [
        (actor, "summary", "xai/grok-4.3", "answered", 1_000, 100, pytest.approx(COST)),
        (actor, "summary", "xai/grok-4.3", "unavailable", 0, 0, 0.0),
        (actor, "summary", "gemini/gemini-2.5-flash", "answered", 2_000, 200, pytest.approx(gemini)),
    ]
    found = await usage(admin)
    assert [(each["model"], each["calls"], each["answered"], each["prompt_tokens"]) for each in found["data"]] == [
        ("gemini/gemini-2.5-flash", 1, 1, 2_000),
        ("xai/grok-4.3", 2, 1, 1_000),
    ]
    assert found["cost_usd"] == pytest.approx(COST + gemini)
    assert (await usage(admin, to="2026-01-01T00:00:00Z"))["data"] == []
    assert (await usage(accounts.client(await accounts.key(workspace="theirs"))))["data"] == []
    accounts.change("DELETE FROM conversations WHERE conversation_id = 'c0'")
    assert len((await usage(admin))["data"]) == 2, "what was paid stays paid"


async def test_what_a_provider_knew_already_is_told_and_charged_less_for(
    accounts: Accounts, admin: httpx.AsyncClient, models: Providers
) -> None:
    models.grok.replies = [grok_reply(summary_answer(), cached_tokens=768), failure(503)]
    models.gemini.reply = gemini_reply(summary_answer(), cached_tokens=1_024)
    by_grok, by_gemini = [(await summarize(admin, number))["provenance"] for number in range(2)]
    assert by_grok["cost_usd"] == pytest.approx(232 * 1.25e-6 + 768 * 0.2e-6 + 100 * 2.5e-6)
    assert by_gemini["cost_usd"] == pytest.approx(976 * 0.3e-6 + 1_024 * 0.03e-6 + 200 * 2.5e-6)
    found = await usage(admin)
    assert [(each["prompt_tokens"], each["cached_tokens"]) for each in found["data"]] == [(2_000, 1_024), (1_000, 768)]


@pytest.mark.parametrize("period", ["day", "month"])
async def test_at_the_limit_the_built_in_engine_answers_and_says_so(
    accounts: Accounts, admin: httpx.AsyncClient, models: Providers, period: str
) -> None:
    limit = RESERVED + 2.5 * COST
    assert outcome(await admin.put("/analytics/budgets/workspace", json={f"{period}_usd": limit})) == DONE
    by = [(await summarize(admin, number))["provenance"] for number in range(11)]
    answered = [each for each in by if each["provider"] != "local"]
    assert by[0]["provider"] == "xai"
    assert 1 <= len(answered) < 11
    fallen = by[-1]
    assert (fallen["provider"], [each["reason"] for each in fallen["fallbacks"]]) == ("local", ["over_budget"] * 2)
    [budget] = (await usage(admin))["budgets"]
    assert (budget["scope"], budget["period"]) == ("workspace", period)
    assert budget["spent_usd"] == pytest.approx(sum(each["cost_usd"] for each in answered))
    assert budget["spent_usd"] <= limit
    assert len(models.requests) == len(answered)
    assert outcome(await admin.put("/analytics/budgets/workspace", json={})) == DONE
    assert (await summarize(admin, 11))["provenance"]["provider"] == "xai"


async def test_requests_at_once_never_overspend_together(
    accounts: Accounts, admin: httpx.AsyncClient, models: Providers
) -> None:
    limit = 2.2 * RESERVED
    assert outcome(await admin.put("/analytics/budgets/workspace", json={"day_usd": limit})) == DONE
    other = accounts.client(admin.headers["Authorization"][7:], await accounts.instance())
    models.grok.hold()
    asking = [asyncio.create_task(summarize((admin, other)[number % 2], number)) for number in range(8)]
    locally = 0
    for done in asyncio.as_completed(asking):
        if (await done)["provenance"]["provider"] == "local":
            locally += 1
        if locally == 6:
            break
    assert len(models.grok.requests) == 2
    models.grok.gate.set()
    found = await asyncio.gather(*asking)
    assert sorted(each["provenance"]["provider"] for each in found) == ["local"] * 6 + ["xai"] * 2


async def test_a_keys_budget_is_its_own(accounts: Accounts, admin: httpx.AsyncClient, models: Providers) -> None:
    made = (await admin.post("/auth/keys", json={"name": "x", "role": "editor"})).json()
    limited = accounts.client(made["key"])
    assert outcome(await admin.put(f"/analytics/budgets/key:{made['id']}", json={"day_usd": 0})) == DONE
    assert (await summarize(limited))["provenance"]["fallbacks"][0]["reason"] == "over_budget"
    assert (await summarize(admin, 1))["provenance"]["provider"] == "xai"
    [entry] = (await admin.get("/audit", params={"action": "budget.changed"})).json()["data"]
    assert (entry["target"], entry["details"]) == (f"key:{made['id']}", {"day_usd": 0.0, "month_usd": None})


async def test_a_model_without_a_price_is_not_asked_for_whom_a_budget_applies_to(
    accounts: Accounts, admin: httpx.AsyncClient
) -> None:
    key = admin.headers["Authorization"][7:]
    client = accounts.client(key, await accounts.instance(xai_model="xai/grok-unheard-of"))
    made = (await admin.post("/auth/keys", json={"name": "x", "role": "editor"})).json()
    assert outcome(await admin.put(f"/analytics/budgets/key:{made['id']}", json={"day_usd": 5})) == DONE
    assert (await summarize(client))["provenance"]["model"] == "xai/grok-unheard-of"
    assert outcome(await admin.put("/analytics/budgets/workspace", json={"month_usd": 5})) == DONE
    by = (await summarize(client, 1))["provenance"]
    assert by["model"] == "gemini/gemini-2.5-flash"
    assert by["fallbacks"] == [{"model": "xai/grok-unheard-of", "reason": "over_budget"}]


async def test_a_database_that_cannot_write_a_call_down_is_no_reason_for_a_worse_summary(
    accounts: Accounts, admin: httpx.AsyncClient, models: Providers
) -> None:
    accounts.change(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = 'serialization_failure'; END $$"
    )
    accounts.change("CREATE TRIGGER refuse BEFORE INSERT ON llm_calls EXECUTE FUNCTION refuse()")
    answer = await admin.post("/chats/summarize", json={"conversation_id": "c0"})
    assert outcome(answer) == (503, "unavailable")
    assert (models.requests, accounts.rows("SELECT count(*) FROM summaries")) == ([], [(0,)])
    accounts.change("DROP TRIGGER refuse ON llm_calls")
    assert (await summarize(admin))["provenance"]["fallbacks"] == []


async def test_a_budget_for_nobody_or_of_nonsense_is_refused(accounts: Accounts, admin: httpx.AsyncClient) -> None:
    theirs = accounts.client(await accounts.key(workspace="theirs"))
    foreign = (await theirs.get("/auth/me")).json()["credential"]["actor"]
    for scope in (foreign, "key:1", "member:1", "key:x", "key:", "key:" + "9" * 40, "operator", "x", "key:١"):
        answer = await admin.put(f"/analytics/budgets/{scope}", json={"day_usd": 1})
        assert outcome(answer) == (404, "not_found"), scope
    bodies: list[Any] = [{"day_usd": -1}, {"day_usd": "1"}, {"day_usd": True}, {"week_usd": 1}, {"day_usd": 1e9}, [], 1]
    for body in bodies:
        assert outcome(await admin.put("/analytics/budgets/workspace", json=body)) == INVALID, body
    assert outcome(await admin.put("/analytics/budgets/workspace", content=b'{"day_usd": NaN}')) == (
        415,
        "unsupported_media_type",
    )
    editor = accounts.client(await accounts.key(Role.EDITOR))
    assert outcome(await editor.put("/analytics/budgets/workspace", json={})) == (403, "forbidden")
    assert outcome(await admin.get("/analytics/usage", params={"from": "yesterday"})) == INVALID
    for moment in ("0001-01-01T00:00:00Z", "0001-01-02T00:00:00Z", "9999-12-31T23:59:59.999999Z"):
        for params in ({"from": moment}, {"to": moment}, {"from": moment, "to": moment}):
            assert (await usage(admin, **params))["data"] == [], params


async def test_many_requests_at_once_over_two_instances_make_one_call(
    accounts: Accounts, admin: httpx.AsyncClient, models: Providers
) -> None:
    other = accounts.client(admin.headers["Authorization"][7:], await accounts.instance())
    models.grok.hold()
    asking = [asyncio.create_task(summarize((admin, other)[number % 2])) for number in range(40)]
    await models.grok.asked.wait()
    models.grok.gate.set()
    found = await asyncio.gather(*asking)
    assert len(models.requests) == 1
    assert all(each == found[0] for each in found)
    assert accounts.rows("SELECT count(*) FROM llm_calls") == [(1,)]
    assert accounts.rows("SELECT count(*) FROM analysis_claims") == [(0,)]


async def test_who_crashed_is_waited_for_no_longer_than_the_lease(accounts: Accounts, admin: httpx.AsyncClient) -> None:
    accounts.change(
        "INSERT INTO analysis_claims SELECT workspace_id, conversation_id, 'summary', 1, now() FROM conversations"
    )
    assert (await summarize(admin))["provenance"]["provider"] == "xai"


async def test_who_took_longer_than_the_lease_does_not_overwrite_what_came_after(
    accounts: Accounts, admin: httpx.AsyncClient, models: Providers
) -> None:
    other = accounts.client(admin.headers["Authorization"][7:], await accounts.instance())
    models.grok.hold()
    late = asyncio.create_task(summarize(admin))
    await models.grok.asked.wait()
    accounts.change("UPDATE analysis_claims SET leased_until = now() - interval '1 second'")
    models.grok.asked.clear()
    quick = asyncio.create_task(summarize(other))
    await models.grok.asked.wait()
    [(holder,)] = accounts.rows("SELECT claim_id FROM analysis_claims")
    models.grok.gate.set()
    one, another = await asyncio.gather(late, quick)
    assert one == another
    assert len(models.requests) == 2
    assert accounts.rows("SELECT count(*) FROM analysis_claims WHERE claim_id = %s", holder) == [(0,)]


async def test_a_conversation_deleted_while_it_is_summarised_stays_deleted(
    accounts: Accounts, admin: httpx.AsyncClient, models: Providers
) -> None:
    models.grok.hold()
    asking = asyncio.create_task(admin.post("/chats/summarize", json={"conversation_id": "c0"}))
    await models.grok.asked.wait()
    assert (await admin.delete("/chats/c0")).status_code == 200
    models.grok.gate.set()
    assert outcome(await asking) == (404, "not_found")
    assert accounts.rows("SELECT count(*) FROM summaries") == [(0,)]
    assert accounts.rows("SELECT outcome FROM llm_calls") == [("answered",)]


async def test_an_error_that_nobody_waits_for_any_more_is_no_news(admin: httpx.AsyncClient, models: Providers) -> None:
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    before = asyncio.all_tasks()
    models.grok.hold()
    asking = asyncio.create_task(admin.post("/chats/summarize", json={"conversation_id": "c0"}))
    await models.grok.asked.wait()
    assert (await admin.delete("/chats/c0")).status_code == 200
    asking.cancel()
    await asyncio.wait({asking})
    going_on = [task for task in asyncio.all_tasks() - before if "._make" in repr(task.get_coro())]
    assert len(going_on) == 1
    models.grok.gate.set()
    await asyncio.wait(going_on)
    del going_on
    gc.collect()
    assert complaints == []
