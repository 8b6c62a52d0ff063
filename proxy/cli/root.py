"""The verbs that start or check something, and the groups of those that ask a running gate."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated

import typer

from proxy.cli import (
    agents,
    alerts,
    audit,
    customers,
    grants,
    plans,
    secrets,
    subscriptions,
    tokens,
    usage,
    webhooks,
)
from proxy.cli.client import CliFault, config_file
from proxy.cli.doctor import doctor
from proxy.cli.verbs import Config, told, verb

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    # A traceback with local variables would print the token.
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        from proxy import __version__

        typer.echo(f"faregate {__version__}")
        raise typer.Exit


@app.callback()
def faregate(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
) -> None:
    """An entitlement and budget gate for LLM APIs.

    \b
    See it work, then go on with what it prints:
      faregate demo
    \b
    Serve, and let a first agent in:
      faregate serve
      faregate customers create "Acme Corp" --id acme --plan starter
      faregate agents create-type "Research Agent" --id research
      faregate agents create "Acme's researcher" --id acme-research --customer acme --type research
      export OPENAI_API_KEY=$(faregate secrets create acme-research)
      export OPENAI_BASE_URL=http://127.0.0.1:8080/v1
    """


@app.command()
def serve(config: Config = None) -> None:
    """Serve: the gate on one port, the admin plane on another.

    \b
    faregate serve
    faregate serve --config /etc/faregate/config.toml
    """

    def run() -> int:
        from proxy import app as house

        return house.serve(config_file(config))

    _exit_with(run)


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="Show it and exit, instead of serving on.")] = False,
    config: Config = None,
) -> None:
    """Show the gate at work, with nothing to set up.

    Everything is embedded: a scripted upstream, a demo customer, two metered calls and a denial.

    \b
    faregate demo
    """

    def run() -> int:
        from proxy.demo import tour

        return tour.run(once, config)

    _exit_with(run)


@app.command()
def check(config: Config = None) -> None:
    """Check the settings and policy files.

    Prints every fault with file, line and what would be right, and exits 1 if there is one; else what is worth
    knowing although the gate would start, as an upstream without a key.

    \b
    faregate check
    faregate check --config staging/config.toml
    """

    def run() -> int:
        from proxy import policy_files

        file = config_file(config)
        faults = policy_files.check(file)
        for told_of in faults or policy_files.remarks(file, os.environ):
            typer.echo(str(told_of))
        if not faults:
            typer.echo("Settings and policies are in order.")
        return 1 if faults else 0

    _exit_with(run)


def _exit_with(run: Callable[[], int]) -> None:
    """Runs what starts or checks the house; faulty settings are told, not thrown."""
    from proxy.settings import SettingsFaults

    with told():
        try:
            code = run()
        except SettingsFaults as faults:
            raise CliFault(str(faults), 1) from None
    raise typer.Exit(code)


verb(app, "doctor")(doctor)
app.add_typer(customers.app, name="customers")
app.add_typer(subscriptions.app, name="subscriptions")
app.add_typer(grants.app, name="grants")
app.add_typer(agents.app, name="agents")
app.add_typer(secrets.app, name="secrets")
app.add_typer(usage.app, name="usage")
app.add_typer(plans.app, name="plans")
app.add_typer(alerts.app, name="alerts")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(tokens.app, name="tokens")
app.add_typer(audit.app, name="audit")
