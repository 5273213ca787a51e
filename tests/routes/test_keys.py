"""API keys: shown once, kept as a digest, never beyond their maker's role, and gone when they should be."""

import base64
import hashlib
import hmac
import zlib
from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from app.db import Database
from app.main import create_app
from app.schemas.enums import Role
from app.security.api_keys import new_api_key, parse_api_key
from app.security.encryption import derive
from app.security.tokens import TokenSigner
from app.services.auth import AuthService
from app.settings import Settings
from tests.support.accounts import ANA, BEN, CEM, SECRET, Accounts, every_page, open_accounts, outcome
from tests.support.api import message

REFUSED = (401, "unauthenticated")
FINE = (200, None)
MADE = (201, None)
ABSENT = ["1", "0", "-1", "x", "01", "9" * 19, "9" * 100, "%D9%A1", "1.0", "2%2F3", "%00", "%20" + "1"]


@pytest.fixture
async def accounts(postgresql: psycopg.Connection, settings: Settings) -> AsyncIterator[Accounts]:
    async with open_accounts(postgresql, settings) as opened:
        yield opened


async def make(client: httpx.AsyncClient, **wanted: Any) -> dict[str, Any]:
    answer = await client.post("/auth/keys", json={"name": "checkout", "role": "editor", **wanted})
    assert outcome(answer) == MADE, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def elsewhere(accounts: Accounts, key: str) -> tuple[int, str | None]:
    """Returns how an instance answers that has not seen the key before."""
    return outcome(await accounts.client(key, await accounts.instance()).get("/auth/me"))


def soon(**time: float) -> str:
    return (datetime.now(UTC) + timedelta(**time)).isoformat()


# Making and listing


@pytest.mark.parametrize("role", Role)
async def test_a_key_does_what_its_role_may(accounts: Accounts, role: Role) -> None:
    admin = accounts.client(await accounts.key())
    made = await make(admin, role=role)
    client = accounts.client(made["key"])
    assert (await client.get("/auth/me")).json()["role"] == made["role"] == role
    found = [
        (await client.get("/chats")).status_code,
        (await client.post("/chats", json=message())).status_code,
        (await client.get("/auth/keys")).status_code,
    ]
    assert found == [200, 201 if role != Role.VIEWER else 403, 200 if role == Role.ADMIN else 403]


async def test_a_key_is_shown_once_and_kept_as_a_digest(accounts: Accounts) -> None:
    admin = accounts.client(await accounts.key())
    names = ["x", "é" * 255, "名前 🔑", "<script>alert(1)</script>", "'; DROP TABLE api_keys; --", "%s", "\u202e"]
    ends = [None, soon(minutes=1), "2027-01-01T00:00:00.123456+05:30", "9999-12-31T23:59:59.999999Z"]
    wanted = [{"name": name, "expires_at": end} for name in names for end in ends[: 1 if name != "x" else 4]]
    made = [await make(admin, **each) for each in wanted]
    for each, asked in zip(made, wanted, strict=True):
        assert set(each) == {"id", "name", "role", "member_id", "created_at", "expires_at", "last_used_at", "key"}
        assert (each["name"], each["role"], each["last_used_at"]) == (asked["name"], "editor", None)
        stated = asked["expires_at"] and datetime.fromisoformat(asked["expires_at"])
        assert (each["expires_at"] and datetime.fromisoformat(each["expires_at"])) == stated
        assert outcome(await accounts.client(each["key"]).get("/auth/me")) == FINE
        key = parse_api_key(each["key"])
        assert key
        [(digest,)] = accounts.rows("SELECT digest FROM api_keys WHERE key_id = %s", key.key_id)
        assert digest == hmac.digest(derive(SECRET, "api keys"), each["key"].encode(), hashlib.sha256)
    assert len({each["key"] for each in made}) == len(made)
    listed = await every_page(admin, "/auth/keys", limit=3)
    shown = {each["id"]: each for each in listed}
    for each in made:
        secret = each.pop("key")
        assert {**shown[each["id"]], "last_used_at": None} == each
        assert shown[each["id"]]["last_used_at"] is not None
        assert secret[:40] not in str(listed)
        for table in ("api_keys", "audit_log", "sessions", "idempotency_keys"):
            assert secret[20:] not in str(accounts.rows(f"SELECT row_to_json({table})::text FROM {table}"))


