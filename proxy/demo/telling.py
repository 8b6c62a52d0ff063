"""How the tour is told: short, in colour on a terminal, and plain text without control codes anywhere else."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

from rich import box
from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

_WIDTH_IN_PIPES = 100
_INDENT = "   "


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Whoever listened has gone (`| head`): the tour ends in order all the same, and rich would just exit."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class Telling:
    """Writes to stdout; text is taken as it is, and never wrapped where it is meant to be copied."""

    def __init__(self) -> None:
        fixed = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDTH_IN_PIPES
        self._console = _Console(markup=False, emoji=False, highlight=False, width=fixed)
        self._width = max(20, self._console.width - len(_INDENT))
        self._step = 0

    @contextlib.contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """On a terminal, a sign that something goes on."""
        if not self._console.is_terminal:
            yield
            return
        # Its own redirections would bring back the log, which goes elsewhere.
        spinner = Spinner("dots", Text(what))
        with Live(spinner, console=self._console, transient=True, redirect_stdout=False, redirect_stderr=False):
            yield

    def title(self, text: str) -> None:
        self._console.print(text, style="bold")

    def step(self, text: str) -> None:
        self._step += 1
        self._console.print()
        self._console.print(Text.assemble((f"{self._step}  ", "bold cyan"), (text, "bold")))

    def say(self, text: str, style: str = "") -> None:
        for paragraph in text.split("\n"):
            for line in Text(paragraph, style).wrap(self._console, self._width):
                self._console.print(Text.assemble(_INDENT, line) if line else "")

    def quote(self, text: str) -> None:
        """What a model or the gate says to a person."""
        self.say(text, "italic")

    def copied(self, *lines: str) -> None:
        """Lines for a shell or a file: never wrapped."""
        for line in lines:
            self._console.print(Text(f"{_INDENT}{line}" if line else "", "green"), soft_wrap=True)

    async def stream(self, pieces: AsyncIterator[str]) -> None:
        """Text as it comes, broken between pieces where a line is full."""
        column = self._width
        async for piece in pieces:
            if column + len(piece) > self._width:
                self._console.print(("" if column == self._width else "\n") + _INDENT, end="")
                column, piece = 0, piece.lstrip()
            self._console.print(Text(piece, "italic"), end="")
            column += len(piece)
        self._console.print()

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Headings that begin with ">" stand above numbers."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for heading in headings:
            right = heading.startswith(">")
            table.add_column(heading.removeprefix(">"), justify="right" if right else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        self._console.print(Padding(table, (0, 0, 0, len(_INDENT))))

    def fault(self, sentence: str) -> None:
        sys.stderr.write(sentence + "\n")
