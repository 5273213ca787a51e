"""Every command in the documentation runs as it stands, in the order of a reader, and shows what it is said to show."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from app.__main__ import cli
from app.settings import ROOT, Settings
from tests.support.markdown import Block, blocks, commands, differences, documents, spans
from tests.test_command_line import free_port

PAGES = ["README.md", "CONTRIBUTING.md"]

# ---- Exceptions: all of them stand here --------------------------------------------------------------------------
NOT_RUN = {
    "./scripts/run": "the service that all the others talk to: it is started first",
    "./scripts/test": "what runs this test",
    "scripts/bench": "takes 20 minutes, needs wrk",
    "scripts/faults": "takes minutes; tests/test_faults.py tries what it is made of",
    "scripts/lock": "asks the package index",
    "docker compose": "needs Docker; tests/house/test_deployment.py looks at what it is given",
    "./scripts/check": "tests/house/test_rules.py runs the same tools",
    ".venv/bin/python -m app evaluate dialogues.jsonl --model": "asks a provider",
    ".venv/bin/python -m app evaluate --feedback": "the feedback went with its conversation, which the reader deletes",
}
"""Beginnings of commands that do not run here, and why. That they and their options exist is checked."""

FILES = {
    "my.csv": "conversation_id,message_id,user_id,user_type,text\nt-1,1,ana,customer,Hello?\n",
    "dialogues.jsonl": '{"messages": [{"role": "customer", "text": "Where is my parcel?"}]}\n',
}
"""What a reader is assumed to have."""

VOLATILE = frozenset({
    "created_at", "updated_at", "expires_at", "last_used_at", "joined_at", "invitation_expires_at",
    "id", "key", "request_id", "input_sha256", "latency_ms", "next_cursor",
})  # fmt: skip
"""Keys whose values are other ones each time; of these only the kind is compared."""

NO_COMMANDS = {"mermaid", "nginx", "ini", "", "json", "yaml", "sql", "toml"}
"""Languages of blocks that nobody runs."""

PLACEHOLDERS = {"cr_...": "refresh_token"}
"""What a reader replaces by a value that was printed before, and that value's key."""

BEGUN_WITH = {"WEBHOOK_ALLOWED_NETWORKS": "127.0.0.1/32"}
"""What a page says to give ``./scripts/run`` for what it shows later."""

EVENTUAL = "/analytics/topics"
"""What a worker brings about a few seconds later: it is asked again until it is as shown."""

RECEIVER = "9000"
"""The port of the page's own program."""
# --------------------------------------------------------------------------------------------------------------------

READY = "Uvicorn running"
ASSIGNMENT = re.compile(r"(export )?(\w+)=(?:\$\(.*\)|\"[^\"]*\"|'[^']*'|\S*)", re.DOTALL)
LIMIT_S = 60
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", ".data", ".env", ".*_cache", ".hypothesis", ".schemathesis")


def pages() -> list[Block]:
    """Returns the blocks of all pages, in order."""
    return [block for page in PAGES for block in blocks(page, text_of(page))]


def text_of(page: str) -> str:
    """Returns what a page says."""
    return (ROOT / page).read_text(encoding="utf-8")


def exception(command: str) -> str | None:
    """Returns which exception holds for a command."""
    return next((start for start in NOT_RUN if command.startswith(start)), None)


