"""The workflow runs the scripts that everybody runs, and nothing of its own."""

import os
import re
import tomllib
from typing import Any

import yaml

from app.settings import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def jobs() -> list[dict[str, Any]]:
    """Returns the jobs of all workflows."""
    return [job for file in WORKFLOWS for job in yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"].values()]


def test_every_step_is_a_script_of_this_repository_or_a_pinned_action() -> None:
    steps = [step for job in jobs() for step in job["steps"]]
    for step in steps:
        if "uses" in step:
            assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", step["uses"])
        else:
            script = ROOT / step["run"]
            assert script.resolve().is_relative_to(ROOT)
            assert os.access(script, os.X_OK), step["run"]
    ran = [step["run"] for step in steps if "run" in step]
    assert {"./scripts/check", "./.ci/run"} <= set(ran)


def test_the_oldest_python_is_tried() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert all(
        job["strategy"]["matrix"]["python"][0] == project["requires-python"].removeprefix(">=") for job in jobs()
    )


def test_a_workflow_may_only_read() -> None:
    assert WORKFLOWS
    for file in WORKFLOWS:
        assert yaml.safe_load(file.read_text(encoding="utf-8"))["permissions"] == {"contents": "read"}