async def test_a_key_that_cannot_be_is_not_made(accounts: Accounts) -> None:
    admin = accounts.client(await accounts.key())
    good = {"name": "x", "role": "viewer"}
    bad: list[Any] = [
        {},
        {"name": "x"},
        {"role": "viewer"},
        *({**good, "name": name} for name in ("", "a" * 256, "a\0b", "a\nb", "a\x7f", "\x85", None, 1, ["x"])),
        *({**good, "role": role} for role in ("owner", "ADMIN", "", None, 1, ["admin"], "operator")),
        *({**good, "expires_at": end} for end in (soon(seconds=-1), soon(), "2020-01-01T00:00:00Z", "tomorrow", "")),
        *(
            {**good, "expires_at": end}
            for end in (4_102_444_800, "2030-01-01", "2030-01-01T00:00:00", "0001-01-01T00:00:00Z", "infinity", True)
        ),
        {**good, "workspace_id": "1"},
        {**good, "member_id": None},
        {**good, "key": "ck_" + "a" * 64},
        [good],
        "x",
    ]
    for body in bad:
        answer = await admin.post("/auth/keys", json=body)
        assert outcome(answer) == (422, "invalid"), body
    assert len((await admin.get("/auth/keys")).json()["data"]) == 1


async def test_the_list_is_paged_newest_first_and_its_cursors_cannot_be_made(accounts: Accounts) -> None:
    admin, other = accounts.client(await accounts.key()), accounts.client(await accounts.key(workspace="theirs"))
    made = [(await make(admin, name=f"k{n}"))["id"] for n in range(7)]
    for each in range(3):
        await make(other, name=f"o{each}")
    operators = (await admin.get("/auth/me")).json()["credential"]["key_id"]
    listed = {}
    for limit in (1, 2, 7, 8, 100):
        listed[limit] = [each["id"] for each in await every_page(admin, "/auth/keys", limit=limit)]
        assert listed[limit] == [*reversed(made), operators]
    accounts.change("UPDATE api_keys SET created_at = '2026-01-01Z' WHERE name ^@ 'k'")
    tied = [each["id"] for each in await every_page(admin, "/auth/keys", limit=2)]
    assert tied == [operators, *sorted(made, key=int, reverse=True)]
    cursor = (await admin.get("/auth/keys", params={"limit": 2})).json()["next_cursor"]
    theirs = (await other.get("/auth/keys", params={"limit": 2})).json()["next_cursor"]
    for each in (
        *(cursor[:n] + ("A" if cursor[n] != "A" else "B") + cursor[n + 1 :] for n in range(0, len(cursor) - 1, 3)),
        *(theirs, cursor[:-4], cursor + "AAAA", "x", "a" * 512, cursor.swapcase()),
    ):
        assert outcome(await admin.get("/auth/keys", params={"cursor": each})) == (422, "invalid")
    assert outcome(await admin.get("/auth/keys", params={"cursor": cursor, "limit": 50})) == FINE
    for path in ("/workspace/members", "/audit", "/chats"):
        assert outcome(await admin.get(path, params={"cursor": cursor})) == (422, "invalid")
    for params in ({"limit": 0}, {"limit": 101}, {"limit": "x"}, {"cursor": ""}, {"page": 1}):
        assert outcome(await admin.get("/auth/keys", params=params)) == (422, "invalid")


# Using


async def test_a_use_is_noted_at_most_once_a_minute(accounts: Accounts) -> None:
    made = await make(accounts.client(await accounts.key()))

    async def used() -> datetime:
        assert await elsewhere(accounts, made["key"]) == FINE
        [(time,)] = accounts.rows("SELECT last_used_at FROM api_keys WHERE key_id = %s", int(made["id"]))
        assert isinstance(time, datetime)
        return time

    first = await used()
    assert await used() == first
    earlier = "UPDATE api_keys SET last_used_at = last_used_at - make_interval(secs => %s) WHERE key_id = %s"
    for seconds, noted in ((50, False), (11, True)):
        accounts.change(earlier, seconds, int(made["id"]))
        before = accounts.rows("SELECT last_used_at FROM api_keys WHERE key_id = %s", int(made["id"]))[0][0]
        assert (await used() != before) == noted
    tokens = await accounts.tokens(made["key"])
    accounts.change(earlier, 3_600, int(made["id"]))
    assert await elsewhere(accounts, tokens["access_token"]) == FINE
    assert datetime.now(UTC) - await used() < timedelta(minutes=1), "its tokens' use is its use"


