"""CometBFT's JSON and our storage bytes <-> our types. Pure; fetches nothing, believes nothing.

JSON is what nodes answer (`commit`, `validators`, `abci_query`): 64-bit numbers as decimal strings, hashes and addresses in hex, keys,
signatures and proofs in base64. Stored objects are protobuf with a version in front; decoders take only what encoders give.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from chains.cosmos.hashing import compute_address
from chains.cosmos.protobuf import (
    MAX_MESSAGE_BYTES,
    Field,
    Kind,
    Schema,
    decode_light_block,
    decode_message,
    decode_timestamp,
    decode_validators,
    encode_bytes,
    encode_integer,
    encode_light_block,
    encode_message,
    encode_timestamp,
    encode_validators,
)
from chains.cosmos.types import (
    NANOSECONDS,
    BlockId,
    Commit,
    CommitSig,
    Header,
    KeyType,
    LightBlock,
    PartSetHeader,
    Proof,
    ProofOp,
    PublicKey,
    Trusted,
    Validator,
    ValidatorSet,
)
from messages.errors import Rejected

FORMAT_VERSION = 1
MAX_PROOF_BYTES = 1 << 20
MAX_OPS = 8
MAX_VALIDATORS = 10_000
_KEY_NAMES = {"tendermint/PubKeyEd25519": KeyType.ED25519, "tendermint/PubKeySecp256k1": KeyType.SECP256K1}
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,18})", re.ASCII)


# ---- JSON -------------------------------------------------------------------------------------------------------------


def refuse_json(what: str, got: object = None) -> Rejected:
    """Return the error for an answer that is not what the RPC promises."""
    return Rejected(what, got=got, reason="bad_json")


def get_object(value: object, what: str) -> Mapping[str, Any]:
    """Return a JSON object; Rejected ("bad_json")."""
    if not isinstance(value, Mapping):
        raise refuse_json(f"{what} is not an object", value)
    return value


def get_list(value: object, what: str, limit: int) -> list[Any]:
    """Return a JSON list of at most ``limit`` elements, null as the empty one; Rejected ("bad_json")."""
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > limit:
        raise refuse_json(f"{what} is not a list, or too long", str(value)[:80])
    return value


def parse_integer(value: object, what: str) -> int:
    """Return a number that JSON gives as decimal string or, where it is small, as number; Rejected ("bad_json")."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return value
    if isinstance(value, str) and _NUMBER.fullmatch(value) and -(2**63) <= int(value) < 2**63:
        return int(value)
    raise refuse_json(f"{what} is not a 64-bit number", value)


def parse_hex(value: object, what: str) -> bytes:
    """Return the bytes of hex in either case, "" and null as none; Rejected ("bad_json")."""
    if value is None:
        return b""
    if not isinstance(value, str) or not re.fullmatch(r"(?:[0-9a-fA-F]{2}){0,128}", value):
        raise refuse_json(f"{what} is not hex", value)
    return bytes.fromhex(value)


def parse_base64(value: object, what: str, limit: int = MAX_PROOF_BYTES) -> bytes:
    """Return the bytes of padded base64, null as none; Rejected ("bad_json") also where another text gives the same bytes."""
    if value is None:
        return b""
    if not isinstance(value, str) or len(value) > limit * 2:
        raise refuse_json(f"{what} is not base64", str(value)[:80])
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise refuse_json(f"{what} is not base64", value[:80]) from error
    if base64.b64encode(data).decode() != value:
        raise refuse_json(f"{what} is not the one base64 of its bytes", value[:80])
    return data


def parse_time(value: object, what: str) -> int:
    """Return nanoseconds since 1970 of an RFC 3339 time in UTC with up to nine digits; Rejected ("bad_json")."""
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise refuse_json(f"{what} is not a UTC time", value)
    try:
        moment = datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
    except ValueError as error:
        raise refuse_json(f"{what} is not a time", value) from error
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * NANOSECONDS + int((match[2] or "").ljust(9, "0"))


def parse_block_id(value: object) -> BlockId:
    """Return a block id, null as the empty one; Rejected ("bad_json")."""
    if value is None:
        return BlockId()
    found = get_object(value, "block id")
    parts = get_object(found.get("parts", found.get("part_set_header")), "part-set header")
    total = parse_integer(parts.get("total"), "number of parts")
    if not 0 <= total < 2**32:
        raise refuse_json("number of parts", total)
    return BlockId(
        parse_hex(found.get("hash"), "block hash"), PartSetHeader(total, parse_hex(parts.get("hash"), "part"))
    )


