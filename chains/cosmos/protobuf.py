"""Protocol Buffers as consensus uses them: one encoding for one value, written by hand, read strictly. Pure.

What is hashed or signed is the bytes, so the writer follows the canonical form of the chain's own encoder (fields ascending, zero values
left out, embedded messages that are not pointers always written), and the reader refuses every other form: fields out of order or twice,
numbers longer than they need be, zero values spelled out, unknown fields. Two encodings of one claim would be two claims (incidents
A11, F14).

Source: protobuf.dev "Encoding"; cosmos/gogoproto (non-nullable fields); CometBFT `proto/tendermint`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, Final

from chains.cosmos.types import (
    NANOSECONDS,
    BlockId,
    Commit,
    CommitSig,
    Header,
    KeyType,
    LightBlock,
    PartSetHeader,
    PublicKey,
    Validator,
    ValidatorSet,
)
from messages.errors import Rejected

MAX_MESSAGE_BYTES = 4 << 20
"""More than two sets of 10,000 validators with their signatures."""
MAX_REPEATED = 10_000
_UINT64 = 2**64
_VARINT, _FIXED64, _BYTES = 0, 1, 2


# ---- writing ----------------------------------------------------------------------------------------------------------


def encode_varint(number: int) -> bytes:
    """Return a base-128 varint; a negative number as the 64-bit two's complement it is (ten bytes)."""
    number &= _UINT64 - 1
    if number < 128:
        return bytes((number,))
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def encode_integer(field: int, number: int) -> bytes:
    """Return a varint field, nothing for zero."""
    return encode_varint(field << 3) + encode_varint(number) if number else b""


def encode_fixed64(field: int, number: int) -> bytes:
    """Return a signed 64-bit fixed field, little-endian, nothing for zero."""
    return encode_varint(field << 3 | _FIXED64) + number.to_bytes(8, "little", signed=True) if number else b""


def encode_bytes(field: int, data: bytes) -> bytes:
    """Return a bytes or string field, nothing where it is empty."""
    return encode_message(field, data) if data else b""


def encode_message(field: int, data: bytes) -> bytes:
    """Return an embedded message that is always written, also when it is empty."""
    return encode_varint(field << 3 | _BYTES) + encode_varint(len(data)) + data


# ---- reading ----------------------------------------------------------------------------------------------------------


class Kind(Enum):
    """What a field holds: numbers become int, bytes and messages stay bytes, text becomes str, packed numbers a tuple."""

    UNSIGNED = "unsigned"
    SIGNED = "signed"
    BYTES = "bytes"
    TEXT = "text"
    MESSAGE = "message"
    PACKED = "packed"


_DEFAULTS: dict[Kind, Any] = {
    Kind.UNSIGNED: 0,
    Kind.SIGNED: 0,
    Kind.BYTES: b"",
    Kind.TEXT: "",
    Kind.MESSAGE: None,
    Kind.PACKED: (),
}


@dataclass(frozen=True)
class Field:
    """One field of a message: its name in the result, what it holds, whether it repeats."""

    name: str
    kind: Kind
    repeated: bool = False

    @cached_property
    def default(self) -> Any:
        """What stands for the absent field."""
        return () if self.repeated else _DEFAULTS[self.kind]

    @cached_property
    def wire(self) -> int:
        """The wire type."""
        return _VARINT if self.kind in {Kind.UNSIGNED, Kind.SIGNED} else _BYTES


Schema = Mapping[int, Field]


