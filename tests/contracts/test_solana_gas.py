"""docs/gas.md tells what the committed program costs in LiteSVM; a sample of its lines is measured anew."""

from __future__ import annotations

from bench.gas import TARGET
from bench.gas_solana import format_row, measure_decisions, measure_execute, measure_rent, measure_users

TEXT = TARGET.read_text()


def test_the_documented_units_are_what_the_program_uses() -> None:
    for row in [*measure_users(), *measure_decisions(), measure_execute(8), measure_execute(32, 7, 7), *measure_rent()]:
        assert format_row(row) in TEXT, f"stale: run python -m bench.gas ({row})"


def test_another_figure_would_not_be_found() -> None:
    row = measure_execute(2)
    assert format_row(row) in TEXT
    assert format_row((row[0], row[1] + 1, row[2])) not in TEXT
