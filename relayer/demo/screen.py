"""What the demo shows: chapters, tables, and at the end the summary; plain where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from messages.amounts import format_units

PLAIN_WIDTH = 140


class Screen:
    """Prints the story; with ``as_json`` it goes to stderr, so that stdout holds one JSON object."""

    def __init__(self, *, as_json: bool) -> None:
        self.console = Console(
            file=sys.stderr if as_json else sys.stdout,
            highlight=False,
            soft_wrap=True,
            width=None if sys.stdout.isatty() and not as_json else PLAIN_WIDTH,
        )
        self._begin = time.perf_counter()

    def chapter(self, number: int, title: str, minutes: int) -> None:
        """Heading of a chapter with the virtual time since the opening."""
        spent = time.perf_counter() - self._begin
        self.console.print(
            f"\n[bold]{number}. {title}[/bold]   [dim]virtual +{minutes // 60}:{minutes % 60:02d}, {spent:.1f} s[/dim]"
        )

    def say(self, text: str) -> None:
        """One line of the story."""
        self.console.print(f"   {text}", markup=False)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
        """A table; the first ``left`` columns are text, the others numbers."""
        table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2))
        for i, column in enumerate(columns):
            table.add_column(column, justify="left" if i < left else "right", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        self.console.print(table)


def show_units(units: int | None, decimals: int) -> str:
    """Units with thousands separators and two decimals, or a dash."""
    if units is None:
        return "-"
    whole = format_units(abs(units), decimals)
    integer, _, fraction = whole.partition(".")
    return f"{'-' if units < 0 else ''}{int(integer):,}.{(fraction + '00')[:2]}"