def refuse(what: str, got: object = None) -> Rejected:
    """Return the error for bytes that are not the one encoding of a message."""
    return Rejected(what, got=got, reason="bad_protobuf")


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a varint at an offset and the offset after it; Rejected ("bad_protobuf") when cut off, over 64 bits or padded."""
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise refuse("a number is cut off or over 64 bits", at)
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            if (byte == 0 and shift) or number >= _UINT64:
                raise refuse("a number in more bytes than it needs, or over 64 bits", at)
            return number, at
        shift += 7


def decode_message(data: bytes, schema: Schema) -> dict[str, Any]:
    """Return the fields of a message by name, absent ones as zero value, None (message) or () (repeated).

    Raises Rejected ("bad_protobuf") for anything but the canonical encoding, and for more than `MAX_REPEATED` of one field.
    """
    found: dict[str, Any] = {f.name: f.default for f in schema.values()}
    lists: dict[str, list[Any]] = {}
    at = last = 0
    size = len(data)
    while at < size:
        # numbers of one byte are read in place: nearly all tags and lengths
        tag = data[at]
        if tag < 128:
            at += 1
        else:
            tag, at = read_varint(data, at)
        number = tag >> 3
        field = schema.get(number)
        if field is None or number < last or (number == last and not field.repeated):
            raise refuse("a field that is unknown, out of order or there twice", number)
        last = number
        wire = field.wire
        if wire != tag & 7:
            raise refuse("a field of another wire type", number)
        value: Any
        if at < size and data[at] < 128:
            value = data[at]
            at += 1
        else:
            value, at = read_varint(data, at)
        kind = field.kind
        if wire == _VARINT:
            if kind is Kind.SIGNED and value >= _UINT64 // 2:
                value -= _UINT64
        else:
            end = at + value
            if end > size:
                raise refuse("a field is cut off", number)
            value = data[at:end]
            if kind is Kind.TEXT or kind is Kind.PACKED:
                value = _read_text_or_packed(kind, value)
            at = end
        if field.repeated:
            items = lists.setdefault(field.name, [])
            items.append(value)
            if len(items) > MAX_REPEATED:
                raise refuse("too many elements", number)
        else:
            if not value and kind is not Kind.MESSAGE:
                raise refuse("a zero value is spelled out", number)
            found[field.name] = value
    for name, items in lists.items():
        found[name] = tuple(items)
    return found


def _read_text_or_packed(kind: Kind, raw: bytes) -> str | tuple[int, ...]:
    if kind is Kind.TEXT:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise refuse("text that is not UTF-8", raw) from error
    numbers, at = [], 0
    while at < len(raw):
        number, at = read_varint(raw, at)
        numbers.append(number)
    return tuple(numbers)


# ---- CometBFT types ---------------------------------------------------------------------------------------------------


def encode_timestamp(time_ns: int) -> bytes:
    """Return google.protobuf.Timestamp of nanoseconds since 1970; nanoseconds count forward also before 1970."""
    seconds, nanos = divmod(time_ns, NANOSECONDS)
    return encode_integer(1, seconds) + encode_integer(2, nanos)


def decode_timestamp(data: bytes) -> int:
    """Return the nanoseconds of a Timestamp; Rejected ("bad_protobuf") also outside the years 1 to 9999."""
    found = decode_message(data, {1: Field("seconds", Kind.SIGNED), 2: Field("nanos", Kind.SIGNED)})
    if not 0 <= found["nanos"] < NANOSECONDS or not -62_135_596_800 <= found["seconds"] < 253_402_300_800:
        raise refuse("a time out of range", (found["seconds"], found["nanos"]))
    return int(found["seconds"] * NANOSECONDS + found["nanos"])


def encode_block_id(block_id: BlockId) -> bytes:
    """Return BlockID; the part-set header is always there, so an empty id is ``12 00``. CanonicalBlockID has the same bytes."""
    parts = encode_integer(1, block_id.parts.total) + encode_bytes(2, block_id.parts.hash)
    return encode_bytes(1, block_id.hash) + encode_message(2, parts)


def decode_block_id(data: bytes) -> BlockId:
    """Return the BlockID of exactly these bytes; Rejected ("bad_protobuf")."""
    found = decode_message(data, {1: Field("hash", Kind.BYTES), 2: Field("parts", Kind.MESSAGE)})
    if found["parts"] is None:
        raise refuse("a block id without its part-set header")
    parts = decode_message(found["parts"], {1: Field("total", Kind.UNSIGNED), 2: Field("hash", Kind.BYTES)})
    if parts["total"] >= 2**32:
        raise refuse("too many parts", parts["total"])
    return BlockId(found["hash"], PartSetHeader(parts["total"], parts["hash"]))


def encode_version(header: Header) -> bytes:
    """Return tendermint.version.Consensus of a header."""
    return encode_integer(1, header.version_block) + encode_integer(2, header.version_app)


HEADER_BYTES: Final = (
    "last_commit_hash",
    "data_hash",
    "validators_hash",
    "next_validators_hash",
    "consensus_hash",
    "app_hash",
    "last_results_hash",
    "evidence_hash",
    "proposer_address",
)
_HEADER: Schema = {
    1: Field("version", Kind.MESSAGE),
    2: Field("chain_id", Kind.TEXT),
    3: Field("height", Kind.SIGNED),
    4: Field("time", Kind.MESSAGE),
    5: Field("last_block_id", Kind.MESSAGE),
    **{6 + i: Field(name, Kind.BYTES) for i, name in enumerate(HEADER_BYTES)},
}


def encode_header(header: Header) -> bytes:
    """Return tendermint.types.Header."""
    return b"".join(
        (
            encode_message(1, encode_version(header)),
            encode_bytes(2, header.chain_id.encode()),
            encode_integer(3, header.height),
            encode_message(4, encode_timestamp(header.time_ns)),
            encode_message(5, encode_block_id(header.last_block_id)),
            *(encode_bytes(6 + i, getattr(header, name)) for i, name in enumerate(HEADER_BYTES)),
        )
    )


def decode_header(data: bytes) -> Header:
    """Return the Header of exactly these bytes; Rejected ("bad_protobuf")."""
    found = decode_message(data, _HEADER)
    if None in (found["version"], found["time"], found["last_block_id"]):
        raise refuse("a header without version, time or last block id")
    version = decode_message(found["version"], {1: Field("block", Kind.UNSIGNED), 2: Field("app", Kind.UNSIGNED)})
    return Header(
        version_block=version["block"],
        version_app=version["app"],
        chain_id=found["chain_id"],
        height=found["height"],
        time_ns=decode_timestamp(found["time"]),
        last_block_id=decode_block_id(found["last_block_id"]),
        **{name: found[name] for name in HEADER_BYTES},
    )


def encode_commit(commit: Commit) -> bytes:
    """Return tendermint.types.Commit."""
    return b"".join(
        (
            encode_integer(1, commit.height),
            encode_integer(2, commit.round),
            encode_message(3, encode_block_id(commit.block_id)),
            *(encode_message(4, encode_commit_sig(vote)) for vote in commit.signatures),
        )
    )


def encode_commit_sig(vote: CommitSig) -> bytes:
    """Return tendermint.types.CommitSig, the leaf of a commit's hash; an absent vote carries the zero time."""
    return b"".join(
        (
            encode_integer(1, vote.flag),
            encode_bytes(2, vote.address),
            encode_message(3, encode_timestamp(vote.time_ns)),
            encode_bytes(4, vote.signature),
        )
    )


