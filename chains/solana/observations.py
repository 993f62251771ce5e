"""When m of n operators stand for a state of a Solana vault: signatures, agreement, evidence. Pure.

Two agreements are judged here. First an operator's own: its endpoints must agree before it signs. Then the committee's: m distinct
operators whose heads lie on one history. The cut takes the lowest sequence, slot and clock of the m, so that every one of them has seen at
least that much.

Source: protocol.md 11, ibc-v2.md 8 (hardening 4 to 6), incidents.md 1E.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from chains.solana.types import (
    MAX_COMMITMENTS,
    MAX_OPERATORS,
    Attested,
    Observation,
    OperatorSet,
    SignedObservation,
    Trusted,
)
from messages import digests
from messages.digests import recover_signer, verify_operators
from messages.errors import Conflict, Rejected, Unavailable
from messages.outbox import compute_next_head

MIN_ENDPOINTS = 4
"""data.md: three must agree, so that one endpoint may lie or be away."""
MAX_CLOCK_AHEAD_S = 30
UINT64_MAX = 2**64 - 1
ZERO32 = bytes(32)


# ---- what one operator says -------------------------------------------------------------------------------------------


def compute_observation_digest(observation: Observation) -> bytes:
    """What an operator signs, 32 bytes: EIP-712 under the domain of the vault, like packets and pauses.

    Rejected ("malformed"): a width, a zero head, slot or clock, or a sequence of 0 with another head than the vault's id.
    """
    verify_shape(observation)
    o = observation
    return digests.compute_observation_digest(o.vault_id, o.slot, o.clock, o.sequence, o.head)


def verify_shape(observation: Observation) -> None:
    """Refuse what no reading of a vault can be; Rejected ("malformed")."""
    o = observation
    if len(o.vault_id) != 32 or len(o.head) != 32 or o.head == ZERO32:
        raise Rejected("a vault id and a head of 32 bytes, the head not zero", got=o.head, reason="malformed")
    if not 0 < o.slot <= UINT64_MAX or not 0 < o.clock <= UINT64_MAX or not 0 <= o.sequence <= UINT64_MAX:
        raise Rejected("slot and clock above 0, all u64", got=(o.slot, o.clock, o.sequence), reason="malformed")
    if (o.sequence == 0) != (o.head == o.vault_id):
        raise Rejected("the first head is the vault's id, and no later one", got=o.head, reason="malformed")


def verify_observation(signed: SignedObservation, vault_id: bytes, operators: Sequence[bytes]) -> None:
    """Check that an operator of the set signed this of this vault.

    Rejected: "wrong_vault", "unknown_signer" (no operator, or not the one it names), "bad_signature", "malformed".
    """
    if signed.observation.vault_id != vault_id:
        raise Rejected("of another vault", got=signed.observation.vault_id, expected=vault_id, reason="wrong_vault")
    signer = recover_signer(compute_observation_digest(signed.observation), signed.signature)
    if signer != signed.operator or signer not in operators:
        raise Rejected("not signed by an operator of the set", got=signer, reason="unknown_signer")


def verify_equivocation(first: SignedObservation, second: SignedObservation, operators: Sequence[bytes]) -> None:
    """Check that one operator signed two heads for one number of one vault: evidence that anybody can verify.

    The same head at a later slot and clock is no fault. Rejected: "no_equivocation", and the reasons of `verify_observation`.
    """
    for signed in (first, second):
        verify_observation(signed, first.observation.vault_id, operators)
    a, b = first.observation, second.observation
    if first.operator != second.operator or a.sequence != b.sequence or a.head == b.head:
        raise Rejected("the two statements can both be true", got=(a.sequence, b.sequence), reason="no_equivocation")


# ---- what its endpoints say -------------------------------------------------------------------------------------------


class Kind(Enum):
    """What an endpoint answered: a state, that there is none, or nothing that can be used."""

    FOUND = "found"
    MISSING = "missing"
    ERRORED = "errored"


@dataclass(frozen=True, slots=True)
class Reading:
    """One endpoint's answer; ``observation`` only where a state was found."""

    source: str
    kind: Kind
    observation: Observation | None = None


@dataclass(frozen=True, slots=True)
class Agreement:
    """What enough endpoints agree on, and the sources that said something else about the same number."""

    observation: Observation
    against: tuple[str, ...]


