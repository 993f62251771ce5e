"""The `attestations` format of other stacks: bytes that m of n known signers stand for, in three envelopes. Pure.

We write it so that others can read what our operators attest, and read it for conformance; no fact of ours is credited from it. Its
digest names no chain and no client, so a set of attestors must serve one (chain, client) alone; our own statements carry a domain.

We are stricter than any one of its verifiers: one canonical encoding, low-s signatures with v 27 or 28 on output (0 and 1 are read),
no path twice, exactly known signers. What one implementation takes and another refuses, we refuse.

Source: ibc-v2.md 7 and 8 (attestations light client of ibc-go, solidity-ibc-eureka).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum
from hashlib import sha256
from typing import Any

from eth_abi.abi import decode as decode_abi
from eth_abi.abi import encode as encode_abi
from eth_abi.exceptions import DecodingError

from messages.digests import recover_signer, sign_digest
from messages.errors import Conflict, Rejected
from messages.hashing import keccak256

MAX_ENVELOPE_BYTES = 65_536
MAX_SIGNATURES = 64
MAX_ENTRIES = 256
MAX_ATTESTORS = 20
UINT64_MAX = 2**64 - 1
ZERO32 = bytes(32)
ENVELOPE_TYPE = "(bytes,bytes[])"
PACKETS_TYPE = "(uint64,(bytes32,bytes32)[])"


class Tag(IntEnum):
    """What kind of claim a signature is for; part of the signed bytes, so that one kind can't stand for the other."""

    STATE = 1
    PACKET = 2


@dataclass(frozen=True)
class StateAttestation:
    """At ``height`` the chain's time was ``timestamp_s``. Height is a block number, on Solana a slot; both u64 above 0."""

    height: int
    timestamp_s: int


@dataclass(frozen=True)
class PathEntry:
    """``path``: keccak256 of an ICS-24 path; ``commitment``: the 32 bytes stored there, zero where nothing is."""

    path: bytes
    commitment: bytes


@dataclass(frozen=True)
class PacketAttestation:
    """At ``height`` the store held these commitments; no path twice."""

    height: int
    entries: tuple[PathEntry, ...]


@dataclass(frozen=True)
class AttestationProof:
    """The envelope: the signed bytes and the signatures over them, r || s || v, 65 bytes each."""

    data: bytes
    signatures: tuple[bytes, ...]


# ---- the signed bytes -------------------------------------------------------------------------------------------------


def encode_state_attestation(attestation: StateAttestation) -> bytes:
    """64 bytes: abi.encode(uint64 height, uint64 timestamp in seconds); Rejected ("malformed") outside u64 or 0."""
    _verify_u64(attestation.height, attestation.timestamp_s)
    return attestation.height.to_bytes(32, "big") + attestation.timestamp_s.to_bytes(32, "big")


def decode_state_attestation(data: bytes) -> StateAttestation:
    """Read `encode_state_attestation`; Rejected ("malformed")."""
    if len(data) != 64:
        raise Rejected("a state attestation has 64 bytes", got=len(data), expected=64, reason="malformed")
    found = StateAttestation(int.from_bytes(data[:32], "big"), int.from_bytes(data[32:], "big"))
    _verify_u64(found.height, found.timestamp_s)
    return found


def encode_packet_attestation(attestation: PacketAttestation) -> bytes:
    """128 + 64 n bytes: abi.encode of (uint64 height, (bytes32 path, bytes32 commitment)[]).

    Rejected: "malformed" (widths, no entry, too many), "repeated_path" (readers disagree on which of two entries counts).
    """
    _verify_u64(attestation.height)
    _verify_entries(attestation.entries)
    rows = [(entry.path, entry.commitment) for entry in attestation.entries]
    return bytes(encode_abi([PACKETS_TYPE], [(attestation.height, rows)]))


