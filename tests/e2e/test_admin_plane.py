"""The admin plane of a real gate: roles, the record of a change, keys and conditions, what a restart keeps."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from typing import Any

from served import ADMIN_TOKEN, Answer, Gate

LEDGER = "var/ledger.sqlite3"


async def ask(
    gate: Gate, method: str, path: str, body: Any = None, token: str = ADMIN_TOKEN, **headers: str
) -> Answer:
    assert gate.session is not None
    given = {
        "authorization": f"Bearer {token}",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    url = f"{gate.admin_url}/admin/v1{path}"
    async with gate.session.request(method, url, json=body, headers=given) as response:
        return Answer(response.status, response.headers, await response.read())


async def made(gate: Gate, role: str) -> str:
    return str((await gate.admin("POST", "/tokens", {"name": f"the {role}", "role": role}))["token"])


async def test_roles_are_enforced_and_a_real_change_is_recorded(gate: Gate) -> None:
    """Who may, does; who may not, is refused and recorded; a revoked token ends with the next request."""
    operator, reader = await made(gate, "operator"), await made(gate, "read-only")
    secret = await gate.customer("acme")
    assert (await gate.chat(secret)).status == 200

    refused = await ask(gate, "PATCH", "/customers/acme", {"status": "suspended"}, reader)
    assert (refused.status, refused.json()["error"]["code"]) == (403, "insufficient_role")
    assert (await gate.chat(secret)).status == 200
    assert (await ask(gate, "GET", "/tokens", token=operator)).status == 403
    done = await ask(gate, "PATCH", "/customers/acme", {"status": "suspended"}, operator, idempotency_key="k-1")
    assert done.status == 200
    assert (await gate.chat(secret)).status == 403

    log = await ask(gate, "GET", "/audit-log?resource=customer/acme&limit=1", token=reader)
    (entry,) = log.json()["data"]
    assert entry["changes"] == {"status": {"from": "active", "to": "suspended"}}
    assert (entry["actor"]["name"], entry["actor"]["role"]) == ("the operator", "operator")
    assert (entry["network"], entry["idempotency_key"]) == ("127.0.0.0/24", "k-1")
    assert entry["request_id"] == done.headers["x-request-id"]
    outcomes = (await gate.admin("GET", "/audit-log?outcome=refused"))["data"]
    assert {(e["actor"]["name"], e["route"]) for e in outcomes} == {
        ("the read-only", "/admin/v1/customers/{customer_id}"),
        ("the operator", "/admin/v1/tokens"),
    }
    everything = (await ask(gate, "GET", "/audit-log?limit=1000")).body.decode()
    assert secret not in everything
    assert operator not in everything

    (listed,) = [t for t in (await gate.admin("GET", "/tokens"))["data"] if t["name"] == "the operator"]
    assert listed["last_used_at"] is not None
    await gate.admin("DELETE", f"/tokens/{listed['id']}")
    assert (await ask(gate, "GET", "/customers", token=operator)).status == 401
    checks = {check["id"]: check["ok"] for check in (await gate.admin("GET", "/invariants"))["checks"]}
    assert checks["audit_log"]


async def test_tokens_keys_and_the_chain_outlive_a_restart(gate: Gate) -> None:
    """What is promised for a day is not promised for as long as the process lives."""
    operator = await made(gate, "operator")
    body = {"name": "Acme"}
    first = await ask(gate, "POST", "/customers", body, operator, idempotency_key="k-1")
    head = (await gate.admin("GET", "/audit-log/verification"))["head"]

    await gate.stop()
    await gate.start()

    again = await ask(gate, "POST", "/customers", body, operator, idempotency_key="k-1")
    assert (again.status, again.body) == (201, first.body)
    assert again.headers["Idempotency-Replayed"] == "true"
    (listed,) = [t for t in (await gate.admin("GET", "/tokens"))["data"] if t["name"] == "the operator"]
    assert listed["last_used_at"] is not None
    found = await gate.admin("GET", f"/audit-log/verification?seq={head['seq']}&hash={head['hash']}")
    assert found["ok"]


async def test_many_at_once_on_a_real_gate(gate: Gate) -> None:
    """Twenty with one key make one; twenty of the same state, and one wins."""
    made = await asyncio.gather(
        *(ask(gate, "POST", "/customers", {"name": "Acme"}, idempotency_key="k") for _ in range(20))
    )
    assert {answer.status for answer in made} <= {201, 409}
    (acme,) = (await gate.admin("GET", "/customers"))["data"]

    path = f"/customers/{acme['id']}"
    tag = (await ask(gate, "GET", path)).headers["ETag"]
    changed = await asyncio.gather(*(ask(gate, "PATCH", path, {"name": f"N{n}"}, if_match=tag) for n in range(20)))
    assert sorted(answer.status for answer in changed) == [200] + [412] * 19


async def test_a_hand_in_the_record_is_seen_by_the_doctor(gate: Gate) -> None:
    """`faregate audit verify` exits 1, and says which entry."""
    await gate.customer("acme")
    code, said = await faregate(gate, "audit", "verify")
    assert (code, said.startswith("All ")) == (0, True)

    with sqlite3.connect(gate.folder / LEDGER) as ledger:
        ledger.execute("DROP TRIGGER audit_log_no_update")
        ledger.execute("UPDATE audit_log SET actor_name = 'somebody else' WHERE seq = 2")
    ledger.close()

    code, said = await faregate(gate, "audit", "verify")
    assert (code, said.startswith("Entry 2 is not what was written.")) == (1, True)
    assert "audit_log" in (await faregate(gate, "doctor"))[1]


async def faregate(gate: Gate, *words: str) -> tuple[int, str]:
    environment = {**os.environ, "FAREGATE_ADMIN_TOKEN": ADMIN_TOKEN, "FAREGATE_ADMIN_URL": gate.admin_url}
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy", *words, env=environment, cwd=gate.folder,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await asyncio.wait_for(run.communicate(), 30)
    return run.returncode or 0, said.decode()
