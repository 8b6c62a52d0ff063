"""Every verb over the admin API, against a real admin plane."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from proxy.billing.ports import ChainHead
from proxy.cli.root import app
from proxy.domain.deeds import by_the_gate
from proxy.domain.secrets import ADMIN_PREFIX, SECRET_RANDOM_BYTES, make_secret
from proxy.gateway.ports import StoreAway
from tests.doubles.admin import AdminPlane
from tests.doubles.directory import usage_event

# The second number that the plane gives out; the first is the secret's.
FIRST_TOKEN = make_secret((2).to_bytes(7, "big") + bytes(SECRET_RANDOM_BYTES - 7), ADMIN_PREFIX)[0]
Run = Callable[..., Any]

OVER_THE_API = [
    ("customers", "create", "Globex"),
    ("customers", "list"),
    ("customers", "show", "acme"),
    ("customers", "entitlements", "acme"),
    ("customers", "suspend", "acme"),
    ("customers", "resume", "acme"),
    ("customers", "plan", "acme"),
    ("customers", "plan", "acme", "pro"),
    ("customers", "contacts", "acme"),
    ("customers", "add-contact", "acme", "Ada", "--email", "ada@acme.example"),
    ("customers", "override", "acme", "overrides.json"),
    ("subscriptions", "show", "acme"),
    ("subscriptions", "start", "acme", "pro"),
    ("subscriptions", "start", "acme", "pro", "--at-period-end"),
    ("subscriptions", "anchor", "acme", "2026-12-01T00:00:00Z"),
    ("subscriptions", "cancel", "acme"),
    ("subscriptions", "keep", "acme"),
    ("subscriptions", "history", "acme"),
    ("grants", "create", "acme", "500000", "--reason", "sorry"),
    ("grants", "create", "acme", "12.50", "--meter", "cost_usd"),
    ("grants", "list", "acme", "--live"),
    ("grants", "show", "acme", "pack-1"),
    ("grants", "void", "acme", "pack-1"),
    ("agents", "create", "Scribe", "--customer", "acme", "--type", "research"),
    ("agents", "list"),
    ("agents", "list", "--customer", "acme"),
    ("agents", "show", "scout"),
    ("agents", "types"),
    ("agents", "create-type", "Writer"),
    ("secrets", "create", "scout"),
    ("secrets", "list", "scout"),
    ("secrets", "revoke", "scout", "sec1"),
    ("usage", "events"),
    ("usage", "summary", "--by", "model"),
    ("usage", "denials"),
    ("plans", "list"),
    ("plans", "show", "starter"),
    ("plans", "versions", "starter"),
    ("plans", "diff"),
    ("plans", "apply"),
    ("plans", "export", "starter"),
    ("plans", "adopt", "starter", "--to", "store"),
    ("plans", "rollback", "pro", "1"),
    ("tokens", "create", "ci", "--role", "operator"),
    ("tokens", "list"),
    ("tokens", "revoke", FIRST_TOKEN),
    ("alerts", "list", "--customer", "acme"),
    ("webhooks", "create", "https://example.com/hooks", "--event", "budget.exhausted"),
    ("webhooks", "list"),
    ("webhooks", "test", "home"),
    ("webhooks", "deliveries", "--status", "dead"),
    ("webhooks", "replay", "dlv_1"),
    ("audit", "list"),
    ("audit", "verify"),
    ("doctor",),
]


def verbs(command: Any, above: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Every verb of the command line, as its words."""
    below = getattr(command, "commands", None)
    if below is None:
        return {above}
    return {verb for name, inner in below.items() for verb in verbs(inner, (*above, name))}


def test_every_verb_is_tried_here() -> None:
    """A new verb that nobody runs is a verb that nobody knows to work."""
    tried = {words[:2] for words in OVER_THE_API} | {("doctor",), ("plans", "delete")}
    assert verbs(get_command(app)) - {("serve",), ("demo",), ("check",)} == tried


def schedule_a_change(furnished: Run) -> None:
    furnished("subscriptions", "start", "acme", "starter")
    furnished("subscriptions", "start", "acme", "pro", "--at-period-end")


@pytest.mark.parametrize("words", OVER_THE_API, ids=" ".join)
def test_every_verb_works_and_prints_json_on_request(words: tuple[str, ...], furnished: Run) -> None:
    """Programs read JSON, people read tables; both from the same verb."""
    furnished("secrets", "create", "scout")
    furnished("tokens", "create", "first", "--role", "owner")
    furnished("grants", "create", "acme", "9", "--id", "pack-1")
    Path("overrides.json").write_text('{"features": {"web_search": true}}')
    schedule_a_change(furnished)
    furnished(*words)
    if words[1:2] == ("add-contact",):
        assert "ada" in json.loads(furnished("customers", "contacts", "acme", "--json").stdout)["data"][0]["email"]

    schedule_a_change(furnished)
    answer = json.loads(furnished(*words, "--json").stdout)

    assert isinstance(answer, dict)


