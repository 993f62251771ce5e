"""The words of the Solana family: what an operator read, what m operators stand for, what is believed. Frozen values without behaviour.

No header of Solana commits to an account that anybody could prove, so there is no light client: a state counts once m distinct operators,
each from several endpoints of its own, have signed the same thing (protocol.md 11, ibc-v2.md 9).
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_OPERATORS = 20
MAX_COMMITMENTS = 4096
"""How far apart, in packets, the observations of one set may be."""
MAX_HANDOVERS = 64
MAX_HANDOVER_LINKS = 1024
"""Packets between the Ack of a rotation and what m operators stand for, and between their own observations, in one handover."""
MAX_ALL_LINKS = 8192
"""The same in all handovers together."""


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
class Rotation:
    """A change of the operators as the vault carried it out: the fields of its inbox packet, and of the Ack that says DONE.

    ``epoch``, ``threshold``, ``effective`` (unix seconds), ``treasurer`` (32 bytes), ``operators`` (20 bytes each, ascending): of the body.
    ``inbox_sequence`` and ``inbox_timeout``: of the inbox packet. ``sequence``: number of the Ack in the outbox; ``stamp``: its block time.
    Both packets are rebuilt from this; a field that is not what the vault wrote gives another commitment.
    """

    epoch: int
    threshold: int
    effective: int
    treasurer: bytes
    operators: tuple[bytes, ...]
    inbox_sequence: int
    inbox_timeout: int
    sequence: int
    stamp: int


@dataclass(frozen=True, slots=True)
class Handover:
    """How an operator set is proven by the one before it: the rotation, and m of those in force who have seen its Ack.

    ``before``: outbox head before the Ack (32 bytes). ``commitments``: of the packets after the Ack up to the lowest number that ``seen`` stands
    for, 32 bytes each. ``seen``: an `Attested` of the former set, without handovers.
    """

    rotation: Rotation
    before: bytes
    commitments: tuple[bytes, ...]
    seen: Attested


@dataclass(frozen=True, slots=True)
class Attested:
    """What m operators stand for: exactly m observations in ascending order of the operators, and what links their heads.

    ``commitments``: those of the packets after the lowest observed number up to the highest, in order (32 bytes each).
    ``timed``: where the observations are at several numbers, m observations at none higher than the lowest: they say what time it is, because
    who has seen a later packet says nothing of the time at which there was none. Empty where the observations are at one number.
    ``handovers``: oldest first, what leads from the sets that the reader knows to the one that signed; empty where it is known.
    """

    observations: tuple[SignedObservation, ...]
    commitments: tuple[bytes, ...] = ()
    timed: tuple[SignedObservation, ...] = ()
    handovers: tuple[Handover, ...] = ()


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
    ``handovers``: the operator sets after those of the settings, each with what proves it; oldest first.
    """

    vault_id: bytes
    sequence: int
    slot: int
    clock: int
    head: bytes
    m: int
    n: int
    handovers: tuple[Handover, ...] = ()