def decode_packet_attestation(data: bytes) -> PacketAttestation:
    """Read `encode_packet_attestation`; Rejected as there, and "malformed" for any other encoding of the same values."""
    if len(data) > 128 + 64 * MAX_ENTRIES:
        raise Rejected("too many entries", got=len(data), expected=f"<= {MAX_ENTRIES}", reason="malformed")
    ((height, rows),) = _decode_abi([PACKETS_TYPE], data)
    found = PacketAttestation(height, tuple(PathEntry(path, commitment) for path, commitment in rows))
    if encode_packet_attestation(found) != data:
        raise Rejected("not the canonical encoding", got=len(data), reason="malformed")
    return found


def compute_attestation_digest(tag: Tag, data: bytes) -> bytes:
    """SHA-256(tag || SHA-256(data)), 32 bytes: what an attestor signs."""
    return sha256(bytes([tag]) + sha256(data).digest()).digest()


def sign_attestation(private_key: bytes, tag: Tag, data: bytes) -> bytes:
    """Sign with a 32-byte key: r || s || v, low s, v 27 or 28, nonce by RFC 6979.

    Whoever calls must have journaled (chain, client, kind, height, path -> value) first (ibc-v2.md 8).
    """
    return sign_digest(private_key, compute_attestation_digest(tag, data))


# ---- envelopes --------------------------------------------------------------------------------------------------------


def encode_envelope_abi(proof: AttestationProof) -> bytes:
    """abi.encode of (bytes data, bytes[] signatures), leading offset word included."""
    return bytes(encode_abi([ENVELOPE_TYPE], [(proof.data, list(proof.signatures))]))


def decode_envelope_abi(envelope: bytes) -> AttestationProof:
    """Read `encode_envelope_abi`; Rejected ("malformed")."""
    _verify_size(envelope)
    ((data, signatures),) = _decode_abi([ENVELOPE_TYPE], envelope)
    return _check(AttestationProof(data, tuple(signatures)), encode_envelope_abi, envelope)


def encode_envelope_protobuf(proof: AttestationProof) -> bytes:
    """Protobuf message { bytes data = 1; repeated bytes signatures = 2 } in field order."""
    parts = [_encode_field(1, proof.data)] if proof.data else []
    return b"".join([*parts, *(_encode_field(2, signature) for signature in proof.signatures)])


def decode_envelope_protobuf(envelope: bytes) -> AttestationProof:
    """Read `encode_envelope_protobuf`; Rejected ("malformed")."""
    _verify_size(envelope)
    data, at = b"", 0
    signatures: list[bytes] = []
    while at < len(envelope):
        tag = envelope[at]
        size, at = _decode_varint(envelope, at + 1)
        value = envelope[at : at + size]
        if tag not in {0x0A, 0x12} or len(value) != size or len(signatures) > MAX_SIGNATURES:
            raise Rejected("not an attestation proof", got=tag, expected="fields 1 and 2", reason="malformed")
        at += size
        if tag == 0x0A:
            data = value
        else:
            signatures.append(value)
    return _check(AttestationProof(data, tuple(signatures)), encode_envelope_protobuf, envelope)


def encode_envelope_borsh(proof: AttestationProof) -> bytes:
    """Borsh: data as bytes, signatures as a list of bytes; lengths are 4 bytes, little-endian."""
    head = _size_le(proof.data) + proof.data + len(proof.signatures).to_bytes(4, "little")
    return head + b"".join(_size_le(signature) + signature for signature in proof.signatures)


def decode_envelope_borsh(envelope: bytes) -> AttestationProof:
    """Read `encode_envelope_borsh`; Rejected ("malformed")."""
    _verify_size(envelope)
    data, at = _take_le(envelope, 0)
    count = int.from_bytes(envelope[at : at + 4], "little")
    at += 4
    if at > len(envelope) or count > MAX_SIGNATURES:
        raise Rejected("too many signatures", got=count, expected=f"<= {MAX_SIGNATURES}", reason="malformed")
    signatures = []
    for _ in range(count):
        signature, at = _take_le(envelope, at)
        signatures.append(signature)
    return _check(AttestationProof(data, tuple(signatures)), encode_envelope_borsh, envelope)


