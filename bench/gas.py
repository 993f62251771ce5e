"""`python -m bench.gas`: what each call of the vaults costs, measured on the committed code, written to docs/gas.md.

Here the EVM vault; `gas_cosmos.py` and `gas_solana.py` have the others.

Gas is deterministic, so the file changes only when the contract does. Each figure is a transaction of its own with cold
storage: 21,000 + calldata (EIP-2028) + execution - refund (EIP-3529), or the calldata floor of EIP-7623 where that is more.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from bench import gas_cosmos, gas_solana
from contracts.evm import get_artifact
from contracts.evm.compile import MAX_CODE_BYTES
from messages.bodies import (
    DecideTrades,
    DecideWithdrawals,
    Execute,
    InboxBody,
    Leg,
    RotateOperators,
    SetCaps,
    TradeItem,
    Unpause,
    WithdrawalItem,
)
from messages.digests import get_address
from messages.hashing import keccak256
from tests.contracts.setting import (
    ALICE,
    BOB,
    CALL,
    CALL_ID,
    CAP,
    DAY,
    OPERATORS,
    PLAN,
    START,
    TREASURER,
    Scene,
    as_arguments,
    decide_withdrawal,
    execute,
    make_scene,
)
from tests.contracts.vault_world import HOUSE, Outcome, pad

TARGET = Path(__file__).resolve().parent.parent / "docs" / "gas.md"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    call: str
    gas: int
    calldata_bytes: int


def compute_transaction_gas(data: bytes, execution_gas: int, refund: int) -> int:
    """Return the gas that a transaction with this calldata pays."""
    zeros = data.count(0)
    tokens = zeros + 4 * (len(data) - zeros)
    used = 21_000 + 4 * tokens + execution_gas
    return max(used - min(refund, used // 5), 21_000 + 10 * tokens)


class Meter:
    """A scene whose calls are measured."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.rows = scene, list[Row]()

    def write(self, label: str, name: str, *args: object, by: bytes) -> Outcome:
        world = self.scene.world
        data = world.vault.encode_call(name, *args)
        out = world.send(name, data, by)
        self.rows.append(Row(label, compute_transaction_gas(data, out.execution_gas, out.refund), len(data)))
        return out

    def recv(self, label: str, body: InboxBody) -> Outcome:
        world = self.scene.world
        packet = world.make_inbox_packet(body)
        signatures = world.sign(packet)
        data = world.encode_recv(packet, signatures)
        out = world.bring(packet, signatures)
        if out.ack.status != 1:
            raise RuntimeError(f"{label}: refused {out.ack.reason}")
        self.rows.append(Row(label, compute_transaction_gas(data, out.execution_gas, out.refund), len(data)))
        return out


def measure_users() -> list[Row]:
    scene = make_scene()
    world, asset = scene.world, scene.asset
    meter = Meter(scene)
    world.write("deposit", asset, 10**6, HOUSE, by=TREASURER)  # slots of the vault itself are in use
    meter.write("deposit, first of an account", "deposit", asset, 10**6, pad(ALICE), by=ALICE)
    meter.write("deposit, later", "deposit", asset, 10**6, pad(ALICE), by=ALICE)
    world.write("deposit", asset, 10**6, pad(BOB), by=BOB)
    meter.write("link", "link", pad(BOB), START, b"\x11" * 64 + b"\x1b", by=ALICE)
    meter.write("list_series, first of a quote class", "list_series", as_arguments(CALL), by=ALICE)
    meter.write("list_series, later", "list_series", as_arguments(replace(CALL, right=0)), by=ALICE)
    world.write("offer", 1, CALL_ID, asset, 10**8, 10**4, START + DAY, by=ALICE)
    meter.write("offer", "offer", 1, CALL_ID, asset, 10**8, 10**4, START + DAY, by=ALICE)
    meter.write("take", "take", 1, 10**7, 1, False, by=BOB)
    meter.write("cancel", "cancel", 2, by=ALICE)
    request = meter.write("request_withdrawal", "request_withdrawal", asset, 10**5, False, by=ALICE)
    meter.write("request_withdrawal, replacing one", "request_withdrawal", asset, 10**5, False, by=ALICE)
    request = world.write("request_withdrawal", asset, 10**5, False, by=ALICE)
    world.recv(decide_withdrawal(request))
    meter.write("claim", "claim", pad(ALICE), asset, by=ALICE)
    meter.write("pause", "pause", world.sign_pause(OPERATORS[0]), by=ALICE)
    world.set_time(START + 40 * DAY)
    meter.write("escape", "escape", asset, by=ALICE)
    return meter.rows


def _account(i: int) -> bytes:
    return pad(keccak256(b"account %d" % i)[12:])


