"""The guided tour: a whole gate with a played provider, and every call made over HTTP, as a customer would.

In: nothing but the package. Out: the story on stdout and exit code 0, or a sentence on stderr and exit code 1. All
that the demo keeps lies in one temporary folder, which goes with it.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
import traceback
from pathlib import Path
from typing import Any

import uvloop

from proxy import __version__
from proxy.app.keeper import Serving, keep
from proxy.demo.next_steps import MODEL, go_on, go_on_elsewhere
from proxy.demo.scripted_upstream import ScriptedUpstream
from proxy.demo.scripts import Script
from proxy.demo.stage import UPSTREAM_KEY, DemoFault, Stage, stderr_into, with_free_ports
from proxy.demo.telling import Telling
from proxy.demo.visitor import Visitor, told
from proxy.settings import Settings, load_settings

CUSTOMER, AGENT = "acme", "acme-research"
SENTENCE_TOKENS = 34
ESSAY_TOKENS = 5_000
SMALL_LIMIT = 1_000
WORD_S = 0.02
PLAN = "starter"
# What the tour does to the plan file for a while, and how that is told.
EDITS = (
    (r"^(default_max_output_tokens = .*)$", r"\1\nmin_output_tokens = 64"),
    (r"^limit = .*$", f"limit = {SMALL_LIMIT:_}"),
)
EDITS_TOLD = f"limit = {SMALL_LIMIT:_}, min_output_tokens = 64"
_CANNOT_START = re.compile(r"^Faregate cannot start\. (.*)", re.MULTILINE | re.DOTALL)


def run(once: bool, config: Path | None) -> int:
    """Shows the tour and serves on until Ctrl-C, or ends after it; returns the exit code.

    Of the configuration, and of the environment, only the addresses and the number of workers count. Raises
    `SettingsFaults`.
    """
    given, telling = load_settings(config), Telling()
    try:
        stage = Stage.build()
    except (DemoFault, OSError) as fault:
        telling.fault(f"The demo cannot be set up: {fault}")
        return 1
    with stderr_into(stage.log):
        why_not = _play(Tour(once, stage, telling), given)
    if why_not is None:
        stage.remove()
        if not once:
            telling.say("\nEnded in order, and the demo's folder is gone.")
        return 0
    telling.fault(f"{why_not}\nThe demo's log is {stage.log}.")
    return 1


def _play(tour: Tour, given: Settings) -> str | None:
    """None if all went well, else why not in a sentence. No fault may reach a newcomer as a traceback."""
    try:
        return uvloop.run(tour.play(given))
    except DemoFault as fault:
        return str(fault)
    except Exception as fault:
        traceback.print_exc()
        return f"The demo failed: {type(fault).__name__}: {fault}"


class Tour:
    """The story, a step a method. Each raises `DemoFault` where it cannot be told on."""

    def __init__(self, once: bool, stage: Stage, tell: Telling) -> None:
        self._once, self._stage, self._tell = once, stage, tell
        self._upstream = ScriptedUpstream(api_key=UPSTREAM_KEY)
        self._began = time.monotonic()

    async def play(self, given: Settings) -> str | None:
        """Brings the gate up, shows it and serves. The sentence that says why it could not start, or None."""
        self._tell.title(f"Faregate {__version__}: the provider is played, everything else is real.")
        starting = contextlib.ExitStack()

        async def ready(serving: Serving) -> bool:
            starting.close()
            await self._show(serving)
            return not self._once

        async with self._upstream as upstream:
            settings, taken = with_free_ports(self._stage.settings(given, upstream.url))
            for port in taken:
                self._tell.say(f"Port {port} is taken by another program, so the demo takes a free one.")
            with starting:
                starting.enter_context(self._tell.busy("Starting a keeper, a worker, a Valkey and a ledger ..."))
                code = await keep(settings, ready)
        return None if code == 0 else self._why_not()

    async def _show(self, serving: Serving) -> None:
        took_s = time.monotonic() - self._began
        self._tell.say(f"Ready after {took_s:.1f} s: gate {serving.url}/v1, admin plane {serving.admin_url}")
        async with Visitor(serving.url, serving.admin_url, serving.admin_token) as visitor:
            secret = await self._welcome(visitor)
            await self._call(visitor, secret)
            await self._stream(visitor, secret)
            limit = await self._read_the_record(visitor)
            plan = self._stage.plan(PLAN).read_text()
            await self._spend(visitor, secret, plan)
            await self._put_back(visitor, secret, plan, limit)
            await self._check_the_books(visitor)
        if self._once:
            go_on_elsewhere(self._tell)
            return
        self._upstream.script(Script(times=0, output_tokens=SENTENCE_TOKENS, chunk_delay_s=WORD_S))
        self._stage.write_config(serving)
        go_on(self._tell, serving, secret, self._stage)

    async def _welcome(self, visitor: Visitor) -> str:
        """The admin's part; returns the agent's secret."""
        self._tell.step('A customer, "Acme Corp" on the starter plan, gets a research agent (admin API)')
        await visitor.admin("POST", "/customers", {"id": CUSTOMER, "name": "Acme Corp", "plan": "starter"})
        await visitor.admin("POST", "/agent-types", {"id": "research", "name": "Research Agent", "kind": "custom"})
        agent = {"id": AGENT, "name": "Acme's researcher", "customer_id": CUSTOMER, "agent_type_id": "research"}
        await visitor.admin("POST", "/agents", agent)
        created = await visitor.admin("POST", f"/agents/{AGENT}/secrets", {})
        self._tell.say(f"Its secret, shown once, is its API key: {created['secret'][:12]}...")
        return str(created["secret"])

    async def _call(self, visitor: Visitor, secret: str) -> None:
        self._tell.step("The agent asks, with nothing changed in its client but base_url and key")
        self._upstream.script(Script(output_tokens=SENTENCE_TOKENS))
        answer = await self._answered(visitor, secret, "What does a gate do?")
        self._tell.quote(answer["choices"][0]["message"]["content"])

    async def _stream(self, visitor: Visitor, secret: str) -> None:
        self._tell.step("And again, streamed")
        self._upstream.script(Script(output_tokens=SENTENCE_TOKENS, chunk_delay_s=WORD_S))
        await self._tell.stream(visitor.stream(secret, _asking("And what does it write down?")))

    async def _read_the_record(self, visitor: Visitor) -> int:
        """The events and what is left; returns the plan's limit."""
        self._tell.step("Written down once for each: who, what, how much, by the provider's own report")
        self._tell.table(
            ("usage event", "", "model", ">input", ">output", ">cost in USD", "usage from"),
            [_row(event) for event in await visitor.usage_events(2)],
        )
        return await self._show_what_is_left(visitor)

    async def _show_what_is_left(self, visitor: Visitor) -> int:
        [budget] = (await visitor.admin("GET", f"/customers/{CUSTOMER}/entitlements"))["budgets"]
        self._tell.say(
            f"Left: {budget['remaining']:,} of {budget['limit']:,} {budget['meter']}"
            f" ({budget['used']:,} used, {budget['held']:,} held); they renew on {budget['resets_at'][:10]}."
        )
        return int(budget["limit"])

    async def _spend(self, visitor: Visitor, secret: str, plan: str) -> None:
        self._tell.step("The plan is a file. An edit leaves little, and an essay is asked for")
        self._tell.copied(f"policies/plans/{PLAN}.toml: {EDITS_TOLD}")
        await self._edit_plan(visitor, _edited(plan), SMALL_LIMIT)
        self._upstream.script(Script(output_tokens=ESSAY_TOKENS))
        answer = await self._answered(visitor, secret, "Go on.")
        allowed, usage = self._upstream.calls[-1].output_limit, answer["usage"]
        self._tell.say(
            f"The provider was told to stop at {allowed:,} tokens, as far as the budget goes, and wrote"
            f" {usage['completion_tokens']:,} (finish_reason: {answer['choices'][0]['finish_reason']})."
        )
        await self._show_what_is_left(visitor)
        await self._be_refused(visitor, secret)

    async def _be_refused(self, visitor: Visitor, secret: str) -> None:
        calls = len(self._upstream.calls)
        status, headers, answer = await visitor.chat(secret, _asking("Go on."))
        if status != 402 or len(self._upstream.calls) != calls:
            raise DemoFault(
                f"A spent budget should be refused with 402 and no call; this was {told(status, answer)}"
            )
        self._tell.step("The next request is refused before a token is bought. What the end user reads:")
        self._tell.quote(answer["error"]["message"])
        self._tell.say(
            f"HTTP {status}, x-should-retry: {headers.get('x-should-retry')}; the provider never saw it."
            " For programs, error.budget:"
        )
        self._tell.say(json.dumps(answer["error"]["budget"]))

    async def _put_back(self, visitor: Visitor, secret: str, plan: str, limit: int) -> None:
        self._tell.step("The file is put back: no restart, no deploy, and the next request obeys")
        took_s = await self._edit_plan(visitor, plan, limit)
        self._upstream.script(Script(output_tokens=SENTENCE_TOKENS))
        answer = await self._answered(visitor, secret, "Go on.")
        self._tell.quote(answer["choices"][0]["message"]["content"])
        self._tell.say(f"The edited file was live after {took_s:.1f} s.")

    async def _check_the_books(self, visitor: Visitor) -> None:
        self._tell.step("And the books balance: counters, reservations and ledger against each other")
        invariants = await visitor.admin("GET", "/invariants")
        if not invariants["ok"]:
            broken = ", ".join(check["id"] for check in invariants["checks"] if not check["ok"])
            raise DemoFault(f"The books do not balance: {broken}. That is a bug of Faregate.")
        provider = sum(call.input_tokens + call.output_tokens for call in self._upstream.calls)
        events = await visitor.usage_events(len(self._upstream.calls))
        recorded = sum(event["input_tokens"] + event["output_tokens"] for event in events)
        if provider != recorded:
            raise DemoFault(f"The provider billed {provider:,} tokens and {recorded:,} were recorded.")
        self._tell.say(
            f"{len(invariants['checks'])} invariants hold. The provider billed {provider:,} tokens in"
            f" {len(self._upstream.calls)} calls; {len(events)} usage events say {recorded:,}."
        )

    async def _answered(self, visitor: Visitor, secret: str, question: str) -> Any:
        status, _, answer = await visitor.chat(secret, _asking(question))
        if status != 200:
            raise DemoFault(f"The agent was refused: {told(status, answer)}")
        return answer

    async def _edit_plan(self, visitor: Visitor, text: str, limit: int) -> float:
        """Saves the plan file as an editor does; answers after how many seconds the gate obeyed."""
        file = self._stage.plan(PLAN)
        began = time.monotonic()
        draft = file.with_name(f".{file.name}.new")
        draft.write_text(text)
        draft.replace(file)
        await visitor.limit_is_live(CUSTOMER, limit)
        return time.monotonic() - began

    def _why_not(self) -> str:
        """What the keeper told its terminal, which is the log here."""
        said = _CANNOT_START.findall(self._stage.log.read_text(errors="replace"))
        return f"The demo cannot start. {said[-1].strip()}" if said else "The demo was ended."


def _edited(plan: str) -> str:
    for line, other in EDITS:
        plan, times = re.subn(line, other, plan, flags=re.MULTILINE)
        if times != 1:
            raise DemoFault(f"The {PLAN} plan that ships should have one line {line}, and has {times}.")
    return plan


def _asking(question: str) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": question}]}


def _row(event: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"{event['id'][:9]}...{event['id'][-6:]}",
        "stream" if event["streamed"] else "plain",
        event["model_served"],
        f"{event['input_tokens']:,}",
        f"{event['output_tokens']:,}",
        str(event["cost_usd"]),
        event["usage_source"],
    )
