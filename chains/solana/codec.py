"""Bytes of the family's objects, for the store, for proposals and for exported proofs. Pure.

Canonical JSON: an object has one text, and whatever reads otherwise is refused. Sizes are bounded before anything is parsed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chains.solana.types import (
    MAX_ALL_LINKS,
    MAX_COMMITMENTS,
    MAX_HANDOVER_LINKS,
    MAX_HANDOVERS,
    MAX_OPERATORS,
    Attested,
    Handover,
    Observation,
    Rotation,
    SignedObservation,
    Trusted,
)
from messages.canonical import decode_amount, decode_canonical, decode_hex, encode_amount, encode_canonical, encode_hex
from messages.errors import Rejected

MAX_STATEMENT_BYTES = 1024
MAX_HANDOVERS_BYTES = 20 * 1024 * MAX_HANDOVERS + 80 * MAX_ALL_LINKS
MAX_UPDATE_BYTES = 2 * 1024 * MAX_OPERATORS + 80 * MAX_COMMITMENTS + MAX_HANDOVERS_BYTES
MAX_TRUSTED_BYTES = 1024 + MAX_HANDOVERS_BYTES
UINT64_MAX = 2**64 - 1
_WORDS = {"clock", "head", "sequence", "slot", "vault"}
_SEEN = {"commitments", "observations", "timed"}


def encode_observation(signed: SignedObservation) -> bytes:
    """One signed observation, as operators send it to each other."""
    return encode_canonical(_to_object(signed))


def decode_observation(data: bytes) -> SignedObservation:
    """Read `encode_observation`; Rejected ("malformed", "not_canonical")."""
    return _read_signed(decode_canonical(data, max_bytes=MAX_STATEMENT_BYTES))


def encode_unsigned(observation: Observation) -> bytes:
    """What an operator is about to sign."""
    return encode_canonical(_to_words(observation))


def decode_unsigned(data: bytes) -> Observation:
    """Read `encode_unsigned`; Rejected ("malformed", "not_canonical")."""
    return _read_words(_read_object(decode_canonical(data, max_bytes=MAX_STATEMENT_BYTES), _WORDS))


def encode_attested(update: Attested) -> bytes:
    """The observations of m operators and what links them; also this family's proof of a head. Handovers only where there are some."""
    return encode_canonical(_to_attested(update))


def decode_attested(data: bytes) -> Attested:
    """Read `encode_attested`; Rejected ("malformed", "not_canonical"). Judges no signature."""
    return _read_attested(decode_canonical(data, max_bytes=MAX_UPDATE_BYTES))


def encode_handovers(handovers: Sequence[Handover]) -> bytes:
    """What leads from one operator set to the next, as operators send it to each other."""
    return encode_canonical({"handovers": [_to_handover(handover) for handover in handovers]})


def is_handovers(data: bytes) -> bool:
    """Whether bytes can only be `encode_handovers`, and no observation."""
    return data.startswith(b'{"handovers":')


def decode_handovers(data: bytes) -> tuple[Handover, ...]:
    """Read `encode_handovers`; Rejected ("malformed", "not_canonical", "size"). Judges no signature."""
    found = _read_object(decode_canonical(data, max_bytes=MAX_HANDOVERS_BYTES), {"handovers"})
    return _read_handovers(found["handovers"])


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
            **_to_tail(trusted.handovers),
        }
    )


def decode_trusted(data: bytes) -> Trusted:
    """Read `encode_trusted`; Rejected ("malformed", "not_canonical")."""
    keys = {"clock", "head", "m", "n", "sequence", "slot", "vault"}
    found, handovers = _read_tail(decode_canonical(data, max_bytes=MAX_TRUSTED_BYTES), keys)
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
        handovers,
    )


def _to_attested(update: Attested) -> dict[str, Any]:
    return {
        "commitments": [encode_hex(commitment) for commitment in update.commitments],
        "observations": [_to_object(signed) for signed in update.observations],
        "timed": [_to_object(signed) for signed in update.timed],
        **_to_tail(update.handovers),
    }


