"""Tests mirror the source: whoever changes a file finds its test without searching."""

from __future__ import annotations

from pathlib import Path

HOME = Path(__file__).parents[2]
LINES_OF_IMPORTANCE = 100

# What is proven by the test of something larger, and there only: each file or room, and the test to look into.
ELSEWHERE = {
    # The composition root decides nothing by itself; whole gates are served to prove that it fits together.
    "proxy/app/": "tests/e2e/test_one_call.py",
    # Protocols and rows have nothing that could be run.
    "proxy/billing/ports.py": "tests/gateway/test_journey.py",
    "proxy/billing/alerts.py": "tests/ledger/test_delivery_queue.py",
    "proxy/ledger/alert_sources.py": "tests/ledger/test_ledger_alerts.py",
    "proxy/ledger/webhooks.py": "tests/ledger/test_delivery_queue.py",
    "proxy/gateway/ports.py": "tests/gateway/test_journey.py",
    "proxy/ledger/tables.py": "tests/ledger/test_migrate.py",
    "proxy/domain/reservations.py": "tests/properties/test_reservation_protocol.py",
    "proxy/domain/messages_": "tests/domain/test_messages_requests.py",
    "proxy/domain/responses_": "tests/domain/test_responses_requests.py",
    "proxy/domain/policy.py": "tests/domain/test_policy_documents.py",
    # The steps of the journey are told, and tested, as one.
    "proxy/gateway/": "tests/gateway/test_journey.py",
    "proxy/cli/": "tests/cli/test_cli_verbs.py",
    "proxy/demo/": "tests/demo/test_scripted_upstream.py",
    "proxy/ledger/denials.py": "tests/ledger/test_writer.py",
    "proxy/ledger/engine.py": "tests/ledger/test_migrate.py",
    "proxy/ledger/outbox.py": "tests/ledger/test_directory.py",
    "proxy/ledger/rows.py": "tests/ledger/test_entries.py",
    "proxy/policy_files/catalogue.py": "tests/policy_files/test_reading.py",
    "proxy/web/api/routes.py": "tests/web/test_server.py",
    "proxy/policy_files/plans.py": "tests/policy_files/test_reading.py",
    "proxy/policy_files/tables.py": "tests/policy_files/test_reading.py",
    "proxy/processes/control.py": "tests/processes/test_supervisor.py",
    "proxy/providers/connections.py": "tests/providers/test_openai_wire.py",
    "proxy/providers/litellm_carriage.py": "tests/providers/test_litellm_arguments.py",
    "proxy/providers/chat_answers.py": "tests/providers/test_openai_wire.py",
    "proxy/providers/translation/messages_": "tests/providers/translation/test_messages_over_chat.py",
    "proxy/providers/translation/responses_input.py": "tests/providers/translation/test_responses_request.py",
    "proxy/providers/responses_delivered.py": "tests/providers/test_responses_answers.py",
    "proxy/providers/exchanges.py": "tests/providers/test_upstream_protocol.py",
    "proxy/providers/native_answers.py": "tests/providers/test_openai_wire.py",
    "proxy/providers/native_wire.py": "tests/providers/test_openai_wire.py",
    "proxy/settings/tree.py": "tests/settings/test_settings_loading.py",
    "proxy/web/admin/": "tests/web/admin/test_admin_routes.py",
    "proxy/web/listener.py": "tests/web/test_connection.py",
}


def important() -> list[Path]:
    """Sources long enough to be wrong on their own."""
    sources = sorted((HOME / "proxy").rglob("*.py"))
    return [
        path.relative_to(HOME)
        for path in sources
        if "migrations" not in path.parts
        and not path.name.startswith("__")
        and len(path.read_text().splitlines()) >= LINES_OF_IMPORTANCE
    ]


def mirrors_of(source: Path) -> list[Path]:
    """Where its test may be: the mirrored folder, by the file's name, with the room's before it if two clash."""
    room = HOME / "tests" / Path(*source.parts[1:-1])
    names = (f"test_{source.stem}.py", f"test_{source.parent.name}_{source.stem}.py")
    return [room / name for name in names]


def elsewhere(source: Path) -> str | None:
    return next((test for key, test in ELSEWHERE.items() if str(source).startswith(key)), None)


def test_every_file_of_importance_has_its_test() -> None:
    """A test that has to be searched for is not run before a change, nor changed with it."""
    sources = important()
    assert len(sources) > 40
    missing = [
        str(source)
        for source in sources
        if not any(test.exists() for test in mirrors_of(source)) and elsewhere(source) is None
    ]
    assert missing == []


def test_the_exceptions_are_still_needed_and_still_true() -> None:
    """A list of exceptions that nobody prunes becomes the rule."""
    sources = [str(source) for source in important()]
    assert [key for key in ELSEWHERE if not any(source.startswith(key) for source in sources)] == []
    assert [test for test in ELSEWHERE.values() if not (HOME / test).exists()] == []
