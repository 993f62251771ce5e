"""The signed envelope of gossip: bytes in, checked messages out (incidents.md 5, G7).

The broker is untrusted. An envelope is bound to (committee, operator, boot, sequence, type, body); it carries no authority beyond
its signature, and messages inside are idempotent, so the replay guard only spares work.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum

from messages.digests import compute_statement_digest, recover_signer
from messages.errors import Rejected
from messages.hashing import keccak256
from messages.ids import Digest

WIRE_VERSION = 1
MAX_ENVELOPE_BYTES = 1_048_576
MAX_TYPE_CHARACTERS = 32
ENVELOPE_STATEMENT = "Envelope"
UINT64_MAX = 2**64 - 1

_FIXED = 1 + 20 + 8 + 8 + 1 + 4 + 65  # version, operator, boot, sequence, length of type, length of body, signature


@dataclass(frozen=True, slots=True)
class Envelope:
    """One gossip message. ``boot_id`` is a u64 that grows with every start of the operator's node."""

    operator: bytes  # 20 bytes
    boot_id: int
    sequence: int  # 1, 2, 3 ... within a boot
    type: str
    body: bytes
    signature: bytes = b""  # 65 bytes once signed


def compute_envelope_digest(envelope: Envelope, committee_id: bytes) -> Digest:
    """Return what the operator signs: version, operator, boot, sequence, type and body under the committee's domain."""
    _verify_shape(envelope)
    body_digest = keccak256(
        bytes([WIRE_VERSION])
        + envelope.operator
        + envelope.boot_id.to_bytes(8, "big")
        + envelope.sequence.to_bytes(8, "big")
        + keccak256(envelope.type.encode())
        + keccak256(envelope.body)
    )
    return compute_statement_digest(committee_id, ENVELOPE_STATEMENT, body_digest)


def _verify_shape(envelope: Envelope) -> None:
    if len(envelope.operator) != 20:
        raise Rejected("an operator has 20 bytes", got=envelope.operator, reason="bad_envelope")
    if not 0 <= envelope.boot_id <= UINT64_MAX or not 0 < envelope.sequence <= UINT64_MAX:
        raise Rejected("boot id or sequence is no u64, or the sequence is 0", reason="bad_envelope")
    text = envelope.type
    if not 1 <= len(text) <= MAX_TYPE_CHARACTERS or not text.isascii() or not text.isprintable():
        raise Rejected("a type is 1 to 32 printable ASCII characters", got=text, reason="bad_envelope")


def encode_envelope(envelope: Envelope, max_bytes: int = MAX_ENVELOPE_BYTES) -> bytes:
    """Return the bytes of a signed envelope; Rejected ("bad_envelope" or "size")."""
    _verify_shape(envelope)
    if len(envelope.signature) != 65:
        raise Rejected("an envelope travels signed", got=len(envelope.signature), expected=65, reason="bad_envelope")
    name = envelope.type.encode()
    data = b"".join(
        (
            bytes([WIRE_VERSION]),
            envelope.operator,
            envelope.boot_id.to_bytes(8, "big"),
            envelope.sequence.to_bytes(8, "big"),
            bytes([len(name)]),
            name,
            len(envelope.body).to_bytes(4, "big"),
            envelope.body,
            envelope.signature,
        )
    )
    _verify_size(data, max_bytes)
    return data


def _verify_size(data: bytes, max_bytes: int) -> None:
    if len(data) > max_bytes:
        raise Rejected("envelope too large", got=len(data), expected=f"<= {max_bytes}", reason="size")


def decode_envelope(data: bytes, max_bytes: int = MAX_ENVELOPE_BYTES) -> Envelope:
    """Return the envelope of its one encoding; the signature is not checked yet. Rejected ("bad_envelope", "size")."""
    _verify_size(data, max_bytes)
    if len(data) < _FIXED or data[0] != WIRE_VERSION:
        raise Rejected("unknown version or cut off", got=data[:1], expected=WIRE_VERSION, reason="bad_envelope")
    split = 38 + data[37]
    size = int.from_bytes(data[split : split + 4], "big")
    if len(data) != split + 4 + size + 65:
        raise Rejected("length of an envelope", got=len(data), expected=split + 69 + size, reason="bad_envelope")
    envelope = Envelope(
        data[1:21],
        int.from_bytes(data[21:29], "big"),
        int.from_bytes(data[29:37], "big"),
        data[38:split].decode("latin-1"),
        data[split + 4 : -65],
        data[-65:],
    )
    _verify_shape(envelope)
    return envelope


def verify_envelope(envelope: Envelope, operators: Collection[bytes], committee_id: bytes) -> None:
    """Check that a current operator signed the envelope as itself; Rejected ("not_operator" or "bad_signature")."""
    if envelope.operator not in operators:
        raise Rejected("not an operator of the current set", got=envelope.operator, reason="not_operator")
    signer = recover_signer(compute_envelope_digest(envelope, committee_id), envelope.signature)
    if signer != envelope.operator:
        raise Rejected("signed by somebody else", got=signer, expected=envelope.operator, reason="bad_signature")


class Freshness(Enum):
    """Verdict of the replay guard."""

    FRESH = "fresh"
    DUPLICATE = "duplicate"


FRESH = Freshness.FRESH
DUPLICATE = Freshness.DUPLICATE


@dataclass(frozen=True, slots=True)
class ReplayGuard:
    """Which envelopes were seen: per operator the newest boot, its highest sequence and a window of bits below it.

    A pure value, bounded by the operator set. An older boot, or a sequence below the window, counts as seen.
    """

    window: int = 1024
    seen: dict[bytes, tuple[int, int, int]] = field(default_factory=dict)  # operator -> boot, highest, bits

    def record(self, envelope: Envelope) -> tuple[ReplayGuard, Freshness]:
        """Return (next guard, FRESH) or (self, DUPLICATE). Call only with verified envelopes: it believes them."""
        boot, highest, bits = self.seen.get(envelope.operator, (-1, 0, 0))
        if envelope.boot_id < boot:
            return self, DUPLICATE
        if envelope.boot_id > boot:
            highest, bits = 0, 0
        ahead = envelope.sequence - highest
        if ahead > 0:
            # bit i stands for sequence highest - i
            bits = (bits << ahead | 1) & ((1 << self.window) - 1) if ahead < self.window else 1
            highest = envelope.sequence
        elif -ahead >= self.window or bits >> -ahead & 1:
            return self, DUPLICATE
        else:
            bits |= 1 << -ahead
        entry = (envelope.boot_id, highest, bits)
        return ReplayGuard(self.window, {**self.seen, envelope.operator: entry}), Freshness.FRESH
