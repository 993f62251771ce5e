"""What to do next about the transaction of a certified packet: a pure decision (style.md 4, habit 9)."""

from __future__ import annotations

from enum import Enum


class Action(Enum):
    """Next act of a submitter."""

    WAIT = "wait"
    PREPARE = "prepare"
    """Build and sign a transaction: the first one, or one that replaces the last with higher fees."""
    SEND_AGAIN = "send again"
    """Hand over the stored transaction: it was stored and perhaps never sent, or the chain does not know it."""


def get_action(
    *,
    now: int,
    chain_time: int,
    timeout: int,
    certified_at: int,
    rank: int,
    takeover_s: int,
    is_stored: bool,
    sent_at: int | None,
    outcome: str,
    bump_s: int,
) -> Action:
    """Decide the next act for one packet that no proven state has settled.

    Args:
        now: own clock, unix seconds.
        chain_time: time of the vault's newest proven state.
        timeout: of the packet; from then on it can only be absent, and sending it burns fees.
        certified_at: when its certificate was complete here.
        rank: 0 for the operator whose turn it is, then 1, 2 ...: each waits ``takeover_s`` longer for the one before.
        takeover_s: see rank.
        is_stored: whether a raw transaction is stored.
        sent_at: when it was handed over, None if that is not known.
        outcome: unknown, pending, included or failed; what the chain says, never evidence.
        bump_s: how long a sent transaction may stay out of a block before its fees are raised.
    """
    if max(now, chain_time) >= timeout:
        return Action.WAIT
    if not is_stored:
        return Action.PREPARE if now >= certified_at + rank * takeover_s else Action.WAIT
    if outcome == "included":
        # The Ack is on its way through watch; until it is a fact there is nothing to do, whatever the receipt says.
        return Action.WAIT
    if sent_at is None:
        return Action.SEND_AGAIN
    waited = now - sent_at
    if outcome == "failed":
        # Reverted: most often somebody else's transaction was first. If no Ack follows in that time, try anew.
        return Action.PREPARE if waited >= bump_s else Action.WAIT
    if waited >= bump_s:
        return Action.PREPARE
    return Action.SEND_AGAIN if outcome == "unknown" else Action.WAIT
