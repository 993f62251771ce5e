"""Every body of optsettle-1 and its one encoding (protocol.md 4.2).

A payload value is `abi.encode(uint16 kind, fields...)`: a flat argument list, static words first, arrays last. All words are
32 bytes and nothing is nested, so the codec is a table of word types per body. Decoding is strict: exact length, exact
offsets, clean padding, and at the end the value is encoded again and compared. The codec does not judge content (an
unknown leg kind decodes): that is the vault's and the ledger's work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any, ClassVar

from messages.errors import Rejected
from messages.hashing import keccak256
from messages.ids import get_vault_client
from messages.packet import Packet, Payload

CLEARING_CLIENT = "optsettle-clearing"
PORT = "optsettle"
VERSION = "optsettle-1"
ENCODING = "application/x-solidity-abi"
PACKET_LIFE_S = 86_400  # timeout of an outbox packet = block time + this


class Reason(IntEnum):
    """Why a vault refused a body (vault.md 3)."""

    NONE = 0
    PAUSED = 1
    LEG_KIND = 2
    ZERO = 3
    RANGE = 4
    ACCOUNT = 5
    ORDER = 6
    ASSET = 7
    SERIES = 8
    CASH = 9
    DIRECTION = 10
    OVERFLOW = 11
    SUM = 12
    CAP = 13
    EPOCH = 14
    OPERATORS = 15
    NOT_PAUSED = 16
    DELAY = 17


class AckStatus(IntEnum):
    """Outcome of an inbox packet."""

    DONE = 1
    REFUSED = 2


class LegKind(IntEnum):
    """What a leg moves."""

    CASH = 0
    POSITION = 1


# ---- outbox: vault -> clearing ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Deposited:
    """``amount`` base units of ``asset`` arrived for ``account``."""

    KIND: ClassVar[int] = 1
    account: bytes
    asset: bytes
    amount: int


@dataclass(frozen=True, slots=True)
class Linked:
    """``account`` asks to belong to ``portfolio``; judged by the ledger (protocol.md 6)."""

    KIND: ClassVar[int] = 2
    account: bytes
    portfolio: bytes
    valid_until: int
    r: bytes
    s: bytes
    v: int


@dataclass(frozen=True, slots=True)
class SeriesDefinition:
    """Terms of an option series; a static tuple whose hash is the series id (protocol.md 4)."""

    underlying: bytes
    expiry: int  # unix seconds
    strike_e8: int
    right: int  # 0 put, 1 call
    quote_class: bytes
    multiplier_e8: int
    price_source: bytes
    twap_seconds: int


@dataclass(frozen=True, slots=True)
class SeriesListed:
    """A series was listed at the vault."""

    KIND: ClassVar[int] = 3
    series: bytes
    definition: SeriesDefinition


@dataclass(frozen=True, slots=True)
class TradePending:
    """An offer was taken and waits for the clearing; ``cost`` in base units of ``asset``, quantity in 1e-8 contracts."""

    KIND: ClassVar[int] = 4
    buyer: bytes
    seller: bytes
    series: bytes
    asset: bytes
    quantity: int
    cost: int
    valid_until: int
    taker: bytes
    offer: int
    nonce: int


@dataclass(frozen=True, slots=True)
class WithdrawalRequested:
    """``account`` asks for ``amount`` base units of ``asset``."""

    KIND: ClassVar[int] = 5
    account: bytes
    asset: bytes
    amount: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """``amount`` of claimable tokens left the vault."""

    KIND: ClassVar[int] = 6
    account: bytes
    asset: bytes
    amount: int


@dataclass(frozen=True, slots=True)
class Paused:
    """One operator (20 bytes) paused the vault."""

    KIND: ClassVar[int] = 7
    operator: bytes


@dataclass(frozen=True, slots=True)
class Escaped:
    """``amount`` of free became claimable without the clearing."""

    KIND: ClassVar[int] = 8
    account: bytes
    asset: bytes
    amount: int


@dataclass(frozen=True, slots=True)
class Ack:
    """What became of inbox packet ``inbox_sequence``."""

    KIND: ClassVar[int] = 16
    inbox_sequence: int
    inbox_commitment: bytes
    kind: int
    status: int
    reason: int
    bitmap: int


# ---- inbox: clearing -> vault -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Leg:
    """One signed movement: cash (base units) or position (1e-8 contracts, or class units of a due)."""

    kind: int
    account: bytes
    id: bytes  # asset or series
    delta: int


@dataclass(frozen=True, slots=True)
class SeriesPrice:
    """Settlement price of a series, put on record."""

    series: bytes
    price_e8: int


@dataclass(frozen=True, slots=True)
class Execute:
    """Apply all legs or refuse; empty is a heartbeat."""

    KIND: ClassVar[int] = 32
    plan_digest: bytes
    prices: tuple[SeriesPrice, ...]
    legs: tuple[Leg, ...]


@dataclass(frozen=True, slots=True)
class TradeItem:
    """A trade by its id (outbox head) and the key of its record."""

    id: bytes
    taker: bytes
    offer: int
    nonce: int


@dataclass(frozen=True, slots=True)
class DecideTrades:
    """Settle the named trades, end all others with packet number <= ``upto``."""

    KIND: ClassVar[int] = 33
    plan_digest: bytes
    upto: int
    items: tuple[TradeItem, ...]


@dataclass(frozen=True, slots=True)
class WithdrawalItem:
    """A request by its id (outbox head) and the key of its record."""

    id: bytes
    account: bytes
    asset: bytes


@dataclass(frozen=True, slots=True)
class DecideWithdrawals:
    """Free -> claimable for each named request that can be met."""

    KIND: ClassVar[int] = 34
    plan_digest: bytes
    items: tuple[WithdrawalItem, ...]


@dataclass(frozen=True, slots=True)
class RotateOperators:
    """The next operator set, in force from ``effective`` (unix seconds)."""

    KIND: ClassVar[int] = 35
    epoch: int
    threshold: int
    effective: int
    treasurer: bytes
    operators: tuple[bytes, ...]  # 20 bytes each


@dataclass(frozen=True, slots=True)
class SetCaps:
    """Caps of an asset in base units."""

    KIND: ClassVar[int] = 36
    asset: bytes
    per_packet: int
    per_hour: int
    per_day: int


@dataclass(frozen=True, slots=True)
class Unpause:
    """End a pause after the delay."""

    KIND: ClassVar[int] = 37


OutboxBody = Deposited | Linked | SeriesListed | TradePending | WithdrawalRequested | Claimed | Paused | Escaped | Ack
InboxBody = Execute | DecideTrades | DecideWithdrawals | RotateOperators | SetCaps | Unpause
Body = OutboxBody | InboxBody


@dataclass(frozen=True, slots=True)
class Limits:
    """Counts a family accepts in one packet (vault.md 3)."""

    max_legs: int  # legs, and as many prices
    max_items: int = 256
    max_addresses: int = 20


EVM_LIMITS = Limits(max_legs=64)
COSMOS_LIMITS = Limits(max_legs=128)
SOLANA_LIMITS = Limits(max_legs=32)
WIDEST_LIMITS = COSMOS_LIMITS  # for values some vault has accepted already

# ---- word types -------------------------------------------------------------------------------------------------------

_B32, _ADDRESS, _I256 = "bytes32", "address", "int256"
_UINT_BITS = {"uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64, "uint256": 256}
_U8, _U16, _U32, _U64, _U256 = _UINT_BITS

_DEFINITION = (_B32, _U64, _U256, _U8, _B32, _U256, _B32, _U32)
_LEG = (_U8, _B32, _B32, _I256)
_PRICE = (_B32, _U256)
_TRADE_ITEM = (_B32, _B32, _U64, _U64)
_WITHDRAWAL_ITEM = (_B32, _B32, _B32)

_STATIC: dict[type, tuple[str, ...]] = {
    Deposited: (_B32, _B32, _U256),
    Linked: (_B32, _B32, _U64, _B32, _B32, _U8),
    TradePending: (_B32, _B32, _B32, _B32, _U256, _U256, _U64, _B32, _U64, _U64),
    WithdrawalRequested: (_B32, _B32, _U256),
    Claimed: (_B32, _B32, _U256),
    Paused: (_ADDRESS,),
    Escaped: (_B32, _B32, _U256),
    Ack: (_U64, _B32, _U16, _U8, _U16, _U256),
    SetCaps: (_B32, _U256, _U256, _U256),
    Unpause: (),
}


def _malformed(what: str, got: object = None, expected: object = None) -> Rejected:
    return Rejected(what, got=got, expected=expected, reason="malformed")


def _decode_words(types: tuple[str, ...], value: bytes, at: int) -> list[bytes | int]:
    """Return the fields that start at byte ``at``; the caller has checked that the bytes are there."""
    out: list[bytes | int] = []
    for kind in types:
        word = value[at : at + 32]
        at += 32
        if kind == _B32:
            out.append(word)
        elif kind == _ADDRESS:
            if word[:12] != b"\0" * 12:
                raise _malformed("dirty bytes above an address", got=word)
            out.append(word[12:])
        elif kind == _I256:
            out.append(int.from_bytes(word, "big", signed=True))
        else:
            number = int.from_bytes(word, "big")
            if number >> _UINT_BITS[kind]:
                raise _malformed(f"more than a {kind}", got=number)
            out.append(number)
    return out


def _encode_words(types: tuple[str, ...], values: Sequence[object]) -> bytes:
    """Return the words of ``values``; Rejected ("range") when one does not fit its type."""
    return b"".join([_ENCODERS[kind](value) for kind, value in zip(types, values, strict=True)])


def _encode_b32(value: object) -> bytes:
    if not isinstance(value, bytes) or len(value) != 32:
        raise Rejected("a bytes32 has 32 bytes", got=value, reason="range")
    return value


def _encode_address(value: object) -> bytes:
    if not isinstance(value, bytes) or len(value) != 20:
        raise Rejected("an address has 20 bytes", got=value, reason="range")
    return bytes(12) + value


def _encode_signed(value: object) -> bytes:
    # bool is an int to Python and never to this protocol
    if not isinstance(value, int) or isinstance(value, bool):
        raise Rejected("an int256 is an integer", got=value, reason="range")
    if not -(2**255) <= value < 2**255:
        raise Rejected("more than an int256", got=value, reason="range")
    return value.to_bytes(32, "big", signed=True)


def _make_unsigned_encoder(kind: str, bits: int) -> Callable[[object], bytes]:
    def encode(value: object) -> bytes:
        if not isinstance(value, int) or isinstance(value, bool):
            raise Rejected(f"a {kind} is an integer", got=value, reason="range")
        if value < 0 or value >> bits:
            raise Rejected(f"more than a {kind}", got=value, reason="range")
        return value.to_bytes(32, "big")

    return encode


_ENCODERS: dict[str, Callable[[object], bytes]] = {
    _B32: _encode_b32,
    _ADDRESS: _encode_address,
    _I256: _encode_signed,
    **{kind: _make_unsigned_encoder(kind, bits) for kind, bits in _UINT_BITS.items()},
}


def _word(number: int) -> bytes:
    return number.to_bytes(32, "big")


@cache
def _get_names(kind: Any) -> tuple[str, ...]:  # Any: mypy does not take a class for hashable, which the cache asks for
    return tuple(f.name for f in fields(kind))


def _get_values(item: object) -> list[object]:
    kind: Any = type(item)
    return [getattr(item, name) for name in _get_names(kind)]


def _encode_array(types: tuple[str, ...], items: Sequence[object]) -> bytes:
    return _word(len(items)) + b"".join([_encode_words(types, _get_values(item)) for item in items])


def _decode_array(types: tuple[str, ...], value: bytes, at: int, limit: int) -> tuple[list[list[bytes | int]], int]:
    """Return (rows, end) of the array whose count is the word at ``at``. The count is bounded before anything is built."""
    if len(value) < at + 32:
        raise _malformed("the count of an array is missing", got=len(value))
    count = int.from_bytes(value[at : at + 32], "big")
    if count > limit:
        raise _malformed("more items than the limit", got=count, expected=f"<= {limit}")
    size = 32 * len(types)
    end = at + 32 + count * size
    if len(value) < end:
        raise _malformed("an array runs past the end", got=len(value), expected=end)
    return [_decode_words(types, value, at + 32 + i * size) for i in range(count)], end


def _verify_offset(value: bytes, at: int, expected: int) -> None:
    got = int.from_bytes(value[at : at + 32], "big")
    if got != expected:
        raise _malformed("an offset is not the canonical one", got=got, expected=expected)


def _verify_length(value: bytes, expected: int) -> None:
    if len(value) != expected:
        raise _malformed("length of the value", got=len(value), expected=expected)


def _verify_head(value: bytes, words: int) -> None:
    if len(value) < 32 * words:
        raise _malformed("the value is too short", got=len(value), expected=f">= {32 * words}")


# ---- encode -----------------------------------------------------------------------------------------------------------


def encode_body(body: Body) -> bytes:
    """Return the payload value of ``body``; Rejected ("range") if a field does not fit its ABI type (protocol.md 4.2)."""
    kind = _word(body.KIND)
    types = _STATIC.get(type(body))
    if types is not None:
        return kind + _encode_words(types, _get_values(body))
    if isinstance(body, SeriesListed):
        return kind + _encode_words((_B32,), (body.series,)) + encode_definition(body.definition)
    if isinstance(body, Execute):
        prices = _encode_array(_PRICE, body.prices)
        head = _encode_words((_B32, _U256, _U256), (body.plan_digest, 128, 128 + len(prices)))
        return kind + head + prices + _encode_array(_LEG, body.legs)
    if isinstance(body, DecideTrades):
        head = _encode_words((_B32, _U64, _U256), (body.plan_digest, body.upto, 128))
        return kind + head + _encode_array(_TRADE_ITEM, body.items)
    if isinstance(body, DecideWithdrawals):
        head = _encode_words((_B32, _U256), (body.plan_digest, 96))
        return kind + head + _encode_array(_WITHDRAWAL_ITEM, body.items)
    if isinstance(body, RotateOperators):
        head = _encode_words(
            (_U64, _U8, _U64, _B32, _U256), (body.epoch, body.threshold, body.effective, body.treasurer, 192)
        )
        rows = b"".join(_encode_words((_ADDRESS,), (operator,)) for operator in body.operators)
        return kind + head + _word(len(body.operators)) + rows
    raise Rejected("not a body of optsettle-1", got=type(body).__name__, reason="range")


def encode_definition(definition: SeriesDefinition) -> bytes:
    """Return abi.encode(definition), 256 bytes; Rejected ("range") if a field does not fit."""
    return _encode_words(_DEFINITION, _get_values(definition))


def compute_series_id(definition: SeriesDefinition) -> bytes:
    """Return keccak256(abi.encode(definition)) (protocol.md 4)."""
    return keccak256(encode_definition(definition))


# ---- decode -----------------------------------------------------------------------------------------------------------

_OUTBOX_STATIC: dict[int, type] = {
    c.KIND: c for c in (Deposited, Linked, TradePending, WithdrawalRequested, Claimed, Paused, Escaped, Ack)
}
_INBOX_STATIC: dict[int, type] = {c.KIND: c for c in (SetCaps, Unpause)}


def get_kind(value: bytes) -> int:
    """Return the kind in the first word of a payload value; Rejected ("malformed") if it is no uint16."""
    _verify_head(value, 1)
    kind = int.from_bytes(value[:32], "big")
    if kind >> 16:
        raise _malformed("the kind is no uint16", got=kind)
    return kind


def _decode_static(value: bytes, cls: type) -> object:
    types = _STATIC[cls]
    _verify_length(value, 32 + 32 * len(types))
    return cls(*_decode_words(types, value, 32))


def decode_outbox_body(value: bytes) -> OutboxBody:
    """Return the body of an outbox packet; Rejected ("malformed") unless ``value`` is its one encoding.

    Protocol.md 2: decode, encode again, compare.
    """
    kind = get_kind(value)
    body: object
    if kind == SeriesListed.KIND:
        _verify_length(value, 320)
        definition = SeriesDefinition(*_decode_words(_DEFINITION, value, 64))  # type: ignore[arg-type]  # by _DEFINITION
        body = SeriesListed(value[32:64], definition)
    elif kind in _OUTBOX_STATIC:
        body = _decode_static(value, _OUTBOX_STATIC[kind])
    else:
        raise _malformed("not a kind of the outbox", got=kind)
    _verify_canonical(body, value)  # type: ignore[arg-type]  # one of the union by the two tables
    return body  # type: ignore[return-value]  # as above


@lru_cache(maxsize=64)
def decode_inbox_body(value: bytes, limits: Limits) -> InboxBody:
    """Return the body of an inbox packet within ``limits``; Rejected ("malformed") otherwise (vault.md 3).

    The newest are remembered: ledger, plan, signer and the fold of its Ack all read one packet.
    """
    kind = get_kind(value)
    body: object
    if kind in _INBOX_STATIC:
        body = _decode_static(value, _INBOX_STATIC[kind])
    elif kind == Execute.KIND:
        body = _decode_execute(value, limits)
    elif kind == DecideTrades.KIND:
        _verify_head(value, 4)
        plan_digest, upto = _decode_words((_B32, _U64), value, 32)
        _verify_offset(value, 96, 128)
        rows, end = _decode_array(_TRADE_ITEM, value, 128, limits.max_items)
        _verify_length(value, end)
        body = DecideTrades(plan_digest, upto, tuple(TradeItem(*r) for r in rows))  # type: ignore[arg-type]  # by table
    elif kind == DecideWithdrawals.KIND:
        _verify_head(value, 3)
        _verify_offset(value, 64, 96)
        rows, end = _decode_array(_WITHDRAWAL_ITEM, value, 96, limits.max_items)
        _verify_length(value, end)
        body = DecideWithdrawals(value[32:64], tuple(WithdrawalItem(*r) for r in rows))  # type: ignore[arg-type]  # by table
    elif kind == RotateOperators.KIND:
        _verify_head(value, 6)
        head = _decode_words((_U64, _U8, _U64, _B32), value, 32)
        _verify_offset(value, 160, 192)
        rows, end = _decode_array((_ADDRESS,), value, 192, limits.max_addresses)
        _verify_length(value, end)
        body = RotateOperators(*head, operators=tuple(r[0] for r in rows))  # type: ignore[arg-type, misc]  # by table
    else:
        raise _malformed("not a kind of the inbox", got=kind)
    _verify_canonical(body, value)  # type: ignore[arg-type]  # one of the union by the branches
    return body  # type: ignore[return-value]  # as above


def _decode_execute(value: bytes, limits: Limits) -> Execute:
    _verify_head(value, 4)
    _verify_offset(value, 64, 128)
    prices, middle = _decode_array(_PRICE, value, 128, limits.max_legs)
    _verify_offset(value, 96, middle)
    legs, end = _decode_array(_LEG, value, middle, limits.max_legs)
    _verify_length(value, end)
    return Execute(
        value[32:64],
        tuple(SeriesPrice(*row) for row in prices),  # type: ignore[arg-type]  # by _PRICE
        tuple(Leg(*row) for row in legs),  # type: ignore[arg-type]  # by _LEG
    )


def _verify_canonical(body: Body, value: bytes) -> None:
    if encode_body(body) != value:
        raise _malformed("not the canonical encoding", got=value)


def is_sorted_legs(legs: Sequence[Leg]) -> bool:
    """Tell whether legs ascend strictly by (kind, account, id): the ORDER rule (protocol.md 4.2)."""
    keys = [(leg.kind, leg.account, leg.id) for leg in legs]
    return all(a < b for a, b in pairwise(keys))


# ---- packets ----------------------------------------------------------------------------------------------------------


def make_outbox_packet(vault_id: bytes, sequence: int, block_time: int, body: OutboxBody) -> Packet:
    """Return outbox packet ``sequence`` of a vault at ``block_time`` (unix seconds); its timeout is a day later."""
    payload = Payload(PORT, PORT, VERSION, ENCODING, encode_body(body))
    return Packet(sequence, CLEARING_CLIENT, get_vault_client(vault_id), block_time + PACKET_LIFE_S, (payload,))


def make_inbox_packet(vault_id: bytes, sequence: int, timeout: int, body: InboxBody) -> Packet:
    """Return inbox packet ``sequence`` for a vault, valid before ``timeout`` (unix seconds)."""
    payload = Payload(PORT, PORT, VERSION, ENCODING, encode_body(body))
    return Packet(sequence, get_vault_client(vault_id), CLEARING_CLIENT, timeout, (payload,))


def get_packet_flaw(packet: Packet, source_client: str, destination_client: str) -> str:
    """Return a stable word for the first field of an optsettle packet that is not as it must be, or ""."""
    if packet.source_client != source_client:
        return "source_client"
    if packet.destination_client != destination_client:
        return "destination_client"
    if len(packet.payloads) != 1:
        return "payload_count"
    payload = packet.payloads[0]
    if payload.source_port != PORT or payload.destination_port != PORT:
        return "port"
    if payload.version != VERSION:
        return "version"
    return "" if payload.encoding == ENCODING else "encoding"


def verify_inbox_packet(vault_id: bytes, packet: Packet) -> None:
    """Check client ids, ports, version, encoding and count of an inbox packet; Rejected ("bad_packet")."""
    flaw = get_packet_flaw(packet, get_vault_client(vault_id), CLEARING_CLIENT)
    if flaw:
        raise Rejected(f"not an inbox packet of this vault: {flaw}", got=packet.source_client, reason="bad_packet")
