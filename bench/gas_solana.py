"""Part of `python -m bench.gas`: what each call of the Solana vault costs in LiteSVM, measured on the committed program.

Every figure is a whole signed transaction with a compute limit and a price, whose two instructions are in it. Deterministic: the keys are
made of names, and the search of derived addresses, which costs 1,500 units a try, depends on nothing but keys.
"""

from __future__ import annotations

from hashlib import sha256

from contracts.solana import client as c
from contracts.solana import get_program
from messages import bodies as b
from messages.digests import get_address
from messages.hashing import keccak256
from tests.contracts.setting import CALL, CALL_ID, CAP, DAY, PLAN, START
from tests.contracts.solana_harness import HOUSE, Outcome, SolanaWorld

MINT = sha256(b"mint of the gas bench").digest()
KEYS = [keccak256(b"signer %d" % i) for i in range(7)]

Row = tuple[str, int, int]  # call, compute units, bytes of the transaction


class Meter:
    """A vault with one token, whose calls are measured."""

    def __init__(self, operators: int = 4, threshold: int = 3) -> None:
        keys = sorted(KEYS[:operators], key=get_address)
        self.rows: list[Row] = []
        self.world = SolanaWorld(
            [get_address(k) for k in keys],
            threshold,
            sha256(b"treasurer").digest(),
            {MINT: (CAP,) * 3},
            DAY,
            START,
            keys,
        )
        self.rows.append(_read("create (one asset)", self.world.created))
        self.world.deploy_token(MINT)

    def add_user(self, name: str, amount: int = 0) -> bytes:
        """A user with tokens; ``amount`` of them deposited."""
        account = self.world.add_key(name)
        self.world.fund(MINT, account, 10**9)
        if amount:
            self.deposit("", account, amount)
        return account

    def deposit(self, label: str, account: bytes, amount: int) -> None:
        key = self.world.keys[account].pubkey()
        self.send(label, [c.make_deposit(self.world.vault, key, MINT, amount, account)], account)

    def send(self, label: str, instructions: list[c.Instruction], by: bytes | None = None) -> Outcome:
        out = self.world.send(instructions, by)
        if label:
            self.rows.append(_read(label, out))
        return out

    def recv(self, label: str, body: b.InboxBody) -> None:
        out = self.world.recv(body)
        if out.ack.status != b.AckStatus.DONE:
            raise RuntimeError(f"{label}: refused {out.ack.reason}")
        if label:
            self.rows.append(_read(label, out))


def _read(label: str, out: Outcome) -> Row:
    return label, out.units, out.transaction_bytes


def measure_users() -> list[Row]:
    """Calls of users, in an order in which each goes through."""
    meter = Meter()
    world, vault = meter.world, meter.world.vault
    alice, bob = meter.add_user("alice"), meter.add_user("bob", 10**8)
    by, other = world.keys[alice].pubkey(), world.keys[bob].pubkey()
    payer = world.machine.payer.pubkey()
    meter.send("open a balance", [c.make_open(vault, payer, c.get_balance_id(HOUSE, MINT))])
    meter.deposit("deposit that opens the balance", alice, 10**6)
    meter.deposit("deposit again", alice, 10**6)
    meter.send("link", [c.make_link(vault, by, bob, START, b"\x11" * 65)], alice)
    meter.send("list_series that opens both records", [c.make_list_series(vault, by, CALL)], alice)
    terms = (1, CALL_ID, MINT, 10**8, 10**4, START + DAY)
    for number in (1, 2):
        offer = c.make_offer(vault, by, number, *terms)
        meter.send("offer that opens its record" if number == 1 else "", [offer], alice)
    take = c.make_take(vault, other, 1, 10**7, 1, bob, MINT)
    meter.send("take that opens its record", [take], bob)
    meter.send("cancel", [c.make_cancel(vault, by, 2)], alice)
    request = c.make_request_withdrawal(vault, by, MINT, 10**5)
    out = meter.send("request_withdrawal that opens its record", [request], alice)
    meter.recv("", b.DecideWithdrawals(PLAN, (b.WithdrawalItem(out.value, alice, MINT),)))
    meter.send("claim", [c.make_claim(vault, by, alice, MINT)], alice)
    meter.send("pause", [c.make_pause(vault, by, world.sign_pause(world.operator_keys[0]))], alice)
    world.set_time(START + 40 * DAY)
    meter.send("escape", [c.make_escape(vault, by, MINT)], alice)
    return meter.rows


