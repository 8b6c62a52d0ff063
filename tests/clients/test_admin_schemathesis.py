"""The admin plane of a served gate under Schemathesis, which reads its OpenAPI document and tries what it allows,
and much that it does not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from proxy.demo.scripted_upstream import ScriptedUpstream
from tests.clients.programs_running import ENVIRONMENTS
from tests.e2e.served import ADMIN_TOKEN, Gate, prepare, serving

TOOL = ENVIRONMENTS / "schemathesis"
DEADLINE_S = 120.0
SEED = os.environ.get("SEED", "1")
# Left out: what a plan named `validate` would be asked by; that valid data is taken (that a plan is there, or that
# nothing has changed meanwhile, no schema can say); and wrong tokens, which would lock this address out.
LEFT_OUT = "allow_header_conformance,positive_data_acceptance,ignored_auth"
CONFIGURATION = """
# It is asked what is wrong with a plan, and answers that.
[[operations]]
include-path = "/admin/v1/plans/validate"
checks.negative_data_rejection.enabled = false
"""


@dataclass
class Hammered:
    """A gate, and a folder for what the tool leaves behind."""

    gate: Gate
    folder: Path

    async def run(self, token: str | None, *more: str) -> tuple[int, str]:
        """Tries every operation as whoever holds the token; the tool's exit code and what it says."""
        url = f"{self.gate.admin_url}/admin/v1/openapi.json"
        document = self.folder / "openapi.json"
        owner = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        async with aiohttp.request("GET", url, headers=owner) as answer:
            document.write_bytes(await answer.read())
        (self.folder / "schemathesis.toml").write_text(CONFIGURATION)
        header = ("-H", f"Authorization: Bearer {token}") if token else ()
        tool = await asyncio.create_subprocess_exec(
            TOOL / "bin" / "st", "run", document, "--url", self.gate.admin_url, *header, "--seed", SEED,
            "--workers", "1", "--no-shrink", "--exclude-checks", LEFT_OUT, "--warnings", "off", *more,
            cwd=self.folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            said, _ = await asyncio.wait_for(tool.communicate(), DEADLINE_S)
        except TimeoutError:
            tool.kill()
            await tool.wait()
            raise
        assert tool.returncode is not None
        return tool.returncode, said.decode()

    def entries(self) -> list[tuple[str, str]]:
        """What the record of changes has: kind and outcome. Read where it lies: this address may be locked out."""
        with contextlib.closing(sqlite3.connect(self.gate.folder / "var/ledger.sqlite3")) as ledger:
            return ledger.execute("SELECT resource_kind, outcome FROM audit_log ORDER BY seq").fetchall()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def hammered(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hammered]:
    if not (TOOL / ".ready").exists():
        pytest.skip("Schemathesis is not installed: make test-clients installs it.")
    folder = tmp_path_factory.mktemp("schemathesis")
    async with ScriptedUpstream() as upstream, serving(prepare(folder, upstream.url)) as gate:
        await gate.customer("acme")
        yield Hammered(gate, folder)


@pytest.mark.asyncio(loop_scope="session")
async def test_a_reader_changes_nothing(hammered: Hammered) -> None:
    """A read-only token under the same rain: the record has nothing new but refusals."""
    before = len(hammered.entries())
    token = (await hammered.gate.admin("POST", "/tokens", {"name": "reader", "role": "read-only"}))["token"]

    await hammered.run(token, "--max-examples", "5", "--phases", "coverage,fuzzing")

    made, *others = hammered.entries()[before:]
    assert made == ("token", "done")
    assert set(others) == {("", "refused")}


@pytest.mark.asyncio(loop_scope="session")
async def test_every_operation_answers_as_it_is_described(hammered: Hammered) -> None:
    """No server error, no status, header or shape that the document has not, nothing taken that it forbids."""
    code, said = await hammered.run(ADMIN_TOKEN, "--max-examples", "20")

    assert code == 0, said[-8000:]
    assert '"event":"request.failed"' not in hammered.gate.log()
    checks = (await hammered.gate.admin("GET", "/invariants"))["checks"]
    assert [check for check in checks if not check["ok"]] == []


@pytest.mark.asyncio(loop_scope="session")
async def test_nothing_is_written_without_a_token(hammered: Hammered) -> None:
    """Nobody gets further than 401, or 429 once the tool has guessed at tokens: so this is the last one here."""
    before = hammered.entries()

    _, said = await hammered.run(
        None, "--max-examples", "5", "--phases", "coverage,fuzzing", "--report", "ndjson", "--report-dir", "bare"
    )

    statuses = {status for report in (hammered.folder / "bare").glob("*.ndjson") for status in answered(report)}
    # 200, 204 (to OPTIONS) and 400 are those of /healthz.
    assert {401} <= statuses <= {200, 204, 400, 401, 405, 429}, said[-4000:]
    assert hammered.entries() == before


def answered(report: Path) -> set[int]:
    """Every status that stands in a report."""

    def statuses(node: Any) -> set[int]:
        if isinstance(node, list):
            return {status for item in node for status in statuses(item)}
        if isinstance(node, dict):
            own = {node["status_code"]} if isinstance(node.get("status_code"), int) else set()
            return own | {status for value in node.values() for status in statuses(value)}
        return set()

    return {status for line in report.read_text().splitlines() for status in statuses(json.loads(line))}
