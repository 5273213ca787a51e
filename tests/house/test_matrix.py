"""Every operation of the document, asked by everybody: who is let in, and that who is refused changes nothing."""

import json
import uuid
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from app.routes import analyses, analytics, audit, auth, chats, health, jobs, members, webhooks, workspaces
from app.routes.deps import SAFE_METHODS, AtLeast
from app.schemas.enums import Provider, Role
from app.security.api_keys import random_id
from tests.conftest import SIZE
from tests.house.principals import House, Principal, everybody, renamed, seen, state, strangers

PUBLIC = "everybody"
CREDENTIAL = "whoever has a credential that is no token"
NEEDED: dict[str, Role | str] = {
    "analyzeConversation": Role.EDITOR,
    "beginSignIn": PUBLIC,
    "cancelJob": Role.EDITOR,
    "changeMember": Role.ADMIN,
    "createJob": Role.EDITOR,
    "changeWebhook": Role.ADMIN,
    "changeWorkspace": Role.ADMIN,
    "createKey": Role.ADMIN,
    "createToken": CREDENTIAL,
    "createWebhook": Role.ADMIN,
    "deleteConversation": Role.ADMIN,
    "deleteConversations": Role.ADMIN,
    "deleteKey": Role.ADMIN,
    "deleteWebhook": Role.ADMIN,
    "endSession": Role.VIEWER,
    "findConversations": Role.VIEWER,
    "finishSignIn": PUBLIC,
    "getConversation": Role.VIEWER,
    "getInsights": Role.VIEWER,
    "getJob": Role.VIEWER,
    "getLiveness": PUBLIC,
    "getMe": Role.VIEWER,
    "getMetrics": PUBLIC,
    "getReadiness": PUBLIC,
    "getSummary": Role.VIEWER,
    "getTopics": Role.VIEWER,
    "getTrends": Role.VIEWER,
    "getUsage": Role.VIEWER,
    "getWorkspace": Role.VIEWER,
    "giveFeedback": Role.VIEWER,
    "inviteMember": Role.ADMIN,
    "listAudit": Role.ADMIN,
    "listDeliveries": Role.ADMIN,
    "listKeys": Role.ADMIN,
    "listMembers": Role.ADMIN,
    "listProviders": PUBLIC,
    "listUserConversations": Role.VIEWER,
    "listWebhooks": Role.ADMIN,
    "removeMember": Role.ADMIN,
    "replayDelivery": Role.ADMIN,
    "rotateKey": Role.ADMIN,
    "setBudget": Role.ADMIN,
    "storeMessages": Role.EDITOR,
    "summarizeConversation": Role.EDITOR,
}
"""Who may call an operation: the weakest role."""

QUERIES = {"deleteConversations": "?user_id=ana&max_delete_count=5", "findConversations": "?user_id=ana"}
"""What an operation needs in its query to be valid, or to be about something."""
BODILESS = {"createToken"}
"""Whose example in the document would be another credential."""
ENDING = ["endSession", "finishSignIn"]
"""After what the credential is gone."""
CONSUMES = {
    "deleteConversation": "conversation_id",
    "deleteConversations": "conversation_id",
    "deleteKey": "key_id",
    "deleteWebhook": "webhook_id",
    "removeMember": "member_id",
}
"""What is gone after an operation."""
RANK = [Role.VIEWER, Role.EDITOR, Role.ADMIN]


@dataclass(frozen=True)
class Operation:
    """An operation of the document with one kind of body."""

    name: str
    method: str
    path: str
    query: str
    parameters: frozenset[str]
    responses: frozenset[str]
    media: str = ""
    body: str = ""

    def request(self, ids: dict[str, str]) -> dict[str, Any]:
        """Returns a valid request about things of some ids."""
        return {
            "method": self.method,
            "url": self.path.format(**{name: ids[name] for name in self.parameters}) + self.query,
            "headers": {"Content-Type": self.media} if self.media else {},
            "content": self.body,
        }

    def renamed(self, named: dict[str, str]) -> "Operation":
        """Returns the operation about things of other names."""
        return replace(self, query=renamed(self.query, named), body=renamed(self.body, named))

    def __str__(self) -> str:
        return f"{self.name} {self.media}".strip()


