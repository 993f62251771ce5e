"""docs/gas.md tells what the committed wasm costs in the VM; a sample of its lines is measured anew."""

from __future__ import annotations

from bench.gas import TARGET
from bench.gas_cosmos import format_row, measure_committee, measure_control, measure_execute, measure_users

TEXT = TARGET.read_text()


def test_the_documented_gas_is_what_the_wasm_uses() -> None:
    for row in [*measure_users(), *measure_execute(8), *measure_control(), *measure_committee(7, 5)]:
        assert format_row(row) in TEXT, f"stale: run python -m bench.gas ({row})"


def test_another_figure_would_not_be_found() -> None:
    (row,) = measure_execute(2)
    assert format_row(row) in TEXT
    assert format_row((row[0], row[1] + 1, row[2])) not in TEXT


def test_a_certificate_costs_the_more_the_more_sign() -> None:
    gas = [measure_committee(n, m)[0][1] for n, m in ((4, 3), (7, 5), (10, 7))]
    assert gas == sorted(gas)
    assert gas[2] - gas[0] >= 4 * 194_000_000 // 140_000  # four more recoveries at the VM's price