def compute_needed(endpoints: int) -> int:
    """How many of k endpoints must agree: floor(2 k / 3) + 1; Rejected ("bad_config") below `MIN_ENDPOINTS`."""
    if endpoints < MIN_ENDPOINTS:
        raise Rejected("too few endpoints", got=endpoints, expected=f">= {MIN_ENDPOINTS}", reason="bad_config")
    return 2 * endpoints // 3 + 1


def compute_agreement(readings: Sequence[Reading]) -> Agreement:
    """The state that enough endpoints found: one (sequence, head), with the lowest slot and clock at which one of them saw it.

    An endpoint that is behind counts neither for nor against; one with another head for the same number is named. One answer per source.

    Raises:
        Unavailable: "abstain" (no state has enough endpoints behind it: sign nothing), "vault_missing" (enough say there is no vault).
    """
    needed = compute_needed(len(readings))
    if len({reading.source for reading in readings}) != len(readings):
        raise Rejected("a source answered twice", got=len(readings), reason="bad_config")
    if sum(reading.kind is Kind.MISSING for reading in readings) >= needed:
        raise Unavailable("the vault does not exist, say its endpoints", expected=needed, reason="vault_missing")
    found = [(reading.source, reading.observation) for reading in readings if reading.observation is not None]
    votes = Counter((o.sequence, o.head) for _, o in found)
    agreed = [place for place, count in votes.items() if count >= needed]
    if not agreed:
        raise Unavailable(
            "the endpoints do not agree on one state: nothing is signed",
            got=dict(Counter(reading.kind.value for reading in readings)),
            expected=f"{needed} of {len(readings)} with one head",
            reason="abstain",
        )
    ((sequence, head),) = agreed  # more than half agree: there is one
    same = [o for _, o in found if (o.sequence, o.head) == (sequence, head)]
    # The earliest at which the state was seen: a claim that every one of these endpoints bears out.
    slot, clock = min((o.slot, o.clock) for o in same)
    against = tuple(source for source, o in found if o.sequence == sequence and o.head != head)
    return Agreement(Observation(same[0].vault_id, slot, clock, sequence, head), against)


# ---- what m operators stand for ---------------------------------------------------------------------------------------


def get_operator_set(sets: Sequence[OperatorSet], time: int) -> OperatorSet:
    """The set in force at a time; Rejected ("no_set") before the first, "bad_set" for sets out of order or unsound."""
    if not sets or any(a.since >= b.since for a, b in pairwise(sets)):
        raise Rejected("operator sets in ascending order of their times", got=len(sets), reason="bad_set")
    for one in sets:
        verify_operators(one.operators, one.threshold)
    found = [one for one in sets if one.since <= time]
    if not found:
        raise Rejected("no operators at this time", got=time, expected=f">= {sets[0].since}", reason="no_set")
    return found[-1]


def verify_attested(vault_id: bytes, operators: OperatorSet, update: Attested) -> Trusted:
    """Check that exactly m distinct operators stand for one history; the lowest they have all seen.

    Rejected: "too_few", "too_many", "repeated_signer" (operators must ascend), "wrong_link" (heads that do not lie on one history),
    "malformed", and the reasons of `verify_observation`.
    """
    count = len(update.observations)
    if count < operators.threshold:
        raise Rejected("too few operators", got=count, expected=operators.threshold, reason="too_few")
    if count > min(operators.threshold, MAX_OPERATORS):
        raise Rejected("more operators than are needed", got=count, expected=operators.threshold, reason="too_many")
    if any(a.operator >= b.operator for a, b in pairwise(update.observations)):
        raise Rejected("operators must ascend", got=count, reason="repeated_signer")
    for signed in update.observations:
        verify_observation(signed, vault_id, operators.operators)
    seen = sorted((s.observation for s in update.observations), key=lambda o: o.sequence)
    _verify_links(seen, update.commitments)
    return Trusted(
        vault_id=vault_id,
        sequence=seen[0].sequence,
        slot=min(o.slot for o in seen),
        clock=min(o.clock for o in seen),
        head=seen[0].head,
        m=operators.threshold,
        n=len(operators.operators),
    )