def operations(app: FastAPI) -> list[Operation]:
    """Returns every operation of the document, once for each kind of body."""
    document = app.openapi()
    found = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            name = operation["operationId"]
            assert name in NEEDED, (
                f"{name} ({method.upper()} {path}) is new: say in NEEDED (tests/house/test_matrix.py) which role it"
                " needs, or PUBLIC; in QUERIES what its query must hold; in CONSUMES what is gone after it."
            )
            parameters = frozenset(each["name"] for each in operation.get("parameters", ()) if each["in"] == "path")
            fixed = name, method.upper(), path, QUERIES.get(name, ""), parameters, frozenset(operation["responses"])
            content = {} if name in BODILESS else operation.get("requestBody", {}).get("content", {})
            found += [Operation(*fixed, media, example(document, body)) for media, body in content.items()]
            found += [] if content else [Operation(*fixed)]
    return found


def example(document: dict[str, Any], body: dict[str, Any]) -> str:
    """Returns the example of a body."""
    if "example" in body:
        return str(body["example"])
    schema = body["schema"].get("anyOf", [body["schema"]])[0]
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return json.dumps(schema["examples"][0])


def refusal(operation: Operation, principal: Principal) -> tuple[int, str] | None:
    """Returns how somebody must be refused; None if not."""
    needed = NEEDED[operation.name]
    if needed == PUBLIC:
        return None
    if principal.by_cookie and not principal.proves_origin and operation.method not in SAFE_METHODS:
        return 403, "cross_site"
    if principal.role is None or (needed == CREDENTIAL and principal.by_token):
        return 401, "unauthenticated"
    if isinstance(needed, Role) and RANK.index(principal.role) < RANK.index(needed):
        return 403, "forbidden"
    return None


@dataclass
class Matrix:
    """A house, everybody, and every operation."""

    house: House
    answering: httpx.AsyncClient
    principals: list[Principal]
    operations: list[Operation]
    wrong: list[str] = field(default_factory=list)
    cells: int = 0

    async def ask(self, operation: Operation, headers: dict[str, str], ids: dict[str, str]) -> httpx.Response:
        """Sends a valid request."""
        request = operation.request(ids)
        request["headers"] |= headers
        if operation.name == "finishSignIn":
            state, browser = await self.house.begin()
            request["url"] += f"?code=code-of-zoe&state={state}"
            request["headers"]["Cookie"] = "; ".join([*browser.values(), headers.get("Cookie", "")])
        answer = await self.answering.request(**request)
        self.answering.cookies.clear()
        return answer

    def judge(self, operation: Operation, principal: Principal, answer: httpx.Response, says: str) -> None:
        """Counts a cell, and writes down what is wrong with it."""
        self.cells += 1
        if str(answer.status_code) not in operation.responses:
            says = says or "a status that the document does not name"
        if says:
            self.wrong.append(f"{operation} by {principal.name}: {says}: {answer.status_code} {answer.text[:200]}")


@pytest.fixture
async def matrix(house: House, fresh_instance: httpx.AsyncClient) -> Matrix:
    return Matrix(house, fresh_instance, await everybody(house), operations(house.app))


async def test_whoever_is_refused_is_told_so_alike_and_changes_nothing(
    matrix: Matrix, request: pytest.FixtureRequest
) -> None:
    before, forbidden = state(matrix.house.database), 0
    for principal in matrix.principals:
        for operation in matrix.operations:
            expected = refusal(operation, principal)
            if expected is None:
                continue
            answer = await matrix.ask(operation, principal.headers, matrix.house.ids)
            told = answer.status_code, answer.json().get("code")
            says = "" if told == expected else f"expected {expected}"
            if (answer.headers.get("WWW-Authenticate") == "Bearer") != (expected[0] == 401):
                says = says or "WWW-Authenticate"
            if (after := state(matrix.house.database)) != before:
                says, before = "something changed", after
            matrix.judge(operation, principal, answer, says)
            forbidden += expected == (403, "forbidden")
    assert not matrix.wrong, "\n".join(matrix.wrong)
    denied = "SELECT count(*) FROM audit_log WHERE action = 'access.denied' AND details->>'reason' = 'role'"
    assert matrix.house.database.execute(denied.encode()).fetchone() == (forbidden,)
    note(request, matrix, "refused")