_COMMIT: Schema = {
    1: Field("height", Kind.SIGNED),
    2: Field("round", Kind.SIGNED),
    3: Field("block_id", Kind.MESSAGE),
    4: Field("signatures", Kind.MESSAGE, repeated=True),
}
_COMMIT_SIG: Schema = {
    1: Field("flag", Kind.UNSIGNED),
    2: Field("address", Kind.BYTES),
    3: Field("time", Kind.MESSAGE),
    4: Field("signature", Kind.BYTES),
}


def decode_commit(data: bytes) -> Commit:
    """Return the Commit of exactly these bytes; Rejected ("bad_protobuf")."""
    found = decode_message(data, _COMMIT)
    if found["block_id"] is None:
        raise refuse("a commit without its block id")
    votes = tuple(_decode_commit_sig(vote) for vote in found["signatures"])
    return Commit(found["height"], found["round"], decode_block_id(found["block_id"]), votes)


def _decode_commit_sig(data: bytes) -> CommitSig:
    found = decode_message(data, _COMMIT_SIG)
    if found["time"] is None:
        raise refuse("a vote without its time")
    return CommitSig(found["flag"], found["address"], decode_timestamp(found["time"]), found["signature"])


def encode_public_key(key: PublicKey) -> bytes:
    """Return tendermint.crypto.PublicKey (a oneof, so the field is there also when empty)."""
    return encode_message(key.kind, key.data)


