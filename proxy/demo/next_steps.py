"""With what a newcomer goes on after the tour: commands and addresses, ready to be copied."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from proxy.app.keeper import Serving
from proxy.demo.stage import Stage
from proxy.demo.telling import Telling

MODEL = "gpt-4o-mini"
DOCS = "README.md, docs/architecture.md, docs/reference/, policies/README.md"


def go_on(tell: Telling, serving: Serving, secret: str, stage: Stage) -> None:
    """For a gate that goes on serving: everything can be tried as printed."""
    tell.step("It serves until Ctrl-C. Call it from another terminal:")
    tell.copied("", *curl(serving.url, secret))
    tell.say("\nfrom Python (pip install openai):\n")
    tell.copied(*python(serving.url, secret))
    tell.say("\nEdit the plan and ask again; the next request obeys:\n")
    tell.copied(str(stage.plan("starter")))
    tell.say("\nSee what was written down:\n")
    config = shlex.quote(str(stage.config))
    tell.copied(*(f"{command()} {verb} --config {config}" for verb in ("usage events", "usage denials", "doctor")))
    tell.say(f"\nAdmin API: {serving.admin_url}/admin/v1/openapi.json")
    tell.copied(f"Its token: {serving.token_place}")
    tell.say(f"Docs:      {DOCS}\n")
    tell.say('The demo\'s folder goes when it ends. For a gate that stays: README.md, "Your first real call".')


def go_on_elsewhere(tell: Telling) -> None:
    """For a tour that ends here: what would be typed beside one that goes on."""
    tell.step("That was --once. To try it yourself:")
    tell.copied("", f"{command()} demo", "")
    tell.say("goes on serving, and prints these with a secret that works:\n")
    tell.copied(*curl("http://127.0.0.1:8080", "$AGENT_SECRET"))
    tell.say("")
    tell.copied(*python("http://127.0.0.1:8080", "the agent's secret"))
    tell.say("\nAdmin API: http://127.0.0.1:8081/admin/v1/openapi.json")
    tell.say(f"Docs:      {DOCS}")


def curl(url: str, secret: str) -> list[str]:
    body = f'{{"model": "{MODEL}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    return [
        f"curl {url}/v1/chat/completions -H 'Content-Type: application/json' \\",
        f'  -H "Authorization: Bearer {secret}" \\',
        f"  -d '{body}'",
    ]


def python(url: str, secret: str) -> list[str]:
    messages = '[{"role": "user", "content": "Hello"}]'
    return [
        "from openai import OpenAI",
        f'client = OpenAI(base_url="{url}/v1", api_key="{secret}")',
        f'print(client.chat.completions.create(model="{MODEL}", messages={messages}).choices[0].message.content)',
    ]


def command() -> str:
    """How this very Faregate is called from the shell's current folder."""
    here = Path(sys.executable).parent / "faregate"
    if not here.is_file():
        return "python -m proxy"
    if str(here.parent) in os.environ.get("PATH", "").split(os.pathsep):
        return "faregate"
    near = os.path.relpath(here)
    return shlex.quote(near if not near.startswith("..") else str(here))