async def test_an_expired_key_is_refused_and_that_is_written_down(accounts: Accounts) -> None:
    admin = accounts.client(await accounts.key())
    made = await make(admin, expires_at=soon(hours=1))
    assert outcome(await accounts.client(made["key"]).get("/auth/me")) == FINE
    accounts.change("UPDATE api_keys SET expires_at = now() WHERE key_id = %s", int(made["id"]))
    for n in range(1, 3):
        app = await accounts.instance()
        assert outcome(await accounts.client(made["key"], app).get("/chats")) == REFUSED
        answer = await accounts.client(app=app).post("/auth/token", json={"api_key": made["key"]})
        assert outcome(answer) == REFUSED
        denied = (await admin.get("/audit", params={"action": "access.denied"})).json()["data"]
        assert [(each["actor"], each["details"]) for each in denied] == [
            (f"key:{made['id']}", {"reason": "key_expired"})
        ] * n, "each instance tells once"
    wrong = made["key"][:-1] + ("a" if made["key"][-1] != "a" else "b")
    assert outcome(await accounts.client(wrong, app).get("/chats")) == REFUSED
    assert len((await admin.get("/audit", params={"action": "access.denied"})).json()["data"]) == 2


async def test_a_key_that_expires_while_it_is_believed_is_refused_at_once(accounts: Accounts) -> None:
    made = await make(accounts.client(await accounts.key()), expires_at=soon(seconds=2.5))
    client = accounts.client(made["key"])
    answer = await client.get("/auth/me")
    assert outcome(answer) == FINE
    while (answer := await client.get("/auth/me")).status_code == 200:
        assert datetime.now(UTC) < datetime.fromisoformat(made["expires_at"]) + timedelta(seconds=1)
    assert outcome(answer) == REFUSED


async def test_a_malformed_key_costs_no_query(accounts: Accounts) -> None:
    key = await accounts.key()
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    mistyped = [f"{key[:n]}{alphabet[(alphabet.index(key[n]) + 1 + n % 31) % 32]}{key[n + 1 :]}" for n in range(3, 67)]
    swapped = [f"{key[:n]}{key[n + 1]}{key[n]}{key[n + 2 :]}" for n in range(3, 66) if key[n] != key[n + 1]]
    database = Database("postgresql://nobody@127.0.0.1:1/none")
    auth = AuthService(database, TokenSigner([SECRET]), [derive(SECRET, "api keys")])
    app = create_app(lambda: nullcontext(replace(accounts.services, auth=auth)))
    async with app.router.lifespan_context(app):
        client = accounts.client(app=app)
        for each in (*mistyped, *swapped, key[:-1], key + "a", key.upper(), "ck_", "ck_" + "a" * 64, "ck" + key[3:]):
            assert outcome(await client.get("/auth/me", headers={"X-API-Key": each})) == REFUSED
        for right_checksum in (key, new_api_key(1).text):
            assert outcome(await client.get("/auth/me", headers={"X-API-Key": right_checksum})) == (503, "unavailable")
    await database.close()


async def test_a_key_that_was_never_given_out_is_refused_though_its_checksum_is_right(accounts: Accounts) -> None:
    key = parse_api_key(await accounts.key())
    assert key
    invented = [
        *(new_api_key(workspace_id).text for workspace_id in (0, 1, key.workspace_id, 2**63 - 1, 2**63, 2**64 - 1)),
        with_random_part(key.text),
    ]
    for text in invented:
        assert parse_api_key(text) is None or parse_api_key(text) != key
        assert outcome(await accounts.client(text).get("/auth/me")) == REFUSED
    assert outcome(await accounts.client(key.text).get("/auth/me")) == FINE


# Replacing


async def test_a_replaced_key_works_until_its_overlap_ends(accounts: Accounts) -> None:
    admin = accounts.client(await accounts.key())
    cases: list[tuple[dict[str, Any] | None, int]] = [
        (None, 86_400),
        ({}, 86_400),
        ({"overlap_seconds": 0}, 0),
        ({"overlap_seconds": 1_000.0}, 1_000),
        ({"overlap_seconds": 2_592_000}, 2_592_000),
    ]
    for body, overlap in cases:
        old = await make(admin, name="to replace", expires_at="9999-12-31T23:59:59.999999Z" if overlap else None)
        answer = await admin.post(f"/auth/keys/{old['id']}/rotate", json=body) if body is not None else None
        answer = answer or await admin.post(f"/auth/keys/{old['id']}/rotate")
        assert outcome(answer) == MADE
        new = answer.json()
        assert {new[name] == old[name] for name in ("name", "role", "member_id", "expires_at")} == {True}
        assert new["id"] != old["id"]
        [(ends,)] = accounts.rows("SELECT expires_at FROM api_keys WHERE key_id = %s", int(old["id"]))
        assert abs(ends - datetime.now(UTC) - timedelta(seconds=overlap)) < timedelta(seconds=10)
        assert await elsewhere(accounts, new["key"]) == FINE
        assert await elsewhere(accounts, old["key"]) == (FINE if overlap else REFUSED)
        [entry] = (await admin.get("/audit", params={"target": f"key:{old['id']}", "action": "key.rotated"})).json()[
            "data"
        ]
        assert entry["details"] == {"replacement": f"key:{new['id']}", "overlap_seconds": overlap}


