"""From what a vault's events show to claims in order: the one pairing rule of all families. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from messages.bodies import Ack, decode_outbox_body, get_kind
from messages.errors import Rejected
from messages.outbox import Claim
from messages.packet import Packet


class VaultEvent(Protocol):
    """One packet as an event shows it; ``transaction`` names the transaction that emitted it."""

    @property
    def is_outbox(self) -> bool:
        """Whether the vault sent the packet; else it took it."""
        ...

    @property
    def packet(self) -> Packet:
        """The packet."""
        ...

    @property
    def transaction(self) -> bytes:
        """Bytes that name the transaction within one answer of one source."""
        ...


def make_claims(events: Iterable[VaultEvent], after: int, upto: int) -> tuple[Claim, ...]:
    """The outbox packets ``after`` < number <= ``upto`` in order, each Ack with the inbox packet of its transaction.

    Only pairs: whether number, order and content are the vault's is decided by the fold. Rejected ("log_twice") if one number
    appears with two contents, ("missing_inbox") if an Ack's transaction shows no inbox packet of its number. A number that is
    missing ends the list there.
    """
    outbox: dict[int, VaultEvent] = {}
    inbox: dict[tuple[bytes, int], Packet] = {}
    for event in events:
        if not event.is_outbox:
            inbox[event.transaction, event.packet.sequence] = event.packet
        elif after < event.packet.sequence <= upto:
            other = outbox.setdefault(event.packet.sequence, event)
            if other.packet != event.packet:
                raise Rejected("two packets with one number", got=event.packet.sequence, reason="log_twice")
    claims: list[Claim] = []
    for sequence in range(after + 1, upto + 1):
        found = outbox.get(sequence)
        if found is None:
            break
        claims.append(Claim(found.packet, _get_answered(found, inbox)))
    return tuple(claims)


def _get_answered(event: VaultEvent, inbox: Mapping[tuple[bytes, int], Packet]) -> Packet | None:
    value = event.packet.payloads[0].value
    if get_kind(value) != Ack.KIND:
        return None
    body = decode_outbox_body(value)
    assert isinstance(body, Ack)  # the kind was read above
    answered = inbox.get((event.transaction, body.inbox_sequence))
    if answered is None:
        raise Rejected(
            "the transaction of an Ack shows no inbox packet of its number",
            got=event.transaction,
            expected=body.inbox_sequence,
            reason="missing_inbox",
        )
    return answered
