"""The life of an inbox packet, as a table (style.md 4, habit 8; protocol.md 2, 8.3, 9).

planned -> certified -> sent -> acknowledged | refused | absent. Only facts end a life: an Ack in the outbox, or a head that shows none
at a state with time >= timeout. What a transaction receipt says moves nothing. Terminal states exclude each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from messages.errors import Conflict


class PacketState(Enum):
    """Where an inbox packet stands."""

    PLANNED = "planned"
    CERTIFIED = "certified"
    SENT = "sent"
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    ABSENT = "absent"


class PacketEvent(Enum):
    """What may happen to it. The first two are ours, the other three are facts."""

    SIGNED_BY_QUORUM = "signed_by_quorum"
    TRANSACTION_STORED = "transaction_stored"
    ACK_DONE = "ack_done"
    ACK_REFUSED = "ack_refused"
    PROVEN_ABSENT = "proven_absent"


_S, _E = PacketState, PacketEvent

# Anybody may carry a certified packet, so an Ack may come for one that we never sent; and the facts may show us the Ack of a packet
# whose certificate never reached us.
NEXT: Final[Mapping[tuple[PacketState, PacketEvent], PacketState]] = {
    (_S.PLANNED, _E.SIGNED_BY_QUORUM): _S.CERTIFIED,
    (_S.PLANNED, _E.ACK_DONE): _S.ACKNOWLEDGED,
    (_S.PLANNED, _E.ACK_REFUSED): _S.REFUSED,
    (_S.PLANNED, _E.PROVEN_ABSENT): _S.ABSENT,
    (_S.CERTIFIED, _E.SIGNED_BY_QUORUM): _S.CERTIFIED,
    (_S.CERTIFIED, _E.TRANSACTION_STORED): _S.SENT,
    (_S.CERTIFIED, _E.ACK_DONE): _S.ACKNOWLEDGED,
    (_S.CERTIFIED, _E.ACK_REFUSED): _S.REFUSED,
    (_S.CERTIFIED, _E.PROVEN_ABSENT): _S.ABSENT,
    (_S.SENT, _E.SIGNED_BY_QUORUM): _S.SENT,
    (_S.SENT, _E.TRANSACTION_STORED): _S.SENT,
    (_S.SENT, _E.ACK_DONE): _S.ACKNOWLEDGED,
    (_S.SENT, _E.ACK_REFUSED): _S.REFUSED,
    (_S.SENT, _E.PROVEN_ABSENT): _S.ABSENT,
    # The same fact, seen again, changes nothing; our own late events neither.
    (_S.ACKNOWLEDGED, _E.ACK_DONE): _S.ACKNOWLEDGED,
    (_S.ACKNOWLEDGED, _E.SIGNED_BY_QUORUM): _S.ACKNOWLEDGED,
    (_S.ACKNOWLEDGED, _E.TRANSACTION_STORED): _S.ACKNOWLEDGED,
    (_S.REFUSED, _E.ACK_REFUSED): _S.REFUSED,
    (_S.REFUSED, _E.SIGNED_BY_QUORUM): _S.REFUSED,
    (_S.REFUSED, _E.TRANSACTION_STORED): _S.REFUSED,
    (_S.ABSENT, _E.PROVEN_ABSENT): _S.ABSENT,
    (_S.ABSENT, _E.SIGNED_BY_QUORUM): _S.ABSENT,
    (_S.ABSENT, _E.TRANSACTION_STORED): _S.ABSENT,
}

TERMINAL: Final = frozenset({_S.ACKNOWLEDGED, _S.REFUSED, _S.ABSENT})


def get_next(state: PacketState, event: PacketEvent) -> PacketState:
    """Return the state after an event.

    Raises:
        Conflict: two facts exclude each other (done and refused, answered and absent): halt and tell a human.
    """
    if (state, event) not in NEXT:
        raise Conflict(
            "a packet can't be both", got=event.value, expected=f"what follows {state.value}", reason="packet_state"
        )
    return NEXT[state, event]


def is_proven_absent(sequence: int, timeout: int, inbox_sequence: int, state_time: int) -> bool:
    """Whether a state proves that packet ``sequence`` never takes effect (protocol.md 2, absence).

    Args:
        sequence: inbox number of the packet.
        timeout: unix seconds; `recv` needs block time < timeout.
        inbox_sequence: highest number that an Ack up to the proven head answers.
        state_time: unix seconds of that state: every later block has time >= this.
    """
    return state_time >= timeout and sequence > inbox_sequence