def parse_header(value: object) -> Header:
    """Return the header of its JSON; Rejected ("bad_json")."""
    found = get_object(value, "header")
    version = get_object(found.get("version"), "version")
    chain_id = found.get("chain_id")
    # half a character out of JSON is a text without bytes: it could be neither hashed nor stored
    if not isinstance(chain_id, str) or len(chain_id) > 256 or not chain_id.isascii():
        raise refuse_json("chain id", chain_id)
    numbers = [parse_integer(version.get(name, 0), name) for name in ("block", "app")]
    if min(numbers) < 0:
        raise refuse_json("a negative version", numbers)
    return Header(
        version_block=numbers[0],
        version_app=numbers[1],
        chain_id=chain_id,
        height=parse_integer(found.get("height"), "height"),
        time_ns=parse_time(found.get("time"), "header time"),
        last_block_id=parse_block_id(found.get("last_block_id")),
        last_commit_hash=parse_hex(found.get("last_commit_hash"), "last_commit_hash"),
        data_hash=parse_hex(found.get("data_hash"), "data_hash"),
        validators_hash=parse_hex(found.get("validators_hash"), "validators_hash"),
        next_validators_hash=parse_hex(found.get("next_validators_hash"), "next_validators_hash"),
        consensus_hash=parse_hex(found.get("consensus_hash"), "consensus_hash"),
        app_hash=parse_hex(found.get("app_hash"), "app_hash"),
        last_results_hash=parse_hex(found.get("last_results_hash"), "last_results_hash"),
        evidence_hash=parse_hex(found.get("evidence_hash"), "evidence_hash"),
        proposer_address=parse_hex(found.get("proposer_address"), "proposer_address"),
    )


def parse_commit(value: object) -> Commit:
    """Return the commit of its JSON; Rejected ("bad_json")."""
    found = get_object(value, "commit")
    votes = get_list(found.get("signatures"), "signatures", MAX_VALIDATORS)
    return Commit(
        parse_integer(found.get("height"), "commit height"),
        parse_integer(found.get("round"), "round"),
        parse_block_id(found.get("block_id")),
        tuple(_parse_commit_sig(vote) for vote in votes),
    )


def _parse_commit_sig(value: object) -> CommitSig:
    found = get_object(value, "vote")
    flag = parse_integer(found.get("block_id_flag"), "block id flag")
    if flag < 0:
        raise refuse_json("a negative block id flag", flag)
    return CommitSig(
        flag,
        parse_hex(found.get("validator_address"), "validator address"),
        parse_time(found.get("timestamp"), "vote time"),
        parse_base64(found.get("signature"), "signature", 256),
    )


def parse_validators(value: object) -> ValidatorSet:
    """Return the set of a JSON list of validators in its order.

    Raises Rejected: "bad_json", "address_mismatch" where an address is not that of its key (F6).
    """
    members = []
    for entry in get_list(value, "validators", MAX_VALIDATORS):
        found = get_object(entry, "validator")
        key = get_object(found.get("pub_key"), "public key")
        kind = _KEY_NAMES.get(str(key.get("type")))
        if kind is None:
            raise refuse_json("a kind of key that no rule here knows", key.get("type"))
        public_key = PublicKey(kind, parse_base64(key.get("value"), "public key", 256))
        address = parse_hex(found.get("address"), "validator address")
        if address and address != compute_address(public_key):
            raise Rejected(
                "a validator's address is not that of its key",
                got=address,
                expected=compute_address(public_key),
                reason="address_mismatch",
            )
        members.append(Validator(public_key, parse_integer(found.get("voting_power"), "voting power")))
    return ValidatorSet(tuple(members))


def parse_light_block(signed_header: object, validators: object, next_validators: object = None) -> LightBlock:
    """Return a light block of `commit`'s signed header and the members of `validators`; Rejected as the parts."""
    found = get_object(signed_header, "signed header")
    return LightBlock(
        parse_header(found.get("header")),
        parse_commit(found.get("commit")),
        parse_validators(validators),
        None if next_validators is None else parse_validators(next_validators),
    )