@pytest.mark.parametrize("words", [(*verb, "--help") for verb in sorted(verbs(get_command(app)))], ids=" ".join)
def test_every_verb_explains_itself(words: tuple[str, ...], run: Run) -> None:
    """`--help` is the manual."""
    text = run(*words).stdout

    assert text.startswith("Usage: ")
    assert len(text.splitlines()) > 6


@pytest.mark.parametrize(
    "group",
    [
        "",
        "customers",
        "subscriptions",
        "grants",
        "agents",
        "secrets",
        "usage",
        "plans",
        "tokens",
        "audit",
        "alerts",
        "webhooks",
    ],
)
def test_a_group_alone_shows_its_verbs(group: str, run: Run) -> None:
    """Whoever types a word to see what happens learns what can follow."""
    result = run(*filter(None, [group]), code=2)

    assert "Commands:" in result.output


def test_a_list_names_what_is_in_it(furnished: Run) -> None:
    """Ids can be copied from the table into the next verb."""
    table = furnished("customers", "list").stdout

    assert "acme" in table
    assert "Acme Corp" in table
    assert "\x1b" not in table


def test_an_empty_list_says_so(run: Run) -> None:
    """An empty table looks like an error."""
    assert run("customers", "list").stdout == "There is no customer yet.\n"


def test_a_list_is_followed_over_its_pages(run: Run, plane: AdminPlane) -> None:
    """`--limit 2500` is what was asked, whatever the gate's pages hold."""
    plane.reports.events = [usage_event(n) for n in range(2600)]

    answer = json.loads(run("usage", "events", "--limit", "2500", "--json").stdout)

    assert [event["request_id"] for event in answer["data"]] == [f"req_{n}" for n in range(2500)]
    assert answer["next_cursor"] is not None


def test_a_list_that_goes_on_says_so(run: Run, plane: AdminPlane) -> None:
    """Nobody should take the first hundred for all."""
    assert "There are more" in run("usage", "events", "--limit", "2").stderr
    assert run("usage", "events", "--limit", "3").stderr == ""


def test_the_secret_alone_goes_to_stdout(furnished: Run) -> None:
    """So that $(faregate secrets create scout) is the key."""
    result = furnished("secrets", "create", "scout")

    assert result.stdout == "fg_live_sec1_TheSecretItself\n"
    assert "shown this once" in result.stderr


def test_the_token_alone_goes_to_stdout(run: Run, plane: AdminPlane) -> None:
    """So that a shell can put it into a file, and nothing else with it."""
    result = run("tokens", "create", "prometheus", "--role", "read-only", "--expires-at", "2027-01-01T00:00:00Z")

    (made,) = plane.tokens.kept.values()
    assert result.stdout.startswith(f"fga_live_{made.id}_")
    assert result.stdout.count("\n") == 1
    assert (made.name, made.role, str(made.expires_at)) == ("prometheus", "read-only", "2027-01-01 00:00:00+00:00")
    assert result.stdout.strip() not in run("tokens", "list").output


def test_the_audit_log_is_shown_and_verified(run: Run, plane: AdminPlane) -> None:
    """Whoever reads it asks who, what and from what to what; a broken chain is exit code 1."""
    plane.audit_log.written.append(by_the_gate("policy files"))
    listed = run("audit", "list", "--resource", "customer/acme", "--actor", "system", "--outcome", "done").stdout
    assert "policy files (system, system)" in listed
    assert "All 1 entries are as they were written. The head is 1:" in run("audit", "verify").stdout
    assert plane.audit_log.asked == {
        "resource_kind": "customer",
        "resource_id": "acme",
        "actor": "system",
        "outcome": "done",
    }

    plane.audit_log.fault = "Entry 1 is not what was written."
    told = run("audit", "verify", "--anchor", f"1:{'0' * 64}", code=1).stdout
    assert told.startswith("Entry 1 is not what was written. The 1 entries before it")
    assert plane.audit_log.anchor == ChainHead(1, "0" * 64)
    run("audit", "verify", "--anchor", "nonsense", code=2)