def _verify_links(seen: Sequence[Observation], commitments: Sequence[bytes]) -> None:
    """Fold from the lowest head to the highest: every observed head must be met on the way."""
    first, last = seen[0], seen[-1]
    if len(commitments) != last.sequence - first.sequence or len(commitments) > MAX_COMMITMENTS:
        raise Rejected(
            "one commitment for each packet between the observations",
            got=len(commitments),
            expected=min(last.sequence - first.sequence, MAX_COMMITMENTS),
            reason="malformed",
        )
    heads = {first.sequence: first.head}
    head = first.head
    for number, commitment in enumerate(commitments, first.sequence + 1):
        if len(commitment) != 32:
            raise Rejected("a commitment has 32 bytes", got=len(commitment), expected=32, reason="malformed")
        head = compute_next_head(head, number, commitment)
        heads[number] = head
    for observation in seen:
        if heads[observation.sequence] != observation.head:
            raise Rejected(
                "operators saw heads that do not lie on one history",
                got=observation.head,
                expected=heads[observation.sequence],
                reason="wrong_link",
            )


def verify_update(trusted: Trusted, sets: Sequence[OperatorSet], update: Attested, now: int) -> Trusted:
    """The next state that counts; ``now`` in unix seconds.

    Rejected: "future", "old" (sequence, slot or clock below what counts already, or nothing new), and the reasons of `verify_attested`.
    Conflict ("two_heads"): m operators stand for another head of the number that is on record.
    """
    after = verify_first(trusted.vault_id, sets, update, now)
    if after.sequence == trusted.sequence and after.head != trusted.head:
        raise Conflict("operators stand for two heads", got=after.head, expected=trusted.head, reason="two_heads")
    pairs = ((after.sequence, trusted.sequence), (after.slot, trusted.slot), (after.clock, trusted.clock))
    if any(new < known for new, known in pairs) or all(new == known for new, known in pairs):
        raise Rejected("a state of the past", got=pairs[0], expected=f">= {trusted.sequence}, newer", reason="old")
    return after


def verify_first(vault_id: bytes, sets: Sequence[OperatorSet], update: Attested, now: int) -> Trusted:
    """The first state that counts: `verify_attested` by the set in force at its clock; Rejected also "future", "no_set"."""
    if not update.observations:
        raise Rejected("no operator stands for this", got=0, reason="too_few")
    clock = min(signed.observation.clock for signed in update.observations)
    if clock > now + MAX_CLOCK_AHEAD_S:
        raise Rejected("a clock of the future", got=clock, expected=f"<= {now + MAX_CLOCK_AHEAD_S}", reason="future")
    return verify_attested(vault_id, get_operator_set(sets, clock), update)


def choose_attested(
    observations: Sequence[SignedObservation], threshold: int, commitments: Sequence[bytes], after_sequence: int
) -> Attested | None:
    """The best m of the observations at hand: one an operator, all on one history, the highest numbers first.

    Args:
        observations: verified ones of one vault; of an operator only its newest counts.
        threshold: m.
        commitments: those of the packets ``after_sequence + 1``, ``+ 2`` ..., as far as this node has them.
        after_sequence: number of the packet before the first commitment.

    Returns:
        None where no m of them agree, or the packets between them are not at hand.
    """
    newest: dict[bytes, SignedObservation] = {}
    for signed in observations:
        known = newest.get(signed.operator)
        if known is None or _get_order(known.observation) < _get_order(signed.observation):
            newest[signed.operator] = signed
    ranked = sorted(newest.values(), key=lambda s: (_get_order(s.observation), s.operator), reverse=True)
    for begin in range(len(ranked) - threshold + 1):
        # the highest as the top, then those below it that fit: a liar at the top only costs its own turn
        chosen = [ranked[begin]]
        for signed in ranked[begin + 1 :]:
            if len(chosen) == threshold:
                break
            if _find_links([*chosen, signed], commitments, after_sequence) is not None:
                chosen.append(signed)
        links = _find_links(chosen, commitments, after_sequence)
        if len(chosen) == threshold and links is not None:
            return Attested(tuple(sorted(chosen, key=lambda s: s.operator)), links)
    return None


def _get_order(observation: Observation) -> tuple[int, int, int]:
    return observation.sequence, observation.clock, observation.slot


def _find_links(
    chosen: Sequence[SignedObservation], commitments: Sequence[bytes], after_sequence: int
) -> tuple[bytes, ...] | None:
    seen = sorted((signed.observation for signed in chosen), key=lambda o: o.sequence)
    first, last = seen[0].sequence, seen[-1].sequence
    if last > first and not after_sequence <= first < last <= after_sequence + len(commitments):
        return None
    links = tuple(commitments[first - after_sequence : last - after_sequence]) if last > first else ()
    try:
        _verify_links(seen, links)
    except Rejected:
        return None
    return links