def measure_execute(legs: int, operators: int = 4, threshold: int = 3) -> Row:
    """Cash from half of the accounts to the other half."""
    meter = Meter(operators, threshold)
    givers = [meter.add_user(f"giver {i}", 10**6) for i in range(legs // 2)]
    takers = [meter.add_user(f"taker {i}") for i in range(legs // 2)]
    moved = [*((a, -5) for a in givers), *((a, 5) for a in takers)]
    made = sorted((b.Leg(0, a, MINT, delta) for a, delta in moved), key=lambda leg: leg.account)
    label = f"Execute, {legs} cash legs, {threshold} signatures" if legs else "Execute, empty (heartbeat), 3 signatures"
    meter.recv(label, b.Execute(PLAN, (), tuple(made)))
    return meter.rows[-1]


def measure_decisions() -> list[Row]:
    """One trade, one withdrawal."""
    meter = Meter()
    world, vault = meter.world, meter.world.vault
    alice, bob = meter.add_user("alice", 10**6), meter.add_user("bob", 10**8)
    by, other = world.keys[alice].pubkey(), world.keys[bob].pubkey()
    meter.send("", [c.make_list_series(vault, by, CALL)], alice)
    meter.send("", [c.make_offer(vault, by, 1, 1, CALL_ID, MINT, 10**8, 10**4, START + DAY)], alice)
    out = meter.send("", [c.make_take(vault, other, 1, 10**7, 1, bob, MINT)], bob)
    meter.recv("DecideTrades, 1 accepted", b.DecideTrades(PLAN, 0, (b.TradeItem(out.value, bob, 1, 1),)))
    out = meter.send("", [c.make_request_withdrawal(vault, by, MINT, 10)], alice)
    meter.recv("DecideWithdrawals, 1 accepted", b.DecideWithdrawals(PLAN, (b.WithdrawalItem(out.value, alice, MINT),)))
    return meter.rows[1:]


def measure_rent() -> list[tuple[str, int, int]]:
    """(record, bytes, lamports) that its opener pays for good."""
    svm = Meter().world.machine.svm
    sizes = {tag.name.lower(): c.KEYS_AT + c.KEY_BYTES[tag] + c.CONTENT[tag].size for tag in c.Tag}
    return [(n, s, svm.minimum_balance_for_rent_exemption(s)) for n, s in {"state": c.STATE_BYTES, **sizes}.items()]


def format_row(row: Row) -> str:
    """Return one line of a table."""
    call, units, size = row
    return f"| {call} | {units:,} | {size:,} |"


def _format(head: str, rows: list[Row]) -> str:
    return "\n".join([head, "|---|--:|--:|", *map(format_row, rows)])


def render() -> str:
    """Return the part of docs/gas.md about the Solana vault."""
    inbox = [measure_execute(legs, n, m) for legs, n, m in INBOX]
    head = "| call | compute units | bytes of the transaction |"
    return f"""
# Compute of the Solana vault

Measured in LiteSVM with the committed program ({len(get_program("vault")):,} bytes, SBPF), one signed transaction with a compute limit and a price each;
the two instructions of the compute budget are in the figures. A recovery of one signature is 25,000 units. The search of derived addresses costs
1,500 units a try, so calls that derive vary by a few thousand with the keys.

## Calls of users

{_format(head, measure_users())}

## recv

{_format(head, [*inbox, *measure_decisions()])}

A transaction has at most 1,232 bytes: beyond some 16 / 13 / 10 legs of one asset (3 / 5 / 7 signatures) a packet goes through a lookup table.

## Rent

{_format("| record | bytes | lamports |", measure_rent())}
"""


INBOX = ((0, 4, 3), (2, 4, 3), (8, 4, 3), (8, 7, 5), (8, 7, 7), (32, 4, 3), (32, 7, 5), (32, 7, 7))
