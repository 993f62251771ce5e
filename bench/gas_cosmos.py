"""Part of `python -m bench.gas`: what each call of the Cosmos vault costs inside the VM, measured on the committed wasm.

The unit is the SDK's gas (140,000 of wasmvm's). Instructions and the VM's own prices for addresses and signatures are
deterministic, so the figures change only when the contract does. What the chain adds around a call is not in them.
"""

from __future__ import annotations

from collections.abc import Iterator

from contracts.cosmos import get_wasm
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
from tests.contracts.cosmos_harness import encode_json
from tests.contracts.cosmos_world import CosmosWorld, encode_call, encode_definition, encode_recv
from tests.contracts.setting import ALICE, BOB, CALL, CALL_ID, CAP, DAY, OPERATORS, PLAN, START, TREASURER, execute
from tests.contracts.vault_world import HOUSE, Outcome, pad

GAS_UNIT = 140_000
ASSET = b"\x22" * 32
DENOM = "ibc/27394FB092D2ECCD56123C74F36E4C1F926001CEADA9CA97EA622B25F41E5EB2"
DEFINITION = encode_definition({name: getattr(CALL, name) for name in type(CALL).__dataclass_fields__})

Row = tuple[str, int, int]  # call, gas, bytes of its message


class Meter:
    """A vault with a cw20 and a bank coin, whose calls are measured."""

    def __init__(self, keys: list[bytes] | None = None, threshold: int = 3) -> None:
        keys = OPERATORS if keys is None else keys
        self.rows: list[Row] = []
        operators, caps = [get_address(k) for k in keys], dict.fromkeys((ASSET, keccak256(DENOM.encode())), (CAP,) * 3)
        self.world = world = CosmosWorld(
            operators, threshold, pad(TREASURER), caps, DAY, START, keys, chain_id="cosmoshub-4"
        )
        self.coin = world.add_denom(DENOM)
        world.deploy_token(ASSET)
        for owner in (ALICE, BOB):
            for asset in (ASSET, self.coin):
                world.fund(asset, owner, 10**15)

    def write(self, label: str, name: str, by: bytes = ALICE, **args: object) -> Outcome:
        out = self.world.write(name, by, **args)
        if label:
            self.rows.append((label, out.execution_gas // GAS_UNIT, len(encode_json(encode_call(name, args)))))
        return out

    def recv(self, label: str, body: InboxBody) -> Outcome:
        packet = self.world.make_inbox_packet(body)
        signatures = self.world.sign(packet)
        out = self.world.bring(packet, signatures)
        if out.ack.status != 1:
            raise RuntimeError(f"{label}: refused {out.ack.reason}")
        if label:
            self.rows.append((label, out.execution_gas // GAS_UNIT, len(encode_json(encode_recv(packet, signatures)))))
        return out


def _read_id(out: Outcome) -> bytes:
    return bytes.fromhex(str(out.value))


def measure_users() -> list[Row]:
    """Calls of users, in an order in which each goes through."""
    meter = Meter()
    alice = {"beneficiary": pad(ALICE)}
    meter.write("register_denom", "register_denom", denom=DENOM)
    meter.write("deposit of a bank coin", "deposit", asset=meter.coin, amount=10**6, **alice)
    meter.write("deposit of a cw20, with the token's part", "deposit", asset=ASSET, amount=10**6, **alice)
    meter.write("", "deposit", BOB, asset=ASSET, amount=10**6, beneficiary=pad(BOB))
    meter.write("", "deposit", BOB, asset=ASSET, amount=10**6, beneficiary=HOUSE)
    meter.write("link", "link", portfolio=pad(BOB), valid_until=START, signature=b"\x11" * 65)
    meter.write("list_series", "list_series", definition=DEFINITION)
    terms = {"side": 1, "series": CALL_ID, "asset": ASSET, "quantity": 10**8, "premium_per_contract": 10**4}
    for label in ("offer", ""):
        meter.write(label, "offer", **terms, valid_until=START + DAY)
    meter.write("take", "take", BOB, offer=1, quantity=10**7, nonce=1)
    meter.write("cancel", "cancel", offer=2)
    for asset, label in ((ASSET, "request_withdrawal"), (meter.coin, "")):
        out = meter.write(label, "request_withdrawal", asset=asset, amount=10**5)
        meter.recv("", DecideWithdrawals(PLAN, (WithdrawalItem(_read_id(out), pad(ALICE), asset),)))
    meter.write("claim of a bank coin", "claim", account=pad(ALICE), asset=meter.coin)
    meter.write("claim of a cw20, with the token's part", "claim", account=pad(ALICE), asset=ASSET)
    meter.write("pause", "pause", signature=meter.world.sign_pause(OPERATORS[0]))
    meter.world.set_time(START + 40 * DAY)
    meter.write("escape", "escape", asset=ASSET)
    return meter.rows


def _account(i: int) -> bytes:
    return pad(keccak256(b"account %d" % i)[12:])


def measure_execute(legs: int) -> list[Row]:
    """Cash from half of the accounts to the other half."""
    meter = Meter()
    pairs = legs // 2
    for i in range(pairs):
        meter.write("", "deposit", asset=ASSET, amount=10**4, beneficiary=_account(i))
    deltas = [*((_account(i), -5) for i in range(pairs)), *((_account(pairs + i), 5) for i in range(pairs))]
    body = execute(*(Leg(0, account, ASSET, delta) for account, delta in deltas))
    meter.recv(f"Execute, {legs} cash legs" if legs else "Execute, empty (heartbeat)", body)
    return meter.rows


def measure_decisions(count: int) -> list[Row]:
    """Trades of one offer and taker; withdrawals of as many accounts."""
    meter = Meter()
    meter.write("", "deposit", BOB, asset=ASSET, amount=10**12, beneficiary=pad(BOB))
    meter.write("", "list_series", definition=DEFINITION)
    terms = {"side": 1, "series": CALL_ID, "asset": ASSET, "quantity": 10**12, "premium_per_contract": 10**4}
    meter.write("", "offer", **terms, valid_until=START + DAY)
    trades = [
        TradeItem(_read_id(meter.write("", "take", BOB, offer=1, quantity=10**7, nonce=i)), pad(BOB), 1, i)
        for i in range(count)
    ]
    meter.recv(f"DecideTrades, {count} accepted (one offer, one taker)", DecideTrades(PLAN, 0, tuple(trades)))
    items = []
    for i in range(count):
        meter.write("", "deposit", asset=ASSET, amount=10**4, beneficiary=_account(i))
        out = meter.write("", "request_withdrawal", _account(i)[12:], asset=ASSET, amount=10)
        items.append(WithdrawalItem(_read_id(out), _account(i), ASSET))
    meter.recv(f"DecideWithdrawals, {count} accepted", DecideWithdrawals(PLAN, tuple(items)))
    return meter.rows


def measure_control() -> list[Row]:
    """What changes control."""
    meter = Meter()
    operators = tuple(sorted(get_address(k) for k in OPERATORS))
    meter.recv("RotateOperators, 4 operators", RotateOperators(1, 3, START + DAY, pad(TREASURER), operators))
    meter.recv("SetCaps, lower", SetCaps(ASSET, CAP - 1, CAP, CAP))
    meter.write("", "pause", signature=meter.world.sign_pause(OPERATORS[0]))
    meter.recv("Unpause", Unpause())
    return meter.rows


def measure_committee(n: int, m: int) -> list[Row]:
    """An empty Execute by a committee of another size."""
    meter = Meter(sorted((keccak256(b"signer %d" % i) for i in range(n)), key=get_address), m)
    meter.recv(f"Execute, empty, {m} of {n} operators", Execute(PLAN, (), ()))
    return meter.rows


def format_row(row: Row) -> str:
    """Return one line of a table."""
    call, gas, size = row
    return f"| {call} | {gas:,} | {size:,} |"


def _format(rows: Iterator[Row] | list[Row]) -> str:
    return "\n".join(["| call | gas in the VM | bytes of the message |", "|---|--:|--:|", *map(format_row, rows)])


def render() -> str:
    """Return the part of docs/gas.md about the Cosmos vault."""
    inbox = [row for legs in (0, 2, 8, 32, 128) for row in measure_execute(legs)]
    inbox += [row for count in (1, 8, 64) for row in measure_decisions(count)]
    inbox += measure_control()
    committees = [row for n, m in ((4, 3), (7, 5), (10, 7), (20, 14)) for row in measure_committee(n, m)]
    return f"""
# Gas of the Cosmos vault

Measured in the VM on the committed wasm ({len(get_wasm("vault")):,} bytes), in the SDK's unit: instructions at 115 of wasmvm's gas and the VM's prices
for addresses and signatures, 140,000 of wasmvm's gas being one. A chain adds its own prices for the transaction (bytes, signature),
for loading the contract and for each read and write of its store; what a whole transaction needs only a
node can say: it is asked before a transaction is sent (`Simulate`). Whole transactions on wasmd: `contracts/cosmos/README.md`.

## Calls of users

{_format(measure_users())}

## recv, 3 of 4 operators

{_format(inbox)}

## recv by size of the committee

{_format(committees)}
"""