def test_options_reach_the_gate(furnished: Run, plane: AdminPlane) -> None:
    """Every filter under the name that the API knows."""
    furnished(
        *("usage", "events", "--customer", "acme", "--agent", "scout", "--request", "r", "--user", "u"),
        *("--run", "n", "--step", "s", "--model", "m", "--status", "failed"),
        *("--from", "2026-11-01T00:00:00Z", "--to", "2026-11-02T00:00:00Z"),
    )
    furnished("usage", "summary", "--by", "customer,day", "--run", "n")
    furnished("usage", "denials", "--reason", "budget")

    (_, events), (_, summary), (_, denials) = plane.reports.asked
    assert {**events, "from": events["from"].day, "to": events["to"].day} == {
        "customer_id": "acme",
        "agent_id": "scout",
        "request_id": "r",
        "user_id": "u",
        "run_id": "n",
        "step": "s",
        "model": "m",
        "status": "failed",
        "from": 1,
        "to": 2,
    }
    assert summary == {"group_by": ["customer", "day"], "run_id": "n"}
    assert denials == {"reason": "budget"}


def test_a_customer_is_suspended_and_let_in_again(furnished: Run, plane: AdminPlane) -> None:
    """The two verbs do what they say."""
    furnished("customers", "suspend", "acme")
    assert plane.accounts.kept["customer"]["acme"].status == "suspended"
    furnished("customers", "resume", "acme")
    assert plane.accounts.kept["customer"]["acme"].status == "active"


def test_a_plan_is_shown_without_and_swapped_with_a_plan(furnished: Run, plane: AdminPlane) -> None:
    """To look is not to change."""
    assert "on plan starter" in furnished("customers", "plan", "acme").stdout
    assert "on plan pro" in furnished("customers", "plan", "acme", "pro").stdout
    assert "Name the plan too" in furnished("customers", "plan", "acme", "--anchor", "x", code=2).output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("customers", "show", "nobody"), "There is no customer 'nobody'."),
        (("customers", "show", "../../metrics"), "There is no customer"),
        (("customers", "create", "Acme", "--id", "acme"), "There is already a customer 'acme'."),
        (("customers", "create", "Acme", "--plan", "startr"), "Did you mean 'starter'?"),
        (("agents", "create-type", "A", "--kind", "cobol"), "custom, langgraph"),
        (("secrets", "revoke", "scout", "nothing"), "There is no secret 'nothing'."),
        (("usage", "summary", "--by", "custmer"), "Did you mean 'customer'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_refusal_is_a_sentence_on_stderr_and_1(words: tuple[str, ...], told: str, furnished: Run) -> None:
    """The gate's own words, for it knows what would be right."""
    result = furnished(*words, code=1)

    assert told in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "words", [("customers", "shwo"), ("customers", "show"), ("nothing",), ("usage", "--lmit")]
)
def test_a_misspelt_verb_is_2(words: tuple[str, ...], run: Run) -> None:
    """Scripts tell a typing error from a refusal."""
    assert "Error" in run(*words, code=2).stderr


def test_doctor_is_1_when_an_invariant_fails(run: Run, plane: AdminPlane) -> None:
    """It is run by cron; nobody reads a table that exits 0."""
    plane.invariants_ok = False

    result = run("doctor", code=1)

    assert "FAILED" in result.stdout
    assert "Everything holds" not in result.stdout
    assert json.loads(run("doctor", "--json", code=1).stdout)["invariants"]["ok"] is False


def test_doctor_tells_what_it_can_when_a_check_cannot_run(run: Run, plane: AdminPlane) -> None:
    """With Redis away the invariants cannot be read, and that is the finding."""
    plane.invariants_fault = StoreAway()

    result = run("doctor", code=1)

    assert "redis" in result.stdout
    assert "Redis does not answer" in result.stdout


def test_what_agents_name_things_does_not_steer_the_terminal(run: Run, plane: AdminPlane) -> None:
    """A step called ESC ]0; would rename the admin's window, or worse; [red] is a name like any other."""
    plane.reports.events = [{**usage_event(1), "model_served": "\x1b]0;owned\x07[red]x[/red]"}]

    table = run("usage", "events").stdout

    assert "\x1b" not in table
    assert "[red]x[/red]" in table


def test_version_says_which() -> None:
    """For whoever reports a fault."""
    from typer.testing import CliRunner

    from proxy import __version__

    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"faregate {__version__}\n")


def test_a_new_webhook_secret_alone_goes_to_stdout(run: Run) -> None:
    """A shell can take it, and nothing else comes along."""
    made = run("webhooks", "create", "https://example.com/hooks", "--id", "home")

    assert made.stdout.startswith("whsec_")
    assert len(made.stdout.splitlines()) == 1
    assert "home" in made.stderr
    assert "whsec_" not in run("webhooks", "list", "--json").stdout