@pytest.mark.parametrize("lifetime", [None, timedelta(days=90)])
async def test_a_key_that_is_replaced_again_has_its_whole_lifetime(
    accounts: Accounts, lifetime: timedelta | None
) -> None:
    admin = accounts.client(await accounts.key())
    made = await make(admin, expires_at=(datetime.now(UTC) + lifetime).isoformat() if lifetime else None)
    for _ in range(3):
        new = (await admin.post(f"/auth/keys/{made['id']}/rotate", json={"overlap_seconds": 60})).json()
        if lifetime:
            given = datetime.fromisoformat(new["expires_at"]) - datetime.fromisoformat(new["created_at"])
            assert abs(given - lifetime) < timedelta(seconds=10)
        else:
            assert new["expires_at"] is None


async def test_a_key_that_ends_sooner_is_not_kept_alive_by_the_overlap(accounts: Accounts) -> None:
    admin = accounts.client(await accounts.key())
    old = await make(admin, expires_at=soon(minutes=1))
    new = (await admin.post(f"/auth/keys/{old['id']}/rotate")).json()
    listed = {each["id"]: each for each in (await admin.get("/auth/keys")).json()["data"]}
    assert listed[old["id"]]["expires_at"] == old["expires_at"]
    lasts = datetime.fromisoformat(new["expires_at"]) - datetime.fromisoformat(new["created_at"])
    assert timedelta(seconds=50) < lasts <= timedelta(seconds=61), "the same lifetime, begun anew"


async def test_an_expired_key_can_be_replaced_and_stays_expired(accounts: Accounts) -> None:
    admin = accounts.client(await accounts.key())
    old = await make(admin, expires_at=soon(hours=1))
    accounts.change(
        "UPDATE api_keys SET created_at = now() - interval '2 days', expires_at = now() - interval '1 day',"
        " lifetime = interval '1 day' WHERE key_id = %s",
        int(old["id"]),
    )
    new = (await admin.post(f"/auth/keys/{old['id']}/rotate")).json()
    assert await elsewhere(accounts, old["key"]) == REFUSED
    assert await elsewhere(accounts, new["key"]) == FINE
    assert timedelta(hours=23) < datetime.fromisoformat(new["expires_at"]) - datetime.now(UTC) <= timedelta(days=1)


async def test_what_cannot_be_replaced_or_deleted_is_as_absent(accounts: Accounts) -> None:
    admin = accounts.client(await accounts.key())
    other = await make(accounts.client(await accounts.key(workspace="theirs")))
    answers = set()
    for id in (*ABSENT, other["id"]):
        for answer in (await admin.post(f"/auth/keys/{id}/rotate"), await admin.delete(f"/auth/keys/{id}")):
            assert outcome(answer) == (404, "not_found"), id
            answers.add(answer.json()["detail"])
    assert len(answers) == 1
    assert await elsewhere(accounts, other["key"]) == FINE
    mine = await make(admin)
    wrong: list[Any] = [{"overlap_seconds": n} for n in (-1, 2_592_001, "x", 1.5, None, 10**30, "NaN", [1])]
    for body in (*wrong, {"overlap": 1}, [], "x"):
        assert outcome(await admin.post(f"/auth/keys/{mine['id']}/rotate", json=body)) == (422, "invalid"), body
    assert await elsewhere(accounts, mine["key"]) == FINE


# Ending


async def test_a_key_can_delete_itself_and_others_of_its_workspace(accounts: Accounts) -> None:
    admin = accounts.client(await accounts.key())
    first, second = await make(admin, role="admin"), await make(admin)
    client = accounts.client(first["key"])
    for id in (second["id"], first["id"]):
        assert (await client.delete(f"/auth/keys/{id}")).status_code == 204
        assert outcome(await admin.delete(f"/auth/keys/{id}")) == (404, "not_found")
        assert outcome(await admin.post(f"/auth/keys/{id}/rotate")) == (404, "not_found")
    for each in (first, second):
        assert await elsewhere(accounts, each["key"]) == REFUSED
    entries = (await admin.get("/audit", params={"action": "key.deleted"})).json()["data"]
    assert [(e["actor"], e["target"]) for e in entries] == [
        (f"key:{first['id']}", f"key:{k['id']}") for k in (first, second)
    ]


