"""What is signed, by whom, and how a signature is judged (protocol.md 2, 3, 6, 8; data.md 3).

All digests are EIP-712 with domain `{name "optsettle", version "1"}`, and a salt where a statement belongs to one vault or one
committee. A signature is 65 bytes r || s || v with v 27 or 28 and low s (EIP-2); anything else is refused, so a statement has
one signature per key and nothing is ever recovered to the zero address (incident classes B3, C10, C11).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import coincurve

from messages.bodies import verify_inbox_packet
from messages.errors import Rejected
from messages.hashing import keccak256
from messages.ids import UINT64_MAX, ZERO20, ZERO32, Digest, OperatorId, VaultId, get_vault_client
from messages.packet import Packet, compute_commitment

__all__ = [
    "MAX_OPERATORS",
    "Certificate",
    "compute_committee_id",
    "compute_link_digest",
    "compute_mark_digest",
    "compute_packet_digest",
    "compute_pause_digest",
    "compute_report_digest",
    "compute_statement_digest",
    "compute_struct_digest",
    "compute_vault_id",
    "compute_vote_digest",
    "get_address",
    "get_vault_client",
    "is_threshold",
    "recover_signer",
    "sign_digest",
    "verify_certificate",
    "verify_operators",
]

MAX_OPERATORS = 20
SECP256K1_N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

PACKET_TYPE = "Packet(uint64 operatorEpoch,uint64 sequence,bytes32 commitment)"
PAUSE_TYPE = "Pause(uint64 operatorEpoch)"
LINK_TYPE = "Link(bytes32 vault,bytes32 account,bytes32 portfolio,uint64 valid_until)"
REPORT_TYPE = (
    "Report(bytes32 source,bytes32 underlying,uint64 stamp,"
    "uint256 cumulative_e8_seconds,uint256 spot_e8,uint256 confidence_e8)"
)
MARK_TYPE = (
    "Mark(bytes32 source,bytes32 underlying,uint64 expiry,uint64 stamp,"
    "uint256 forward_e8,int256[6] svi_e18,uint256 confidence_e8)"
)
VOTE_TYPE = "Vote(uint64 k,uint64 r,bytes32 plan)"
STATEMENT_TYPE = "Statement(string type,bytes32 body)"
OBSERVATION_TYPE = "Observation(uint64 slot,uint64 clock,uint64 sequence,bytes32 head)"

_NAME_VERSION = keccak256(b"optsettle") + keccak256(b"1")
_DOMAIN_PLAIN = keccak256(keccak256(b"EIP712Domain(string name,string version)") + _NAME_VERSION)
_DOMAIN_SALTED_TYPE = keccak256(b"EIP712Domain(string name,string version,bytes32 salt)")


# ---- ids --------------------------------------------------------------------------------------------------------------


def compute_vault_id(caip2: str, account: bytes) -> VaultId:
    """Return keccak256(keccak256(CAIP-2) || account32) (protocol.md 2); Rejected ("bad_account") on another length."""
    if len(account) != 32:
        raise Rejected("a vault account has 32 bytes", got=account, reason="bad_account")
    return VaultId(keccak256(keccak256(caip2.encode()) + account))


def compute_committee_id(vault_ids: Sequence[bytes]) -> Digest:
    """Return the id of the committee that serves these vaults: the salt of everything operators sign off chain.

    keccak256(keccak256("optsettle/committee") || word(count) || ids). The ids ascend strictly, so that one set has one id;
    Rejected ("bad_committee") otherwise. Our own choice: protocol.md fixes only what vaults check.
    """
    if not vault_ids or any(len(v) != 32 or v == ZERO32 for v in vault_ids):
        raise Rejected("a committee serves at least one vault, ids of 32 bytes", reason="bad_committee")
    if any(a >= b for a, b in pairwise(vault_ids)):
        raise Rejected("vault ids must ascend strictly", reason="bad_committee")
    return Digest(keccak256(keccak256(b"optsettle/committee") + _uint(len(vault_ids)) + b"".join(vault_ids)))


# ---- EIP-712 ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _hash_type(type_string: str) -> bytes:
    return keccak256(type_string.encode())


@lru_cache(maxsize=64)
def compute_domain_separator(salt: bytes | None) -> bytes:
    """Return the domain separator of {name "optsettle", version "1"[, salt]}; a salt has 32 bytes (EIP-712)."""
    if salt is None:
        return _DOMAIN_PLAIN
    if len(salt) != 32:
        raise Rejected("a salt has 32 bytes", got=salt, reason="bad_salt")
    return keccak256(_DOMAIN_SALTED_TYPE + _NAME_VERSION + salt)


def compute_struct_digest(salt: bytes | None, type_string: str, words: Sequence[bytes]) -> Digest:
    """Return keccak256(1901 || domain separator || keccak256(type hash || words)); each word has 32 bytes (EIP-712)."""
    if any(len(word) != 32 for word in words):
        raise Rejected("a field of a signed structure has 32 bytes", reason="bad_word")
    struct = keccak256(_hash_type(type_string) + b"".join(words))
    return Digest(keccak256(b"\x19\x01" + compute_domain_separator(salt) + struct))


def _uint(number: int, bits: int = 64) -> bytes:
    if number < 0 or number >> bits:
        raise Rejected(f"not a uint{bits}", got=number, reason="range")
    return number.to_bytes(32, "big")


def _int256(number: int) -> bytes:
    if not -(2**255) <= number < 2**255:
        raise Rejected("not an int256", got=number, reason="range")
    return number.to_bytes(32, "big", signed=True)


def compute_packet_digest(vault_id: bytes, operator_epoch: int, sequence: int, commitment: bytes) -> Digest:
    """Return what operators sign for an inbox packet (protocol.md 3)."""
    return compute_struct_digest(vault_id, PACKET_TYPE, (_uint(operator_epoch), _uint(sequence), commitment))


def compute_pause_digest(vault_id: bytes, operator_epoch: int) -> Digest:
    """Return what one operator signs to pause a vault (protocol.md 4.1)."""
    return compute_struct_digest(vault_id, PAUSE_TYPE, (_uint(operator_epoch),))


def compute_link_digest(vault: bytes, account: bytes, portfolio: bytes, valid_until: int) -> Digest:
    """Return what the owner of a portfolio signs to take in an account (protocol.md 6). Full spending power."""
    return compute_struct_digest(None, LINK_TYPE, (vault, account, portfolio, _uint(valid_until)))


def compute_report_digest(
    source: bytes, underlying: bytes, stamp: int, cumulative_e8_seconds: int, spot_e8: int, confidence_e8: int
) -> Digest:
    """Return what a price signer signs for a report (data.md 3): stamp in unix seconds, prices in 1e-8."""
    words = (
        source,
        underlying,
        _uint(stamp),
        _uint(cumulative_e8_seconds, 256),
        _uint(spot_e8, 256),
        _uint(confidence_e8, 256),
    )
    return compute_struct_digest(None, REPORT_TYPE, words)


def compute_mark_digest(
    source: bytes,
    underlying: bytes,
    expiry: int,
    stamp: int,
    forward_e8: int,
    svi_e18: Sequence[int],
    confidence_e8: int,
) -> Digest:
    """Return what a price signer signs for a forward and volatility slice (data.md 3).

    ``svi_e18`` has six signed numbers in 1e-18, typed `int256[6]`; data.md names the fields, `MARK_TYPE` fixes the types.
    """
    if len(svi_e18) != 6:
        raise Rejected("an SVI slice has six numbers", got=len(svi_e18), reason="range")
    words = (
        source,
        underlying,
        _uint(expiry),
        _uint(stamp),
        _uint(forward_e8, 256),
        keccak256(b"".join(map(_int256, svi_e18))),  # EIP-712: an array is the hash of its elements' words
        _uint(confidence_e8, 256),
    )
    return compute_struct_digest(None, MARK_TYPE, words)


def compute_vote_digest(committee_id: bytes, k: int, r: int, plan_digest: bytes) -> Digest:
    """Return what an operator signs to vote for a plan as answer to proposal (k, r) (protocol.md 8.2)."""
    return compute_struct_digest(committee_id, VOTE_TYPE, (_uint(k), _uint(r), plan_digest))


def compute_observation_digest(vault_id: bytes, slot: int, clock: int, sequence: int, head: bytes) -> Digest:
    """Return what an operator signs for a state it read where no header proves one (protocol.md 11): slot, unix seconds, number, head."""
    return compute_struct_digest(vault_id, OBSERVATION_TYPE, (_uint(slot), _uint(clock), _uint(sequence), head))


def compute_statement_digest(committee_id: bytes, type_name: str, body_digest: bytes) -> Digest:
    """Return what an operator signs for any other off-chain statement; ``type_name`` keeps statements apart."""
    words = (keccak256(type_name.encode()), body_digest)
    return compute_struct_digest(committee_id, STATEMENT_TYPE, words)


# ---- signatures -------------------------------------------------------------------------------------------------------


def recover_signer(digest: bytes, signature: bytes) -> OperatorId:
    """Return the 20-byte address that signed ``digest``; Rejected ("bad_signature") unless the signature is strict.

    Strict: 65 bytes, v 27 or 28, 0 < r < n, 0 < s <= n/2 (SEC 1 4.1.6, EIP-2). Never the zero address.
    """
    if len(digest) != 32 or len(signature) != 65:
        raise Rejected("a signature has 65 bytes", got=len(signature), expected=65, reason="bad_signature")
    r, s, v = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"), signature[64]
    if v not in (27, 28) or not 0 < r < SECP256K1_N or not 0 < s <= SECP256K1_N // 2:
        raise Rejected("v, r or s out of range (v 27/28, low s)", got=signature, reason="bad_signature")
    return _recover(bytes(digest), bytes(signature))


@lru_cache(maxsize=8192)
def _recover(digest: bytes, signature: bytes) -> OperatorId:
    # Remembered because gossip and reports say the same signed thing many times; refusals are not.
    try:
        key = coincurve.PublicKey.from_signature_and_message(
            signature[:64] + bytes([signature[64] - 27]), digest, hasher=None
        )
    except ValueError as error:  # r is no x coordinate, or the key would be the point at infinity
        raise Rejected("no key made this signature", got=signature, reason="bad_signature") from error
    return _address_of(key)


def _address_of(key: coincurve.PublicKey) -> OperatorId:
    address = keccak256(key.format(compressed=False)[1:])[12:]
    if address == ZERO20:
        raise Rejected("the zero address signs nothing", reason="bad_signature")
    return OperatorId(address)


def sign_digest(private_key: bytes, digest: bytes) -> bytes:
    """Return r || s || v (v 27/28, low s, nonce by RFC 6979) over a 32-byte digest; Rejected ("bad_key") on a bad key."""
    if len(digest) != 32:
        raise Rejected("a digest has 32 bytes", got=len(digest), reason="bad_digest")
    signature = _load_key(private_key).sign_recoverable(digest, hasher=None)
    return bytes(signature[:64]) + bytes([27 + signature[64]])


def get_address(private_key: bytes) -> OperatorId:
    """Return the 20-byte address of a private key; Rejected ("bad_key") on a bad key."""
    return _address_of(_load_key(private_key).public_key)


def _load_key(private_key: bytes) -> coincurve.PrivateKey:
    # coincurve would pad a short key; the length is part of the check. The key never goes into the error.
    if len(private_key) != 32 or not 0 < int.from_bytes(private_key, "big") < SECP256K1_N:
        raise Rejected("a private key is a 32-byte number in [1, n)", reason="bad_key")
    return coincurve.PrivateKey(private_key)


# ---- certificates -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Certificate:
    """An inbox packet with the m signatures a vault asks for, ascending by signer."""

    packet: Packet
    vault_id: bytes
    operator_epoch: int
    signatures: tuple[bytes, ...]


def is_threshold(threshold: int, count: int) -> bool:
    """Tell whether m of n is a quorum: m <= n and 3m > 2n (protocol.md 1)."""
    return 0 < threshold <= count and 3 * threshold > 2 * count


def verify_operators(operators: Sequence[bytes], threshold: int) -> None:
    """Check an operator set: 1 to 20 addresses, strictly ascending, none zero, m a quorum; Rejected ("bad_operators")."""
    if not 1 <= len(operators) <= MAX_OPERATORS or any(len(o) != 20 or o == ZERO20 for o in operators):
        raise Rejected("1 to 20 operators of 20 bytes, none zero", got=len(operators), reason="bad_operators")
    if any(a >= b for a, b in pairwise(operators)):
        raise Rejected("operators must ascend strictly", reason="bad_operators")
    if not is_threshold(threshold, len(operators)):
        raise Rejected(
            "no quorum", got=threshold, expected=f"3m > 2 * {len(operators)}, m <= n", reason="bad_operators"
        )


def verify_certificate(certificate: Certificate, operators: Sequence[bytes], threshold: int) -> Digest:
    """Check a certificate as the vault will (protocol.md 3, step 2 and 4) and return the packet digest.

    Exactly m signatures of distinct members of ``operators``, ascending by address. Rejected: "bad_operators",
    "bad_packet", "bad_certificate", "bad_signature". Cheap checks first, recovery last.
    """
    verify_operators(operators, threshold)
    packet = certificate.packet
    verify_inbox_packet(certificate.vault_id, packet)
    if not 0 < packet.sequence <= UINT64_MAX:
        raise Rejected("packet sequences start at 1", got=packet.sequence, reason="bad_packet")
    if len(certificate.signatures) != threshold:
        raise Rejected(
            "exactly m signatures", got=len(certificate.signatures), expected=threshold, reason="bad_certificate"
        )
    digest = compute_packet_digest(
        certificate.vault_id, certificate.operator_epoch, packet.sequence, compute_commitment(packet)
    )
    last = ZERO20
    for signature in certificate.signatures:
        signer = recover_signer(digest, signature)
        if signer <= last:
            raise Rejected("signers must be distinct and ascend", got=signer, reason="bad_certificate")
        if signer not in operators:
            raise Rejected("signed by somebody else", got=signer, reason="bad_certificate")
        last = signer
    return digest
