"""The benchmark compares like with like: its yardstick answers as the service does."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psycopg
import pytest
from pytest_postgresql import factories

from tests.bench import yardstick
from tests.bench.data import Words, choose_words, generate, write
from tests.bench.measure import Sample
from tests.bench.operations import operations, plain
from tests.bench.report import Findings, Row, grids
from tests.conftest import url_of
from tests.support.api import Workspace

MESSAGES = 400
JSON = {"Content-Type": "application/json"}


# Apart from the service's database, in which no text may be found.
bare_postgresql = factories.postgresql("postgresql_proc", dbname="bare")


@pytest.fixture
async def bare(bare_postgresql: psycopg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    names = "workspace_id, name, master_key_id, wrapped_key"
    bare_postgresql.execute(f"INSERT INTO workspaces ({names}) VALUES (%s, '', '', '')".encode(), [yardstick.WORKSPACE])
    bare_postgresql.commit()
    app = yardstick.Yardstick(url_of(bare_postgresql), pool_size=2, statement_cache_size=100)
    await app.open()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as opened:
        yield opened
    await app.close()


async def test_the_yardstick_answers_as_the_service_does(
    workspace: Workspace, bare: httpx.AsyncClient, tmp_path: Path
) -> None:
    messages = list(generate(MESSAGES))
    data = write(messages, tmp_path / "data", yardstick.WORKSPACE)
    lines = (data.folder / "messages.ndjson").read_text().splitlines()
    # The last conversation comes one by one, and its last message before the others.
    batch, single = lines[:-20], [lines[-1], *lines[-20:-1]]
    for body in (f"[{','.join(batch)}]", *single):
        one, other = [await side.post("/chats", content=body, headers=JSON) for side in (workspace.admin, bare)]
        assert (one.status_code, one.json()) == (other.status_code, other.json())
    reads = [each for each in operations(data, Words(), lambda: messages) if each.method == "GET"]
    for path in (path for each in reads for path in each.lines(lambda _: {"next_cursor": None})):
        one, other = [await side.get(path) for side in (workspace.admin, bare)]
        assert (one.status_code, plain(one.json())) == (other.status_code, plain(other.json())), path
        assert one.json().get("data", one.json().get("messages")), path
    some = messages[0]
    for path in (f"/chats/{some.conversation_id}", f"/chats?user_id={some.user_id}&max_delete_count=100"):
        one, other = [await side.delete(path) for side in (workspace.admin, bare)]
        assert (one.status_code, one.json()) == (other.status_code, other.json())


async def test_a_cursor_of_the_yardstick_goes_on_where_its_page_ended(bare: httpx.AsyncClient, tmp_path: Path) -> None:
    data = write(generate(MESSAGES), tmp_path / "data", yardstick.WORKSPACE)
    lines = (data.folder / "messages.ndjson").read_text().splitlines()
    await bare.post("/chats", content=f"[{','.join(lines)}]", headers=JSON)
    path = f"/users/{data.sender}/chats?limit=6"
    pages = [(await bare.get(f"{path}&page={page}")).json() for page in range(1, 5)]
    for page, following in zip(pages, [*pages[1:], None], strict=True):
        assert (page["next_cursor"] is None) == (following is None)
        if following:
            assert (await bare.get(f"{path}&cursor={page['next_cursor']}")).json() == following


@pytest.mark.parametrize("messages", [1, 21, 120])
def test_a_small_file_leaves_out_what_it_has_too_little_for(tmp_path: Path, messages: int) -> None:
    said = list(generate(messages))
    every = operations(write(said, tmp_path / "data", yardstick.WORKSPACE), choose_words(said), lambda: said)
    lines = {each.name: each.lines(lambda _: {"next_cursor": None}) for each in every}
    assert lines["read conversation"]
    assert lines["date range"]
    assert [bool(lines[f"insert {size}"]) for size in (1, 100, 1000)] == [True, messages >= 100, False]


def test_a_missing_size_is_a_gap_in_the_growth() -> None:
    def row(messages: int, operation: str, cpu_us: float) -> Row:
        return Row(messages, operation, 1, *[[Sample(cpu_us * side, 0.0, 0.0, 1.0)] for side in (1, 2)])

    rows = [row(100, "both", 8.0), row(10, "both", 4.0), row(100, "large", 6.0), row(10, "idle", 0.0)]
    *_, growth = grids(Findings({}, rows, [], [], []))
    assert growth.columns[2:4] == ("10", "100")
    assert growth.cells == [
        ("both", "1", "4", "8", "2.00", "2.00"),
        ("large", "1", "-", "6", "-", "-"),
        ("idle", "1", "0", "-", "-", "-"),
    ]
    assert [table.title for table in grids(Findings({}, rows[:1], [], [], []))] == ["100 messages"]
