"""What commands say: one answer, told to people as tables or to programs as JSON; to nobody as both.

Amounts are decimal strings in JSON and have units and thousands separators in tables. Identifiers are shortened in tables as far as
they stay unique, and whole with ``--full`` and in JSON. Nothing depends on colour.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TextIO

from messages.amounts import format_units

SHORTEST_ID = 8
"""Hex digits of a shortened id, at least."""

PLAIN_WIDTH = 4_000
"""Width allowed to tables where no terminal says its own: they take what they need and nothing is cut."""


@dataclass(frozen=True)
class Table:
    """A table; numeric columns are named in ``right`` and set to the right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[str] = ()
    empty: str = "nothing"


@dataclass(frozen=True)
class Answer:
    """What a command found: ``data`` for programs (with a schema name), ``parts`` for people, and the exit code."""

    data: Mapping[str, Any]
    parts: Sequence[Table | str] = field(default_factory=tuple)
    code: int = 0


class Names:
    """Shortens identifiers so far that all that were announced stay different.

    Args:
        is_full: leave them whole.
        known: identifiers that have a name of their own, which is used instead.
    """

    def __init__(
        self, ids: Iterable[bytes] = (), *, is_full: bool = False, known: Mapping[bytes, str] | None = None
    ) -> None:
        self._is_full = is_full
        self._known = dict(known or {})
        self._digits = 64 if is_full else _get_unique_digits({i for i in ids if i not in self._known})

    def __call__(self, identifier: bytes) -> str:
        """Text of an id: its name, or its first hex digits."""
        if identifier in self._known:
            return self._known[identifier]
        if self._is_full:
            return "0x" + identifier.hex()
        start = 24 if len(identifier) == 32 and identifier[:12] == bytes(12) else 0
        return "0x" + identifier.hex()[start : start + self._digits]


def _get_unique_digits(ids: set[bytes]) -> int:
    # The zeros before an address tell nothing and are left out, here as above.
    texts = {i.hex()[24:] if len(i) == 32 and i[:12] == bytes(12) else i.hex() for i in ids}
    digits = SHORTEST_ID
    while digits < 64 and len({text[:digits] for text in texts}) < len(texts):
        digits += 1
    return digits


def format_amount(units: int, decimals: int, unit: str = "", *, places: int = 2) -> str:
    """Text of an amount in base units: "1,234.50 USDC"; exact: trailing zeros go down to ``places`` digits."""
    text = format_units(units, decimals)
    sign = "-" if text.startswith("-") else ""
    whole, _, fraction = text.removeprefix("-").partition(".")
    fraction = fraction.rstrip("0").ljust(min(places, decimals), "0")
    number = f"{sign}{int(whole):,}" + (f".{fraction}" if fraction else "")
    return f"{number} {unit}".rstrip()


def format_money(value: float, unit: str = "") -> str:
    """Text of a computed (not exact) value, two digits: margins and marks."""
    text = f"{value:,.2f}"
    return f"{'0.00' if text == '-0.00' else text} {unit}".rstrip()


def format_time(seconds: int) -> str:
    """UTC text of unix seconds."""
    if not 0 < seconds < 253_402_300_800:
        return str(seconds)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def format_age(seconds: int) -> str:
    """Short text of a duration: "45 s", "14 min", "3 h 20 min", "2 d 4 h"."""
    sign = "-" if seconds < 0 else ""
    seconds = abs(seconds)
    if seconds < 90:
        return f"{sign}{seconds} s"
    if seconds < 5_400:
        return f"{sign}{seconds // 60} min"
    if seconds < 172_800:
        return f"{sign}{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{sign}{seconds // 86_400:,} d {seconds % 86_400 // 3600} h"


def hex_of(data: bytes) -> str:
    """0x and lower-case hex: identifiers in JSON."""
    return "0x" + data.hex()


def show_answer(answer: Answer, *, as_json: bool, out: TextIO | None = None) -> None:
    """Write an answer to stdout."""
    out = out or sys.stdout
    if as_json:
        out.write(json.dumps(answer.data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        return
    from rich.console import Console

    is_terminal = out.isatty()
    console = Console(
        file=out,
        width=None if is_terminal else PLAIN_WIDTH,
        highlight=False,
        no_color=None if is_terminal else True,
        markup=False,
        emoji=False,
        soft_wrap=not is_terminal,
    )
    for number, part in enumerate(answer.parts):
        if isinstance(part, str):
            console.print(_clean(part), soft_wrap=True)
        else:
            if number:
                console.print()
            _print_table(console, part, is_terminal=is_terminal)


def _print_table(console: Any, table: Table, *, is_terminal: bool) -> None:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    if table.title:
        console.print(Text(_clean(table.title), style="bold"))
    if not table.rows:
        console.print(f"  {table.empty}")
        return
    shown = RichTable(box=box.SIMPLE_HEAD if is_terminal else None, pad_edge=True, padding=(0, 1))
    for column in table.columns:
        shown.add_column(
            column,
            justify="right" if column in table.right else "left",
            overflow="fold",
            no_wrap=not is_terminal,
            header_style="bold",
        )
    for row in table.rows:
        shown.add_row(*(Text(_clean(cell)) for cell in row))
    console.print(shown, soft_wrap=False, crop=False, no_wrap=not is_terminal)


def _clean(text: str) -> str:
    """Text without control characters: names and details come from other people's machines and must not steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
