"""Who may do what; what another workspace is told; which methods a path takes."""

from typing import Any

import httpx
import pytest

from app.schemas.enums import Role
from tests.support.api import Workspace, message

SUMMARIZE: dict[str, Any] = {"json": {"conversation_id": "c1"}}
FILTER: dict[str, Any] = {"params": {"q": "parcel", "max_delete_count": 5}}
OPERATIONS: list[tuple[str, str, dict[str, Any], Role]] = [
    ("GET", "/chats", {}, Role.VIEWER),
    ("GET", "/chats/c1", {}, Role.VIEWER),
    ("GET", "/users/ana/chats", {}, Role.VIEWER),
    ("GET", "/chats/c1/summary", {}, Role.VIEWER),
    ("GET", "/chats/c1/insights", {}, Role.VIEWER),
    ("POST", "/chats", {"json": message("c2")}, Role.EDITOR),
    ("POST", "/chats", {"content": b"{}", "headers": {"Content-Type": "application/x-ndjson"}}, Role.EDITOR),
    ("POST", "/chats/summarize", SUMMARIZE, Role.EDITOR),
    ("POST", "/chats/insights", SUMMARIZE, Role.EDITOR),
    ("DELETE", "/chats/c1", {}, Role.ADMIN),
    ("DELETE", "/chats", FILTER, Role.ADMIN),
]
RANK = [Role.VIEWER, Role.EDITOR, Role.ADMIN]


def without_id(answer: httpx.Response) -> tuple[int, dict[str, Any], dict[str, str]]:
    body = {name: value for name, value in answer.json().items() if name != "request_id"}
    return answer.status_code, body, {k: v for k, v in answer.headers.items() if k not in ("ratelimit", "x-request-id")}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: f"{each[0]} {each[1]}")
async def test_a_weaker_role_is_refused_and_changes_nothing(
    workspace: Workspace, operation: tuple[str, str, dict[str, Any], Role]
) -> None:
    method, path, more, needed = operation
    await workspace.editor.post("/chats", json=message())
    clients = {Role.VIEWER: workspace.viewer, Role.EDITOR: workspace.editor, Role.ADMIN: workspace.admin}
    for role in RANK[: RANK.index(needed)]:
        answer = await clients[role].request(method, path, **more)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    found = (await workspace.viewer.get("/chats")).json()["data"]
    assert [each["conversation_id"] for each in found] == ["c1"]
    if "summar" not in path and "insights" not in path:
        assert (await clients[needed].request(method, path, **more)).status_code in (200, 201)


async def test_no_credential_or_a_wrong_one_is_told_so(workspace: Workspace, anonymous: httpx.AsyncClient) -> None:
    for operation in OPERATIONS:
        method, path, more, _ = operation
        key = workspace.keys[Role.ADMIN]
        wrong = {
            *(
                "",
                "x",
                "ck_",
                "ck_" + "a" * 64,
                "ck_" + "é" * 64,
                key[:-1],
                key + "a",
                key.upper(),
                key[:40] + "a" + key[41:],
            ),
            *(key[:5] + "b" + key[6:], "ck_" + "ı" * 64, "null", "ck_" + "=" * 64),
        } - {key}
        for each in wrong:
            for name, value in (("Authorization", f"Bearer {each}"), ("X-API-Key", each)):
                headers = {**more.get("headers", {}), name: value.encode()}
                answer = await anonymous.request(method, path, **{**more, "headers": headers})
                assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
                assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert (await anonymous.request(method, path, **more)).status_code == 401


async def test_a_key_works_in_either_header(workspace: Workspace, anonymous: httpx.AsyncClient) -> None:
    key = workspace.keys[Role.VIEWER]
    for headers in ({"Authorization": f"bearer {key}"}, {"X-API-Key": key}):
        assert (await anonymous.get("/chats", headers=headers)).status_code == 200
    assert (await anonymous.get("/chats", headers={"Authorization": f"Basic {key}"})).status_code == 401


async def test_another_workspace_is_answered_as_if_nothing_existed(
    workspace: Workspace, other_workspace: Workspace
) -> None:
    await workspace.editor.post("/chats", json=message())
    assert (await workspace.editor.post("/chats/summarize", json={"conversation_id": "c1"})).status_code == 200
    for method, path, more, _ in OPERATIONS:
        if method == "POST" and path == "/chats":
            continue
        foreign = await other_workspace.admin.request(method, path, **more)
        absent_path = path.replace("c1", "zz").replace("ana", "zz")
        absent_more = {"json": {"conversation_id": "zz"}} if more is SUMMARIZE else more
        absent = await other_workspace.admin.request(method, absent_path, **absent_more)
        answers = [str(without_id(each)).replace("c1", "zz").replace("ana", "zz") for each in (foreign, absent)]
        assert answers[0] == answers[1], path
    assert (await workspace.viewer.get("/chats/c1/summary")).status_code == 200
    assert (await other_workspace.editor.post("/chats", json=message(message_content="Ours."))).json()["stored"] == 1
    assert (await workspace.viewer.get("/chats/c1")).json()["message_count"] == 1


METHODS = [
    ("/chats", {"GET", "POST", "DELETE"}),
    ("/chats/c1", {"GET", "DELETE"}),
    ("/chats/c1/summary", {"GET"}),
    ("/users/ana/chats", {"GET"}),
    ("/livez", {"GET"}),
]


async def test_a_wrong_method_is_told_all_the_right_ones(workspace: Workspace) -> None:
    for path, allowed in METHODS:
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"} - allowed:
            answer = await workspace.admin.request(method, path)
            assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
            assert set(answer.headers["Allow"].split(", ")) - {"HEAD"} == allowed


UNKNOWN = ["/", "/chat", "/chats/", "/chats//", "/chats/c1/", "/chats/a/b", "/CHATS", "//chats", "/%63hats"]


async def test_an_unknown_path_is_a_problem(workspace: Workspace) -> None:
    for path in UNKNOWN:
        answer = await workspace.admin.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["X-Request-Id"] == answer.json()["request_id"]


async def test_an_answer_is_not_kept_by_caches(workspace: Workspace) -> None:
    await workspace.editor.post("/chats", json=message())
    for path in ("/chats", "/users/ana/chats", "/chats/none"):
        assert (await workspace.viewer.get(path)).headers["Cache-Control"] == "no-store"
    assert (await workspace.viewer.get("/chats/c1")).headers["Cache-Control"] == "private, no-cache"


async def test_head_answers_as_get_without_the_body(workspace: Workspace, anonymous: httpx.AsyncClient) -> None:
    await workspace.editor.post("/chats", json=message())
    for path in ("/chats/c1", "/chats", "/users/ana/chats", "/livez", "/chats/none"):
        got, headed = [await workspace.viewer.request(method, path) for method in ("GET", "HEAD")]
        assert (headed.status_code, headed.content) == (got.status_code, b"")
        different = {"ratelimit", "x-request-id"} | ({"content-length"} if got.status_code == 404 else set())
        for name in got.headers.keys() - different:
            assert headed.headers[name] == got.headers[name]
    assert (await anonymous.head("/chats")).status_code == 401
