"""The judge outside the system: the upstream's own list of calls against the ledger's rows, one by one."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from chaos_gate import Place
from chaos_load import Asked

ORDER = "req-scripted-"
# How long after everything is recorded a counter may differ from the record.
DRIFT_GONE_S = 5.0


@dataclass
class Attempt:
    """All rows of one attempt: its usage is their sum, its last row says where it comes from."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def terminals(self) -> int:
        return sum(row["kind"] == "terminal" for row in self.rows)

    @property
    def last(self) -> dict[str, Any]:
        return max(self.rows, key=lambda row: (row["kind"] == "correction", row["seq"]))

    @property
    def tokens(self) -> tuple[int, int]:
        undisputed = [row for row in self.rows if not (row["disputed"] and row["kind"] == "correction")]
        return sum(r["input_tokens"] for r in undisputed), sum(r["output_tokens"] for r in undisputed)

    @property
    def by_provider(self) -> bool:
        return bool(self.last["usage_source"] == "provider")


@dataclass
class Verdict:
    """What `judge` counted. `against`: each thing that contradicts the claim, in a sentence."""

    calls: int = 0
    provider: int = 0
    orphaned: int = 0
    other: int = 0
    lost: int = 0
    double: int = 0
    wrong: int = 0
    drift: int = 0
    held: int = 0
    unrecorded: int = 0
    against: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.against

    def add(self, other: Verdict) -> None:
        for name in (
            "calls",
            "provider",
            "orphaned",
            "other",
            "lost",
            "double",
            "wrong",
            "drift",
            "held",
            "unrecorded",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.against += other.against

    def counts(self) -> dict[str, object]:
        return {
            "upstream calls": self.calls,
            "provider rows": self.provider,
            "orphaned": self.orphaned,
            "released or unknown": self.other,
            "lost": self.lost,
            "double": self.double,
            "wrong": self.wrong,
            "drift": self.drift,
            "left held": self.held,
        }


async def judge(place: Place, asked: Sequence[Asked], within_s: float = 20.0) -> Verdict:
    """Waits until the gate has settled down, then matches calls, rows and what the clients saw."""
    verdict = Verdict()
    verdict.held, verdict.unrecorded = await place.settled_down(within_s)
    if verdict.held:
        verdict.against.append(f"{verdict.held} reservations are left")
    if verdict.unrecorded:
        verdict.against.append(f"{verdict.unrecorded} events or spools are left")
    attempts = await _attempts(place)
    _match(place, attempts, asked, verdict)
    deadline = asyncio.get_running_loop().time() + DRIFT_GONE_S
    while (drifts := await _drifts(place, attempts)) and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.2)
    verdict.drift += sum(drifts.values())
    verdict.against += [f"{what}: {by} beyond or below the ledger" for what, by in drifts.items()]
    verdict.against += [f"invariant {broken}" for broken in await place.broken_invariants()]
    return verdict


async def _attempts(place: Place) -> list[Attempt]:
    by_attempt: dict[tuple[str, int], Attempt] = defaultdict(Attempt)
    for row in await place.rows():
        by_attempt[row["request_id"], row["attempt"]].rows.append(row)
    return list(by_attempt.values())


async def _drifts(place: Place, attempts: list[Attempt]) -> dict[str, int]:
    """What Redis counts as used against the ledger's `charged`: our own sums, not the gate's."""
    charged: dict[tuple[str, str], int] = defaultdict(int)
    for row in (row for attempt in attempts for row in attempt.rows):
        for charge in row["charged"]:
            charged[row["customer_id"], charge["budget_id"]] += charge["amount"]
    drifts: dict[str, int] = {}
    for customer in place.secrets:
        for budget in (await place.gate.admin("GET", f"/customers/{customer}/entitlements"))["budgets"]:
            used = int(Decimal(str(budget["used"])) * (10**6 if budget["meter"] == "cost_usd" else 1))
            recorded = charged[customer, budget["meter"]]
            if used != recorded:
                drifts[f"{customer}'s {budget['meter']}"] = abs(used - recorded)
    return drifts


def _match(place: Place, attempts: list[Attempt], asked: Sequence[Asked], verdict: Verdict) -> None:
    calls = {call.order: call for call in place.upstream.calls}
    verdict.calls = len(calls)
    unmatched = dict(calls)
    rest: dict[tuple[str, str], list[Attempt]] = defaultdict(list)
    answered: set[str] = set()
    for attempt in attempts:
        if attempt.terminals != 1:
            verdict.double += 1
            verdict.against.append(f"{attempt.last['id']} has {attempt.terminals} terminal rows")
        tag = attempt.last["user_id"]
        if not attempt.by_provider:
            verdict.orphaned += attempt.last["status"] == "orphaned"
            verdict.other += attempt.last["status"] != "orphaned"
            rest[tag, attempt.last["model_served"]].append(attempt)
            continue
        verdict.provider += 1
        answered.add(tag)
        _match_provider_row(attempt, tag, unmatched, verdict)
    for call in unmatched.values():
        key = (call.body["user"], call.model.removesuffix("-upstream"))
        if rest[key]:
            rest[key].pop()
        else:
            verdict.lost += 1
            verdict.against.append(f"call {call.order} of {key} (status {call.status}) has no row")
    for attempt in (each for left in rest.values() for each in left):
        if attempt.last["status"] != "orphaned" and any(attempt.tokens):
            verdict.wrong += 1
            verdict.against.append(f"{attempt.last['id']} charges {attempt.tokens}, and nobody called")
    for each in asked:
        if each.whole and each.tag not in answered:
            verdict.lost += 1
            verdict.against.append(f"{each.tag} saw a whole answer, and there is no provider row")


def _match_provider_row(attempt: Attempt, tag: str, unmatched: dict[int, Any], verdict: Verdict) -> None:
    said = attempt.last["provider_request_id"] or ""
    order = int(said.removeprefix(ORDER)) if said.startswith(ORDER) else -1
    call = unmatched.pop(order, None)
    if call is None or call.body["user"] != tag:
        verdict.double += 1
        verdict.against.append(f"{attempt.last['id']} ({tag}) says call {said!r}, which it is not, or not alone")
    elif (call.input_tokens, call.output_tokens) != attempt.tokens:
        verdict.wrong += 1
        verdict.against.append(
            f"{attempt.last['id']}: {attempt.tokens} in the ledger, {call.input_tokens, call.output_tokens} called"
        )
