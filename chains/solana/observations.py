"""When m of n operators stand for a state of a Solana vault: signatures, agreement, evidence. Pure.

Two agreements are judged here. First an operator's own: its endpoints must agree before it signs. Then the committee's: m distinct
operators whose heads lie on one history. The cut takes the lowest sequence, slot and clock of the m, so that every one of them has seen at
least that much; what a set of several numbers says of time, see `verify_attested`.

Source: protocol.md 11, ibc-v2.md 8 (hardening 4 to 6), incidents.md 1E.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
MAX_SLOTS_BEHIND = 64
"""Slots that an endpoint may be behind the median of them: two epochs of finality; farther back it is out of order, or lies about time."""
MAX_CLOCK_BEHIND_S = 30
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
class Fault:
    """What an endpoint's answer did against the others': "other_head", "missing", "behind" or "future", with the words for people."""

    source: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """What enough endpoints agree on, and what was wrong with the answers of the others."""

    observation: Observation
    faults: tuple[Fault, ...]


class NoAgreement(Unavailable):
    """No state has enough endpoints behind it; ``faults`` names those whose answers can be held against them all the same."""

    def __init__(self, what: str, faults: tuple[Fault, ...], *, got: object, expected: object, reason: str) -> None:
        super().__init__(what, got=got, expected=expected, reason=reason)
        self.faults = faults


def compute_needed(endpoints: int) -> int:
    """How many of k endpoints must agree: floor(2 k / 3) + 1; Rejected ("bad_config") below `MIN_ENDPOINTS`."""
    if endpoints < MIN_ENDPOINTS:
        raise Rejected("too few endpoints", got=endpoints, expected=f">= {MIN_ENDPOINTS}", reason="bad_config")
    return 2 * endpoints // 3 + 1


def compute_agreement(readings: Sequence[Reading], now: int) -> Agreement:
    """The state that enough endpoints found: one (sequence, head), with the lowest slot and the lowest clock at which one of them saw it.

    An answer that is far behind the others, or of the future, is no answer: else a single endpoint that understates its slot would hold
    this operator's time where it likes. Of the rest the lowest slot and the lowest clock count, each by itself: no number of liars that
    still leaves one honest endpoint among those that agree can make an absence look longer than it was.

    Args:
        readings: one for each configured endpoint.
        now: unix seconds; clocks may be `MAX_CLOCK_AHEAD_S` ahead of it.

    Raises:
        NoAgreement: "abstain" (no state has enough endpoints behind it: sign nothing), "vault_missing" (enough say there is no vault).
        Rejected: "bad_config", a source answered twice or there are too few.
    """
    needed = compute_needed(len(readings))
    if len({reading.source for reading in readings}) != len(readings):
        raise Rejected("a source answered twice", got=len(readings), reason="bad_config")
    late = find_late(readings, now)
    faults = {fault.source: fault for fault in (*late, *find_contradictions(readings))}
    named = tuple(faults[reading.source] for reading in readings if reading.source in faults)
    if sum(reading.kind is Kind.MISSING for reading in readings) >= needed:
        raise NoAgreement(
            "the vault does not exist, say its endpoints", named, got=None, expected=needed, reason="vault_missing"
        )
    unheard = {fault.source for fault in late}
    found = [r.observation for r in readings if r.observation is not None and r.source not in unheard]
    votes = Counter((o.sequence, o.head) for o in found)
    agreed = [place for place, count in votes.items() if count >= needed]
    if not agreed:
        raise NoAgreement(
            "the endpoints do not agree on one state: nothing is signed",
            named,
            got=dict(Counter(reading.kind.value for reading in readings)),
            expected=f"{needed} of {len(readings)} with one head",
            reason="abstain",
        )
    ((sequence, head),) = agreed  # more than half agree: there is one
    same = [o for o in found if (o.sequence, o.head) == (sequence, head)]
    slot, clock = min(o.slot for o in same), min(o.clock for o in same)
    return Agreement(Observation(same[0].vault_id, slot, clock, sequence, head), named)


def find_late(readings: Sequence[Reading], now: int) -> tuple[Fault, ...]:
    """Answers far behind the median slot or clock ("behind"), and those with a clock of the future ("future").

    With enough answers the lower median lies between those of two honest endpoints: needed > 2 (k - needed).
    """
    found = [(reading.source, reading.observation) for reading in readings if reading.observation is not None]
    latest = now + MAX_CLOCK_AHEAD_S
    future = tuple(
        Fault(source, "future", f"a clock {o.clock - now} s ahead of this node's")
        for source, o in found
        if o.clock > latest
    )
    rest = [(source, o) for source, o in found if o.clock <= latest]
    if not rest:
        return future
    slot = sorted(o.slot for _, o in rest)[(len(rest) - 1) // 2]
    clock = sorted(o.clock for _, o in rest)[(len(rest) - 1) // 2]
    behind = tuple(
        Fault(source, "behind", f"{slot - o.slot} slots and {clock - o.clock} s behind the other endpoints")
        for source, o in rest
        if o.slot < slot - MAX_SLOTS_BEHIND or o.clock < clock - MAX_CLOCK_BEHIND_S
    )
    return future + behind


def find_contradictions(readings: Sequence[Reading]) -> tuple[Fault, ...]:
    """Answers that can't be true beside those of as many others or more: another head for the number ("other_head"), no vault ("missing").

    Where two answers weigh the same, both are named: one of them lies.
    """
    heads = Counter((r.observation.sequence, r.observation.head) for r in readings if r.observation is not None)
    count_found, count_missing = sum(heads.values()), sum(r.kind is Kind.MISSING for r in readings)
    faults = []
    for reading in readings:
        o = reading.observation
        if o is not None:
            most = max(
                (n for (sequence, head), n in heads.items() if sequence == o.sequence and head != o.head), default=0
            )
            if most >= heads[o.sequence, o.head]:
                detail = f"head 0x{o.head.hex()} for number {o.sequence}, where {most} say otherwise"
                faults.append(Fault(reading.source, "other_head", detail))
        elif reading.kind is Kind.MISSING and count_found >= count_missing:
            faults.append(Fault(reading.source, "missing", f"no vault there, where {count_found} found it"))
    return tuple(faults)


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


def verify_attested(vault_id: bytes, sets: Sequence[OperatorSet], update: Attested) -> Trusted:
    """Check that exactly m distinct operators stand for one history; the lowest they have all seen, and the time that m agree on.

    Operators at several numbers stand for the history up to the lowest of them, but who has seen a later one says nothing of the time at which
    that was the last: one liar with the lowest number and a late clock could make an absence out of the others' word. So time is what m
    operators say who had seen no later number (``update.timed``): the honest among them looked before the next packet came.

    Rejected: "too_few", "too_many", "repeated_signer" (operators must ascend), "wrong_link" (heads that do not lie on one history), "no_set",
    "untimed" (several numbers, and no m operators that were at none of the later ones), "two_sets" (statements from before and after the
    instant of a rotation, of the history and of its time together), "malformed", and the reasons of `verify_observation`.
    """
    operators = _verify_signers(vault_id, sets, update.observations)
    seen = sorted((s.observation for s in update.observations), key=lambda o: o.sequence)
    _verify_links(seen, update.commitments)
    return Trusted(
        vault_id=vault_id,
        sequence=seen[0].sequence,
        slot=min(o.slot for o in seen),
        clock=_verify_time(vault_id, sets, operators, update),
        head=seen[0].head,
        m=operators.threshold,
        n=len(operators.operators),
    )


def _verify_signers(
    vault_id: bytes, sets: Sequence[OperatorSet], observations: Sequence[SignedObservation]
) -> OperatorSet:
    """The set in force at every one of the clocks, of which exactly m signed, each once.

    Two of the former set and two of the next are m of neither, and who left says nothing after the instant beside one who spoke before it.
    """
    count = len(observations)
    if not count:
        raise Rejected("no operator stands for this", got=0, reason="too_few")
    clocks = [signed.observation.clock for signed in observations]
    operators = get_operator_set(sets, min(clocks))
    if operators != get_operator_set(sets, max(clocks)):
        raise Rejected(
            "said before and after the instant of a rotation",
            got=(min(clocks), max(clocks)),
            expected="one operator set",
            reason="two_sets",
        )
    if count < operators.threshold:
        raise Rejected("too few operators", got=count, expected=operators.threshold, reason="too_few")
    if count > min(operators.threshold, MAX_OPERATORS):
        raise Rejected("more operators than are needed", got=count, expected=operators.threshold, reason="too_many")
    if any(a.operator >= b.operator for a, b in pairwise(observations)):
        raise Rejected("operators must ascend", got=count, reason="repeated_signer")
    for signed in observations:
        verify_observation(signed, vault_id, operators.operators)
    return operators


def _verify_time(vault_id: bytes, sets: Sequence[OperatorSet], operators: OperatorSet, update: Attested) -> int:
    timed, lowest = update.timed, min((s.observation for s in update.observations), key=lambda o: o.sequence)
    if is_one_number(update.observations):
        if timed:
            raise Rejected(
                "observations at one number say what time it is themselves", got=len(timed), reason="malformed"
            )
        timed = update.observations
    else:
        if not timed or not all(_is_before(signed.observation, lowest) for signed in timed):
            raise Rejected("observations at several numbers say no time", got=len(timed), reason="untimed")
        # Else those who left could put a history of their own under the time that others tell: theirs is public.
        if _verify_signers(vault_id, sets, timed) != operators:
            raise Rejected(
                "the history is of one operator set and its time of another",
                got=max(signed.observation.clock for signed in timed),
                expected=f"a clock of the set since {operators.since}",
                reason="two_sets",
            )
    return min(signed.observation.clock for signed in timed)


def _is_before(o: Observation, lowest: Observation) -> bool:
    """Whether an observation is at no later number than another: at an earlier one, or at the same with the same head."""
    return o.sequence < lowest.sequence or (o.sequence, o.head) == (lowest.sequence, lowest.head)


def is_one_number(observations: Sequence[SignedObservation]) -> bool:
    """Whether all of them saw the vault at one number with one head: only then they say that nothing came after it."""
    return len({(signed.observation.sequence, signed.observation.head) for signed in observations}) == 1


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

    Rejected: "future", "old" (sequence or clock below what counts already, or no later slot), and the reasons of `verify_attested`.
    Conflict ("two_heads"): m operators stand for another head of the number that is on record.
    """
    after = verify_first(trusted.vault_id, sets, update, now)
    if after.sequence == trusted.sequence and after.head != trusted.head:
        raise Conflict("operators stand for two heads", got=after.head, expected=trusted.head, reason="two_heads")
    if after.slot <= trusted.slot or after.sequence < trusted.sequence or after.clock < trusted.clock:
        raise Rejected(
            "a state of the past",
            got=(after.slot, after.sequence, after.clock),
            expected=(f"> {trusted.slot}", f">= {trusted.sequence}", f">= {trusted.clock}"),
            reason="old",
        )
    return after


