"""Members and invitations: who joins by which address, and that an admin is always left."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from app.schemas.enums import Provider, Role
from app.settings import Settings
from tests.support.accounts import ANA, BEN, CEM, Accounts, Person, every_page, open_accounts, outcome

REFUSED = (401, "unauthenticated")
FINE = (200, None)
MADE = (201, None)
GONE = (204, None)
TOO_LATE = {(409, "last_admin"), (404, "not_found"), (403, "forbidden"), (401, "unauthenticated")}
ABSENT = ["1", "0", "-1", "x", "01", "9" * 19, "9" * 100, "%D9%A1", "1.0", "2%2F3", "%00", "me", "%20" + "1"]


@pytest.fixture
async def accounts(postgresql: psycopg.Connection, settings: Settings) -> AsyncIterator[Accounts]:
    async with open_accounts(postgresql, settings) as opened:
        yield opened


async def invite(admin: httpx.AsyncClient, email: str, role: Role = Role.VIEWER) -> httpx.Response:
    return await admin.post("/workspace/members", json={"email": email, "role": role})


async def members(client: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    """Returns the members and invitations by e-mail address."""
    return {each["email"]: each for each in await every_page(client, "/workspace/members")}


async def workspace_id(client: httpx.AsyncClient) -> str:
    found: str = (await client.get("/auth/me")).json()["workspace"]["id"]
    return found


async def workspaces(client: httpx.AsyncClient) -> dict[str, str]:
    """Returns the roles that somebody has, by workspace."""
    return {each["name"]: each["role"] for each in (await client.get("/auth/me")).json()["workspaces"]}


# Inviting


async def test_somebody_is_invited_and_joins(accounts: Accounts) -> None:
    ana = await accounts.sign_in(ANA)
    answer = await invite(ana, BEN.email, Role.EDITOR)
    assert outcome(answer) == MADE
    invited = answer.json()
    assert datetime.fromisoformat(invited["invitation_expires_at"]) - datetime.fromisoformat(
        invited["created_at"]
    ) == timedelta(days=14)
    ours = {"id": invited["id"], "email": BEN.email, "role": "editor", "created_at": invited["created_at"]}
    nothing = {"name": None, "joined_at": None}
    assert invited == {
        **ours,
        **nothing,
        "status": "invited",
        "invitation_expires_at": invited["invitation_expires_at"],
    }
    assert (await members(ana))[BEN.email] == invited
    ben = await accounts.sign_in(BEN)
    me = (await ben.get("/auth/me")).json()
    assert (me["role"], me["credential"]["actor"]) == ("editor", f"member:{invited['id']}")
    joined = (await members(ana))[BEN.email]
    assert joined.pop("joined_at") is not None
    assert joined == {**ours, "name": BEN.name, "status": "active", "invitation_expires_at": None}
    [first] = [each for each in (await members(ana)).values() if each["email"] == ANA.email]
    assert (first["role"], first["status"]) == ("admin", "active")


async def test_an_address_is_one_whatever_the_case_of_its_ascii_letters(accounts: Accounts) -> None:
    ana = await accounts.sign_in(ANA)
    first = (await invite(ana, "Ben@Example.COM")).json()
    assert first["email"] == "ben@example.com"
    accounts.change("UPDATE memberships SET created_at = created_at - interval '13 days' WHERE user_id IS NULL")
    again = (await invite(ana, "BEN@example.com", Role.EDITOR)).json()
    assert (again["id"], again["role"]) == (first["id"], "editor")
    assert again["invitation_expires_at"] >= first["invitation_expires_at"]
    await accounts.sign_in(replace(BEN, email="bEN@eXample.com"))
    for email in ("ben@example.com", "BEN@EXAMPLE.COM", ANA.email.upper()):
        assert outcome(await invite(ana, email)) == (409, "already_member")
    assert {each["role"] for each in (await members(ana)).values()} == {"admin", "editor"}


LOOK_ALIKES = {
    "kim@example.com": [
        "\u212aim@example.com",
        "kım@example.com",
        "kİm@example.com",
        "ＫＩＭ@example.com",
        "ｋim@example.com",
    ],
    "istanbul@example.com": ["ıstanbul@example.com", "İstanbul@example.com", "i\u0307stanbul@example.com"],
    "ses@example.com": [
        "ſes@example.com",
        "sеs@example.com",
        "se\u200bs@example.com",
        "ses@ex\u00adample.com",
        "ses@example。com",
    ],
    "jose@example.com": ["josé@example.com", "jose\u0301@example.com", "jose@examplе.com"],
}


async def test_an_address_that_looks_alike_is_another(accounts: Accounts) -> None:
    ana = await accounts.sign_in(ANA)
    person = 2_000
    for real, others in LOOK_ALIKES.items():
        for other in others:
            for invited, comes in ((other, real), (real, other)):
                person += 1
                answer = await invite(ana, invited)
                assert answer.status_code in (201, 422), ascii(invited)
                browser = accounts.browser()
                back = await accounts.come_back(browser, Person(person, comes))
                assert back.status_code in (303, 403), ascii(comes)
                if back.status_code == 303:
                    assert list((await workspaces(browser)).values()) == ["admin"], "a workspace of their own"
                for each in (await members(ana)).values():
                    assert each["status"] == ("active" if each["email"] == ANA.email else "invited")
                    if each["status"] == "invited":
                        assert outcome(await ana.delete(f"/workspace/members/{each['id']}")) == GONE
    assert await workspaces(ana) == {(await ana.get("/auth/me")).json()["workspace"]["name"]: "admin"}


async def test_what_is_no_invitation_is_refused(accounts: Accounts) -> None:
    admin = accounts.client(await accounts.key())
    good = {"email": "x@example.com", "role": "viewer"}
    bad: list[Any] = [
        {},
        {"email": "x@example.com"},
        {"role": "viewer"},
        *({**good, "role": role} for role in ("owner", "Admin", "", None, 1, ["admin"])),
        *({**good, "email": email} for email in ("", "x", "@", "x@", "@x", "a@b@c", "a b@c", "a@b c", " a@b", "a@b ")),
        *({**good, "email": email} for email in ("a@b\n", "a\t@b", "a@b\0", "a\x7f@b", "a@\u2028b", "a@\xa0b")),
        *({**good, "email": email} for email in ("a" * 250 + "@b.co", None, 1, ["a@b.co"], "Ana <a@b.co>")),
        {**good, "status": "active"},
        {**good, "user_id": "1"},
        [good],
        "x",
    ]
    for body in bad:
        assert outcome(await admin.post("/workspace/members", json=body)) == (422, "invalid"), body
    assert await members(admin) == {}


async def test_an_invitation_lasts_fourteen_days(accounts: Accounts) -> None:
    ana = await accounts.sign_in(ANA)
    age = (
        "UPDATE memberships SET created_at = now() - interval '14 days' + make_interval(secs => %s)"
        " WHERE invited_email = %s"
    )
    for person, left_s in ((BEN, -1), (CEM, 60)):
        await invite(ana, person.email, Role.EDITOR)
        accounts.change(age, left_s, person.email)
    ben, cem = await accounts.sign_in(BEN), await accounts.sign_in(CEM)
    assert list((await workspaces(ben)).values()) == ["admin"]
    assert (await cem.get("/auth/me")).json()["role"] == "editor"
    assert (await members(ana))[BEN.email]["status"] == "invited"
    await invite(ana, BEN.email, Role.VIEWER)
    await accounts.sign_in(BEN, workspace_id=await workspace_id(ana))
    assert (await members(ana))[BEN.email]["status"] == "active"


async def test_an_invitation_that_was_taken_back_lets_nobody_in(accounts: Accounts) -> None:
    ana = await accounts.sign_in(ANA)
    invited = (await invite(ana, BEN.email, Role.ADMIN)).json()
    assert outcome(await ana.delete(f"/workspace/members/{invited['id']}")) == GONE
    ben = await accounts.sign_in(BEN)
    assert (await ben.get("/auth/me")).json()["workspace"] != (await ana.get("/auth/me")).json()["workspace"]
    assert list(await members(ana)) == [ANA.email]


async def test_a_changed_invitation_gives_the_new_role(accounts: Accounts) -> None:
    ana = await accounts.sign_in(ANA)
    invited = (await invite(ana, BEN.email, Role.ADMIN)).json()
    changed = await ana.patch(f"/workspace/members/{invited['id']}", json={"role": "viewer"})
    assert changed.json() == {**invited, "role": "viewer"}
    ben = await accounts.sign_in(BEN)
    assert (await ben.get("/auth/me")).json()["role"] == "viewer"


async def test_somebody_joins_wherever_they_were_invited_and_later_where_they_say_so(accounts: Accounts) -> None:
    ana, cem = await accounts.sign_in(ANA), await accounts.sign_in(CEM)
    operator = accounts.client(await accounts.key(workspace="shop"))
    await invite(ana, BEN.email, Role.VIEWER)
    await invite(operator, BEN.email, Role.ADMIN)
    ben = await accounts.sign_in(BEN)
    assert sorted((await workspaces(ben)).values()) == ["admin", "viewer"], "and none of their own"
    await invite(cem, BEN.email, Role.EDITOR)
    assert sorted((await workspaces(ben)).values()) == ["admin", "viewer"]
    later = await accounts.sign_in(BEN)
    assert sorted((await workspaces(later)).values()) == ["admin", "viewer"], "anybody may invite anybody"
    later = await accounts.sign_in(BEN, workspace_id=await workspace_id(cem))
    assert sorted((await workspaces(later)).values()) == ["admin", "editor", "viewer"]
    joined = accounts.rows("SELECT actor = target, details FROM audit_log WHERE action = 'member.joined'")
    assert sorted(details["role"] for same, details in joined if same) == ["admin", "editor", "viewer"]


async def test_a_member_is_not_changed_by_an_invitation(accounts: Accounts) -> None:
    ana = await accounts.sign_in(ANA)
    ben, id = await accounts.join(ana, BEN, Role.VIEWER)
    assert outcome(await invite(ana, BEN.email, Role.ADMIN)) == (409, "already_member")
    # Ben's other address is invited, and then he signs in with it.
    other = replace(BEN, email="ben.other@example.com")
    pending = (await invite(ana, other.email, Role.ADMIN)).json()
    again = await accounts.sign_in(other)
    me = (await again.get("/auth/me")).json()
    assert (me["role"], me["credential"]["actor"], me["user"]["email"]) == ("viewer", f"member:{id}", other.email)
    found = await every_page(ana, "/workspace/members")
    assert [(each["status"], each["role"]) for each in found if each["id"] == id] == [("active", "viewer")]
    assert [(each["status"], each["role"]) for each in found if each["id"] == pending["id"]] == [("invited", "admin")]
    assert outcome(await ben.get("/audit")) == (403, "forbidden")


async def test_an_address_that_is_not_verified_is_no_way_in(accounts: Accounts) -> None:
    ana = await accounts.sign_in(ANA)
    await invite(ana, BEN.email, Role.ADMIN)
    browser = accounts.browser()
    for provider in Provider:
        begun = await browser.get(f"/auth/login/{provider}")
        accounts.providers.google.sign_in_as("g-thief", BEN.email, verified=False)
        accounts.providers.github.sign_in_as(666, BEN.email, verified=False)
        back = await browser.get(accounts.providers.approve(begun.headers["Location"]))
        assert outcome(back) == (403, "sign_in_refused")
    assert (await members(ana))[BEN.email]["status"] == "invited"
    assert accounts.rows("SELECT count(*) FROM users") == [(1,)]


# Listing, changing, removing


async def test_the_list_is_paged_oldest_first_and_of_one_workspace(accounts: Accounts) -> None:
    ana, other = await accounts.sign_in(ANA), accounts.client(await accounts.key(workspace="theirs"))
    for n in range(5):
        await invite(ana, f"p{n}@example.com")
        await invite(other, f"p{n}@example.com")
    expected = [ANA.email, *(f"p{n}@example.com" for n in range(5))]
    for limit in (1, 2, 5, 6, 100):
        assert [each["email"] for each in await every_page(ana, "/workspace/members", limit=limit)] == expected
    accounts.change("UPDATE memberships SET created_at = '2026-01-01Z'")
    tied = [each["id"] for each in await every_page(ana, "/workspace/members", limit=2)]
    assert tied == sorted(tied, key=int)
    assert len(set(tied)) == 6
    first = (await ana.get("/workspace/members", params={"limit": 2})).json()["next_cursor"]
    theirs = (await other.get("/workspace/members", params={"limit": 2})).json()["next_cursor"]
    for cursor in (theirs, first[:-2], first + "A", "x", first[::-1]):
        assert outcome(await ana.get("/workspace/members", params={"cursor": cursor})) == (422, "invalid")
    assert outcome(await ana.get("/auth/keys", params={"cursor": first})) == (422, "invalid")


async def test_ids_of_others_are_as_absent(accounts: Accounts) -> None:
    ana, cem = await accounts.sign_in(ANA), await accounts.sign_in(CEM)
    theirs = (await members(cem))[CEM.email]["id"]
    pending = (await invite(cem, "x@example.com")).json()["id"]
    details = set()
    for id in (*ABSENT, theirs, pending):
        for answer in (
            await ana.patch(f"/workspace/members/{id}", json={"role": "viewer"}),
            await ana.delete(f"/workspace/members/{id}"),
        ):
            assert outcome(answer) == (404, "not_found"), id
            details.add(answer.json()["detail"])
    assert len(details) == 1
    assert {each["role"] for each in (await members(cem)).values()} == {"admin", "viewer"}


async def test_what_is_no_change_is_refused(accounts: Accounts) -> None:
    ana = await accounts.sign_in(ANA)
    id = (await members(ana))[ANA.email]["id"]
    bodies: list[Any] = [
        {},
        {"role": "owner"},
        {"role": None},
        {"role": "viewer", "email": "x@example.com"},
        [],
        "viewer",
    ]
    for body in bodies:
        assert outcome(await ana.patch(f"/workspace/members/{id}", json=body)) == (422, "invalid"), body
    assert outcome(await ana.patch(f"/workspace/members/{id}", content=b"{")) == (415, "unsupported_media_type")


async def test_only_admins_see_or_change_members(accounts: Accounts) -> None:
    ana = await accounts.sign_in(ANA)
    id = (await members(ana))[ANA.email]["id"]
    for person, role in ((BEN, Role.VIEWER), (CEM, Role.EDITOR)):
        browser, own = await accounts.join(ana, person, role)
        answers = [
            await browser.get("/workspace/members"),
            await invite(browser, "x@example.com"),
            *[await browser.patch(f"/workspace/members/{each}", json={"role": "admin"}) for each in (own, id)],
            *[await browser.delete(f"/workspace/members/{each}") for each in (own, id)],
        ]
        assert {outcome(each) for each in answers} == {(403, "forbidden")}
    assert [each["role"] for each in (await members(ana)).values()] == ["admin", "viewer", "editor"]


async def test_a_removed_member_is_out_and_can_only_come_back_by_invitation(accounts: Accounts) -> None:
    ana = await accounts.sign_in(ANA)
    ben, id = await accounts.join(ana, BEN, Role.EDITOR)
    theirs = (await ben.get("/auth/me")).json()["workspace"]["id"]
    tokens = (await ben.post("/auth/token")).json()
    assert outcome(await ana.delete(f"/workspace/members/{id}")) == GONE
    app = await accounts.instance()
    assert outcome(await accounts.browser(app, of=ben).get("/auth/me")) == REFUSED
    assert outcome(await accounts.client(tokens["access_token"], app).get("/auth/me")) == REFUSED
    answer = await accounts.client().post("/auth/token", json={"refresh_token": tokens["refresh_token"]})
    assert outcome(answer) == REFUSED
    again = await accounts.sign_in(BEN)
    assert list((await workspaces(again)).values()) == ["admin"]
    assert (await again.get("/auth/me")).json()["workspace"]["id"] != theirs
    back = await accounts.come_back(accounts.browser(), BEN, workspace_id=theirs)
    assert outcome(back) == (403, "forbidden")
    await invite(ana, BEN.email, Role.VIEWER)
    returned = await accounts.sign_in(BEN, workspace_id=theirs)
    me = (await returned.get("/auth/me")).json()
    assert (me["workspace"]["id"], me["role"]) == (theirs, "viewer")
    assert me["credential"]["actor"] != f"member:{id}", "nothing of the former membership"


# An admin is left


async def test_the_last_admin_stays(accounts: Accounts) -> None:
    ana = await accounts.sign_in(ANA)
    id = (await members(ana))[ANA.email]["id"]
    ben, ben_id = await accounts.join(ana, BEN, Role.EDITOR)
    await invite(ana, CEM.email, Role.ADMIN)
    operator = accounts.client(await accounts.key(workspace=(await ana.get("/auth/me")).json()["workspace"]["name"]))
    for client in (ana, operator):
        for role in ("viewer", "editor"):
            answer = await client.patch(f"/workspace/members/{id}", json={"role": role})
            assert outcome(answer) == (409, "last_admin"), "an invitation is nobody yet"
        assert outcome(await client.delete(f"/workspace/members/{id}")) == (409, "last_admin")
        assert outcome(await client.patch(f"/workspace/members/{id}", json={"role": "admin"})) == FINE
    assert outcome(await ana.patch(f"/workspace/members/{ben_id}", json={"role": "admin"})) == FINE
    assert outcome(await ana.patch(f"/workspace/members/{id}", json={"role": "viewer"})) == FINE
    app = await accounts.instance()
    assert outcome(await accounts.browser(app, of=ana).get("/audit")) == (403, "forbidden")
    assert outcome(await accounts.browser(app, of=ben).delete(f"/workspace/members/{ben_id}")) == (409, "last_admin")
    assert outcome(await accounts.browser(app, of=ben).delete(f"/workspace/members/{id}")) == GONE


async def test_a_workspace_of_keys_only_needs_no_member_who_is_admin(accounts: Accounts) -> None:
    admin = accounts.client(await accounts.key(workspace="shop"))
    invited = (await invite(admin, BEN.email, Role.VIEWER)).json()
    pending = (await invite(admin, CEM.email, Role.ADMIN)).json()
    await accounts.sign_in(BEN)
    assert outcome(await admin.patch(f"/workspace/members/{invited['id']}", json={"role": "editor"})) == FINE
    for id in (pending["id"], invited["id"]):
        assert outcome(await admin.delete(f"/workspace/members/{id}")) == GONE
    assert await members(admin) == {}
    assert outcome(await admin.get("/auth/me")) == FINE


ACTS = {
    "demote": lambda client, id: client.patch(f"/workspace/members/{id}", json={"role": "viewer"}),
    "remove": lambda client, id: client.delete(f"/workspace/members/{id}"),
}


@pytest.mark.parametrize(("first", "second"), [("demote", "demote"), ("remove", "remove"), ("demote", "remove")])
async def test_two_admins_who_turn_on_each_other_at_once_leave_one(accounts: Accounts, first: str, second: str) -> None:
    workspace = (await (await accounts.sign_in(ANA)).get("/auth/me")).json()["workspace"]
    operator = accounts.client(await accounts.key(workspace=workspace["name"]))
    elsewhere = await accounts.instance()
    for _ in range(6):
        for person in (ANA, BEN):
            if person.email not in await members(operator):
                await accounts.join(operator, person, Role.ADMIN)
        ana_id, ben_id = [(await members(operator))[person.email]["id"] for person in (ANA, BEN)]
        for id in (ana_id, ben_id):
            await operator.patch(f"/workspace/members/{id}", json={"role": "admin"})
        ana = await accounts.sign_in(ANA, workspace_id=workspace["id"])
        ben = accounts.browser(elsewhere, of=await accounts.sign_in(BEN, workspace_id=workspace["id"]))
        for browser in (ana, ben):
            assert outcome(await browser.get("/workspace/members")) == FINE
        answers = await asyncio.gather(
            ACTS[first](ana, ben_id), ACTS[second](ben, ana_id), ACTS[first](ana, ana_id), ACTS[second](ben, ben_id)
        )
        left = [each for each in (await members(operator)).values() if each["role"] == "admin"]
        assert len(left) == 1, [outcome(each) for each in answers]
        assert {outcome(each) for each in answers} <= {FINE, GONE, *TOO_LATE}


async def test_acts_on_one_member_at_once_are_done_and_written_down_once(accounts: Accounts) -> None:
    admin = accounts.client(await accounts.key())
    for n in range(4):
        browser, id = await accounts.join(admin, Person(3_000 + n, f"p{n}@example.com"), Role.VIEWER)
        await browser.get("/auth/me")
        acts = [ACTS["remove"](admin, id) for _ in range(3)]
        acts.append(admin.patch(f"/workspace/members/{id}", json={"role": "editor"}))
        answers = [outcome(each) for each in await asyncio.gather(*acts)]
        assert sorted(answers[:3]) == [GONE, (404, "not_found"), (404, "not_found")]
        assert answers[3] in (FINE, (404, "not_found"))
        entries = accounts.rows(
            "SELECT action, details FROM audit_log WHERE target = %s ORDER BY created_at", f"member:{id}"
        )
        done = [(action, details.get("was")) for action, details in entries[2:]]
        changed = answers[3] == FINE
        assert done == [
            *([("member.changed", "viewer")] if changed else []),
            ("member.removed", "editor" if changed else "viewer"),
        ]


async def test_an_address_that_is_invited_many_times_at_once_is_invited_once(accounts: Accounts) -> None:
    ana = await accounts.sign_in(ANA)
    answers = await asyncio.gather(*(invite(ana, BEN.email, Role(role)) for role in [*Role] * 3))
    assert {outcome(each) for each in answers} == {MADE}
    assert len({each.json()["id"] for each in answers}) == 1
    assert len(await members(ana)) == 2


async def test_an_invitation_is_sent_again_safely(accounts: Accounts) -> None:
    ana = await accounts.sign_in(ANA)
    headers = {"Idempotency-Key": "invite-ben-once"}
    body = {"email": BEN.email, "role": "viewer"}
    first, second = [await ana.post("/workspace/members", json=body, headers=headers) for _ in range(2)]
    assert (first.json(), second.headers["Idempotency-Replayed"]) == (second.json(), "true")
    assert len(accounts.rows("SELECT 1 FROM audit_log WHERE action = 'member.invited'")) == 1
