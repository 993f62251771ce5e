"""docs/gas.md tells what the committed bytecode costs; a sample of its lines is measured anew."""

from __future__ import annotations

from bench.gas import TARGET, Row, compute_transaction_gas, measure_control, measure_execute, measure_users

TEXT = TARGET.read_text()


def format_row(row: Row) -> str:
    return f"| {row.call} | {row.gas:,} | {row.calldata_bytes:,} |"


def test_the_documented_gas_is_what_the_bytecode_uses() -> None:
    for row in [*measure_users(), *measure_execute(8), *measure_control()]:
        assert format_row(row) in TEXT, f"stale: run python -m bench.gas ({row})"


def test_another_figure_would_not_be_found() -> None:
    row = measure_execute(2)[0]
    assert format_row(row) in TEXT
    assert format_row(Row(row.call, row.gas + 1, row.calldata_bytes)) not in TEXT


def test_calldata_is_charged_by_the_byte_and_has_a_floor() -> None:
    # EIP-2028: 16 a byte, 4 a zero byte; EIP-7623: at least 40 and 10; EIP-3529: at most a fifth comes back
    assert compute_transaction_gas(b"", 0, 0) == 21_000
    assert compute_transaction_gas(b"\1" * 100 + bytes(100), 100_000, 0) == 21_000 + 1_600 + 400 + 100_000
    assert compute_transaction_gas(b"\1" * 100 + bytes(100), 0, 0) == 21_000 + 4_000 + 1_000
    assert compute_transaction_gas(b"", 79_000, 50_000) == 80_000