def decode_public_key(data: bytes) -> PublicKey:
    """Return the PublicKey of exactly these bytes; Rejected ("bad_protobuf") for a kind that no rule here knows."""
    found = decode_message(data, {int(kind): Field(kind.name, Kind.MESSAGE) for kind in KeyType})
    kinds = [kind for kind in KeyType if found[kind.name] is not None]
    if len(kinds) != 1:
        raise refuse("a key of no known kind, or of two", data)
    return PublicKey(kinds[0], found[kinds[0].name])


def encode_simple_validator(validator: Validator) -> bytes:
    """Return tendermint.types.SimpleValidator, the leaf of a validator set's hash."""
    return encode_message(1, encode_public_key(validator.key)) + encode_integer(2, validator.power)


def decode_simple_validator(data: bytes) -> Validator:
    """Return the validator of exactly these bytes; Rejected ("bad_protobuf")."""
    found = decode_message(data, {1: Field("key", Kind.MESSAGE), 2: Field("power", Kind.SIGNED)})
    if found["key"] is None:
        raise refuse("a validator without its key")
    return Validator(decode_public_key(found["key"]), found["power"])


def encode_validators(validators: ValidatorSet) -> bytes:
    """Return our storage form of a set: field 1, a SimpleValidator each."""
    return b"".join(encode_message(1, encode_simple_validator(v)) for v in validators.validators)


def decode_validators(data: bytes) -> ValidatorSet:
    """Return the set of exactly these bytes; Rejected ("bad_protobuf")."""
    found = decode_message(data, {1: Field("validators", Kind.MESSAGE, repeated=True)})
    return ValidatorSet(tuple(decode_simple_validator(v) for v in found["validators"]))


_LIGHT_BLOCK: Schema = {
    1: Field("header", Kind.MESSAGE),
    2: Field("commit", Kind.MESSAGE),
    3: Field("validators", Kind.MESSAGE),
    4: Field("next_validators", Kind.MESSAGE),
}


def encode_light_block(block: LightBlock) -> bytes:
    """Return our storage form of a light block: header, commit, validators, next validators where they are said."""
    following = b"" if block.next_validators is None else encode_message(4, encode_validators(block.next_validators))
    return b"".join(
        (
            encode_message(1, encode_header(block.header)),
            encode_message(2, encode_commit(block.commit)),
            encode_message(3, encode_validators(block.validators)),
            following,
        )
    )


def decode_light_block(data: bytes) -> LightBlock:
    """Return the light block of exactly these bytes; Rejected ("bad_protobuf", "size")."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise Rejected("a light block is too large", got=len(data), expected=f"<= {MAX_MESSAGE_BYTES}", reason="size")
    found = decode_message(data, _LIGHT_BLOCK)
    if None in (found["header"], found["commit"], found["validators"]):
        raise refuse("a light block without header, commit or validators")
    following = found["next_validators"]
    return LightBlock(
        decode_header(found["header"]),
        decode_commit(found["commit"]),
        decode_validators(found["validators"]),
        None if following is None else decode_validators(following),
    )