def _read_attested(value: object) -> Attested:
    found, handovers = _read_tail(value, _SEEN)
    observations, commitments, timed = found["observations"], found["commitments"], found["timed"]
    if not isinstance(observations, list) or not isinstance(commitments, list) or not isinstance(timed, list):
        raise _refuse(found)
    if max(len(observations), len(timed)) > MAX_OPERATORS or len(commitments) > MAX_COMMITMENTS:
        raise Rejected("too many observations or commitments", got=(len(observations), len(commitments)), reason="size")
    return Attested(
        tuple(_read_signed(signed) for signed in observations),
        tuple(decode_hex(c, 32) for c in commitments),
        tuple(_read_signed(signed) for signed in timed),
        handovers,
    )


def _to_tail(handovers: Sequence[Handover]) -> dict[str, Any]:
    """Nothing where there is none: what was written before the first rotation reads and looks as ever."""
    return {"handovers": [_to_handover(handover) for handover in handovers]} if handovers else {}


def _read_tail(value: object, keys: set[str]) -> tuple[dict[str, Any], tuple[Handover, ...]]:
    if not isinstance(value, dict) or "handovers" not in value:
        return _read_object(value, keys), ()
    found = _read_object(value, keys | {"handovers"})
    return found, _read_handovers(found["handovers"])


def _to_handover(handover: Handover) -> dict[str, Any]:
    r = handover.rotation
    return {
        "before": encode_hex(handover.before),
        "commitments": [encode_hex(commitment) for commitment in handover.commitments],
        "rotation": {
            "effective": encode_amount(r.effective),
            "epoch": encode_amount(r.epoch),
            "inbox_sequence": encode_amount(r.inbox_sequence),
            "inbox_timeout": encode_amount(r.inbox_timeout),
            "operators": [encode_hex(operator) for operator in r.operators],
            "sequence": encode_amount(r.sequence),
            "stamp": encode_amount(r.stamp),
            "threshold": r.threshold,
            "treasurer": encode_hex(r.treasurer),
        },
        "seen": _to_attested(handover.seen),
    }


def _read_handovers(value: object) -> tuple[Handover, ...]:
    if not isinstance(value, list) or not value:
        raise _refuse(value)
    if len(value) > MAX_HANDOVERS:
        raise Rejected("too many handovers", got=len(value), expected=MAX_HANDOVERS, reason="size")
    return tuple(_read_handover(row) for row in value)


def _read_handover(value: object) -> Handover:
    found = _read_object(value, {"before", "commitments", "rotation", "seen"})
    words = _read_object(
        found["rotation"],
        {
            "effective",
            "epoch",
            "inbox_sequence",
            "inbox_timeout",
            "operators",
            "sequence",
            "stamp",
            "threshold",
            "treasurer",
        },
    )
    threshold, operators, commitments = words["threshold"], words["operators"], found["commitments"]
    if not isinstance(threshold, int) or isinstance(threshold, bool) or not 0 < threshold <= MAX_OPERATORS:
        raise _refuse(threshold)
    if not isinstance(operators, list) or not 0 < len(operators) <= MAX_OPERATORS or not isinstance(commitments, list):
        raise _refuse(found)
    _read_object(found["seen"], _SEEN)  # what is seen hands nothing over itself
    if len(commitments) > MAX_HANDOVER_LINKS:
        raise Rejected("too much in a handover", got=len(commitments), expected=MAX_HANDOVER_LINKS, reason="size")
    rotation = Rotation(
        _read_number(words["epoch"]),
        threshold,
        _read_number(words["effective"]),
        decode_hex(words["treasurer"], 32),
        tuple(decode_hex(operator, 20) for operator in operators),
        _read_number(words["inbox_sequence"]),
        _read_number(words["inbox_timeout"]),
        _read_number(words["sequence"]),
        _read_number(words["stamp"]),
    )
    seen = _read_attested(found["seen"])
    return Handover(rotation, decode_hex(found["before"], 32), tuple(decode_hex(c, 32) for c in commitments), seen)


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
