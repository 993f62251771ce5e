"""Off-chain documents as frozen dataclasses: cut, market snapshot, parameters, proposal, plan, vote (data.md 1 to 3).

Each document has one canonical JSON form (`messages.canonical`) and one digest, keccak256 of it. The mapping between a
dataclass and its JSON object is mechanical, by the types of its fields:

    bytes            "0x..." lower-case hex           Amount (int)   decimal string, any size, may be negative
    int              JSON integer, 0 to 2^53          str, bool      themselves
    tuple[X, ...]    JSON array of X                  dataclass      JSON object, unknown and missing keys refused

Top-level documents carry their name and version under ``schema``. A table that came later (``LEFT_OUT``) is left out where it is
empty, so that a document without it has the form and the digest that it always had.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, NewType, TypeVar

from messages.canonical import decode_canonical, encode_canonical
from messages.errors import Rejected
from messages.hashing import keccak256

Amount = NewType("Amount", int)
"""An integer that is written as a decimal string: amounts, prices, quantities, anything that may pass 2^53."""

MAX_DOCUMENT_BYTES = 8 * 1024 * 1024
MAX_DOCUMENT_DEPTH = 24
MAX_SAFE_INTEGER = 2**53
MAX_AMOUNT_DIGITS = 100

DocumentT = TypeVar("DocumentT")


# ---------------------------------------------------------------- cut


@dataclass(frozen=True, slots=True)
class CutEntry:
    """One finalized state of one vault (protocol.md 5). time: unix seconds of the state."""

    vault_id: bytes
    height: int
    header_hash: bytes
    time: int
    outbox_sequence: int
    outbox_head: bytes


@dataclass(frozen=True, slots=True)
class Cut:
    """One entry per vault, ascending by vault id."""

    SCHEMA: ClassVar[str] = "optsettle/cut/1"
    entries: tuple[CutEntry, ...]


# ---------------------------------------------------------------- prices and market


@dataclass(frozen=True, slots=True)
class Report:
    """A signed price report (data.md 3). Prices in 1e-8 of the class per unit of the underlying; stamp on a whole minute.

    The price of an asset against its class is a report whose ``underlying`` is keccak256 of the asset's CAIP-19 id.
    """

    source: bytes
    underlying: bytes
    stamp: int
    cumulative_e8_seconds: Amount
    spot_e8: Amount
    confidence_e8: Amount


@dataclass(frozen=True, slots=True)
class SignedReport:
    """A report with the signatures of m distinct price signers."""

    report: Report
    signatures: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """A signed forward and volatility slice of one expiry; svi_e18 = (a, b, rho, m, s, tau_ref in years) in 1e-18.

    A flat slice has b = 0: total variance a over tau_ref. The reference forward of the slice is ``forward_e8``.
    """

    source: bytes
    underlying: bytes
    expiry: int
    stamp: int
    forward_e8: Amount
    svi_e18: tuple[Amount, ...]
    confidence_e8: Amount


@dataclass(frozen=True, slots=True)
class SignedMark:
    """A mark with the signatures of m distinct price signers."""

    mark: Mark
    signatures: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Settlement:
    """The two cumulative reports that make one settlement price: at expiry - twap_seconds and at expiry."""

    underlying: bytes
    price_source: bytes
    expiry: int
    twap_seconds: int
    start: SignedReport
    end: SignedReport


@dataclass(frozen=True, slots=True)
class MarketSnapshot:
    """Everything about prices that a plan depends on; ``now`` in unix seconds is the time of the plan."""

    SCHEMA: ClassVar[str] = "optsettle/market/1"
    now: int
    reports: tuple[SignedReport, ...]
    marks: tuple[SignedMark, ...]
    settlements: tuple[Settlement, ...]


# ---------------------------------------------------------------- parameters


@dataclass(frozen=True, slots=True)
class CapParameters:
    """Caps of one asset at creation, in base units."""

    asset: bytes
    per_packet: Amount
    per_hour: Amount
    per_day: Amount


@dataclass(frozen=True, slots=True)
class VaultParameters:
    """A vault and how it was created; everything later comes from its facts."""

    chain: str
    family: str
    account: bytes
    operators: tuple[bytes, ...]
    threshold: int
    treasurer: bytes
    delay_s: int
    created_at: int
    caps: tuple[CapParameters, ...]
    inventory_limit: Amount
    """Worst-case shortfall that open decisions may cause at this vault, in class units (protocol.md 7.5)."""


@dataclass(frozen=True, slots=True)
class AssetParameters:
    """A token at a vault: its class, decimals and how much of it counts. Haircuts in parts per million."""

    caip19: str
    vault_id: bytes
    asset: bytes
    quote_class: bytes
    decimals: int
    price_source: bytes
    peg_low_e8: Amount
    peg_high_e8: Amount
    haircut_ppm: int
    stale_haircut_ppm_per_hour: int
    lift_limit: Amount


@dataclass(frozen=True, slots=True)
class ModelParameter:
    """One named number of a margin model, as a decimal string."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class UnderlyingParameters:
    """An underlying: where its price comes from and which margin model it is judged by."""

    underlying: bytes
    price_source: bytes
    model: str
    model_parameters: tuple[ModelParameter, ...]


