"""The workflows cannot run here; what can be told from their text is."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.address import COLAB_BRANCH
from tools.notebooks import ROOT

FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WRITES = {
    ("pages", "html"): {"pages", "id-token"},
    ("pages", "colab"): {"contents"},
    ("weekly", "report"): {"issues"},
}
"""The jobs that may write, and what."""


def read(path: Path) -> dict[Any, Any]:
    """A workflow; YAML takes its key ``on`` for a truth value."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def commands(workflow: dict[Any, Any]) -> str:
    """All shell commands of a workflow."""
    return "\n".join(step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"])


def test_the_three_workflows_are_there():
    assert [path.stem for path in FILES] == ["pages", "tests", "weekly"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_workflow_only_reads_but_for_the_jobs_that_must_write(path: Path):
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        writing = {scope for scope, access in job.get("permissions", {}).items() if access == "write"}
        assert writing == WRITES.get((path.stem, name), set()), name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_two_runs_get_in_each_others_way_and_none_lasts_forever(path: Path):
    workflow = read(path)
    assert workflow["concurrency"]["group"].startswith(path.stem)
    assert all(job["timeout-minutes"] <= 240 for job in workflow["jobs"].values())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_actions_are_the_hosts_own_at_a_major_version(path: Path):
    used = [step["uses"] for job in read(path)["jobs"].values() for step in job["steps"] if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", action) for action in used), used


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_expression_that_a_stranger_controls_reaches_a_shell(path: Path):
    reached = re.findall(r"\$\{\{\s*(.*?)\s*\}\}", commands(read(path)))
    assert set(reached) <= {"matrix.install"}


def test_the_package_is_tested_beside_the_oldest_torch_that_it_accepts():
    accepted = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    oldest = {name: re.search(rf'"{name}>=([\d.]+)"', accepted)[1] for name in ("torch", "torchvision")}
    rows = read(ROOT / ".github" / "workflows" / "tests.yml")["jobs"]["package"]["strategy"]["matrix"]["include"]
    assert any(all(f"{name}=={version}." in row["install"] for name, version in oldest.items()) for row in rows)
    assert any("requirements.txt" in row["install"] for row in rows)
    assert len({row["python"] for row in rows}) == len(rows) == 2


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_make_is_asked_for_targets_that_it_has(path: Path):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"^make (\w+)", commands(read(path)), re.MULTILINE)) <= targets


def test_nothing_is_published_before_its_tests_have_passed():
    pages = read(ROOT / ".github" / "workflows" / "pages.yml")
    tests = read(ROOT / ".github" / "workflows" / "tests.yml")
    after = {"workflows": [tests["name"]], "types": ["completed"], "branches": ["main"]}
    assert pages[True] == {"workflow_run": after, "workflow_dispatch": None}
    condition = pages["jobs"]["build"]["if"]
    assert "github.event.workflow_run.conclusion == 'success'" in condition
    assert "github.event.workflow_run.event == 'push'" in condition
    checkout = pages["jobs"]["build"]["steps"][0]
    assert checkout["with"]["ref"] == "${{ github.event.workflow_run.head_sha || github.sha }}"
    assert all(job.get("needs") == "build" for name, job in pages["jobs"].items() if name != "build")


def test_the_branch_of_the_colab_form_is_the_one_that_links_lead_to():
    assert f"git push --force origin {COLAB_BRANCH}" in commands(read(ROOT / ".github" / "workflows" / "pages.yml"))
    weekly = read(ROOT / ".github" / "workflows" / "weekly.yml")
    assert weekly["jobs"]["colab"]["steps"][0]["with"]["ref"] == COLAB_BRANCH
    tests = read(ROOT / ".github" / "workflows" / "tests.yml")
    assert tests[True]["push"]["branches-ignore"] == [COLAB_BRANCH]
