"""The words of the Solana family: what an operator read, what m operators stand for, what is believed. Frozen values without behaviour.

No header of Solana commits to an account that anybody could prove, so there is no light client: a state counts once m distinct operators,
each from several endpoints of its own, have signed the same thing (protocol.md 11, ibc-v2.md 9).
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_OPERATORS = 20
MAX_COMMITMENTS = 4096
"""How far apart, in packets, the observations of one set may be."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A vault's outbox position as read in one finalized call together with the clock of that state.

    vault_id and head: 32 bytes. ``slot`` is the slot that was read, never the one that was asked for; ``clock`` unix seconds of the Clock
    sysvar in that state; ``sequence`` the number of the newest outbox packet.
    """

    vault_id: bytes
    slot: int
    clock: int
    sequence: int
    head: bytes


@dataclass(frozen=True, slots=True)
class SignedObservation:
    """An observation with the operator (20 bytes) and its signature (65 bytes)."""

    observation: Observation
    operator: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Attested:
    """What m operators stand for: exactly m observations in ascending order of the operators, and what links their heads.

    ``commitments``: those of the packets after the lowest observed number up to the highest, in order (32 bytes each).
    ``timed``: where the observations are at several numbers, m observations at none higher than the lowest: they say what time it is, because
    who has seen a later packet says nothing of the time at which there was none. Empty where the observations are at one number.
    """

    observations: tuple[SignedObservation, ...]
    commitments: tuple[bytes, ...] = ()
    timed: tuple[SignedObservation, ...] = ()


@dataclass(frozen=True, slots=True)
class OperatorSet:
    """Who signs for a vault from a time on (unix seconds): addresses ascending, and how many are needed."""

    since: int
    operators: tuple[bytes, ...]
    threshold: int


@dataclass(frozen=True, slots=True)
class Trusted:
    """The newest state that counts: lowest sequence, slot and clock among the m, and the head of that sequence; who m and n were.

    ``clock``: the lowest of m operators that had seen no later number (`Attested.timed`).
    """

    vault_id: bytes
    sequence: int
    slot: int
    clock: int
    head: bytes
    m: int
    n: int
