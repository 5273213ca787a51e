"""Comparing models and prompts at the command line, with Grok and Gemini on loopback."""

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from app.__main__ import cli
from app.commands.common import out
from app.errors import ConfigurationError
from app.factory import Services
from app.llm.tasks import PROMPTS, SUMMARY, summary_task
from app.services import evaluation
from app.services.drafts import checked_summary
from app.settings import ROOT, Settings
from tests.conftest import MASTER_KEY, SECRET_KEY, url_of
from tests.support.api import Workspace, message
from tests.support.providers import (
    GEMINI_KEY,
    XAI_KEY,
    Providers,
    Reply,
    failure,
    gemini_reply,
    grok_reply,
    open_providers,
    summary_answer,
)

GROK, GEMINI, LOCAL = "xai/grok-4.3", "gemini/gemini-2.5-flash", "local/extractive"
GROK_USD = 1_000 * 1.25e-6 + 100 * 2.5e-6
GEMINI_USD = 2_000 * 0.3e-6 + 200 * 2.5e-6
QUOTE = {"message_id": "[MESSAGE_1]", "quote": "My parcel is late."}


def dialogue(place: int, **more: object) -> dict[str, object]:
    return {
        "messages": [
            {"role": "customer", "text": f"My parcel is late. Mail ana{place}@example.org!"},
            {"role": "agent", "text": "I will send another by Friday."},
        ],
        "references": ["The parcel is late"],
        "labels": {"sentiment": "negative", "outcome": "yes", "keywords": ["Parcels", "refund"]},
        **more,
    }


