"""What belongs to another workspace is answered as what does not exist, wherever its name can stand."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx
import psycopg
import pytest
from fastapi import FastAPI

from app.factory import Services, build
from app.main import create_app
from app.schemas.enums import Role
from app.security.api_keys import random_id
from app.settings import Settings
from tests.house.principals import House, api_key, bearer, checked, cookie, open_house, seen, state
from tests.house.test_matrix import Operation, operations
from tests.support.api import create_key, message
from tests.support.providers import grok_reply, open_providers, summary_answer

GARBAGE = base64.urlsafe_b64encode(bytes(60)).decode()


@pytest.fixture
async def theirs(
    house: House, app: FastAPI, services: Services, settings: Settings, postgresql: psycopg.Connection
) -> AsyncIterator[House]:
    """Yields another workspace with conversations and people of the same names."""
    async with open_house(app, services, settings, postgresql, "theirs") as opened:
        for each in (house, opened):
            await each.act("POST", "/chats", json=[message("order-1042", "m-9"), message("order-7", "m-1")])
        yield opened


async def get(house: House, path: str, **params: Any) -> httpx.Response:
    return await house.ask("GET", path, house.admin, params=params)


LISTS = ["/chats", "/chats/order-1042", "/auth/keys", "/workspace/members", "/webhooks", "/audit"]


@pytest.mark.parametrize("path", LISTS)
async def test_a_cursor_of_another_workspace_or_list_is_garbage(house: House, theirs: House, path: str) -> None:
    for each in (house, theirs):
        for name in ("member_id", "webhook_id"):
            await each.replace(name)
    cursor = (await get(house, path, limit=1)).json()["next_cursor"]
    garbage = seen(await get(theirs, path, cursor=GARBAGE))
    assert garbage[0] == 422
    assert seen(await get(theirs, path, cursor=cursor)) == garbage
    for other in {*LISTS, "/chats/order-7"} - {path}:
        assert seen(await get(house, other, cursor=cursor)) == garbage
    assert (await get(house, path, cursor=cursor)).status_code == 200


async def test_a_filter_by_what_is_ours_finds_nothing_of_theirs(house: House, theirs: House) -> None:
    await house.act("POST", "/chats", json=message("order-8", user_id="only-ours", message_content="A zeppelin came."))
    await house.act("POST", "/chats/summarize", json={"conversation_id": "order-8"})
    made = await house.act("POST", "/auth/keys", json={"name": "x", "role": Role.VIEWER})
    await house.act("DELETE", f"/workspace/members/{house.ids['member_id']}")
    await house.act("DELETE", "/chats/order-7")
    [entry] = (await get(house, "/audit", conversation_id="order-7")).json()["data"]
    for path, ours, absent in [
        ("/audit", {"target": f"key:{made['id']}"}, {"target": f"key:{random_id()}"}),
        ("/audit", {"target": f"member:{house.ids['member_id']}"}, {"target": f"member:{random_id()}"}),
        ("/audit", {"target": entry["target"]}, {"target": "conversation:f2hYQ0vVbLw9mJqC"}),
        ("/audit", {"actor": entry["actor"]}, {"actor": f"key:{random_id()}"}),
        ("/audit", {"conversation_id": "order-7"}, {"conversation_id": "order-0"}),
        ("/chats", {"user_id": "only-ours"}, {"user_id": "nobody"}),
        ("/chats", {"q": "zeppelin"}, {"q": "submarine"}),
        ("/chats", {"keyword": "zeppelin"}, {"keyword": "submarine"}),
        ("/users/only-ours/chats", {"keyword": "zeppelin"}, {"keyword": "submarine"}),
    ]:
        assert (await get(house, path, **ours)).json()["data"], ours
        named = dict(zip(ours.values(), absent.values(), strict=True))
        nothing = seen(await get(theirs, path, **absent))
        assert seen(await get(theirs, path, **ours), named) == nothing, ours
        assert '"data\\":[]' in nothing[1]


async def test_the_same_conversation_id_is_another_conversation_in_the_audit_log(house: House, theirs: House) -> None:
    entries = []
    for each in (house, theirs):
        await each.act("DELETE", "/chats/order-7")
        entries += (await get(each, "/audit", conversation_id="order-7")).json()["data"]
    assert len({entry["target"] for entry in entries}) == len(entries) == 2


async def test_a_message_of_ours_is_no_evidence_in_theirs(
    house: House, theirs: House, settings: Settings, postgresql: psycopg.Connection
) -> None:
    text = "Only we were promised a zeppelin."
    await house.act("POST", "/chats", json=message("order-1042", "only-ours", message_content=text))
    claim = {"text": "A zeppelin.", "evidence": [{"message_id": "only-ours", "quote": text}]}
    async with open_providers() as providers:
        providers.grok.reply = grok_reply(summary_answer(decisions=[claim]))
        both = settings.model_copy(update=providers.settings)
        assert both.database_url
        url = both.database_url.get_secret_value()
        app = create_app(lambda: build(both, url))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x") as asked,
        ):
            for each, evidence in ((house, claim["evidence"]), (theirs, [])):
                wanted = {"conversation_id": "order-1042", "force": True}
                answer = await asked.post("/chats/summarize", json=wanted, headers=each.admin)
                [decision] = answer.json()["decisions"]
                assert (decision["evidence"], decision["verified"]) == (evidence, bool(evidence))
    sent = [request.body["messages"][-1]["content"] for request in providers.grok.requests]
    assert [text in each for each in sent] == [True, False]


def idempotent(house: House) -> list[Operation]:
    methods = [operation for path in house.app.openapi()["paths"].values() for operation in path.values()]
    names = {
        operation["operationId"]
        for operation in methods
        if "Idempotency-Key" in {each["name"] for each in operation.get("parameters", ())}
    }
    return [operation for operation in operations(house.app) if operation.name in names]


async def test_the_same_idempotency_key_never_meets_that_of_another_caller(house: House, theirs: House) -> None:
    colleague = bearer(await create_key(house.services, house.workspace_id, Role.ADMIN))
    found = idempotent(house)
    assert len(found) >= 8
    for operation in found:
        key = {"Idempotency-Key": f"one-key-canary-of-{operation}"}
        answers = []
        for each, caller in ((house, house.admin), (theirs, theirs.admin), (house, colleague), (house, house.admin)):
            request = operation.request(each.ids)
            answers.append(await each.ask(**{**request, "headers": {**request["headers"], **caller, **key}}))
            assert answers[-1].is_success, (operation, answers[-1].text)
        assert [answer.headers.get("Idempotency-Replayed") for answer in answers] == [None, None, None, "true"]
        assert answers[3].text == answers[0].text


async def test_a_refresh_token_moved_to_another_workspace_or_session_is_garbage(house: House, theirs: House) -> None:
    ours, other = [(await each.exchange(each.admin)).refresh for each in (house, theirs)]
    raw, foreign = (base64.b32decode(token[3:].upper()) for token in (ours, other))
    moved = [foreign[:8] + raw[8:], raw[:8] + foreign[8:], raw[:16] + foreign[16:], bytes(40)]
    before = state(house.database)
    told = []
    for body_and_mac in moved:
        body = {"refresh_token": "cr_" + base64.b32encode(body_and_mac).decode().lower()}
        told.append(seen(await house.ask("POST", "/auth/token", theirs.admin, json=body)))
    assert told == [told[-1]] * len(moved)
    assert told[0][0] == 401
    assert state(house.database) == before
    tokens = await house.act("POST", "/auth/token", theirs.admin, json={"refresh_token": ours})
    me = await house.act("GET", "/auth/me", bearer(tokens["access_token"]))
    assert me["workspace"]["id"] == str(house.workspace_id)


async def test_a_key_or_cookie_moved_to_another_workspace_is_unknown(house: House, theirs: House) -> None:
    raw = base64.b32decode((await house.key(Role.ADMIN))[3:].upper())
    workspace = theirs.workspace_id.to_bytes(8, "big")
    moved = checked(workspace + raw[8:36])
    unknown = checked(workspace + random_id().to_bytes(8, "big") + raw[16:36])
    for kind in (bearer, api_key):
        told = [seen(await house.ask("GET", "/chats", kind(key))) for key in (moved, unknown)]
        assert told[0] == told[1]
        assert told[0][0] == 401
    shown = (await house.member("eve", Role.ADMIN))[0]["Cookie"].partition("=")[2]
    swapped = "cs_" + base64.b32encode(workspace + base64.b32decode(shown[3:].upper())[8:]).decode().lower()
    assert (await house.ask("GET", "/chats", cookie(shown))).status_code == 200
    assert (await house.ask("GET", "/chats", cookie(swapped))).status_code == 401


async def test_signing_in_to_another_workspace_tells_nothing_of_it(house: House, theirs: House) -> None:
    await theirs.member("stranger", Role.VIEWER)
    before = state(house.database, house.workspace_id)
    asked = [str(house.workspace_id), str(random_id())]
    told = [seen(await house.come_back("stranger", workspace_id=each)) for each in asked]
    assert told[0] == told[1]
    assert told[0][0] == 403
    assert state(house.database, house.workspace_id) == before


async def test_an_id_of_another_kind_is_as_absent(house: House) -> None:
    for method, path, number in [
        ("DELETE", "/auth/keys/{}", house.ids["member_id"]),
        ("POST", "/auth/keys/{}/rotate", str(house.workspace_id)),
        ("DELETE", "/workspace/members/{}", house.ids["key_id"]),
        ("PATCH", "/workspace/members/{}", house.ids["key_id"]),
        ("DELETE", "/webhooks/{}", house.ids["key_id"]),
        ("GET", "/webhooks/{}/deliveries", house.ids["member_id"]),
        ("POST", f"/webhooks/{{}}/deliveries/{house.ids['delivery_id']}/replay", house.ids["key_id"]),
    ]:
        body = {"role": Role.ADMIN} if method == "PATCH" else None
        urls = [path.format(each) for each in (number, random_id())]
        told = [seen(await house.ask(method, url, house.admin, json=body)) for url in urls]
        assert told[0] == told[1]
        assert told[0][0] == 404


async def test_a_session_that_ends_by_signing_in_elsewhere_tells_nothing_of_there(house: House, theirs: House) -> None:
    shown, ours = await house.member("eve", Role.VIEWER)
    await theirs.act("POST", "/workspace/members", json={"email": "eve@example.com", "role": Role.VIEWER})
    state, browser = await house.begin(workspace_id=str(theirs.workspace_id))
    both = {"Cookie": "; ".join([*shown.values(), *browser.values()])}
    params = {"code": "code-of-eve", "state": state}
    assert (await house.ask("GET", "/auth/callback/github", both, params=params)).status_code == 303
    [entry] = (await get(house, "/audit", action="session.ended")).json()["data"]
    assert entry["actor"] == f"member:{ours}"
