"""How the vault program is spoken to: addresses, instruction data, accounts, records, events (README.md of this folder).

Pure but for `solders`, which derives addresses. Everything that is read comes from a chain, so every reader is bounded
and refuses what the program cannot have written.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM
from solders.token import ID as TOKEN_PROGRAM
from solders.token.associated import get_associated_token_address

from messages import bodies as b
from messages.errors import Rejected
from messages.hashing import keccak256
from messages.ids import get_vault_client
from messages.packet import Packet, Payload

MAX_TRANSACTION_BYTES: Final = 1_232  # of one signed transaction, signatures included
STATE_BYTES: Final = 1_080
STATE_MAGIC: Final = b"optsettl"
SEQUENCE_AT: Final = 8  # u64, little-endian
HEAD_AT: Final = 16  # 32 bytes
EVENT: Final = 255
OUT, IN = 0, 1
IN_HEADER, OUT_HEADER = 18, 50
EXPLICIT: Final = 255  # index that stands for "written out"
MAX_RECORDS: Final = 62  # a transaction locks at most 64 accounts; two are no records
HOUSE: Final = keccak256(b"optsettle/house")
INSURANCE: Final = keccak256(b"optsettle/insurance")

# words of the custom error codes, the same as in the other vaults
ERRORS: Final[Mapping[int, str]] = {
    1: "sequence", 3: "timeout", 4: "signatures", 5: "malformed", 6: "paused", 7: "amount", 8: "asset", 9: "account",
    10: "overflow", 11: "signature", 12: "expiry", 13: "definition", 14: "exists", 15: "side", 16: "series",
    17: "expired", 18: "unknown", 19: "owner", 20: "closed", 21: "self", 22: "open", 23: "cash", 24: "used", 25: "early",
    26: "positions", 27: "operators", 28: "caps", 29: "delay", 30: "record", 31: "unopened", 32: "state", 33: "signer",
    34: "token", 35: "forged", 36: "rent",
}  # fmt: skip


class Tag(IntEnum):
    """Kind of a record; its keys are given below."""

    BALANCE = 1  # account, asset
    POSITION = 2  # account, series
    ACCOUNT = 3  # account
    SERIES = 4  # id
    OFFER = 5  # number u64
    TRADE = 6  # taker, offer u64, nonce u64
    REQUEST = 7  # account, asset
    ASSET = 8  # id


KEY_BYTES: Final = {
    Tag.BALANCE: 64, Tag.POSITION: 64, Tag.ACCOUNT: 32, Tag.SERIES: 32, Tag.OFFER: 8, Tag.TRADE: 48, Tag.REQUEST: 64,
    Tag.ASSET: 32,
}  # fmt: skip
OPENED_BY_ANYONE: Final = (Tag.BALANCE, Tag.POSITION, Tag.ACCOUNT, Tag.ASSET)  # the others by the calls that fill them
# content after the keys; all numbers little-endian
CONTENT: Final = {
    Tag.BALANCE: struct.Struct("<QQ"),
    Tag.POSITION: struct.Struct("<16s"),
    Tag.ACCOUNT: struct.Struct("<Q"),
    Tag.SERIES: struct.Struct("<QQ"),
    Tag.OFFER: struct.Struct("<32s32s32sQQQQQII"),
    Tag.TRADE: struct.Struct("<32sQQQ"),
    Tag.REQUEST: struct.Struct("<32sQQ"),
    Tag.ASSET: struct.Struct("<15Q"),
}
KEYS_AT: Final = 40


@dataclass(frozen=True, slots=True)
class Id:
    """Which record: its kind and its keys one after the other."""

    tag: Tag
    keys: bytes


def get_balance_id(account: bytes, asset: bytes) -> Id:
    """Return the id of the record of free and claimable cash."""
    return Id(Tag.BALANCE, account + asset)


def get_position_id(account: bytes, series: bytes) -> Id:
    """Return the id of the record of a position."""
    return Id(Tag.POSITION, account + series)


def get_trade_id(taker: bytes, offer: int, nonce: int) -> Id:
    """Return the id of the record of a trade."""
    return Id(Tag.TRADE, taker + struct.pack("<QQ", offer, nonce))


def get_offer_id(number: int) -> Id:
    """Return the id of the record of an offer."""
    return Id(Tag.OFFER, struct.pack("<Q", number))


def find_state(program: Pubkey, creator: Pubkey, number: int) -> Pubkey:
    """Return the address of the vault that ``creator`` makes under a number of its choice."""
    return Pubkey.find_program_address([b"vault", bytes(creator), struct.pack("<Q", number)], program)[0]


@dataclass(frozen=True)
class Vault:
    """A vault: the program and the account of its state, which is the vault's account in its id."""

    program: Pubkey
    state: Pubkey

    def find(self, record: Id) -> Pubkey:
        """Return the address of a record."""
        keys = record.keys
        seeds = [bytes([record.tag]), bytes(self.state), keys[:32], *([keys[32:]] if len(keys) > 32 else [])]
        return Pubkey.find_program_address(seeds, self.program)[0]

    def find_tokens(self, asset: bytes) -> Pubkey:
        """Return the vault's own token account of a mint."""
        return get_associated_token_address(self.state, Pubkey.from_bytes(asset))