@pytest.fixture
async def providers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Providers]:
    async with open_providers() as opened:
        environment = {
            "XAI_API_KEY": XAI_KEY,
            "XAI_API_BASE": f"{opened.url}/xai/v1",
            "GEMINI_API_KEY": GEMINI_KEY,
            "GEMINI_API_BASE": f"{opened.url}/gemini/v1beta",
            "DATA_DIR": str(tmp_path / "data"),
            "MASTER_KEY": MASTER_KEY,
            "SECRET_KEY": SECRET_KEY,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(out, "width", 100)  # it has been measured by now, wherever this runs
        opened.grok.reply = grok_reply(summary_answer())
        opened.gemini.reply = gemini_reply(summary_answer())
        yield opened


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "dialogues.jsonl"
    path.write_text("\n".join(json.dumps(dialogue(place)) for place in range(4)))
    return path


def folder(path: Path, name: str, **prompts: str) -> Path:
    made = path / name
    made.mkdir()
    for prompt, text in prompts.items():
        (made / f"{prompt}.md").write_text(text)
    return made


async def evaluate(*arguments: object) -> Result:
    with capture_logs():  # as the command line configures them: not on standard output
        return await asyncio.to_thread(CliRunner().invoke, cli, ["evaluate", *map(str, arguments)])


async def figures(*arguments: object) -> dict[str, Any]:
    result = await evaluate(*arguments, "--json", "--yes")
    assert result.exit_code == 0, (result.output, result.exception)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def parts(row: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


async def test_two_models_and_two_sets_of_prompts_are_rows_of_one_table(
    providers: Providers, file: Path, tmp_path: Path
) -> None:
    short = folder(tmp_path, "short", summary="Summarise in one line.")
    merged = folder(tmp_path, "merged", merge="Merge.")
    providers.grok.reply = grok_reply(summary_answer(summary="The parcel is late"))
    arguments = [file, "--model", GROK, "--model", GEMINI, "--prompts", short, "--prompts", merged]
    found = await figures(*arguments)
    rows = {(row["model"], row["prompts"]): row for row in found["rows"]}
    assert list(rows) == [(GROK, "short"), (GROK, "merged"), (GEMINI, "short"), (GEMINI, "merged")]
    for path in (short, merged):
        version = summary_task(path).version
        assert version != SUMMARY.version
        assert {rows[model, path.name]["prompt_version"] for model in (GROK, GEMINI)} == {version}
    assert {rows[GROK, "short"][name] for name in ("rouge1", "rouge2", "rougeL")} == {1.0}
    # "The customer's parcel is late; the agent sends another." is 10 words to ROUGE, "s" among them. They hold all four
    # of the reference in their order, and two of its three pairs.
    gemini = rows[GEMINI, "short"]
    assert gemini["rouge1"] == pytest.approx(2 * (4 / 10) / (4 / 10 + 1))
    assert gemini["rouge2"] == pytest.approx(2 * (2 / 9) * (2 / 3) / (2 / 9 + 2 / 3))
    assert gemini["rougeL"] == gemini["rouge1"]
    for row, usd in [(rows[GROK, "merged"], GROK_USD), (gemini, GEMINI_USD)]:
        assert parts(row, "dialogues", "failures", "calls", "schema_failures") == (4, 0, 4, 0)
        assert parts(row, "sentiment_accuracy", "outcome_accuracy", "keywords_found") == (1.0, 0.0, 0.5)
        assert row["cost_usd_per_dialogue"] == pytest.approx(usd)
        assert row["cost_usd"] == pytest.approx(4 * usd)
        assert 0 < row["latency_ms_median"] <= row["latency_ms_p95"]
    assert parts(gemini, "summary_words", "evidence_items", "evidence_rate") == (9.0, 0, None)
    assert found["baselines"]["lead-3"]["rouge1"] > 0
    assert "rouge1" not in found
    asked = [request.body["messages"][0]["content"] for request in providers.grok.requests]
    assert sorted(set(asked)) == sorted(["Summarise in one line.", SUMMARY.prompt])
    shown = await evaluate(*arguments, "--yes")
    lines = shown.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    for text in (GROK, GEMINI, "short", "merged", summary_task(short).version, "lead-3", "100.0", f"{GROK_USD:.4f}"):
        assert text in shown.stdout, text


async def test_by_default_the_configured_models_and_the_engine_are_compared_and_identifiers_are_hidden(
    providers: Providers, file: Path
) -> None:
    found = await figures(file)
    assert [parts(row, "model", "prompts", "calls") for row in found["rows"]] == [
        (GROK, "prompts", 4),
        (GEMINI, "prompts", 4),
        (LOCAL, None, 0),
    ]
    engine = found["rows"][2]
    assert parts(engine, "evidence_rate", "cost_usd", "schema_failure_rate", "failures") == (1.0, 0.0, None, 0)
    assert parts(found, "rouge1", "rougeL", "invented", "evidence_found") == (engine["rouge1"], engine["rougeL"], 0, 1)
    assert set(found["baselines"]) >= {"lead-3", "longest-3", "sumy LexRank"}
    assert found["ratings"] is None
    assert "example.org" not in str([request.body for request in providers.requests])
    for name in (GROK, GEMINI):
        [usd] = [usd for title, usd in found["estimated_usd"].items() if title.startswith(name)]
        assert 0 < usd < 0.1


async def test_garbage_half_of_the_time_is_shown_and_quotes_are_checked(providers: Providers, file: Path) -> None:
    true = {"text": "It is late", "evidence": [QUOTE]}
    lie = {"text": "A refund", "evidence": [{**QUOTE, "quote": "refund granted"}]}
    foreign = {"text": "Elsewhere", "evidence": [{**QUOTE, "message_id": "[MESSAGE_9]"}]}
    providers.grok.reply = grok_reply(summary_answer(decisions=[true, true, lie, foreign]))
    providers.grok.replies = [grok_reply("Sure! Here it is:")] * 4
    providers.grok.hold()
    running = asyncio.create_task(figures(file, "--model", GROK))
    # All four are asked before one is answered, so that each is answered badly once.
    while len(providers.grok.requests) < 4:
        await providers.grok.asked.wait()
        providers.grok.asked.clear()
    providers.grok.gate.set()
    row = (await running)["rows"][0]
    assert parts(row, "calls", "schema_failures", "schema_failure_rate", "failures") == (8, 4, 0.5, 0)
    assert parts(row, "evidence_items", "evidence_rate") == (16, 0.5)
    assert row["cost_usd_per_dialogue"] == pytest.approx(2 * GROK_USD)


@pytest.mark.usefixtures("providers")
async def test_a_dialogue_that_fails_on_our_side_does_not_end_the_rest(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[object] = []

    def check(*given: Any) -> Any:
        if not failed:
            failed.append(given)
            raise RuntimeError
        return checked_summary(*given)

    monkeypatch.setattr(evaluation, "checked_summary", check)
    [row] = (await figures(file, "--model", GROK))["rows"]
    assert parts(row, "dialogues", "calls", "failures", "failure_reasons") == (4, 4, 1, {"internal": 1})


@pytest.fixture
def eight(file: Path) -> Path:
    """As many dialogues as open a circuit breaker."""
    file.write_text("\n".join(json.dumps(dialogue(place)) for place in range(8)))
    return file


async def test_a_model_that_is_down_fails_and_the_others_go_on(providers: Providers, eight: Path) -> None:
    providers.grok.reply = failure(401)
    providers.gemini.replies = [Reply(b"", manner="reset"), failure(400)]
    found = await figures(eight, "--model", GROK, "--model", GEMINI)
    grok, gemini = found["rows"]
    assert parts(grok, "failures", "failure_reasons", "rouge1", "latency_ms_p95", "summary_words") == (
        *(8, {"unauthorized": 8}),
        *(None, None, None),
    )
    assert grok["cost_usd"] == 0
    assert parts(gemini, "failures", "failure_reasons", "with_references") == (1, {"rejected": 1}, 7)
    assert gemini["cost_usd"] > GEMINI_USD * 7 + 16_384 * 2.5e-6, "nobody knows what the call that broke off cost"
    shown = await evaluate(eight, "--model", GROK, "--yes")
    assert "unauthorized 8" in shown.stdout
    assert "100.0" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "grok"], "write a model as provider/name"),
        (["--model", LOCAL, "--prompts", str(ROOT / "tests")], "holds no prompt"),
        (["--model", LOCAL, "--prompts", str(PROMPTS)], "reads no prompts"),
        ([], "say --yes"),
        (["--model", GROK], "say --yes"),
    ],
)
async def test_what_makes_no_sense_or_was_not_agreed_to_is_refused_and_nothing_is_asked(
    providers: Providers, file: Path, arguments: list[str], says: str
) -> None:
    result = await evaluate(file, *arguments)
    assert isinstance(result.exception, ConfigurationError)
    assert says in str(result.exception)
    assert not providers.requests


