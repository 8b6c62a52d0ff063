"""Plans edited while they are in use: each request is decided by one version, whole, and none is refused for it.

Small in `make test`; FAREGATE_FULL=1 has 1,000 customers and 100 edits under load.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from gatehouse import House, of_every_worker, open_house, until
from served import ADMIN_TOKEN, Gate

pytestmark = pytest.mark.asyncio(loop_scope="module")

FULL = bool(os.environ.get("FAREGATE_FULL"))
CUSTOMERS, EDITS, CLIENTS = (1000, 100, 200) if FULL else (40, 15, 20)
OUTPUT = 1000
WORDS = "edited under load"


def version_of(number: int) -> dict[str, Any]:
    """Every version differs in a budget's id and limit, in the default output and in a rate limit."""
    return {
        "id": "edited",
        "models": ["*"],
        "default_max_output_tokens": OUTPUT + number,
        "budgets": [
            {"id": f"only-{number}", "meter": "tokens", "limit": 10**9 + number},
            {"id": "always", "meter": "output_tokens", "limit": 10**9},
        ],
        "rate_limits": {"concurrent_requests": 10_000 + number},
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_house(tmp_path_factory.mktemp("edits"), workers=2) as opened:
        yield opened


async def customers(gate: Gate, count: int, plan: str) -> list[str]:
    """Their agents' secrets; made a few at a time."""
    slots = asyncio.Semaphore(16)

    async def make(number: int) -> str:
        async with slots:
            return await gate.customer(f"{plan}-{number}", plan)

    return await asyncio.gather(*(make(number) for number in range(count)))


async def all_events(gate: Gate, customers: set[str], count: int) -> list[dict[str, Any]]:
    """Every event of theirs, over as many pages as it takes, once there are `count`."""

    async def read() -> list[dict[str, Any]]:
        found, cursor = [], ""
        while True:
            page = await gate.admin("GET", f"/usage-events?limit=1000{cursor}")
            found += [event for event in page["data"] if event["customer_id"] in customers]
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    async with asyncio.timeout(60):
        while len(events := await read()) < count:
            await asyncio.sleep(0.2)
    return events


async def test_no_request_is_decided_by_a_mixture_of_versions(house: House) -> None:
    """A limit of one version with an allowance of another: nobody could explain that bill."""
    gate = house.gate
    numbers = {(await gate.admin("POST", "/plans", version_of(0)))["version"]: 0}
    secrets = await customers(gate, CUSTOMERS, "edited")
    house.upstream.forget()
    calls, done, statuses = itertools.count(), asyncio.Event(), Counter[int]()
    under: dict[str, str] = {}

    async def call(secret: str) -> None:
        words = f"{WORDS} {next(calls):06d}"
        answer = await gate.chat(secret, messages=[{"role": "user", "content": words}])
        statuses[answer.status] += 1
        under[words] = answer.headers["x-request-id"]

    async def client(mine: list[str]) -> None:
        for secret in itertools.cycle(mine):
            if done.is_set():
                return
            await call(secret)

    for at in range(0, CUSTOMERS, 10):
        await asyncio.gather(*map(call, secrets[at : at + 10]))
    clients = [asyncio.ensure_future(client(secrets[at::CLIENTS])) for at in range(CLIENTS)]
    for number in range(1, EDITS + 1):
        before = statuses.total()
        await until(lambda before=before: statuses.total() > before + CLIENTS, 30)
        changed = await gate.admin("PUT", f"/plans/edited?message=edit+{number}", version_of(number))
        numbers[changed["version"]] = number
    before = statuses.total()
    await until(lambda: statuses.total() > before + 2 * CLIENTS, 30)
    done.set()
    await asyncio.gather(*clients)

    assert set(statuses) == {200}, statuses
    assert len(numbers) == EDITS + 1
    events = await all_events(gate, {f"edited-{n}" for n in range(CUSTOMERS)}, statuses.total())
    assert len(events) == statuses.total()
    sent = {call.body["messages"][0]["content"]: call.output_limit for call in house.upstream.calls}
    limits = {request_id: sent[words] for words, request_id in under.items()}
    input_bounds = set()
    for event in events:
        number = numbers[event["plan_version"]]
        held = {hold["budget_id"]: hold["amount"] for hold in event["held"]}
        assert held.keys() == {f"only-{number}", "always"} == {one["budget_id"] for one in event["charged"]}
        assert held["always"] == OUTPUT + number == limits[event["request_id"]]
        input_bounds.add(held[f"only-{number}"] - held["always"])
    assert len(input_bounds) == 1
    # The edits were really under load: the versions have all decided something.
    assert len({event["plan_version"] for event in events}) > EDITS * 0.8


async def test_what_is_in_flight_ends_under_the_version_that_admitted_it(house: House) -> None:
    """A customer who was promised an answer gets it, and it is charged where it was held."""
    gate = house.gate
    await gate.admin("POST", "/plans", {**version_of(1), "id": "slow"})
    secret = await gate.customer("slow-0", "slow")
    house.upstream.forget()
    house.upstream.hold()
    asking = asyncio.ensure_future(gate.chat(secret))
    await house.arrived(1)
    await gate.admin("PUT", "/plans/slow", {**version_of(2), "id": "slow", "models": ["large"]})
    house.upstream.release()
    assert (await asking).status == 200
    (event,) = await gate.events(1, customer_id="slow-0")
    assert event["plan_version"] == 1
    assert {one["budget_id"] for one in event["charged"]} == {"only-1", "always"}
    assert await of_every_worker(gate, secret) == {403}


async def test_an_edit_of_the_store_acts_on_the_next_request_of_every_worker(house: House) -> None:
    """Answered means obeyed."""
    gate = house.gate
    await gate.admin("POST", "/plans", {"id": "tried", "models": ["*"]})
    secret = await gate.customer("tried-0", "tried")
    assert await of_every_worker(gate, secret) == {200}
    await gate.admin("PUT", "/plans/tried?message=spent", {"models": ["*"], "budgets": [{"limit": 0}]})
    assert await of_every_worker(gate, secret) == {402}
    await gate.admin("POST", "/plans/tried/rollback", {"version": 1, "message": "too strict"})
    assert await of_every_worker(gate, secret) == {200}
    versions = (await gate.admin("GET", "/plans/tried/versions"))["data"]
    assert [(one["version"], one["message"]) for one in versions] == [(3, "too strict"), (2, "spent"), (1, "")]
    log = (await gate.admin("GET", "/audit-log?resource=plan/tried"))["data"]
    assert [entry["method"] for entry in log] == ["POST", "PUT", "POST"]
    await gate.admin("DELETE", "/plans/tried", expect=409)


async def test_a_bad_file_is_told_where_an_operator_looks_and_nothing_else_happens(house: House) -> None:
    """/readyz of every worker, of those started later too; it stays ready, for what was live stays live."""
    gate = house.gate
    secret = await gate.customer("well", "starter")
    key = "sk-proj-" + "canary1" * 6
    good = 'id = "starter"\nname = "Starter"\nmodels = ["*"]\n'
    gate.write_plan("starter", good + f'on_exceed = "{key}"\n')

    async def details() -> list[dict[str, Any]]:
        answers = await asyncio.gather(*(gate.get("/readyz") for _ in range(16)))
        assert {answer.status for answer in answers} == {200}
        return [answer.json()["details"] for answer in answers]

    await until(lambda: "policy.refused" in gate.log())
    async with asyncio.timeout(5):
        while not all(len(told.get("policy_faults", [])) == 1 for told in await details()):
            await asyncio.sleep(0.05)
    (fault,) = (await details())[0]["policy_faults"]
    assert fault.startswith("plans/starter.toml:4: `on_exceed` must be ")
    assert key not in fault
    assert key not in gate.log()
    assert await of_every_worker(gate, secret) == {200}
    metrics = await gate._ask("GET", f"{gate.admin_url}/metrics", ADMIN_TOKEN, None)
    assert b"faregate_policy_faults 1.0" in metrics.body

    gate.write_plan("starter", good)
    async with asyncio.timeout(5):
        while any(told["policy_faults"] for told in await details()):
            await asyncio.sleep(0.05)


async def test_a_plan_moves_between_the_files_and_the_store(house: House) -> None:
    """Without a request noticing, and without two truths."""
    gate = house.gate
    plans = gate.folder / "policies" / "plans"
    gate.write_plan("moved", '# ours\nid = "moved"\nmodels = ["*"]\n')
    secret = await gate.customer("moved-0", "starter")
    async with asyncio.timeout(5):
        while "moved" not in {plan["id"] for plan in (await gate.admin("GET", "/plans"))["data"]}:
            await asyncio.sleep(0.05)
    await gate.admin("PUT", "/customers/moved-0/subscription", {"plan": "moved"})
    shown = await gate.admin("GET", "/plans/moved")
    assert (shown["owner"], shown["file"], shown["version"]) == ("files", "plans/moved.toml", 1)
    await gate.admin("PUT", "/plans/moved", {"name": "X"}, expect=409)

    adopted = await gate.admin("POST", "/plans/moved/adopt", {"to": "store"})
    assert (adopted["owner"], adopted["version"]) == ("store", 1)
    assert sorted(path.name for path in plans.iterdir()) == ["moved.toml.adopted", "starter.toml"]
    await gate.admin("PUT", "/plans/moved", {"models": ["*"], "name": "In the store"})
    await gate.admin("POST", "/plans/moved/adopt", {"to": "files"})
    assert 'name = "In the store"' in (plans / "moved.toml").read_text()
    gate.write_plan("moved", 'id = "moved"\nmodels = []\n')
    async with asyncio.timeout(5):
        while (await gate.chat(secret)).status != 403:
            await asyncio.sleep(0.05)