def _check(proof: AttestationProof, encode: Callable[[AttestationProof], bytes], envelope: bytes) -> AttestationProof:
    if len(proof.signatures) > MAX_SIGNATURES:
        raise Rejected("too many signatures", got=len(proof.signatures), reason="malformed")
    if encode(proof) != envelope:
        raise Rejected("not the canonical encoding", got=len(envelope), reason="malformed")
    return proof


def _verify_size(envelope: bytes) -> None:
    if not 0 < len(envelope) <= MAX_ENVELOPE_BYTES:
        raise Rejected(
            "an envelope of this size", got=len(envelope), expected=f"1 to {MAX_ENVELOPE_BYTES}", reason="malformed"
        )


def _encode_field(number: int, value: bytes) -> bytes:
    size = len(value)
    head = bytearray([number << 3 | 2])
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + value


def _decode_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 35 and at < len(data):
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
        shift += 7
    raise Rejected("a length that does not end", got=data[:8], reason="malformed")


def _size_le(value: bytes) -> bytes:
    return len(value).to_bytes(4, "little")


def _take_le(data: bytes, at: int) -> tuple[bytes, int]:
    size = int.from_bytes(data[at : at + 4], "little")
    end = at + 4 + size
    if len(data) < at + 4 or len(data) < end:
        raise Rejected("cut off", got=len(data), expected=end, reason="malformed")
    return data[at + 4 : end], end


def _decode_abi(types: Sequence[str], data: bytes) -> tuple[Any, ...]:
    try:
        return tuple(decode_abi(types, data))
    except (DecodingError, ValueError, OverflowError) as error:
        raise Rejected("not ABI of these types", got=len(data), expected=",".join(types), reason="malformed") from error


def _verify_u64(*numbers: int) -> None:
    for number in numbers:
        if not 0 < number <= UINT64_MAX:
            raise Rejected("heights and times are above 0 and below 2^64", got=number, reason="malformed")


def _verify_entries(entries: Sequence[PathEntry]) -> None:
    if not 0 < len(entries) <= MAX_ENTRIES:
        raise Rejected("an attestation of 1 or more entries", got=len(entries), reason="malformed")
    for entry in entries:
        if len(entry.path) != 32 or len(entry.commitment) != 32:
            raise Rejected("paths and commitments have 32 bytes", got=len(entry.path), reason="malformed")
    if len({entry.path for entry in entries}) != len(entries):
        raise Rejected("a path stands twice", got=len(entries), reason="repeated_path")


# ---- the light client -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AttestationsClient:
    """What a client of this type believes: who attests, how many are needed, the time at each height it was told.

    ``attestors``: 20-byte addresses. ``timestamps``: height -> seconds. Replaced, never mutated.
    """

    attestors: tuple[bytes, ...]
    threshold: int
    timestamps: Mapping[int, int] = field(default_factory=dict)
    latest_height: int = 0
    is_frozen: bool = False


class Applied(Enum):
    """What an update did: a new height, or nothing new."""

    STORED = "stored"
    NOTHING = "nothing"


def verify_client(client: AttestationsClient) -> None:
    """Refuse an unsound set: empty, a zero or repeated address, 0 attestors needed or more than there are ("bad_set")."""
    attestors = client.attestors
    if not 0 < len(attestors) <= MAX_ATTESTORS or len(set(attestors)) != len(attestors):
        raise Rejected("a set of 1 to 20 distinct attestors", got=len(attestors), reason="bad_set")
    if any(len(attestor) != 20 or attestor == bytes(20) for attestor in attestors):
        raise Rejected("an attestor is a 20-byte address that is not zero", got=len(attestors), reason="bad_set")
    if not 0 < client.threshold <= len(attestors):
        raise Rejected(
            "a threshold of 1 to n", got=client.threshold, expected=f"1 to {len(attestors)}", reason="bad_set"
        )


