"""Strategies and small builders shared by the tests of `messages/`."""

from __future__ import annotations

from dataclasses import fields

from hypothesis import strategies as st

from messages import bodies as b
from messages.digests import get_address
from messages.errors import Rejected
from messages.outbox import Claim, Cursor, ProvenHead, TrustTier, compute_next_head
from messages.packet import Packet, Payload, compute_commitment

VAULT = bytes.fromhex("11" * 32)
CHAIN = "eip155:1"
NOW = 1_800_000_000
EDGE_SEQUENCES = [1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1]


def uint(bits: int) -> st.SearchStrategy[int]:
    """Integers of a width, edges included."""
    top = 2**bits - 1
    return st.one_of(st.sampled_from([0, 1, top - 1, top]), st.integers(0, top))


def int256() -> st.SearchStrategy[int]:
    return st.one_of(st.sampled_from([-(2**255), -1, 0, 1, 2**255 - 1]), st.integers(-(2**255), 2**255 - 1))


b32 = st.one_of(st.just(bytes(32)), st.just(b"\xff" * 32), st.binary(min_size=32, max_size=32))
b20 = st.binary(min_size=20, max_size=20)

# width of each integer field, by its name (protocol.md 4.2)
WIDTHS = {
    "valid_until": 64, "v": 8, "expiry": 64, "right": 8, "twap_seconds": 32, "offer": 64, "nonce": 64, "inbox_sequence": 64,
    "kind": 16, "status": 8, "reason": 16, "upto": 64, "epoch": 64, "threshold": 8, "effective": 64,
}  # fmt: skip


def build(cls, **special):
    """Strategy for a dataclass of bytes32 and integers; ``special`` names the other fields."""
    parts = {}
    for f in fields(cls):
        if f.name in special:
            parts[f.name] = special[f.name]
        else:
            parts[f.name] = uint(WIDTHS.get(f.name, 256)) if f.type == "int" else b32
    return st.builds(cls, **parts)


legs = build(b.Leg, kind=uint(8), delta=int256())
OUTBOX = {
    b.Deposited: build(b.Deposited),
    b.Linked: build(b.Linked),
    b.SeriesListed: build(b.SeriesListed, definition=build(b.SeriesDefinition)),
    b.TradePending: build(b.TradePending),
    b.WithdrawalRequested: build(b.WithdrawalRequested),
    b.Claimed: build(b.Claimed),
    b.Paused: build(b.Paused, operator=b20),
    b.Escaped: build(b.Escaped),
    b.Ack: build(b.Ack),
}


def tuples(items, size=5):
    return st.lists(items, max_size=size).map(tuple)


INBOX = {
    b.Execute: build(b.Execute, prices=tuples(build(b.SeriesPrice)), legs=tuples(legs)),
    b.DecideTrades: build(b.DecideTrades, items=tuples(build(b.TradeItem))),
    b.DecideWithdrawals: build(b.DecideWithdrawals, items=tuples(build(b.WithdrawalItem))),
    b.RotateOperators: build(b.RotateOperators, operators=tuples(b20, 20)),
    b.SetCaps: build(b.SetCaps),
    b.Unpause: build(b.Unpause),
}
outbox_bodies = st.one_of(*OUTBOX.values())
inbox_bodies = st.one_of(*INBOX.values())

texts = st.text(max_size=20)
payloads = st.builds(Payload, texts, texts, texts, texts, st.binary(max_size=100))
packets = st.builds(Packet, st.integers(1, 2**64 - 1), texts, texts, uint(64), tuples(payloads, 3).filter(bool))

KEYS = sorted((bytes([i]) * 32 for i in range(1, 6)), key=get_address)
OPERATORS = [get_address(k) for k in KEYS]


def word(i: int) -> bytes:
    return i.to_bytes(32, "big")


EXECUTE = b.Execute(
    word(9), (b.SeriesPrice(word(3), 7),), (b.Leg(0, word(1), word(2), -5), b.Leg(0, word(2), word(2), 5))
)
TRADES = b.DecideTrades(word(9), 3, (b.TradeItem(word(1), word(2), 3, 4), b.TradeItem(word(5), word(6), 7, 8)))
DEPOSIT = b.Deposited(word(1), word(2), 1_000_000)
TRADE = b.TradePending(word(1), word(2), word(3), word(4), 10**8, 5, NOW, word(1), 1, 2)


def make_ack_claim(sequence: int, inbox_sequence: int, body: b.InboxBody, **changes) -> Claim:
    """An Ack (DONE unless changed) with the inbox packet it answers."""
    inbox = b.make_inbox_packet(VAULT, inbox_sequence, NOW + 600, body)
    given = {"kind": body.KIND, "status": 1, "reason": 0, "bitmap": 0} | changes
    ack = b.Ack(inbox_sequence, compute_commitment(inbox), **given)
    return Claim(b.make_outbox_packet(VAULT, sequence, NOW + sequence, ack), inbox)


def make_claims() -> list[Claim]:
    """Six packets: deposits, a trade, two Acks."""
    bodies = [DEPOSIT, TRADE, b.Paused(OPERATORS[0])]
    claims = [Claim(b.make_outbox_packet(VAULT, i, NOW + i, body)) for i, body in enumerate(bodies, 1)]
    claims.append(make_ack_claim(4, 1, EXECUTE))
    claims.append(make_ack_claim(5, 2, TRADES, bitmap=0b11))
    claims.append(Claim(b.make_outbox_packet(VAULT, 6, NOW + 6, DEPOSIT)))
    return claims


def compute_head(claims, cursor: Cursor | None = None) -> bytes:
    """The head a vault would have after these packets, whatever they hold."""
    head = cursor.head if cursor else VAULT
    sequence = cursor.sequence if cursor else 0
    for claim in claims:
        sequence += 1
        head = compute_next_head(head, sequence, compute_commitment(claim.packet))
    return head


def prove(head: bytes, **changes) -> ProvenHead:
    """A proven head as a verifier would return it."""
    given = {
        "vault_id": VAULT, "chain": CHAIN, "height": 100, "header_hash": word(77), "time": NOW + 900, "head": head,
        "tier": TrustTier(1), "proof_digest": word(88),
    }  # fmt: skip
    return ProvenHead(**(given | changes))


def get_refusal(check, *args):
    """The reason of the Rejected that a call raised, or None when it returned; any other error passes through."""
    try:
        check(*args)
    except Rejected as error:
        return error.reason
    return None


def flip_each_bit(data: bytes):
    """Every copy of data with one bit flipped."""
    for i in range(len(data)):
        for bit in range(8):
            yield data[:i] + bytes([data[i] ^ 1 << bit]) + data[i + 1 :]