def decode_record(record: Id, data: bytes | None, state: bytes) -> tuple[bytes | int, ...]:
    """Return the content of a record; all zero if nobody has opened it.

    Raises Rejected (reason bad_record) for data that the program cannot have written there.
    """
    layout = CONTENT[record.tag]
    if data is None:
        return tuple(layout.unpack(bytes(layout.size)))
    at = KEYS_AT + KEY_BYTES[record.tag]
    expected = bytes([record.tag]) + bytes(7) + state + record.keys
    if len(data) != at + layout.size or data[:at] != expected:
        raise Rejected("not the record that was asked for", got=data[:at], expected=expected, reason="bad_record")
    return tuple(layout.unpack(data[at:]))


def decode_position(data: bytes) -> int:
    """Return the signed quantity of a position record."""
    return int.from_bytes(data, "little", signed=True)


# ---- the state account ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OperatorSet:
    """One of the two stored sets of operators, with its treasurer."""

    treasurer: bytes
    operators: tuple[bytes, ...]


@dataclass(frozen=True)
class State:
    """Content of the vault's account; a change under delay that has become due shows only after the next call."""

    outbox_sequence: int
    outbox_head: bytes
    vault_id: bytes
    inbox_sequence: int
    accepted_at: int
    decided_upto: int
    offer_count: int
    delay: int
    creator: bytes
    number: int
    bump: int
    threshold: int
    set: int
    paused: bool
    pause_used: int
    epoch: int
    pending_at: int
    pending_threshold: int
    unpause_at: int
    sets: tuple[OperatorSet, OperatorSet]


_STATE: Final = struct.Struct("<8sQ32s32sQQQQQ32sQBBBBIQQQQ")
_SET: Final = struct.Struct("<32sQ400s")


def decode_state(data: bytes) -> State:
    """Return the state in an account; Rejected (reason bad_state) if it is none."""
    if len(data) != STATE_BYTES or data[:8] != STATE_MAGIC:
        raise Rejected("not the state of a vault", got=len(data), expected=STATE_BYTES, reason="bad_state")
    fields = _STATE.unpack_from(data)
    sets = []
    for i in range(2):
        treasurer, count, addresses = _SET.unpack_from(data, _STATE.size + i * _SET.size)
        if count > 20:
            raise Rejected("too many operators", got=count, expected=20, reason="bad_state")
        sets.append(OperatorSet(treasurer, tuple(addresses[20 * j : 20 * j + 20] for j in range(count))))
    (_, sequence, head, vault_id, inbox, accepted, upto, offers, delay, creator, number, bump, m, which, paused) = (
        fields[:15]
    )
    used, epoch, pending_at, pending_threshold, unpause_at = fields[15:]
    return State(
        sequence, head, vault_id, inbox, accepted, upto, offers, delay, creator, number, bump, m, which, bool(paused),
        used, epoch, pending_at, pending_threshold, unpause_at, (sets[0], sets[1]),
    )  # fmt: skip


# ---- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """A packet that the vault told of; ``head`` is the outbox head after it, empty for an inbox packet."""

    packet: Packet
    head: bytes


