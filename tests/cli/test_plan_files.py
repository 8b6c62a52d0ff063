"""Plans between files and a gate, from the shell."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.policy_files import read_plan_files
from tests.doubles.admin import AdminPlane

Run = Callable[..., Any]

TEAM = """# ours
id = "alpha"
models = ["gpt-4o-mini"]
[[budgets]]
meter = "cost_usd"
limit = "12.50"
"""


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A policies directory with a plan that the gate does not have."""
    (tmp_path / "policies" / "plans").mkdir(parents=True)
    (tmp_path / "policies" / "plans" / "t.toml").write_text(TEAM)
    return tmp_path / "policies"


def test_files_of_this_machine_are_compared_and_sent(run: Run, plane: AdminPlane, policies: Path) -> None:
    """A remote admin edits in an editor and git; the store keeps what was sent, with the reason."""
    assert 'id: nothing -> "alpha"' in run("plans", "diff", "--dir", str(policies)).stdout
    run("plans", "apply", "--dir", str(policies), "--dry-run")
    assert "alpha" not in plane.plans.held
    told = run("plans", "apply", "--dir", str(policies), "--message", "new").stdout
    assert told.startswith("alpha (version 1)\n")
    assert plane.plan_edits.asked == [("FAREGATE_ADMIN_TOKEN", "new")]
    assert run("plans", "diff", "--dir", str(policies)).stdout == "The files and what is live say the same.\n"

    (policies / "plans" / "t.toml").write_text(TEAM.replace("12.50", "13"))
    changed = json.loads(run("plans", "apply", "--dir", str(policies), "--json").stdout)["plans"]
    assert [(one["id"], one["version"], one["text"]) for one in changed] == [
        ("alpha", 2, ['budgets[cost_usd-customer-P1M].limit: "12.5" -> "13"'])
    ]


def test_nothing_is_sent_unless_all_can_be(run: Run, plane: AdminPlane, policies: Path) -> None:
    """Half of an edit is a state that nobody has reviewed."""
    (policies / "plans" / "starter.toml").write_text('id = "starter"\nname = "Mine"\n')
    refused = run("plans", "apply", "--dir", str(policies), code=1)
    assert "adopt starter --to store" in refused.stderr
    (policies / "plans" / "starter.toml").write_text('id = "zzz"\nmodels = ["gpt-9"]\n')
    refused = run("plans", "apply", "--dir", str(policies), code=1)
    assert 'zzz: models[0]: unknown model "gpt-9"' in refused.stderr
    (policies / "plans" / "starter.toml").write_text("id = 3\n")
    assert "starter.toml:1: " in run("plans", "diff", "--dir", str(policies), code=1).stderr
    assert "alpha" not in plane.plans.held


def test_the_gates_own_files_are_applied_where_they_are(run: Run, plane: AdminPlane) -> None:
    """For a gate that does not watch them."""
    assert 'name: "Starter" -> "Renamed"' in run("plans", "diff").stdout
    assert plane.plan_edits.asked == []
    result = run("plans", "apply", "--message", "December")
    assert result.stdout.startswith("starter (version 3)\n")
    assert result.stderr == "Something to know.\n"
    assert plane.plan_edits.asked == [("FAREGATE_ADMIN_TOKEN", "December")]


def test_an_export_is_a_plan_file(run: Run, policies: Path) -> None:
    """What is exported can be put into policies/ and is the same plan."""
    text = run("plans", "export", "starter").stdout
    assert tomllib.loads(text)["budgets"][1]["limit"] == "20.5"
    paths = run("plans", "export", "--dir", str(policies)).stdout.splitlines()
    assert [Path(path).name for path in paths] == ["pro.toml", "starter.toml"]
    assert (policies / "plans" / "starter.toml").read_text() == text
    assert set(read_plan_files(policies).plans) == {"alpha", "pro", "starter"}
    run("plans", "export", code=2)
    run("plans", "export", "--version", "1", "--dir", str(policies), code=2)
    run("plans", "export", "nobody", code=1)


def test_an_earlier_version_goes_over_the_file_that_has_the_plan(run: Run, policies: Path) -> None:
    """That is how a plan of the files is rolled back; comments are lost, so it takes --force."""
    mine = policies / "plans" / "t.toml"
    mine.write_text('# a comment\nid = "starter"\n')
    wanted = ("plans", "export", "starter", "--version", "1", "--dir", str(policies))
    assert "comments are lost" in run(*wanted, code=1).stderr
    assert mine.read_text().startswith("# a comment")
    assert run(*wanted, "--force").stdout == f"{mine}\n"
    assert read_plan_files(policies).plans["starter"].name == "Starter 1"


def test_versions_say_what_changed(run: Run) -> None:
    """The question behind it is always: what did we change, and why?"""
    table = run("plans", "versions", "starter").stdout
    assert 'name: "Starter 1" -> "Starter"' in table
    assert "files" in table


def test_a_plan_is_moved_rolled_back_and_taken_away(run: Run, plane: AdminPlane) -> None:
    """Each says in a sentence what it has done."""
    assert run("plans", "adopt", "starter", "--to", "store").stdout.startswith(
        "starter is edited in the store now."
    )
    told = run("plans", "rollback", "starter", "1", "--message", "too strict").stdout
    assert told == "starter is as it was at version 1; that is version 3 now.\n"
    assert run("plans", "delete", "starter").stdout == "starter is gone.\n"
    assert "starter" not in plane.plans.held
    run("plans", "delete", "starter", code=1)