async def start(*arguments: object, stdin: int = asyncio.subprocess.DEVNULL) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", "evaluate", *map(str, arguments)),
        cwd=ROOT,
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_who_says_no_spends_nothing(providers: Providers, file: Path) -> None:
    ours, theirs = pty.openpty()
    process = await start(file, "--model", GROK, stdin=theirs)
    os.write(ours, b"n\n")
    out, err = await process.communicate()
    os.close(ours)
    os.close(theirs)
    assert (process.returncode, out.strip()) == (1, b"")
    assert b"About 0.0" in err
    assert b"Ask them? [y/N]" in err
    assert b"Traceback" not in err
    assert not providers.requests


async def test_an_interruption_shows_what_was_measured_until_then(providers: Providers, file: Path) -> None:
    providers.grok.hold()
    process = await start(file, "--model", GROK, "--model", LOCAL, "--json", "--yes")
    await providers.grok.asked.wait()
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert process.returncode == 128 + signal.SIGINT
    assert b"Traceback" not in err
    found = json.loads(out)
    assert found["interrupted"]
    assert [parts(row, "model", "dialogues") for row in found["rows"]] == [(LOCAL, 4)]


async def test_without_a_key_or_anything_to_measure_on_it_says_so(
    providers: Providers, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XAI_API_KEY")
    keyless = await evaluate(file, "--model", GROK, "--yes")
    assert "XAI_API_KEY is not set" in str(keyless.exception)
    assert "Name a FILE" in str((await evaluate("--yes")).exception)
    assert not providers.requests


class TestFeedback:
    """On what people said of summaries."""

    @pytest.fixture
    def settings(self, settings: Settings, providers: Providers) -> Settings:
        return settings.model_copy(update=providers.settings)

    @pytest.fixture
    async def said(
        self,
        workspace: Workspace,
        other_workspace: Workspace,
        providers: Providers,
        postgresql: psycopg.Connection,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """One summary by Grok, rated by two, one by the built-in engine, and one of somebody else."""
        monkeypatch.setenv("DATABASE_URL", url_of(postgresql))
        for number in range(4):
            sent = message(f"c{number}", message_content=f"Parcel {number} is late. Mail ana{number}@example.org!")
            assert (await workspace.editor.post("/chats", json=sent)).status_code == 201
        assert (await other_workspace.editor.post("/chats", json=message("theirs"))).status_code == 201
        corrections = {
            "summary": "The parcel is late",
            "sentiment": "negative",
            "outcome": "yes",
            "keywords": ["parcel"],
        }
        await rate(workspace.admin, "c0", "down", corrections=corrections)
        await rate(workspace.editor, "c0", "up", corrections={"summary": "late", "outcome": "maybe"})
        await rate(other_workspace.editor, "theirs", "up", corrections=corrections)
        providers.grok.reply = providers.gemini.reply = failure(400)
        await rate(workspace.admin, "c1", "up")
        providers.grok.reply = grok_reply(summary_answer(summary="The parcel is late"))
        providers.grok.requests.clear()
        # It came after what people spoke of.
        later = message("c0", "m2", message_content="A later word.", timestamp="2999-01-01T00:00:00Z")
        assert (await workspace.editor.post("/chats", json=later)).status_code == 201

    @pytest.mark.usefixtures("said")
    async def test_corrections_are_references_and_labels_and_ratings_are_counted_by_version(
        self, workspace: Workspace, providers: Providers, postgresql: psycopg.Connection, tmp_path: Path
    ) -> None:
        found = await figures("--feedback", "ours", "--model", GROK, "--model", LOCAL)
        assert parts(found, "dialogues", "with_references") == (2, 1)
        grok, _ = found["rows"]
        # Of the two references one is said word for word, the other is one of its four words.
        assert grok["rouge1"] == pytest.approx((1.0 + 2 * 0.25 / 1.25) / 2)
        assert parts(grok, "sentiment_accuracy", "outcome_accuracy", "keywords_found") == (1.0, 1.0, 1.0)
        assert parts(grok, "dialogues", "calls", "failures") == (2, 2, 0)
        assert found["ratings"] == [
            {"prompt_version": SUMMARY.version, "model": LOCAL, "up": 1, "down": 0},
            {"prompt_version": SUMMARY.version, "model": GROK, "up": 1, "down": 1},
        ]
        read = [json.loads(request.body["messages"][1]["content"]) for request in providers.grok.requests]
        assert sorted(turn["text"] for turns in read for turn in turns) == [
            "Parcel 0 is late. Mail [EMAIL_1]!",
            "Parcel 1 is late. Mail [EMAIL_1]!",
        ]
        calls = "SELECT actor, task, model, outcome, cost_usd FROM llm_calls WHERE actor = 'operator'"
        rows = postgresql.execute(calls).fetchall()
        postgresql.rollback()
        assert [(*row[:4], float(row[4])) for row in rows] == [("operator", "summary", GROK, "answered", GROK_USD)] * 2
        assert not list((tmp_path / "data").glob("*"))
        shown = await evaluate("--feedback", "ours", "--model", LOCAL)
        assert "How people rated" in shown.stdout
        assert "Parcel" not in shown.stdout

    @pytest.mark.usefixtures("said")
    async def test_the_newest_are_read_as_the_workspace_lets_providers_see_them(
        self, workspace: Workspace, providers: Providers, file: Path
    ) -> None:
        assert (await workspace.admin.patch("/workspace", json={"redact": False})).status_code == 200
        found = await figures(file, "--feedback", "ours", "--model", GROK, "--limit", "1")
        assert parts(found, "dialogues", "with_references") == (5, 4)
        assert [each["up"] + each["down"] for each in found["ratings"]] == [1]
        sent = [request.body["messages"][1]["content"] for request in providers.grok.requests]
        assert [each for each in sent if "example.org" in each] == [each for each in sent if "Parcel 1" in each]
        assert len(sent) == 5

    @pytest.mark.usefixtures("said")
    async def test_a_budget_that_is_spent_holds(self, workspace: Workspace, providers: Providers) -> None:
        assert (await workspace.admin.put("/analytics/budgets/workspace", json={"day_usd": 0.0})).status_code < 300
        [row] = (await figures("--feedback", "ours", "--model", GROK))["rows"]
        assert parts(row, "failures", "failure_reasons", "calls") == (2, {"over_budget": 2}, 0)
        assert not providers.grok.requests

    async def test_without_feedback_or_workspace_it_says_so(
        self, services: Services, postgresql: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DATABASE_URL", url_of(postgresql))
        await services.workspaces.get_or_create("silent")
        assert "Nobody has said anything" in str((await evaluate("--feedback", "silent")).exception)
        assert "There is no workspace nobody" in str((await evaluate("--feedback", "nobody")).exception)


async def rate(client: httpx.AsyncClient, conversation_id: str, rating: str, **more: object) -> None:
    await client.post("/chats/summarize", json={"conversation_id": conversation_id})
    given = await client.post(f"/chats/{conversation_id}/summary/feedback", json={"rating": rating, **more})
    assert given.status_code == 201, given.text