def decode_event(data: bytes, client: str) -> Event:
    """Read the data of an event instruction of the vault with IBC client id ``client``; Rejected (bad_event)."""
    header = OUT_HEADER if data[1:2] == bytes([OUT]) else IN_HEADER
    if len(data) <= header or data[0] != EVENT or data[1] not in (OUT, IN):
        raise Rejected("not an event of the vault", got=data[:header], reason="bad_event")
    sequence, timeout = struct.unpack_from("<QQ", data, 2)
    payload = Payload(b.PORT, b.PORT, b.VERSION, b.ENCODING, data[header:])
    clients = (b.CLEARING_CLIENT, client) if data[1] == OUT else (client, b.CLEARING_CLIENT)
    return Event(Packet(sequence, *clients, timeout, (payload,)), data[IN_HEADER:header])


# ---- instructions -----------------------------------------------------------------------------------------------------


def _make(vault: Vault, data: bytes, caller: Pubkey, *more: AccountMeta) -> Instruction:
    """Return an instruction with the accounts that every call has, then ``more``."""
    accounts = [
        AccountMeta(vault.state, is_signer=False, is_writable=True),
        AccountMeta(vault.program, is_signer=False, is_writable=False),
        AccountMeta(caller, is_signer=True, is_writable=True),
        AccountMeta(SYSTEM_PROGRAM, is_signer=False, is_writable=False),
        *more,
    ]
    return Instruction(vault.program, data, accounts)


def _writable(key: Pubkey) -> AccountMeta:
    return AccountMeta(key, is_signer=False, is_writable=True)


def _readonly(key: Pubkey) -> AccountMeta:
    return AccountMeta(key, is_signer=False, is_writable=False)


def make_create(
    program: Pubkey,
    creator: Pubkey,
    number: int,
    caip2: str,
    operators: Sequence[bytes],
    threshold: int,
    treasurer: bytes,
    delay: int,
    caps: Mapping[bytes, Sequence[int]],
) -> Instruction:
    """Create the vault ``find_state(program, creator, number)`` on the chain ``caip2``."""
    vault = Vault(program, find_state(program, creator, number))
    data = struct.pack("<BQ32sBB", 0, number, keccak256(caip2.encode()), threshold, len(operators))
    data += b"".join(operators) + treasurer + struct.pack("<QB", delay, len(caps))
    data += b"".join(asset + struct.pack("<QQQ", *triple) for asset, triple in caps.items())
    records = [_writable(vault.find(Id(Tag.ASSET, asset))) for asset in caps]
    return _make(vault, data, creator, *records)


def make_open(vault: Vault, payer: Pubkey, record: Id) -> Instruction:
    """Open a balance, a position, an account or an asset; anyone may, for anybody."""
    return _make(vault, bytes([1, record.tag]) + record.keys, payer, _writable(vault.find(record)))


def make_deposit(
    vault: Vault, caller: Pubkey, asset: bytes, amount: int, beneficiary: bytes, source: Pubkey | None = None
) -> Instruction:
    """Deposit tokens from ``source`` (default: the caller's canonical token account)."""
    source = source or get_associated_token_address(caller, Pubkey.from_bytes(asset))
    return _make(
        vault,
        bytes([2]) + asset + struct.pack("<Q", amount) + beneficiary,
        caller,
        _readonly(vault.find(Id(Tag.ASSET, asset))),
        _writable(vault.find(get_balance_id(beneficiary, asset))),
        _writable(source),
        _writable(vault.find_tokens(asset)),
        _readonly(TOKEN_PROGRAM),
    )


def make_link(vault: Vault, caller: Pubkey, portfolio: bytes, valid_until: int, signature: bytes) -> Instruction:
    """Ask that the caller's account belongs to a portfolio; ``signature`` is r, s, v (65 bytes)."""
    return _make(vault, bytes([3]) + portfolio + struct.pack("<Q", valid_until) + signature, caller)