def verify_signatures(client: AttestationsClient, tag: Tag, proof: AttestationProof) -> None:
    """Check that m distinct attestors of the set signed; one bad or unknown signature spoils the proof, however many are good.

    Rejected: "frozen", "too_few", "bad_signature" (length, high s, not recoverable), "unknown_signer", "repeated_signer".
    """
    verify_client(client)
    if client.is_frozen:
        raise Rejected("the client is frozen", reason="frozen")
    if len(proof.signatures) < client.threshold:
        raise Rejected("too few signatures", got=len(proof.signatures), expected=client.threshold, reason="too_few")
    if len(proof.signatures) > len(client.attestors):
        raise Rejected("more signatures than attestors", got=len(proof.signatures), reason="repeated_signer")
    digest = compute_attestation_digest(tag, proof.data)
    seen: set[bytes] = set()
    for signature in proof.signatures:
        signer = recover_signer(digest, _normalise(signature))
        if signer not in client.attestors:
            raise Rejected("not an attestor of this client", got=signer, reason="unknown_signer")
        if signer in seen:
            raise Rejected("an attestor signed twice", got=signer, reason="repeated_signer")
        seen.add(signer)


def _normalise(signature: bytes) -> bytes:
    """V 0 and 1 as 27 and 28; the length and everything else is the recovery's to judge."""
    return signature[:64] + bytes([signature[64] + 27]) if len(signature) == 65 and signature[64] < 2 else signature


def apply_update(client: AttestationsClient, proof: AttestationProof) -> tuple[AttestationsClient, Applied]:
    """Store the time of a height; older heights are taken too, there is no order and no trusting period in this format.

    Rejected as `verify_signatures` and `decode_state_attestation`. Conflict ("two_times"): m attestors gave a height another time than
    before; the caller freezes the client (`freeze`).
    """
    verify_signatures(client, Tag.STATE, proof)
    claimed = decode_state_attestation(proof.data)
    known = client.timestamps.get(claimed.height)
    if known == claimed.timestamp_s:
        return client, Applied.NOTHING
    if known is not None:
        raise Conflict("attestors gave a height two times", got=claimed.timestamp_s, expected=known, reason="two_times")
    timestamps = {**client.timestamps, claimed.height: claimed.timestamp_s}
    return replace(
        client, timestamps=timestamps, latest_height=max(client.latest_height, claimed.height)
    ), Applied.STORED


def freeze(client: AttestationsClient) -> AttestationsClient:
    """The client after misbehaviour: it believes nothing any more."""
    return replace(client, is_frozen=True)


def verify_membership(
    client: AttestationsClient, height: int, proof: AttestationProof, path: bytes, commitment: bytes
) -> None:
    """Check that the store held ``commitment`` (32 bytes, not zero) at an ICS-24 ``path`` (raw bytes) at ``height``.

    Rejected: as `verify_signatures`, and "unknown_height", "another_height", "zero_commitment", "absent_path", "wrong_commitment".
    """
    if len(commitment) != 32 or commitment == ZERO32:
        raise Rejected("a commitment is 32 bytes that are not all zero", got=commitment, reason="zero_commitment")
    found = _get_entry(client, height, proof, path)
    if found.commitment != commitment:
        raise Rejected(
            "another commitment is attested", got=found.commitment, expected=commitment, reason="wrong_commitment"
        )


def verify_non_membership(client: AttestationsClient, height: int, proof: AttestationProof, path: bytes) -> None:
    """Check that nothing was stored at ``path`` at ``height``; Rejected as `verify_membership`."""
    found = _get_entry(client, height, proof, path)
    if found.commitment != ZERO32:
        raise Rejected("something is stored there", got=found.commitment, expected=ZERO32, reason="wrong_commitment")


def _get_entry(client: AttestationsClient, height: int, proof: AttestationProof, path: bytes) -> PathEntry:
    verify_signatures(client, Tag.PACKET, proof)
    if height not in client.timestamps:
        raise Rejected("the client was not told of this height", got=height, reason="unknown_height")
    attested = decode_packet_attestation(proof.data)
    if attested.height != height:
        raise Rejected("attested at another height", got=attested.height, expected=height, reason="another_height")
    wanted = keccak256(path)
    for entry in attested.entries:
        if entry.path == wanted:
            return entry
    raise Rejected("the path is not attested", got=wanted, reason="absent_path")
