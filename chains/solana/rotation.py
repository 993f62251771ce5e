"""From one operator set to the next by the vault's own word: the Ack of a rotation, seen by m of those who were in force. Pure.

The vault changes its operators by a certified packet and says so in its outbox (protocol.md 8.5). The operators in force attest that outbox, so
they prove who follows them, and from which instant on. Nothing else makes a set: neither a packet that is only signed (it may never have
been carried out), nor the word of those who would follow. From the instant on nothing that the former set says counts any more, its word
on who follows it included; the vault's delay leaves it a day to say so.

Source: protocol.md 3, 4.2 (kind 35), 8.5, 11; vault.md 2 (a later change of its kind replaces one that is pending).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from chains.base import FORMER_SET
from chains.solana.observations import get_operator_set, verify_attested
from chains.solana.types import (
    MAX_ALL_LINKS,
    MAX_HANDOVER_LINKS,
    MAX_HANDOVERS,
    Attested,
    Handover,
    OperatorSet,
    Rotation,
)
from messages.bodies import Ack, AckStatus, RotateOperators, make_inbox_packet, make_outbox_packet
from messages.digests import verify_operators
from messages.errors import Rejected
from messages.outbox import Fact, compute_next_head
from messages.packet import UINT64_MAX, compute_commitment


@dataclass(frozen=True, slots=True)
class Succession:
    """The operator sets that are known, oldest first, and the handovers that were verified on the way; oldest first."""

    sets: tuple[OperatorSet, ...]
    handovers: tuple[Handover, ...] = ()


def get_set(rotation: Rotation) -> OperatorSet:
    """The set that a rotation brings, with the instant from which it counts."""
    return OperatorSet(rotation.effective, rotation.operators, rotation.threshold)


def compute_ack_commitment(vault_id: bytes, rotation: Rotation) -> bytes:
    """The commitment of the Ack that says a rotation is DONE (32 bytes), both packets rebuilt from the rotation's fields.

    Rejected: a field out of range ("malformed" and what the bodies say).
    """
    r = rotation
    for number in (r.inbox_sequence, r.inbox_timeout, r.sequence, r.stamp, r.effective, r.epoch):
        if not 0 < number <= UINT64_MAX:
            raise Rejected("a number of a rotation", got=number, expected="u64 above 0", reason="malformed")
    body = RotateOperators(r.epoch, r.threshold, r.effective, r.treasurer, r.operators)
    inbox = make_inbox_packet(vault_id, r.inbox_sequence, r.inbox_timeout, body)
    ack = Ack(r.inbox_sequence, compute_commitment(inbox), RotateOperators.KIND, AckStatus.DONE, 0, 0)
    return compute_commitment(make_outbox_packet(vault_id, r.sequence, r.stamp, ack))


@lru_cache(maxsize=256)
def verify_handover(vault_id: bytes, sets: tuple[OperatorSet, ...], handover: Handover) -> OperatorSet:
    """Check that the last of ``sets`` has seen the vault carry the rotation out, before it took effect; the set that follows.

    Every statement of it must be of a time in which that set was in force: what its members say after the instant is worth nothing here either.

    Rejected: "late" (seen by nobody in time), "not_in_force" (by an earlier set), "wrong_link" (another history), "size", "bad_set", and
    the reasons of `observations.verify_attested`.
    """
    rotation, seen = handover.rotation, handover.seen
    if max(len(handover.commitments), len(seen.commitments)) > MAX_HANDOVER_LINKS or seen.handovers:
        raise Rejected("a handover with too much in it", got=len(handover.commitments), reason="size")
    verify_operators(rotation.operators, rotation.threshold)
    if rotation.effective <= sets[-1].since or rotation.stamp >= rotation.effective:
        raise Rejected("a set that takes over before it was named", got=rotation.effective, reason="late")
    clocks = [signed.observation.clock for signed in (*seen.observations, *seen.timed)]
    if not clocks or max(clocks) >= rotation.effective:
        raise Rejected(
            "said at or after the instant of the rotation",
            got=max(clocks, default=0),
            expected=f"< {rotation.effective}",
            reason="late",
        )
    if get_operator_set(sets, min(clocks)) != sets[-1]:
        raise Rejected("said by operators who were not in force", got=min(clocks), reason="not_in_force")
    stood = verify_attested(vault_id, sets, seen)
    head, number = handover.before, rotation.sequence
    for commitment in (compute_ack_commitment(vault_id, rotation), *handover.commitments):
        head = compute_next_head(head, number, commitment)
        number += 1
    if (number - 1, head) != (stood.sequence, stood.head):
        raise Rejected(
            "the rotation is not in the history that operators saw", got=head, expected=stood.head, reason="wrong_link"
        )
    return get_set(rotation)


def follow(vault_id: bytes, known: Succession, handovers: Iterable[Handover], clock: int = 0) -> Succession:
    """Walk on through handovers, oldest first; those that lead where one is already are passed over.

    Args:
        vault_id: of the vault.
        known: the sets so far; the first of them are from people.
        handovers: what is claimed.
        clock: the newest time (unix seconds) that counts already: a set in force by then is replaced by nothing.

    Raises:
        Rejected: "another_set" (contradicts a set that is known), "epoch" (one was left out), "size", and the reasons of `verify_handover`.
    """
    for handover in handovers:
        known = _follow_one(vault_id, known, handover, clock)
    return known


def _follow_one(vault_id: bytes, known: Succession, handover: Handover, clock: int) -> Succession:
    sets, new = known.sets, get_set(handover.rotation)
    earlier = tuple(one for one in sets if one.since < new.since)
    if not earlier or any(get_set(one.rotation) == new for one in known.handovers):
        return known  # of before the first set that people named, or known
    if new in sets:  # people named it too: what proves it is kept for those who have not
        verify_handover(vault_id, earlier, handover)
        return _verify_size(replace(known, handovers=(*known.handovers, handover)))
    last = known.handovers[-1] if known.handovers and get_set(known.handovers[-1].rotation) == sets[-1] else None
    if len(sets) == 1 and (new.operators, new.threshold) == (sets[0].operators, sets[0].threshold):
        return known  # people begin with it, and did not say since when
    if last is not None and handover.rotation.epoch == last.rotation.epoch:
        return _replace_pending(vault_id, known, last, handover, clock)
    if earlier != sets:
        raise Rejected(
            "another operator set than the one that is known",
            got=(new.since, new.threshold, [operator.hex() for operator in new.operators]),
            expected=f"> {sets[-1].since}",
            reason="another_set",
        )
    if last is not None and handover.rotation.epoch != last.rotation.epoch + 1:
        raise Rejected(
            "a rotation was left out", got=handover.rotation.epoch, expected=last.rotation.epoch + 1, reason="epoch"
        )
    verify_handover(vault_id, sets, handover)
    return _verify_size(Succession((*sets, new), (*known.handovers, handover)))


def _replace_pending(vault_id: bytes, known: Succession, last: Handover, handover: Handover, clock: int) -> Succession:
    """Put a rotation in the place of one that was pending at the vault when it came; an older one changes nothing."""
    if handover.rotation.sequence <= last.rotation.sequence:
        return known
    if handover.rotation.stamp >= last.rotation.effective or clock >= last.rotation.effective:
        raise Rejected(
            "two operator sets for one epoch",
            got=handover.rotation.effective,
            expected=last.rotation.effective,
            reason="another_set",
        )
    before = known.sets[:-1]
    if not before or handover.rotation.effective <= before[-1].since:
        raise Rejected("a set before the one it follows", got=handover.rotation.effective, reason="another_set")
    verify_handover(vault_id, before, handover)
    return _verify_size(Succession((*before, get_set(handover.rotation)), (*known.handovers[:-1], handover)))


def _verify_size(found: Succession) -> Succession:
    links = sum(len(h.commitments) + len(h.seen.commitments) for h in found.handovers)
    if len(found.handovers) > MAX_HANDOVERS or links > MAX_ALL_LINKS:
        raise Rejected(
            "too much to prove since the operator sets of the settings: name a later set there",
            got=(len(found.handovers), links),
            expected=(MAX_HANDOVERS, MAX_ALL_LINKS),
            reason="size",
        )
    return found


# ---- from facts -------------------------------------------------------------------------------------------------------


def find_rotations(facts: Sequence[Fact]) -> tuple[tuple[int, Rotation], ...]:
    """Rotations among facts that follow each other, as (index, rotation), oldest first."""
    found = []
    for index, fact in enumerate(facts):
        ack, body, inbox = fact.body, fact.inbox_body, fact.inbox
        if not isinstance(ack, Ack) or ack.status != AckStatus.DONE or inbox is None:
            continue
        if isinstance(body, RotateOperators):
            rotation = Rotation(
                body.epoch,
                body.threshold,
                body.effective,
                body.treasurer,
                body.operators,
                inbox.sequence,
                inbox.timeout_timestamp,
                fact.sequence,
                fact.stamp,
            )
            found.append((index, rotation))
    return tuple(found)


def make_handovers(before: bytes, facts: Sequence[Fact], seen: Attested) -> tuple[Handover, ...]:
    """What facts that were just folded say of the next operators, with what proved the head after them; nothing is verified here.

    Args:
        before: outbox head before the first fact (32 bytes).
        facts: all up to the lowest number that ``seen`` stands for, in order.
        seen: the statements behind that head.
    """
    clock = max(signed.observation.clock for signed in (*seen.observations, *seen.timed))
    heads = [before, *(fact.head for fact in facts)]
    bare = replace(seen, handovers=())
    return tuple(
        Handover(rotation, heads[index], tuple(fact.commitment for fact in facts[index + 1 :]), bare)
        for index, rotation in find_rotations(facts)
        if clock < rotation.effective  # later it proves nothing
        and max(len(facts) - index - 1, len(seen.commitments)) <= MAX_HANDOVER_LINKS
    )


def verify_in_force(sets: Sequence[OperatorSet], facts: Sequence[Fact], clock: int) -> None:
    """Refuse facts that say themselves that who stood for them at ``clock`` (unix seconds) was no operator any more.

    Rejected ("former_set"): a rotation among them took effect by then, and a set from before it was believed.
    """
    standing: list[Rotation] = []
    for _, rotation in find_rotations(facts):
        while standing and rotation.stamp < standing[-1].effective:
            standing.pop()  # it was pending still, and this one took its place; those before it are in force as ever
        standing.append(rotation)
    in_force = next((rotation for rotation in reversed(standing) if rotation.effective <= clock), None)
    if in_force is None:
        return
    believed = get_operator_set(sets, clock)
    is_same = (believed.operators, believed.threshold) == (in_force.operators, in_force.threshold)
    if not is_same and believed.since < in_force.effective:
        raise Rejected(
            "the operators that say so were no operators any more: what proves the next set has to be heard first",
            got=clock,
            expected=f"< {in_force.effective}",
            reason=FORMER_SET,
        )