def make_list_series(vault: Vault, caller: Pubkey, definition: b.SeriesDefinition) -> Instruction:
    """Record a series and the due of its quote class."""
    d = definition
    data = bytes([4]) + d.underlying + struct.pack("<Q", d.expiry) + d.strike_e8.to_bytes(16, "little")
    data += bytes([d.right]) + d.quote_class + d.multiplier_e8.to_bytes(16, "little")
    data += d.price_source + struct.pack("<I", d.twap_seconds)
    series = Id(Tag.SERIES, keccak256(b.encode_definition(d)))
    due = Id(Tag.SERIES, compute_due(d.quote_class))
    return _make(vault, data, caller, _writable(vault.find(series)), _writable(vault.find(due)))


def compute_due(quote_class: bytes) -> bytes:
    """Return the id of the built-in series "due" of a quote class (protocol.md 4.3)."""
    text = b"optsettle/due"
    words = (64).to_bytes(32, "big") + quote_class + len(text).to_bytes(32, "big") + text.ljust(32, b"\0")
    return keccak256(words)


def make_offer(
    vault: Vault,
    caller: Pubkey,
    next_number: int,
    side: int,
    series: bytes,
    asset: bytes,
    quantity: int,
    premium_per_contract: int,
    valid_until: int,
) -> Instruction:
    """Rest an offer; ``next_number`` is the vault's offer count + 1, whose record the offer takes."""
    data = bytes([5, side]) + series + asset + struct.pack("<QQQ", quantity, premium_per_contract, valid_until)
    records = [_readonly(vault.find(Id(Tag.SERIES, series))), _readonly(vault.find(Id(Tag.ASSET, asset)))]
    return _make(vault, data, caller, *records, _writable(vault.find(get_offer_id(next_number))))


def make_cancel(vault: Vault, caller: Pubkey, number: int) -> Instruction:
    """Stop later takes of an offer of the caller."""
    data = bytes([6]) + struct.pack("<Q", number)
    return _make(vault, data, caller, _writable(vault.find(get_offer_id(number))))


def make_take(
    vault: Vault,
    caller: Pubkey,
    number: int,
    quantity: int,
    nonce: int,
    buyer: bytes,
    asset: bytes,
    *,
    for_house: bool = False,
) -> Instruction:
    """Take an offer; ``buyer`` and ``asset`` follow from the offer and name the balance that must cover the cost."""
    taker = HOUSE if for_house else bytes(caller)
    return _make(
        vault,
        struct.pack("<BQQQB", 7, number, quantity, nonce, for_house),
        caller,
        _readonly(vault.find(get_offer_id(number))),
        _writable(vault.find(get_trade_id(taker, number, nonce))),
        _readonly(vault.find(get_balance_id(buyer, asset))),
    )


def make_request_withdrawal(
    vault: Vault, caller: Pubkey, asset: bytes, amount: int, *, for_house: bool = False
) -> Instruction:
    """Ask for free cash in base units; the treasurer may ask for HOUSE."""
    account = HOUSE if for_house else bytes(caller)
    data = bytes([8]) + asset + struct.pack("<QB", amount, for_house)
    request = vault.find(Id(Tag.REQUEST, account + asset))
    return _make(vault, data, caller, _readonly(vault.find(Id(Tag.ASSET, asset))), _writable(request))


def make_claim(vault: Vault, caller: Pubkey, account: bytes, asset: bytes) -> Instruction:
    """Pay what ``account`` may claim to its canonical token account, which must exist; the caller need not be it."""
    return _make(
        vault,
        bytes([9]) + account + asset,
        caller,
        _writable(vault.find(get_balance_id(account, asset))),
        _writable(vault.find_tokens(asset)),
        _writable(get_associated_token_address(Pubkey.from_bytes(account), Pubkey.from_bytes(asset))),
        _readonly(TOKEN_PROGRAM),
    )


def make_escape(vault: Vault, caller: Pubkey, asset: bytes) -> Instruction:
    """Leave with the free cash of an asset after 30 days of silence."""
    account = bytes(caller)
    records = [_writable(vault.find(get_balance_id(account, asset))), _readonly(vault.find(Id(Tag.ACCOUNT, account)))]
    return _make(vault, bytes([10]) + asset, caller, *records)


def make_pause(vault: Vault, caller: Pubkey, signature: bytes) -> Instruction:
    """Bring an operator's signature (65 bytes) over Pause."""
    return _make(vault, bytes([11]) + signature, caller)


# ---- recv -------------------------------------------------------------------------------------------------------------