def verify_first(vault_id: bytes, sets: Sequence[OperatorSet], update: Attested, now: int) -> Trusted:
    """The first state that counts: `verify_attested`; Rejected also "future"."""
    after = verify_attested(vault_id, sets, update)
    if after.clock > now + MAX_CLOCK_AHEAD_S:
        raise Rejected(
            "a clock of the future", got=after.clock, expected=f"<= {now + MAX_CLOCK_AHEAD_S}", reason="future"
        )
    return after


def choose_attested(
    observations: Sequence[SignedObservation],
    threshold: int,
    commitments: Sequence[bytes],
    after_sequence: int,
    trusted: Trusted | None = None,
    standing: Attested | None = None,
) -> Attested | None:
    """The best m of the observations at hand, one an operator, that make a newer state count (`verify_update`, `verify_first`).

    First m operators at one number, the highest where they are. Else m operators on one history, highest numbers first, and the latest time
    that m say who had seen nothing later: anybody may pay for a packet in every slot, so that they never meet at one number.

    Args:
        observations: verified ones of one vault, several of each operator, also of before what counts already: they tell the time.
        threshold: m.
        commitments: those of the packets ``after_sequence + 1``, ``+ 2`` ..., as far as this node has them.
        after_sequence: number of the packet before the first commitment.
        trusted: what counts already; None before the first.
        standing: what made it count, where that is at hand.

    Returns:
        None where no m of them agree on anything newer, or the packets between them are not at hand.
    """
    # one observation that is not above what counts would make a set "old", however good the others are
    above = [signed for signed in observations if trusted is None or _is_above(signed.observation, trusted)]
    chosen = _choose_one_number(above, threshold)
    if chosen is not None:
        return chosen
    newer = [signed for signed in above if trusted is None or signed.observation.sequence > trusted.sequence]
    chosen = _choose_one_history(newer, threshold, commitments, after_sequence)
    if chosen is None:
        return None
    timed = _choose_timed(observations, threshold, chosen, standing)
    if timed is None or (trusted is not None and _get_time(timed) < trusted.clock):
        return None
    return replace(chosen, timed=timed)