@dataclass(frozen=True, slots=True)
class ClassParameters:
    """A currency class ("USDC"): smallest unit (decimals of its coarsest token), smallest trade, haircut on dues it is owed."""

    quote_class: bytes
    decimals: int
    minimum_notional: Amount
    house_due_haircut_ppm: int


@dataclass(frozen=True, slots=True)
class FamilyParameters:
    """Constants of a family: packet timeout after the cut's time, list limits, how long a chain may be quiet."""

    family: str
    timeout_s: int
    max_legs: int
    max_items: int


@dataclass(frozen=True, slots=True)
class LiquidationParameters:
    """Liquidation in its simplest right form: positions to HOUSE at mark less a stated discount, in steps."""

    discount_ppm: int
    step_ppm: int


@dataclass(frozen=True, slots=True)
class ControlParameters:
    """A control change the operators want at a vault: ``value`` is the encoded body of kind 35, 36 or 37 (protocol.md 4.2).

    A plan carries it until the facts show it in force or pending, so naming it twice does nothing.
    """

    vault_id: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class TierParameters:
    """What facts of one trust tier (protocol.md 10) count for: parts per million, per hour of age; the most value they carry.

    `value_limit` is in the smallest unit of the first class. What each number does: `relayer.rules.margin.tiers`.
    """

    level: int
    haircut_ppm: int
    haircut_ppm_per_hour: int
    weight_ppm: int
    weight_ppm_per_hour: int
    value_limit: Amount


@dataclass(frozen=True, slots=True)
class Parameters:
    """All that the operators' quorum decides and signs (data.md 2). A plan carries the digest.

    The first class is the currency that accounts are margined in. An asset whose price source is zero counts at par; another
    class than the first is converted at the spot of the underlying of the same name.
    """

    SCHEMA: ClassVar[str] = "optsettle/parameters/1"
    LEFT_OUT: ClassVar[frozenset[str]] = frozenset({"tiers"})
    version: int
    effective: int
    patience_s: int
    heartbeat_s: int
    price_signers: tuple[bytes, ...]
    price_threshold: int
    vaults: tuple[VaultParameters, ...]
    assets: tuple[AssetParameters, ...]
    classes: tuple[ClassParameters, ...]
    underlyings: tuple[UnderlyingParameters, ...]
    families: tuple[FamilyParameters, ...]
    liquidation: LiquidationParameters
    controls: tuple[ControlParameters, ...] = ()
    tiers: tuple[TierParameters, ...] = ()
    """Of tiers that are not named the defaults of the rules are in force."""


# ---------------------------------------------------------------- plan, proposal, vote


@dataclass(frozen=True, slots=True)
class PlannedPacket:
    """One inbox packet of a plan. ``value`` is the encoded body with a zero plan digest; purpose is for people and records."""

    vault_id: bytes
    operator_epoch: int
    sequence: int
    timeout: int
    value: bytes
    purpose: str