@dataclass
class _Records:
    """The records of a packet in the order of their accounts."""

    vault: Vault
    read: Callable[[Pubkey], bytes | None]
    places: dict[Id, int] = field(default_factory=dict)
    keys: list[Pubkey] = field(default_factory=list)
    unopened: dict[Id, int] = field(default_factory=dict)
    written: set[Id] = field(default_factory=set)

    def add(self, record: Id, *, is_written: bool = False) -> int:
        if is_written:
            self.written.add(record)
        if record not in self.places:
            place = len(self.keys)
            if place >= MAX_RECORDS:
                raise Rejected(
                    "a packet names too many records", got=place + 1, expected=MAX_RECORDS, reason="too_large"
                )
            self.places[record] = place
            self.keys.append(self.vault.find(record))
            if self.read(self.keys[place]) is None:
                self.unopened[record] = place
        return self.places[record]

    def load(self, record: Id) -> tuple[bytes | int, ...]:
        return decode_record(record, self.read(self.vault.find(record)), bytes(self.vault.state))


@dataclass(frozen=True)
class Delivery:
    """A recv instruction, and the records that somebody must open before it can succeed.

    Those of ``may_open`` need not be open, but each takes some 66 bytes of the transaction while it is not.
    """

    instruction: Instruction
    to_open: tuple[Id, ...]
    may_open: tuple[Id, ...] = ()


def make_recv(
    vault: Vault, packet: Packet, signatures: Sequence[bytes], read: Callable[[Pubkey], bytes | None], now: int
) -> Delivery:
    """Deliver a packet compactly. ``read`` returns the data of an account, None where there is none.

    Raises Rejected (reason not_compact) for a packet that the compact form cannot say: another envelope, a body that is
    not canonical or beyond the limits of this family. ``now`` is the time of the block, as far as known. The records are chosen for the state
    that was read; if it moves before the delivery, the program may ask for another record and the call fails.
    """
    state_data = read(vault.state)
    state = decode_state(state_data if state_data is not None else b"")
    flaw = b.get_packet_flaw(packet, get_vault_client(state.vault_id), b.CLEARING_CLIENT)
    if flaw:
        raise Rejected(f"the compact form has no place for an envelope: {flaw}", reason="not_compact")
    body = b.decode_inbox_body(packet.payloads[0].value, b.SOLANA_LIMITS)
    if any(len(signature) != 65 for signature in signatures):
        raise Rejected("a signature has another length", reason="not_compact")
    if isinstance(body, b.DecideTrades | b.DecideWithdrawals) and len(body.items) > 255:
        raise Rejected("more items than the compact form can count", got=len(body.items), reason="not_compact")
    records = _Records(vault, read)
    is_rotated = bool(state.pending_at) and now >= state.pending_at
    treasurer = state.sets[1 - state.set if is_rotated else state.set].treasurer
    compact = _encode_compact(body, records, state, treasurer)
    opened = b"".join(bytes([i, record.tag]) + record.keys for record, i in records.unopened.items())
    data = struct.pack("<BQQB", 12, packet.sequence, packet.timeout_timestamp, len(signatures)) + b"".join(signatures)
    data += bytes([len(records.unopened)]) + opened + compact
    written = records.written
    accounts = [
        _writable(vault.state),
        _readonly(vault.program),
        *(AccountMeta(vault.find(r), is_signer=False, is_writable=r in written) for r in records.places),
    ]
    to_open = tuple(record for record in records.unopened if record in written)
    may_open = tuple(record for record in records.unopened if record not in written and record.tag in OPENED_BY_ANYONE)
    return Delivery(Instruction(vault.program, data, accounts), to_open, may_open)