def _choose_timed(
    observations: Sequence[SignedObservation], threshold: int, chosen: Attested, standing: Attested | None
) -> tuple[SignedObservation, ...] | None:
    """Of m operators that had seen nothing later than the lowest of a set, those that say the latest time; what said it before where none do."""
    lowest = min((signed.observation for signed in chosen.observations), key=lambda o: o.sequence)
    latest: dict[bytes, SignedObservation] = {}
    for signed in observations:
        known = latest.get(signed.operator)
        if _is_before(signed.observation, lowest) and (
            known is None or known.observation.clock < signed.observation.clock
        ):
            latest[signed.operator] = signed
    ranked = sorted(latest.values(), key=lambda s: (s.observation.clock, s.operator), reverse=True)[:threshold]
    before = None if standing is None else standing.timed or standing.observations
    if len(ranked) < threshold or (before is not None and _get_time(ranked) <= _get_time(before)):
        return before
    return tuple(sorted(ranked, key=lambda s: s.operator))


def _get_time(observations: Sequence[SignedObservation]) -> int:
    return min(signed.observation.clock for signed in observations)


def _is_above(o: Observation, trusted: Trusted) -> bool:
    return o.slot > trusted.slot and o.sequence >= trusted.sequence and o.clock >= trusted.clock


def _choose_one_number(observations: Sequence[SignedObservation], threshold: int) -> Attested | None:
    """M operators at the highest number that m have seen with one head, each by its latest look at it."""
    places: dict[tuple[int, bytes], dict[bytes, SignedObservation]] = {}
    for signed in observations:
        o = signed.observation
        latest = places.setdefault((o.sequence, o.head), {})
        known = latest.get(signed.operator)
        if known is None or _get_order(known.observation) < _get_order(o):
            latest[signed.operator] = signed
    for place in sorted(places, reverse=True):
        ranked = sorted(places[place].values(), key=lambda s: (_get_order(s.observation), s.operator), reverse=True)
        if len(ranked) >= threshold:
            return Attested(tuple(sorted(ranked[:threshold], key=lambda s: s.operator)))
    return None


def _choose_one_history(
    observations: Sequence[SignedObservation], threshold: int, commitments: Sequence[bytes], after_sequence: int
) -> Attested | None:
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