async def test_a_key_never_does_more_than_its_maker_may(accounts: Accounts) -> None:
    ana = await accounts.sign_in(ANA)
    ben, id = await accounts.join(ana, BEN, Role.ADMIN)
    keys = {role: (await make(ben, role=role))["key"] for role in Role}
    made_by_key = await make(accounts.client(keys[Role.ADMIN]), role="admin")
    assert made_by_key["member_id"] == id
    rank = list(Role)
    for maker in (Role.EDITOR, Role.VIEWER, Role.ADMIN):
        assert outcome(await ana.patch(f"/workspace/members/{id}", json={"role": maker})) == FINE
        app = await accounts.instance()
        for role, key in (*keys.items(), (Role.ADMIN, made_by_key["key"])):
            client = accounts.client(key, app)
            acts_as = min(role, maker, key=rank.index)
            assert (await client.get("/auth/me")).json()["role"] == acts_as
            status = 200 if acts_as is Role.ADMIN else 403
            assert (await client.get("/auth/keys")).status_code == status
    listed = {each["role"] for each in (await ana.get("/auth/keys")).json()["data"]}
    assert listed == set(Role), "a key's own role stays, for when its maker's comes back"


async def test_a_key_goes_with_its_maker_and_with_nobody_else(accounts: Accounts) -> None:
    ana = await accounts.sign_in(ANA)
    ben, ben_id = await accounts.join(ana, BEN, Role.ADMIN)
    cem, cem_id = await accounts.join(ana, CEM, Role.ADMIN)
    bens, cems = await make(ben), await make(cem)
    replaced = (await cem.post(f"/auth/keys/{bens['id']}/rotate")).json()
    assert replaced["member_id"] == cem_id, "they have seen it"
    assert (await ana.delete(f"/workspace/members/{ben_id}")).status_code == 204
    for key, expected in ((bens, REFUSED), (replaced, FINE), (cems, FINE)):
        assert await elsewhere(accounts, key["key"]) == expected
    assert [each["id"] for each in (await ana.get("/auth/keys")).json()["data"]] == [replaced["id"], cems["id"]]


# Sent again


async def test_a_key_that_is_asked_for_again_is_the_same_and_stays_sealed(accounts: Accounts) -> None:
    admin = accounts.client(await accounts.key())
    body = {"name": "canary name", "role": "viewer"}
    made = await make(admin)
    for path, sent in (("/auth/keys", body), (f"/auth/keys/{made['id']}/rotate", {"overlap_seconds": 60})):
        headers = {"Idempotency-Key": f"canary-{path[-4:]}"}
        first, second = [await admin.post(path, json=sent, headers=headers) for _ in range(2)]
        assert first.json() == second.json()
        assert (first.status_code, second.status_code) == (201, 201)
        assert "Idempotency-Replayed" not in first.headers
        assert second.headers["Idempotency-Replayed"] == "true"
        assert second.headers["Cache-Control"] == "no-store"
        assert await elsewhere(accounts, first.json()["key"]) == FINE
        changed = await admin.post(path, json={**sent, "role": "admin"} if "role" in sent else {}, headers=headers)
        assert outcome(changed) == (422, "idempotency_key_reused")
        kept = str(accounts.rows("SELECT row_to_json(idempotency_keys)::text FROM idempotency_keys"))
        raw = b"".join(row[0] for row in accounts.rows("SELECT answer FROM idempotency_keys"))
        for plain in (first.json()["key"], first.json()["key"][5:30], "canary", first.json()["id"]):
            assert plain not in kept
            assert plain.encode() not in raw
        others = [accounts.client(await accounts.key()), accounts.client(await accounts.key(workspace="theirs"))]
        for other in others:
            answer = await other.post(path, json=sent, headers=headers)
            assert answer.json().get("key") != first.json()["key"], "who is asking is part of the question"
    names = [each["name"] for each in (await admin.get("/auth/keys", params={"limit": 100})).json()["data"]]
    assert names.count("canary name") == 2


def with_random_part(text: str) -> str:
    """Returns a key of the same workspace and id with other random bits, and the checksum of these."""
    raw = bytearray(base64.b32decode(text.removeprefix("ck_").upper()))
    raw[20] ^= 1
    raw[36:] = zlib.crc32(raw[:36]).to_bytes(4)
    return "ck_" + base64.b32encode(raw).decode().lower()
