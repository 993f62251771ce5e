"""Bytes of the family's objects, for the store, for proposals and for exported proofs. Pure.

Canonical JSON: an object has one text, and whatever reads otherwise is refused. Sizes are bounded before anything is parsed.
"""

from __future__ import annotations

from typing import Any

from chains.solana.types import MAX_COMMITMENTS, MAX_OPERATORS, Attested, Observation, SignedObservation, Trusted
from messages.canonical import decode_amount, decode_canonical, decode_hex, encode_amount, encode_canonical, encode_hex
from messages.errors import Rejected

MAX_UPDATE_BYTES = 2 * 1024 * MAX_OPERATORS + 80 * MAX_COMMITMENTS
MAX_TRUSTED_BYTES = 1024
UINT64_MAX = 2**64 - 1
_WORDS = {"clock", "head", "sequence", "slot", "vault"}


def encode_observation(signed: SignedObservation) -> bytes:
    """One signed observation, as operators send it to each other."""
    return encode_canonical(_to_object(signed))


def decode_observation(data: bytes) -> SignedObservation:
    """Read `encode_observation`; Rejected ("malformed", "not_canonical")."""
    return _read_signed(decode_canonical(data, max_bytes=MAX_TRUSTED_BYTES))


def encode_unsigned(observation: Observation) -> bytes:
    """What an operator is about to sign."""
    return encode_canonical(_to_words(observation))


def decode_unsigned(data: bytes) -> Observation:
    """Read `encode_unsigned`; Rejected ("malformed", "not_canonical")."""
    return _read_words(_read_object(decode_canonical(data, max_bytes=MAX_TRUSTED_BYTES), _WORDS))


def encode_attested(update: Attested) -> bytes:
    """The observations of m operators and what links them; also this family's proof of a head."""
    return encode_canonical(
        {
            "commitments": [encode_hex(commitment) for commitment in update.commitments],
            "observations": [_to_object(signed) for signed in update.observations],
            "timed": [_to_object(signed) for signed in update.timed],
        }
    )


def decode_attested(data: bytes) -> Attested:
    """Read `encode_attested`; Rejected ("malformed", "not_canonical"). Judges no signature."""
    found = _read_object(decode_canonical(data, max_bytes=MAX_UPDATE_BYTES), {"commitments", "observations", "timed"})
    observations, commitments, timed = found["observations"], found["commitments"], found["timed"]
    if not isinstance(observations, list) or not isinstance(commitments, list) or not isinstance(timed, list):
        raise _refuse(found)
    if max(len(observations), len(timed)) > MAX_OPERATORS or len(commitments) > MAX_COMMITMENTS:
        raise Rejected("too many observations or commitments", got=(len(observations), len(commitments)), reason="size")
    return Attested(
        tuple(_read_signed(signed) for signed in observations),
        tuple(decode_hex(c, 32) for c in commitments),
        tuple(_read_signed(signed) for signed in timed),
    )


def encode_trusted(trusted: Trusted) -> bytes:
    """What counts so far."""
    return encode_canonical(
        {
            "clock": encode_amount(trusted.clock),
            "head": encode_hex(trusted.head),
            "m": trusted.m,
            "n": trusted.n,
            "sequence": encode_amount(trusted.sequence),
            "slot": encode_amount(trusted.slot),
            "vault": encode_hex(trusted.vault_id),
        }
    )


def decode_trusted(data: bytes) -> Trusted:
    """Read `encode_trusted`; Rejected ("malformed", "not_canonical")."""
    keys = {"clock", "head", "m", "n", "sequence", "slot", "vault"}
    found = _read_object(decode_canonical(data, max_bytes=MAX_TRUSTED_BYTES), keys)
    m, n = found["m"], found["n"]
    for number in (m, n):
        if not isinstance(number, int) or isinstance(number, bool) or not 0 < number <= MAX_OPERATORS:
            raise _refuse(number)
    return Trusted(
        decode_hex(found["vault"], 32),
        _read_number(found["sequence"]),
        _read_number(found["slot"]),
        _read_number(found["clock"]),
        decode_hex(found["head"], 32),
        m,
        n,
    )


def _to_words(o: Observation) -> dict[str, str]:
    return {
        "clock": encode_amount(o.clock),
        "head": encode_hex(o.head),
        "sequence": encode_amount(o.sequence),
        "slot": encode_amount(o.slot),
        "vault": encode_hex(o.vault_id),
    }


def _to_object(signed: SignedObservation) -> dict[str, str]:
    signature = {"operator": encode_hex(signed.operator), "signature": encode_hex(signed.signature)}
    return {**_to_words(signed.observation), **signature}


def _read_words(found: dict[str, Any]) -> Observation:
    return Observation(
        decode_hex(found["vault"], 32),
        _read_number(found["slot"]),
        _read_number(found["clock"]),
        _read_number(found["sequence"]),
        decode_hex(found["head"], 32),
    )


def _read_signed(value: object) -> SignedObservation:
    found = _read_object(value, _WORDS | {"operator", "signature"})
    return SignedObservation(_read_words(found), decode_hex(found["operator"], 20), decode_hex(found["signature"], 65))


def _read_object(value: object, keys: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != keys:
        raise _refuse(value)
    return value


def _read_number(value: object) -> int:
    """A u64 as decimal digits: JSON numbers of other languages end at 2^53."""
    number = decode_amount(value)
    if number > UINT64_MAX:
        raise _refuse(value)
    return number


def _refuse(got: object) -> Rejected:
    return Rejected("not an object of the Solana family", got=str(got)[:200], reason="malformed")
