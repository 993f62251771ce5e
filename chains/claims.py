"""From what a vault's events show to claims in order: the one pairing rule of all families. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from messages.bodies import Ack, decode_outbox_body, get_kind
from messages.errors import Rejected, Unavailable
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


def make_shown_claims(events: Sequence[VaultEvent], after: int, upto: int, source: str) -> tuple[Claim, ...]:
    """The outbox packets of some blocks with numbers in ``after`` < number <= ``upto``, without a gap among them; () where they show none.

    Raises as `make_claims`; Unavailable ("packets_missing") where a number between two that are shown is not.
    """
    claims = make_claims(events, after, upto)
    told = {event.packet.sequence for event in events if event.is_outbox}
    if len(claims) != len([n for n in told if after < n <= upto]):
        raise make_missing(source, after, upto, after + len(claims))
    return claims


def make_missing(source: str, after: int, upto: int, told_upto: int) -> Unavailable:
    """What is said of a source that tells the packets after ``after`` up to ``told_upto`` only, where ``upto`` is proven."""
    # an index that lags behind its blocks, or [] for a block that a lagging node does not have (go-ethereum #24078), looks like
    # "nothing happened"
    return Unavailable(
        "the endpoint does not tell every packet: it lags or withholds",
        got=f"{told_upto - after} up to number {told_upto}",
        expected=f"{upto - after} up to number {upto}",
        reason="packets_missing",
        source=source,
    )


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