@dataclass(frozen=True, slots=True)
class Vote:
    """One operator's word that its own plan for (k, r) has this digest."""

    SCHEMA: ClassVar[str] = "optsettle/vote/1"
    k: int
    r: int
    plan_digest: bytes
    operator: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class OpenPacket:
    """A packet with m votes whose Ack or absence no cut has shown yet. ``value`` is final (plan digest inside)."""

    vault_id: bytes
    operator_epoch: int
    sequence: int
    timeout: int
    value: bytes
    plan_digest: bytes
    votes: tuple[Vote, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What every node computes from (ledger at the cut, market, parameters, k, open packets); protocol.md 7.

    The digest of a plan is the digest of exactly this document.
    """

    SCHEMA: ClassVar[str] = "optsettle/plan/1"
    k: int
    cut_digest: bytes
    market_digest: bytes
    parameters_digest: bytes
    open_packets_digest: bytes
    packets: tuple[PlannedPacket, ...]


@dataclass(frozen=True, slots=True)
class OpenPackets:
    """The list of open packets a proposal names, ascending by (vault id, sequence, timeout, plan digest).

    A packet proven absent stays in the list until its number is consumed, so that the plan can count absences
    (protocol.md 7.7).
    """

    SCHEMA: ClassVar[str] = "optsettle/open/1"
    packets: tuple[OpenPacket, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What makes one cut entry true: a light-client update (may be empty where the header is on record) and the head proof."""

    vault_id: bytes
    update: bytes
    proof: bytes


@dataclass(frozen=True, slots=True)
class Proposal:
    """Everything a node needs, beyond the facts, to compute the same plan (protocol.md 7 and 8)."""

    SCHEMA: ClassVar[str] = "optsettle/proposal/1"
    k: int
    r: int
    proposer: bytes
    cut: Cut
    evidence: tuple[Evidence, ...]
    market: MarketSnapshot
    parameters_digest: bytes
    open_packets: OpenPackets
    plan_digest: bytes


# ---------------------------------------------------------------- the mechanical mapping


def encode_document(document: Any) -> bytes:
    """Canonical JSON of a document (a dataclass above); ``schema`` is added where the class names one (data.md 1)."""
    return encode_canonical(to_object(document))


def decode_document(kind: type[DocumentT], data: bytes, *, max_bytes: int = MAX_DOCUMENT_BYTES) -> DocumentT:
    """Strict inverse of `encode_document`.

    Raises:
        Rejected: too large, too deep, not canonical, unknown or missing key, wrong type; reason ``malformed``.
    """
    return from_object(kind, decode_canonical(data, max_bytes=max_bytes, max_depth=MAX_DOCUMENT_DEPTH))


_KEPT_DIGESTS, _MAX_KEPT_BYTES = 32, 262_144
# By the identity of a few documents, which are kept beside and never change: a plan, its parameters and its market are asked for often.
_digests: dict[int, tuple[Any, bytes]] = {}


def compute_digest(document: Any) -> bytes:
    """Digest of a document: keccak256 of its canonical JSON, 32 bytes (data.md 1)."""
    found = _digests.get(id(document))
    if found is not None and found[0] is document:
        return found[1]
    data = encode_document(document)
    digest = keccak256(data)
    if len(data) <= _MAX_KEPT_BYTES:
        if len(_digests) >= _KEPT_DIGESTS:
            _digests.clear()
        _digests[id(document)] = document, digest
    return digest


def to_object(value: Any) -> Any:
    """The JSON object of a document or of a part of one."""
    kind: Any = type(value)  # Any: mypy does not take a class for hashable, which the cache asks for
    shape = _get_shape(kind)
    out: dict[str, Any] = {}
    for name, _, encode, _ in shape.fields:
        part = getattr(value, name)
        if part or name not in shape.left_out:
            out[name] = encode(part)
    if shape.schema is not None:
        out["schema"] = shape.schema
    return out


def from_object(kind: type[DocumentT], obj: Any) -> DocumentT:
    """Strict inverse of `to_object`.

    Raises:
        Rejected: reason ``malformed``, naming the key.
    """
    if not isinstance(obj, dict):
        raise _malformed(kind.__name__, obj, "an object")
    known_kind: Any = kind  # Any: as in to_object
    shape = _get_shape(known_kind)
    if shape.schema is not None and obj.get("schema") != shape.schema:
        raise _malformed(f"{kind.__name__}.schema", obj.get("schema"), shape.schema)
    # A table that is written though it is empty is an unknown key: one value has one form.
    absent = {name for name in shape.left_out if not obj.get(name)}
    known = shape.keys - absent
    if obj.keys() != known:
        raise _malformed(f"keys of {kind.__name__}", sorted(obj.keys() ^ known), "no unknown and no missing key")
    return kind(**{name: decode(what, obj[name]) for name, what, _, decode in shape.fields if name not in absent})


def _malformed(what: str, got: object, expected: object) -> Rejected:
    return Rejected(f"{what} is not sound", got=got, expected=expected, reason="malformed")


class _Shape(typing.NamedTuple):
    """How a class is written. ``fields``: name, its full name for people, encode, decode; ``keys``: of its object."""

    fields: tuple[tuple[str, str, Any, Any], ...]
    keys: frozenset[str]
    schema: str | None
    left_out: tuple[str, ...]


@cache
def _get_shape(kind: Any) -> _Shape:
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    schema = getattr(kind, "SCHEMA", None)
    fields = tuple((name, f"{kind.__name__}.{name}", *_get_codec(hints[name])) for name in names)
    keys = frozenset(names if schema is None else [*names, "schema"])
    return _Shape(fields, keys, schema, getattr(kind, "LEFT_OUT", ()))


def _get_codec(hint: Any) -> tuple[Any, Any]:
    """(encode, decode) for one type of field."""
    if hint is Amount:
        return str, _decode_amount
    if isinstance(hint, NewType):
        return _get_codec(hint.__supertype__)
    if hint is bool:
        return _same, lambda what, v: v if isinstance(v, bool) else _refuse(what, v, "true or false")
    if hint is int:
        return _same, _decode_int
    if hint is str:
        return _same, lambda what, v: v if isinstance(v, str) else _refuse(what, v, "a string")
    if hint is bytes:
        return lambda v: "0x" + v.hex(), _decode_hex
    if typing.get_origin(hint) is tuple:
        encode, decode = _get_codec(typing.get_args(hint)[0])
        return (
            lambda v: [encode(x) for x in v],
            lambda what, v: _decode_items(decode, what, v),
        )
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and not isinstance(hint, types.GenericAlias):
        return to_object, lambda _, v: from_object(hint, v)
    raise TypeError(f"no document mapping for {hint}")


def _decode_items(decode: Any, what: str, value: Any) -> Any:
    if not isinstance(value, list):
        return _refuse(what, value, "an array")
    try:
        return tuple([decode(what, x) for x in value])
    except Rejected:
        for i, x in enumerate(value):
            decode(f"{what}[{i}]", x)  # the same again, with the place in its words
        raise


def _same(value: Any) -> Any:
    return value


def _refuse(what: str, got: object, expected: str) -> Any:
    raise _malformed(what, got, expected)


def _decode_amount(what: str, value: Any) -> int:
    if isinstance(value, str) and 0 < len(value) <= MAX_AMOUNT_DIGITS:
        digits = value[1:] if value[0] == "-" else value
        if digits.isascii() and digits.isdigit() and str(int(value)) == value:
            return int(value)
    raise _malformed(what, value, "a decimal string without leading zeros")


def _decode_int(what: str, value: Any) -> int:
    # Numbers, times, heights and constants: none of them is negative, and nothing behind this door has to ask again.
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_SAFE_INTEGER:
        return value
    raise _malformed(what, value, "an integer from 0 to 2^53")


def _decode_hex(what: str, value: Any) -> bytes:
    if isinstance(value, str) and value[:2] == "0x":
        try:
            data = bytes.fromhex(value[2:])
        except ValueError:
            raise _malformed(what, value, "0x and lower-case hex") from None
        if "0x" + data.hex() == value:
            return data
    raise _malformed(what, value, "0x and lower-case hex")