class Reader:
    """Who tries a page out: in a copy of the project with an environment that is installed already."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {
            str(field.default): str(free_port())
            for name, field in Settings.model_fields.items()
            if name.endswith("port")
        }
        self.ports[RECEIVER] = str(free_port())
        names = {name for name in Settings.model_fields if name.endswith("port")}
        own = {name.upper(): self.ports[str(Settings.model_fields[name].default)] for name in names}
        # A reader has not activated the environment: `python` alone is not there.
        path = [each for each in os.environ["PATH"].split(":") if not (Path(each) / "../pyvenv.cfg").exists()]
        self.environment = {
            **os.environ,
            **BEGUN_WITH,
            **own,
            "PATH": ":".join(path),
            "COLUMNS": "120",
            "PYTHONUNBUFFERED": "1",
        }
        self.kept: list[str] = []
        self.values: dict[str, str] = {}
        self.beside: list[subprocess.Popen[bytes]] = []

    def prepare(self) -> None:
        """Copies the project and writes the files that a reader has."""
        shutil.copytree(ROOT, self.folder, ignore=NOT_COPIED, dirs_exist_ok=True)
        tools = self.folder / ".venv/bin"
        tools.mkdir(parents=True)
        for tool in Path(sys.executable).parent.iterdir():
            if not tool.name.startswith("python"):
                (tools / tool.name).symlink_to(tool)
        for name in ("python", "python3"):
            # A link would have this folder for the interpreter's, without its packages.
            (tools / name).write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
            (tools / name).chmod(0o755)
        for lock in self.folder.glob("requirements*.lock"):
            self.shell(f'touch ".venv/{lock.name}.$(cksum < {lock.name} | tr " " -)"')
        for name, text in FILES.items():
            (self.folder / name).write_text(text)

    def shell(self, command: str) -> str:
        """Returns what a command prints."""
        script = "\n".join([*self.kept, command])
        done = subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}\nended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    @contextmanager
    def service(self) -> Iterator[str]:
        """Runs ``./scripts/run`` until the block ends; yields what it printed at its start."""
        with subprocess.Popen(
            ["./scripts/run"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdout
            printed: list[str] = []
            for line in process.stdout:
                printed.append(line)
                if READY in line:
                    break
            else:
                pytest.fail("".join(printed))
            reading = threading.Thread(target=process.stdout.read)
            reading.start()
            try:
                yield "".join(printed)
            finally:
                for each in self.beside:
                    each.kill()
                    each.wait()
                process.send_signal(signal.SIGINT)
                watch = threading.Timer(LIMIT_S, process.kill)
                watch.start()
                process.wait()
                watch.cancel()
                reading.join()

    def adapted(self, text: str) -> str:
        """Returns a text with the ports of this test and what was printed before."""
        for default, port in self.ports.items():
            text = re.sub(rf'(127\.0\.0\.1:|localhost:|127\.0\.0\.1", ){default}\b', rf"\g<1>{port}", text)
        for placeholder, key in PLACEHOLDERS.items():
            text = text.replace(placeholder, self.values.get(key, placeholder))
        return text

    def follow(self, block: Block) -> list[str]:
        """Does what a block says; returns what was wrong."""
        printed = self.program(block) if block.language == "python" else self.script(block)
        if block.shown is None:
            refused = [each for each in documents(printed) or [] if isinstance(each, dict) and "request_id" in each]
            return [f"an error that is not shown: {each}" for each in refused]
        found = differences(self.adapted(block.shown), printed, VOLATILE)
        until = time.monotonic() + LIMIT_S
        while found and EVENTUAL in block.text and time.monotonic() < until:
            found = differences(self.adapted(block.shown), self.script(block), VOLATILE)
        return found

    def script(self, block: Block) -> str:
        """Runs the commands of a block."""
        printed = ""
        for command in commands(block.text):
            if exception(command):
                continue
            command = self.adapted(command)
            if command.endswith("&"):
                script = "\n".join([*self.kept, f"exec {command.removesuffix('&')}"])
                self.beside.append(subprocess.Popen(["bash", "-c", script], cwd=self.folder, env=self.environment))
                continue
            if assigned := ASSIGNMENT.fullmatch(command):
                export, name = assigned.groups(default="")
                value = self.shell(f'set -o pipefail\n{command}\nprintf %s "${name}"')
                self.kept.append(f"{export}{name}={shlex.quote(value)}")
                continue
            said = self.shell(command)
            printed += said
            for document in documents(said) or []:
                self.values.update({key: document[key] for key in PLACEHOLDERS.values() if key in document})
        return printed

    def program(self, block: Block) -> str:
        """Runs a program until it has printed as many lines as are shown, or ends."""
        name = block.text.partition("\n")[0].removeprefix("# ")
        (self.folder / name).write_text(self.adapted(block.text))
        with subprocess.Popen(
            [".venv/bin/python", name],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            watch = threading.Timer(LIMIT_S, process.kill)
            watch.start()
            assert process.stdout
            lines = [process.stdout.readline() for _ in (block.shown or "").splitlines()]
            process.kill()
            watch.cancel()
        return "".join(lines)


@pytest.fixture
def reader() -> Iterator[Reader]:
    if missing := [tool for tool in ("bash", "curl") if not shutil.which(tool)]:
        pytest.skip(f"a reader needs {' and '.join(missing)}")
    # Embedded PostgreSQL takes no long path, as pytest's own folders have.
    with tempfile.TemporaryDirectory(prefix="reader-") as folder:
        reader = Reader(Path(folder) / "chat")
        reader.prepare()
        yield reader


def test_every_block_runs_and_shows_what_it_is_said_to(reader: Reader) -> None:
    wrong: list[str] = []
    with reader.service() as printed:
        assert "An admin API key is in" in printed
        for block in pages():
            if block.language in NO_COMMANDS:
                continue
            try:
                found = reader.follow(block)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                found = [str(error)]
            wrong += [f"{block.place}: {each}" for each in found]
    assert not wrong, "\n\n".join(wrong)


def test_every_block_is_of_a_known_kind() -> None:
    assert {block.language for block in pages()} <= {"sh", "python"} | NO_COMMANDS


def test_what_does_not_run_here_exists_and_takes_its_options() -> None:
    excepted = [
        command for block in pages() if block.language == "sh" for command in commands(block.text) if exception(command)
    ]
    assert {exception(command) for command in excepted} == set(NOT_RUN), "an exception that nothing needs"
    for command in excepted:
        assert_exists(command)


def test_what_sentences_name_exists() -> None:
    starts = re.compile(r"(?:\.venv/bin/)?(?:python -m app|alembic) |(?:\./)?scripts/\w|docker compose |tests/browser/")
    named = [span for page in PAGES for span in spans(text_of(page)) if starts.match(span)]
    assert named
    for command in named:
        assert_exists(command)


@cache
def options_of(module: str) -> set[str]:
    """Returns the options that a program tells of."""
    command = [sys.executable, "-m", module, "--help"]
    wide = {**os.environ, "COLUMNS": "200"}
    told = subprocess.run(command, cwd=ROOT, env=wide, capture_output=True, text=True, check=True)
    return set(re.findall(r"--[\w-]+", told.stdout))


def assert_exists(command: str) -> None:
    """Checks that the program of a command is there and has its options, without running it."""
    words = shlex.split(command, comments=True)
    program = Path(words[0].removeprefix("./"))
    if program.parts[0] in ("scripts", "tests"):
        script = ROOT / program
        assert os.access(script, os.X_OK), command
        shell = script.read_text().partition("\n")[0].split("/")[-1].split()[-1]
        assert subprocess.run([shell, "-n", script], check=False).returncode == 0, command
        options = [word.partition("=")[0] for word in words[1:] if word.startswith("--")]
        if options:
            called = re.search(r"-m ([\w.]+)", script.read_text().splitlines()[-1])
            assert called, command
            assert set(options) <= options_of(called[1]), command
    elif words[1:3] == ["-m", "app"]:
        found: Any = typer.main.get_command(cli)
        rest = words[3:]
        while hasattr(found, "commands") and rest and not rest[0].startswith("-"):
            assert rest[0] in found.commands, command
            found = found.commands[rest.pop(0)]
        known = {name for each in found.params for name in [*each.opts, *each.secondary_opts]} | {"--help"}
        assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= known, command
    elif program.name == "docker":
        stack = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
        profiles = {name for service in stack["services"].values() for name in service.get("profiles", [])}
        assert {words[n + 1] for n, word in enumerate(words) if word == "--profile"} <= profiles, command
        if "exec" in words:
            service, *inside = words[words.index("exec") + 1 :]
            assert service in stack["services"], command
            assert_exists(shlex.join(inside))
    elif program.parts[0] == ".venv" or program.name == "alembic":
        assert shutil.which(program.name, path=str(Path(sys.executable).parent)), command


def test_a_page_that_says_something_else_is_noticed() -> None:
    [block] = blocks(
        "x", '```sh\necho \\\n  1\n\n# no command\nif true; then\n  echo 2\nfi\n```\n\n```json\n{"id": 1}\n```\n'
    )
    assert list(commands(block.text)) == ["echo \\\n  1", "if true; then\n  echo 2\nfi"]
    assert block.shown
    for printed, count in (
        ('{"id": 2}', 0),
        ('{"id": "2"}', 1),
        ('{"id": 1, "new": 1}', 1),
        ("{}", 1),
        ('{"id": 1} {"id": 1}', 1),
        ("no JSON", 1),
    ):
        assert len(differences(block.shown, printed, VOLATILE)) == count, printed
    assert differences('{"a": 1}', json.dumps({"a": 2}), VOLATILE)
    assert differences('{"created_at": "2026-11-22T10:00:00Z"}', '{"created_at": "now"}', VOLATILE)
    assert not differences("at 2026-11-22T10:00:00Z", "at 2027-01-01T10:00:00.5Z ", VOLATILE)