async def test_whoever_may_is_let_in(matrix: Matrix, request: pytest.FixtureRequest) -> None:
    for principal in matrix.principals:
        for operation in sorted(matrix.operations, key=lambda each: [each.name == name for name in ENDING]):
            if refusal(operation, principal) is not None:
                continue
            answer = await matrix.ask(operation, principal.headers, matrix.house.ids)
            no_session = operation.name == "endSession" and not (principal.by_cookie or principal.by_token)
            allowed = answer.status_code == 409 if no_session else answer.status_code < 400
            matrix.judge(operation, principal, answer, "" if allowed else "not let in")
            if operation.name in CONSUMES:
                await matrix.house.replace(CONSUMES[operation.name])
    assert not matrix.wrong, "\n".join(matrix.wrong)
    note(request, matrix, "let in")


async def test_another_workspaces_admin_is_answered_as_if_ours_did_not_exist(
    matrix: Matrix, request: pytest.FixtureRequest
) -> None:
    house = matrix.house
    numbers = {name: str(random_id()) for name in ("job_id", "key_id", "member_id", "webhook_id")}
    numbers["delivery_id"] = str(uuid.uuid4())
    numbers["scope"] = f"key:{numbers['key_id']}"
    absent = {"conversation_id": "order-9999", "user_id": "eva", "provider": Provider.GITHUB, **numbers}
    named = {house.ids[name]: absent[name] for name in absent}
    before = state(house.database, house.workspace_id)
    for principal in await strangers(house):
        for operation in matrix.operations:
            if operation.name in ENDING or NEEDED[operation.name] == PUBLIC or refusal(operation, principal):
                continue
            answer = await matrix.ask(operation, principal.headers, house.ids)
            other = operation.renamed(named)
            says = "" if state(house.database, house.workspace_id) == before else "ours has changed"
            if operation.request(house.ids) != other.request(absent):
                house.database.execute("DELETE FROM conversations WHERE workspace_id <> %s", [house.workspace_id])
                gone = await matrix.ask(other, principal.headers, absent)
                if seen(answer, named) != seen(gone, named):
                    says = says or f"an absent one is told {gone.status_code} {gone.text[:200]}"
                if operation.parameters & {"conversation_id", *numbers} and answer.status_code != 404:
                    says = says or "not absent"
            elif answer.status_code >= 400 or any(number in answer.text for number in house.numbers()):
                says = says or "not let in, or told of ours"
            matrix.judge(operation, principal, answer, says)
    assert not matrix.wrong, "\n".join(matrix.wrong)
    note(request, matrix, "of another workspace")


def note(request: pytest.FixtureRequest, matrix: Matrix, what: str) -> None:
    """Keeps the size of the matrix, for the summary."""
    whole = f"{len(matrix.operations)} operations by {len(matrix.principals)} principals"
    request.node.user_properties.append((SIZE, f"{matrix.cells} cells {what}: {whole}"))


async def test_the_guards_are_those_of_the_table(app: FastAPI) -> None:
    def roles(dependant: Dependant) -> set[Role]:
        own = {dependant.call.role} if isinstance(dependant.call, AtLeast) else set()
        return own.union(*(roles(part) for part in dependant.dependencies))

    modules = (analyses, analytics, audit, auth, chats, health, jobs, members, webhooks, workspaces)
    routes = [route for module in modules for route in module.router.routes if isinstance(route, APIRoute)]
    found = {route.operation_id: roles(route.dependant) for route in routes}
    assert set(found) == {operation.name for operation in operations(app)}
    assert found == {name: {needed} if isinstance(needed, Role) else set() for name, needed in NEEDED.items()}


async def test_the_document_says_which_credentials_an_operation_takes(app: FastAPI) -> None:
    document = app.openapi()
    schemes: list[dict[str, list[str]]] = [{name: []} for name in document["components"]["securitySchemes"]]
    assert len(schemes) == 3
    for methods in document["paths"].values():
        for operation in methods.values():
            public = NEEDED[operation["operationId"]] == PUBLIC
            assert operation.get("security", []) == ([] if public else schemes)
            assert public or {"401", "403", "429"} <= set(operation["responses"])


async def test_a_new_operation_must_be_in_the_table(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(NEEDED, "listAudit")
    with pytest.raises(AssertionError, match=r"listAudit \(GET /audit\) is new: say in NEEDED"):
        operations(app)