def measure_execute(legs: int) -> list[Row]:
    """Cash from half of the accounts to the other half; the second packet finds every balance in use."""
    scene = make_scene(fund=10**12)
    world, asset = scene.world, scene.asset
    meter = Meter(scene)
    pairs = legs // 2
    for i in range(pairs):
        world.write("deposit", asset, 10**4, _account(i), by=ALICE)
    world.recv(Execute(PLAN, (), ()))
    deltas = [*((_account(i), -5) for i in range(pairs)), *((_account(pairs + i), 5) for i in range(pairs))]
    body = execute(*(Leg(0, account, asset, delta) for account, delta in deltas))
    if pairs:
        meter.recv(f"Execute, {legs} cash legs, {pairs} receivers new", body)
    meter.recv(f"Execute, {legs} cash legs" if legs else "Execute, empty (heartbeat)", body)
    return meter.rows


def measure_trades(count: int) -> list[Row]:
    scene = make_scene(fund=10**12)
    world, asset = scene.world, scene.asset
    meter = Meter(scene)
    world.write("deposit", asset, 10**10, pad(BOB), by=BOB)
    world.write("list_series", as_arguments(CALL), by=ALICE)
    world.write("offer", 1, CALL_ID, asset, 10**10, 10**4, START + DAY, by=ALICE)
    items = []
    for nonce in range(count):
        out = world.write("take", 1, 10**7, nonce, False, by=BOB)
        assert isinstance(out.value, bytes)
        items.append(TradeItem(out.value, pad(BOB), 1, nonce))
    out = meter.recv(f"DecideTrades, {count} accepted (one offer, one taker)", DecideTrades(PLAN, 0, tuple(items)))
    assert out.ack.bitmap == 2**count - 1
    return meter.rows


def measure_withdrawals(count: int) -> list[Row]:
    scene = make_scene(fund=10**12)
    world, asset = scene.world, scene.asset
    meter = Meter(scene)
    items = []
    for i in range(count):
        owner = _account(i)[12:]
        world.write("deposit", asset, 10**4, pad(owner), by=ALICE)
        out = world.write("request_withdrawal", asset, 10, False, by=owner)
        assert isinstance(out.value, bytes)
        items.append(WithdrawalItem(out.value, pad(owner), asset))
    out = meter.recv(f"DecideWithdrawals, {count} accepted", DecideWithdrawals(PLAN, tuple(items)))
    assert out.ack.bitmap == 2**count - 1
    return meter.rows


def measure_control() -> list[Row]:
    scene = make_scene()
    meter = Meter(scene)
    operators = tuple(sorted(get_address(k) for k in OPERATORS))
    meter.recv("RotateOperators, 4 operators", RotateOperators(1, 3, START + DAY, pad(TREASURER), operators))
    meter.recv("SetCaps, lower", SetCaps(scene.asset, CAP - 1, CAP, CAP))
    scene.world.write("pause", scene.world.sign_pause(OPERATORS[0]), by=ALICE)
    meter.recv("Unpause", Unpause())
    return meter.rows


def measure_signatures(n: int, m: int) -> list[Row]:
    keys = sorted((keccak256(b"signer %d" % i) for i in range(n)), key=get_address)
    scene = make_scene(operators=[get_address(k) for k in keys], threshold=m, operator_keys=keys)
    scene.world.recv(Execute(PLAN, (), ()))
    meter = Meter(scene)
    meter.recv(f"Execute, empty, {m} of {n} operators", Execute(PLAN, (), ()))
    return meter.rows


def _format(rows: list[Row]) -> str:
    lines = ["| call | gas | calldata bytes |", "|---|--:|--:|"]
    return "\n".join([*lines, *(f"| {r.call} | {r.gas:,} | {r.calldata_bytes:,} |" for r in rows)])


def render() -> str:
    """Return the text of docs/gas.md."""
    artifact = get_artifact("vault")
    size = len(artifact.runtime_bytecode) + artifact.immutables_bytes
    inbox = [row for legs in (0, 2, 8, 32, 64) for row in measure_execute(legs)]
    inbox += [row for count in (1, 8, 64) for row in measure_trades(count)]
    inbox += [row for count in (1, 8, 64) for row in measure_withdrawals(count)]
    inbox += measure_control()
    committees = [row for n, m in ((4, 3), (7, 5), (10, 7), (20, 14)) for row in measure_signatures(n, m)]
    return f"""# Gas of the EVM vault

Made by `python -m bench.gas` from the committed bytecode ({artifact.compiler}, {artifact.evm_version}); a test compares. Each figure is a whole
transaction on cold storage: 21,000, calldata, execution, less the refund. The token is the plain ERC-20 beside the vault.

Code: {size:,} bytes of {MAX_CODE_BYTES:,} (EIP-170); creation code {len(artifact.bytecode):,} of 49,152 (EIP-3860).

## Calls of users

{_format(measure_users())}

## recv, 3 of 4 operators

{_format(inbox)}

A position leg costs about what a cash leg costs, and a second storage slot when it changes how many negative positions an account has.
A balance, position or window that was nothing before is a fresh storage slot: 17,100 gas more.

## recv by size of the committee

{_format(committees)}
"""


def main() -> int:
    text = render() + gas_cosmos.render() + gas_solana.render()
    TARGET.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
