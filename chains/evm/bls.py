"""BLS signatures of the beacon chain: BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_, keys in G1 (48 bytes), signatures in G2 (96).

The curve is py_arkworks_bls12381's; this module adds what the library leaves to its caller: the point at infinity is no public key (the
library accepts it), an encoding that is not a point of the subgroup is a refusal and not an exception of the library, and nobody
signing is not a valid signature.

Source: consensus-specs phase0/beacon-chain "BLS signatures", altair/bls (`eth_fast_aggregate_verify`), RFC 9380, EIP-2333 family drafts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from py_arkworks_bls12381 import GT, G1Point, G2Point

from messages.errors import Rejected

DST = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"
G2_INFINITY = b"\xc0" + bytes(95)
_INFINITY1 = G1Point.identity()
_NEGATED_GENERATOR = -G1Point()


def decode_pubkey(data: bytes) -> G1Point:
    """Return the point of a 48-byte compressed public key (KeyValidate).

    Raises Rejected ("bad_pubkey") for a wrong length, an encoding that is no point, a point outside the subgroup, and infinity.
    """
    try:
        point = G1Point.from_compressed_bytes(data)
    except ValueError as error:
        raise Rejected("not a public key of the curve's subgroup", got=data, reason="bad_pubkey") from error
    if point == _INFINITY1:
        raise Rejected("the point at infinity is no public key", got=data, reason="bad_pubkey")
    return point


def decode_signature(data: bytes) -> G2Point:
    """Return the point of a 96-byte compressed signature, infinity in its one form included; Rejected ("bad_signature").

    The library reads every encoding with the infinity flag as infinity, whatever the other bits say.
    """
    if (data[:1] >= b"\xc0" and data != G2_INFINITY) or b"\x40" <= data[:1] < b"\x80":
        raise Rejected("infinity in another form than the canonical one", got=data, reason="bad_signature")
    try:
        return G2Point.from_compressed_bytes(data)
    except ValueError as error:
        raise Rejected("not a signature point of the curve's subgroup", got=data, reason="bad_signature") from error


def hash_to_g2(message: bytes, dst: bytes = DST) -> G2Point:
    """Return the point of G2 that a message hashes to (RFC 9380, suite BLS12381G2_XMD:SHA-256_SSWU_RO_)."""
    return G2Point.hash_to_curve(message, dst)


def is_valid_for_key(key: G1Point, message: bytes, signature: G2Point) -> bool:
    """Ask whether e(key, H(message)) = e(g1, signature), as one product of two pairings.

    ``key`` is a sum of validated keys. A sum of infinity would let the infinity signature stand for any message: it is a no.
    """
    return key != _INFINITY1 and GT.pairing_check([key, _NEGATED_GENERATOR], [hash_to_g2(message), signature])


def aggregate_pubkeys(pubkeys: Sequence[bytes]) -> bytes:
    """Return the 48-byte sum of compressed keys (`eth_aggregate_pubkeys`); Rejected ("bad_pubkey"), also for none."""
    if not pubkeys:
        raise Rejected("no keys to aggregate", reason="bad_pubkey")
    total = _INFINITY1
    for pubkey in pubkeys:
        total = total + decode_pubkey(pubkey)
    return total.to_compressed_bytes()


def aggregate_signatures(signatures: Sequence[bytes]) -> bytes:
    """Return the 96-byte sum of compressed signatures (Aggregate); Rejected ("bad_signature"), also for none."""
    if not signatures:
        raise Rejected("no signatures to aggregate", reason="bad_signature")
    total = G2Point.identity()
    for signature in signatures:
        total = total + decode_signature(signature)
    return total.to_compressed_bytes()


def is_valid_signature(pubkey: bytes, message: bytes, signature: bytes) -> bool:
    """Ask Verify of one 48-byte key; what is no key or no signature is a plain no."""
    return is_valid_fast_aggregate([pubkey], message, signature)


def is_valid_fast_aggregate(pubkeys: Sequence[bytes], message: bytes, signature: bytes) -> bool:
    """Ask FastAggregateVerify: all keys signed one message. No keys at all is no, whatever the signature."""
    if not pubkeys:
        return False
    try:
        point = decode_signature(signature)
        total = _INFINITY1
        for pubkey in pubkeys:
            total = total + decode_pubkey(pubkey)
    except Rejected:
        return False
    return is_valid_for_key(total, message, point)


def is_valid_eth_fast_aggregate(pubkeys: Sequence[bytes], message: bytes, signature: bytes) -> bool:
    """Ask `eth_fast_aggregate_verify`: as above, but nobody and the infinity signature is yes.

    Only for conformance: a light client demands participants before it looks at a signature.
    """
    if not pubkeys and signature == G2_INFINITY:
        return True
    return is_valid_fast_aggregate(pubkeys, message, signature)


@dataclass(frozen=True)
class CommitteeKeys:
    """The decompressed keys of a committee and their sum, so that a full house costs no additions."""

    points: tuple[G1Point, ...]
    total: G1Point

    def sum_participants(self, bits: bytes) -> G1Point:
        """Return the sum of the keys whose bit is set; absentees are subtracted from the total where they are fewer."""
        count = len(self.points)
        chosen = int.from_bytes(bits, "little") & (1 << count) - 1
        absent = chosen ^ (1 << count) - 1
        if absent.bit_count() <= chosen.bit_count():
            result = self.total
            for i in _get_places(absent):
                result = result - self.points[i]
            return result
        result = _INFINITY1
        for i in _get_places(chosen):
            result = result + self.points[i]
        return result


def _get_places(bits: int) -> list[int]:
    """Places of the bits that are set, lowest first; a few as well as all of 512."""
    places = []
    while bits:
        lowest = bits & -bits
        places.append(lowest.bit_length() - 1)
        bits ^= lowest
    return places


@lru_cache(maxsize=8)
def get_committee_keys(pubkeys: tuple[bytes, ...]) -> CommitteeKeys:
    """Return the validated points of a committee's 48-byte keys; Rejected ("bad_pubkey").

    Remembered for the few committees in use: decompression with its subgroup checks costs twenty times a verification.
    """
    known = {pubkey: decode_pubkey(pubkey) for pubkey in dict.fromkeys(pubkeys)}  # a validator may hold several seats
    points = tuple(known[pubkey] for pubkey in pubkeys)
    total = _INFINITY1
    for point in points:
        total = total + point
    return CommitteeKeys(points, total)
