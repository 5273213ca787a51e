"""The command line, as a newcomer and as an operator use it: real processes, the embedded PostgreSQL."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import orjson
import psutil
import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from app.__main__ import cli
from app.commands.common import out
from app.settings import ROOT, Settings
from tests.support.canaries import MASTER_KEY, SECRET_KEY

CSV = (
    'who,side,what,thread\nana,customer,"first, and\nsecond line",t1\nbob,support_agent,hello,t1\nbob,robot,hello,t1\n'
)
COLUMNS = ["user_id=who", "user_type=side", "message_content=what", "conversation_id=thread"]


class CommandLine:
    """Runs commands on a data folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.port = free_port()
        self.output: Iterable[str] = ()
        self.environment = {**os.environ, "DATA_DIR": str(self.data), "PORT": str(self.port), "COLUMNS": "200"}
        ui_port = free_port()
        self.interface = f"http://localhost:{ui_port}"
        self.environment["UI_PORT"] = str(ui_port)

    def __call__(self, *arguments: str, module: str = "app", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    @contextmanager
    def running(self, *arguments: str, end: signal.Signals = signal.SIGINT) -> Iterator[list[str]]:
        """Runs a server until the block ends; yields what it has printed up to then."""
        command = [sys.executable, "-m", *arguments]
        with subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                assert process.stdout
                self.output = process.stdout
                yield self.until("Uvicorn running")
            finally:
                process.send_signal(end)
                process.communicate(timeout=30)
        assert not self.servers()
        assert not self.workers()
        with pytest.raises(httpx.ConnectError):
            httpx.get(self.interface)

    def until(self, text: str) -> list[str]:
        """Returns what is printed up to a line with a text."""
        printed: list[str] = []
        for line in self.output:
            printed.append(line)
            if text in line:
                return printed
        pytest.fail("".join(printed))

    def servers(self) -> list[int]:
        """Returns the PostgreSQL servers that run in the data folder."""
        commands = ((process.pid, process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
        return [pid for pid, command in commands if "-D" in command and str(self.data / "postgres") in command]

    def workers(self) -> list[psutil.Process]:
        """Returns the workers on the data folder."""
        found = (process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"])
        working = [process for process in found if process.info["cmdline"][1:] == ["-m", "app", "work"]]
        return [process for process in working if process.environ().get("DATA_DIR") == str(self.data)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def run(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


def test_the_main_job_runs_from_nothing_and_repeats_nothing(run: CommandLine) -> None:
    with run.running("app", "demo") as printed:
        shown = "".join(printed)
        for part in (
            "3,659 stored",
            "822 stored",
            "102 stored",
            "Conversation abcd-3592",
            "Summary by local/extractive",
        ):
            assert part in shown
        key = (run.data / "admin_key").read_text().strip()
        assert stat.S_IMODE((run.data / "admin_key").stat().st_mode) == 0o600
        with httpx.Client(base_url=f"http://127.0.0.1:{run.port}", headers={"X-API-Key": key}) as client:
            assert client.get("/readyz").status_code == 200
            assert client.get("/chats/abcd-3592/summary").json()["provenance"]["model"] == "local/extractive"
            page = client.get("/docs").text
            assert client.get(page.partition('src="')[2].partition('"')[0]).status_code == 200
            assert "https://" not in page.replace("https://github.com", "")
        interface = httpx.Client(transport=httpx.HTTPTransport(retries=10), base_url=run.interface)
        with interface:
            assert interface.get("/_stcore/health").text == "ok"
            assert "default-src 'none'" in interface.get("/").headers["Content-Security-Policy"]
        assert run.interface in shown
        made = {path.name for path in run.data.iterdir()}
        assert made == {".lock", "admin_key", "master_key", "postgres", "secret_key"}
        [worker] = run.workers()
        worker.kill()
        run.until("process_ended")
        run.until("worker_ready")
        assert run.workers() not in ([], [worker])
    with run.running("app", "demo", end=signal.SIGTERM) as printed:
        shown = "".join(printed)
        assert "are there" in shown
        assert "stored" not in shown


def test_a_first_start_that_was_killed_is_begun_anew(run: CommandLine) -> None:
    half = run.data / "postgres"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    (run.data / ".initializing").touch()
    assert run("migrate").returncode == 0
    assert not (run.data / ".initializing").exists()


def test_a_number_of_a_dead_server_harms_no_other_process(run: CommandLine) -> None:
    assert run("migrate").returncode == 0
    folder = run.data / "postgres"
    with subprocess.Popen(["sleep", "600"]) as other:
        (folder / "postmaster.pid").write_text(f"{other.pid}\n{folder}\n1\n5432\n{folder}\n\n  1 1\nready\n")
        (folder / ".handle_pids.json").write_text("")
        assert run("workspaces", "list").returncode == 0
        assert other.poll() is None
        other.kill()


def test_a_database_that_is_not_migrated_is_told_so_and_then_makes_a_key(run: CommandLine) -> None:
    early = run("workspaces", "list")
    assert early.returncode == 1
    assert "alembic upgrade head" in early.stderr
    assert run("upgrade", "head", module="alembic").returncode == 0
    made = run("keys", "create", "--workspace", "acme", "--role", "viewer")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("ck_")
    assert len(made.stdout.splitlines()) == 1
    missing = run("keys", "list", "--workspace", "nobody")
    assert (missing.returncode, missing.stderr.strip()) == (1, "There is no workspace nobody.")


def test_keys_and_workspaces_are_made_and_listed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("database_url", "master_key", "secret_key"):
        monkeypatch.setenv(name.upper(), getattr(settings, name).get_secret_value())
    monkeypatch.setattr(out, "width", 200)

    def run(*arguments: str) -> str:
        with capture_logs():
            result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, (result.output, result.exception)
        return result.stdout

    key = run("keys", "create", "--workspace", "acme", "--role", "viewer").strip()
    assert key.startswith("ck_")
    assert "acme" in run("workspaces", "list")
    listed = run("keys", "list", "--workspace", "acme")
    assert "viewer" in listed
    assert key not in listed
    identifier = next(word for word in listed.split() if word.isdigit() and len(word) > 15)
    run("keys", "revoke", "--workspace", "acme", identifier)
    assert identifier not in run("keys", "list", "--workspace", "acme")


def test_a_csv_with_other_column_names_is_loaded_once(run: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "theirs.csv"
    file.write_text(
        "id," + CSV.replace("\nana", "\n1,ana").replace("\nbob", "\n2,bob").replace("2,bob,robot", "3,bob,robot")
    )
    options = [f"--column={column}" for column in [*COLUMNS, "message_id=id"]]
    run("upgrade", "head", module="alembic")
    first = run("seed", str(file), "--workspace", "acme", *options)
    assert "2 stored, 0 duplicates, 1 rejected" in first.stdout
    assert f"{file.name}:5: enum: user_type" in first.stderr
    assert first.returncode == 1
    assert "0 stored, 2 duplicates, 1 rejected" in run("seed", str(file), "--workspace", "acme", *options).stdout
    wrong = run("seed", str(file), "--column=nothing=x")
    assert (wrong.returncode, "write FIELD=NAME" in wrong.stderr) == (1, True)


def test_evaluate_prints_figures_as_json(run: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "dialogues.jsonl"
    turns = [("customer", "My blue parcel never came."), ("support_agent", "We send a new parcel to you today.")]
    messages = [{"speaker": role, "role": role, "text": text} for role, text in turns]
    dialogue = {
        "id": "1",
        "messages": messages,
        "references": ["The parcel never came and a new parcel is sent today."],
    }
    file.write_bytes(orjson.dumps(dialogue) + b"\n")
    found = run("evaluate", str(file), "--json")
    assert found.returncode == 0, found.stderr
    figures = orjson.loads(found.stdout)
    assert 0 < figures["rouge1"] <= 1
    assert set(figures) >= {"rouge1", "rouge2", "rougeL", "baselines"}
    assert "rouge" in run("evaluate", str(file)).stdout.lower()


def test_a_wrong_start_is_one_readable_message(run: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = run("demo", PORT=str(taken.getsockname()[1]))
    assert (busy.returncode, "Cannot listen on 127.0.0.1" in busy.stderr) == (1, True)
    for arguments, environment, says in [
        (["serve"], {"PORT": "0"}, "PORT: "),
        (["serve"], {"HOST": "nowhere.invalid"}, "Cannot listen on nowhere.invalid"),
        (["migrate"], {"DATABASE_URL": "mysql://u:canary-7f3a@127.0.0.1/x"}, "DATABASE_URL: "),
        (["serve"], {"MASTER_KEY": ","}, "MASTER_KEY: "),
        (["migrate"], {"DATABASE_URL": "postgresql://u:canary-7f3a@127.0.0.1:9/x"}, "The database does not answer"),
        (["workspaces", "list"], {"DATA_DIR": "/tmp/" + "x" * 100}, "PostgreSQL cannot run in"),
        (["workspaces", "list"], {"DATABASE_URL": "postgresql://u:canary-7f3a@127.0.0.1:9/x"}, "MASTER_KEY is not set"),
        (
            ["workspaces", "list"],
            {
                "DATABASE_URL": "postgresql://u:canary-7f3a@127.0.0.1:9/x",
                "MASTER_KEY": MASTER_KEY,
                "SECRET_KEY": SECRET_KEY,
            },
            "The database does not answer",
        ),
    ]:
        found = run(*arguments, **environment)
        assert found.returncode == 1
        assert says in found.stderr
        assert "Traceback" not in found.stderr
        assert "canary" not in found.stderr


def test_uvicorn_refuses_a_database_that_was_not_migrated(run: CommandLine) -> None:
    found = run("app.main:app", "--port", str(run.port), module="uvicorn")
    assert found.returncode != 0
    assert "alembic upgrade head" in found.stderr
    assert "Traceback" not in found.stderr
    assert not run.servers()