def parse_proof(value: object) -> Proof:
    """Return the proof of an `abci_query` answer's ``proofOps``; Rejected ("bad_json")."""
    ops = []
    for entry in get_list(get_object(value, "proofOps").get("ops"), "ops", MAX_OPS):
        found = get_object(entry, "proof op")
        kind = found.get("type")
        if not isinstance(kind, str) or len(kind) > 64 or not kind.isascii():
            raise refuse_json("type of a proof op", kind)
        ops.append(ProofOp(kind, parse_base64(found.get("key"), "key"), parse_base64(found.get("data"), "data")))
    return Proof(tuple(ops))


# ---- storage ----------------------------------------------------------------------------------------------------------

_TRUSTED: Schema = {
    1: Field("chain_id", Kind.TEXT),
    2: Field("height", Kind.SIGNED),
    3: Field("time", Kind.MESSAGE),
    4: Field("header_hash", Kind.BYTES),
    5: Field("app_hash", Kind.BYTES),
    6: Field("validators_hash", Kind.BYTES),
    7: Field("next_validators_hash", Kind.BYTES),
    8: Field("next_validators", Kind.MESSAGE),
}
_OP: Schema = {1: Field("type", Kind.TEXT), 2: Field("key", Kind.BYTES), 3: Field("data", Kind.BYTES)}


def encode_trusted(trusted: Trusted) -> bytes:
    """Return the storage bytes of a trusted state."""
    following = trusted.next_validators
    return bytes([FORMAT_VERSION]) + b"".join(
        (
            encode_bytes(1, trusted.chain_id.encode()),
            encode_integer(2, trusted.height),
            encode_message(3, encode_timestamp(trusted.time_ns)),
            encode_bytes(4, trusted.header_hash),
            encode_bytes(5, trusted.app_hash),
            encode_bytes(6, trusted.validators_hash),
            encode_bytes(7, trusted.next_validators_hash),
            b"" if following is None else encode_message(8, encode_validators(following)),
        )
    )


def decode_trusted(data: bytes) -> Trusted:
    """Return the state of exactly these bytes; Rejected ("bad_protobuf", "size")."""
    found = decode_message(_open(data, MAX_MESSAGE_BYTES), _TRUSTED)
    if found["time"] is None:
        raise Rejected("a trusted state without its time", reason="bad_protobuf")
    following = found.pop("next_validators")
    time_ns = decode_timestamp(found.pop("time"))
    return Trusted(
        **found, time_ns=time_ns, next_validators=None if following is None else decode_validators(following)
    )


def encode_update(block: LightBlock) -> bytes:
    """Return the storage bytes of a light block (bootstrap or update)."""
    return bytes([FORMAT_VERSION]) + encode_light_block(block)


def decode_update(data: bytes) -> LightBlock:
    """Return the light block of exactly these bytes; Rejected ("bad_protobuf", "size")."""
    return decode_light_block(_open(data, MAX_MESSAGE_BYTES))


def encode_proof(proof: Proof) -> bytes:
    """Return the storage bytes of a proof: field 1 a step, the form of CometBFT's ProofOps."""
    steps = (encode_bytes(1, op.type.encode()) + encode_bytes(2, op.key) + encode_bytes(3, op.data) for op in proof.ops)
    return bytes([FORMAT_VERSION]) + b"".join(encode_message(1, step) for step in steps)


def decode_proof(data: bytes) -> Proof:
    """Return the proof of exactly these bytes; Rejected ("bad_protobuf", "size")."""
    return Proof(decode_proof_ops(_open(data, MAX_PROOF_BYTES)))


def decode_proof_ops(data: bytes) -> tuple[ProofOp, ...]:
    """Return the steps of CometBFT's ProofOps; Rejected ("bad_protobuf", "size")."""
    found = decode_message(data, {1: Field("ops", Kind.MESSAGE, repeated=True)})
    if len(found["ops"]) > MAX_OPS:
        raise Rejected("too many steps", got=len(found["ops"]), expected=f"<= {MAX_OPS}", reason="size")
    return tuple(ProofOp(**decode_message(op, _OP)) for op in found["ops"])


def _open(data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        raise Rejected("a stored object is too large", got=len(data), expected=f"<= {limit}", reason="size")
    if data[:1] != bytes([FORMAT_VERSION]):
        raise Rejected(
            "unknown version of a stored object", got=data[:4], expected=FORMAT_VERSION, reason="bad_protobuf"
        )
    return data[1:]
