"""The command `faregate`: starts the house, or speaks to a running one over its admin API.

In: arguments and the environment. Out: tables or JSON on stdout, sentences on stderr, and an exit code: 0 done,
1 refused, 2 wrongly asked, 3 no gate there. `root.py` has the verbs that start or check something, one file per
group has the rest; `client.py` is the only one that opens a connection. Each verb imports what it needs when it
runs, so that `--help` is quick.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits. A worker's needs no parser, and should not pay for one."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["worker"]:
        sys.exit(_worker(given[1:]))

    from proxy.cli.root import app

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a name's letter must not end the verb.
            stream.reconfigure(errors="replace")
    app(args=given, prog_name="faregate")


def _worker(arguments: list[str]) -> int:
    match arguments:
        case ["--control-fd", number] if number.isdecimal():
            from proxy import app

            return app.worker(int(number))
        case _:
            print("A worker is started by the keeper: faregate worker --control-fd N", file=sys.stderr)
            return 2
