"""What operators say to each other beside proposals and votes, as documents (data.md 1). Pure.

Every statement here is either signed inside (votes, packet signatures) or believed only after a proof (archive packets), so
it may come from anybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from messages.documents import Plan, Vote


@dataclass(frozen=True, slots=True)
class PacketSignature:
    """One operator's signature over a packet of the plan it travels with (protocol.md 3)."""

    vault_id: bytes
    sequence: int
    operator: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class SignedPlan:
    """A plan with the m votes that allow signing its packets, and some signatures over them (protocol.md 8.2)."""

    SCHEMA: ClassVar[str] = "optsettle/signed-plan/1"
    plan: Plan
    votes: tuple[Vote, ...]
    signatures: tuple[PacketSignature, ...]


@dataclass(frozen=True, slots=True)
class SignedState:
    """What an operator says of a vault whose states nobody can prove (protocol.md 11): ``statement`` is signed, in the family's own bytes."""

    SCHEMA: ClassVar[str] = "optsettle/observation/1"
    vault_id: bytes
    statement: bytes


@dataclass(frozen=True, slots=True)
class Equivocation:
    """Two statements of one operator that exclude each other (protocol.md 8.6); anyone can check it.

    kind ``vote``: two encoded votes of one (k, r). kind ``proposal``: two encoded envelopes with proposals of one (k, r).
    kind ``packets``: two encoded `SignedPlan` of one k, each with one signature of the operator. kind ``observation``: two encoded
    `SignedState` of one vault, two heads under one number.
    """

    SCHEMA: ClassVar[str] = "optsettle/equivocation/1"
    kind: str
    operator: bytes
    first: bytes
    second: bytes


@dataclass(frozen=True, slots=True)
class ArchiveRequest:
    """Ask the peers for the outbox packets of a vault after a sequence, up to another (protocol.md 12)."""

    SCHEMA: ClassVar[str] = "optsettle/archive-request/1"
    vault_id: bytes
    after_sequence: int
    upto_sequence: int


@dataclass(frozen=True, slots=True)
class ArchivePackets:
    """Outbox packets in order, ABI-encoded, each with the inbox packet it answers (empty where it answers none)."""

    SCHEMA: ClassVar[str] = "optsettle/archive-packets/1"
    vault_id: bytes
    after_sequence: int
    packets: tuple[bytes, ...]
    answered: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SignedParameters:
    """The digest of a parameter set with signatures of operators over it (data.md 2)."""

    SCHEMA: ClassVar[str] = "optsettle/signed-parameters/1"
    digest: bytes
    signatures: tuple[bytes, ...]
