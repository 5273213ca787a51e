"""How a key is shown; which methods a path takes. Who may do what is in the matrix (tests/house/test_matrix.py)."""

import httpx

from app.schemas.enums import Role
from tests.support.api import Workspace, message


async def test_a_wrong_credential_is_told_so(workspace: Workspace, anonymous: httpx.AsyncClient) -> None:
    key = workspace.keys[Role.ADMIN]
    wrong = {
        *("", "x", "ck_", "ck_" + "a" * 64, "ck_" + "é" * 64, "ck_" + "ı" * 64, "ck_" + "=" * 64, "null"),
        *(key[:-1], key + "a", key.upper(), key[:40] + "a" + key[41:], key[:5] + "b" + key[6:]),
    } - {key}
    for each in wrong:
        for name, value in ((b"Authorization", f"Bearer {each}"), (b"X-API-Key", each)):
            answer = await anonymous.get("/chats", headers={name: value.encode()})
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
            assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_a_key_works_in_either_header(workspace: Workspace, anonymous: httpx.AsyncClient) -> None:
    key = workspace.keys[Role.VIEWER]
    for headers in ({"Authorization": f"bearer {key}"}, {"X-API-Key": key}):
        assert (await anonymous.get("/chats", headers=headers)).status_code == 200
    assert (await anonymous.get("/chats", headers={"Authorization": f"Basic {key}"})).status_code == 401


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