def _encode_compact(body: b.InboxBody, records: _Records, state: State, treasurer: bytes) -> bytes:
    kind = bytes([b.get_kind(b.encode_body(body))])
    match body:
        case b.Execute():
            return kind + _encode_execute(body, records)
        case b.DecideTrades():
            out = kind + body.plan_digest + struct.pack("<QB", body.upto, len(body.items))
            for item in body.items:
                record = get_trade_id(item.taker, item.offer, item.nonce)
                is_open = _is_open_trade(records, record, item.id, state)
                place = records.add(record, is_written=is_open)
                out += _encode_item(place, item.id, bytes(records.load(record)[0]))
                if is_open:
                    _add_trade(records, item)
            return out
        case b.DecideWithdrawals():
            out = kind + body.plan_digest + bytes([len(body.items)])
            for request in body.items:
                record = Id(Tag.REQUEST, request.account + request.asset)
                stored, amount, _ = records.load(record)
                is_open = bool(amount) and stored == request.id
                place = records.add(record, is_written=is_open)
                out += _encode_item(place, request.id, stored)  # type: ignore[arg-type]
                if is_open:
                    records.add(Id(Tag.ASSET, request.asset), is_written=True)
                    payee = treasurer if request.account == HOUSE else request.account
                    records.add(get_balance_id(request.account, request.asset), is_written=True)
                    records.add(get_balance_id(payee, request.asset), is_written=True)
            return out
        case b.RotateOperators():
            out = kind + struct.pack("<QBQ", body.epoch, body.threshold, body.effective) + body.treasurer
            return out + bytes([len(body.operators)]) + b"".join(body.operators)
        case b.SetCaps():
            caps = (body.per_packet, body.per_hour, body.per_day)
            place = records.add(Id(Tag.ASSET, body.asset), is_written=True)
            return kind + bytes([place]) + b"".join(cap.to_bytes(32, "big") for cap in caps)
        case _:
            return kind


def _encode_execute(body: b.Execute, records: _Records) -> bytes:
    legs = bytes([len(body.legs)])
    for leg in body.legs:
        record = Id(Tag.POSITION if leg.kind == 1 else Tag.BALANCE, leg.account + leg.id)
        if leg.kind > 1 or not -(2**63) <= leg.delta < 2**63:
            # sure to be refused, but for no lack of a transport: nothing of it is written
            word = (leg.delta % 2**256).to_bytes(32, "big")
            legs += bytes([EXPLICIT, records.add(record), leg.kind]) + word
            continue
        legs += bytes([records.add(record, is_written=True)]) + struct.pack("<q", leg.delta)
        records.add(Id(Tag.SERIES if leg.kind else Tag.ASSET, leg.id), is_written=not leg.kind)
        if leg.kind:
            _add_negatives(records, record, leg.account, leg.delta)
    out = body.plan_digest + bytes([len(body.prices)])
    for price in body.prices:
        number = price.price_e8.to_bytes((price.price_e8.bit_length() + 7) // 8, "big")
        known = records.places.get(Id(Tag.SERIES, price.series))
        series = bytes([EXPLICIT]) + price.series if known is None else bytes([known])
        out += series + bytes([len(number)]) + number
    return out + legs


def _add_negatives(records: _Records, record: Id, account: bytes, delta: int) -> None:
    """Add the record that counts an account's negative positions if a change makes one or ends one."""
    old = decode_position(records.load(record)[0])  # type: ignore[arg-type]
    if account not in (HOUSE, INSURANCE) and (old < 0) != (old + delta < 0):
        records.add(Id(Tag.ACCOUNT, account), is_written=True)


def _encode_item(place: int, wanted: bytes, stored: bytes) -> bytes:
    return bytes([place, 0]) if wanted == stored else bytes([place, 1]) + wanted


def _is_open_trade(records: _Records, record: Id, wanted: bytes, state: State) -> bool:
    stored, _, _, number = records.load(record)
    return stored == wanted and isinstance(number, int) and number > state.decided_upto


def _add_trade(records: _Records, item: b.TradeItem) -> None:
    """Add the records that a trade moves."""
    offer = get_offer_id(item.offer)
    maker, series, asset, *_, side, _ = records.load(offer)
    assert isinstance(maker, bytes)
    assert isinstance(series, bytes)
    assert isinstance(asset, bytes)
    quantity = records.load(get_trade_id(item.taker, item.offer, item.nonce))[1]
    assert isinstance(quantity, int)
    records.add(offer, is_written=True)
    for account, is_maker in ((maker, True), (item.taker, False)):
        delta = quantity if is_maker == (side == 0) else -quantity
        records.add(get_balance_id(account, asset), is_written=True)
        record = get_position_id(account, series)
        records.add(record, is_written=True)
        _add_negatives(records, record, account, delta)
