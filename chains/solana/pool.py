"""What operators have said of one vault, verified and bounded: the reader chooses from it what counts. Pure, in memory.

Nothing here is a fact. An operator has one head for each number: a second one is evidence against it and is not kept. Statements are lost
with the process; operators say them again every few seconds.

Source: protocol.md 11, ibc-v2.md 8 (hardening 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from chains.base import Accepted
from chains.solana.codec import decode_observation, encode_observation
from chains.solana.observations import MAX_CLOCK_AHEAD_S, get_operator_set, verify_equivocation, verify_observation
from chains.solana.rotation import Succession, get_set
from chains.solana.types import Handover, OperatorSet, SignedObservation
from chains.solana.verifier import SolanaRules
from messages.errors import Rejected

KEPT_PER_OPERATOR = 8
"""Numbers of an operator that the reader may choose from: what it said before a later packet came tells the time of an earlier one."""

MAX_HEADS_PER_OPERATOR = 512
"""Numbers of an operator whose head is remembered, so that a second head for one of them is noticed."""


class Pool:
    """The statements of one vault's operators, newest first; shared by the observer and the reader of one chain."""

    def __init__(self, rules: SolanaRules) -> None:
        self._rules = rules
        self._known = Succession(rules.sets)
        self._newest: dict[bytes, dict[int, SignedObservation]] = {}
        self._first: dict[bytes, dict[int, SignedObservation]] = {}
        self._now = 0

    @property
    def sets(self) -> tuple[OperatorSet, ...]:
        """Who signs, from when on: the sets of the settings, and those that were proven since."""
        return self._known.sets

    @property
    def handovers(self) -> tuple[Handover, ...]:
        """What proves the sets after those of the settings; oldest first."""
        return self._known.handovers

    def learn(self, handovers: Sequence[Handover], now: int = 0) -> bool:
        """Walk on to the next operators; True if there are any. ``now`` in unix seconds: a set in force by then is replaced by nothing.

        Rejected: as `rotation.follow`.
        """
        before = self._known
        self._known = self._rules.follow(before.handovers, handovers, now)
        return self._known.sets != before.sets

    def get_missing(self, handovers: Sequence[Handover]) -> tuple[Handover, ...]:
        """The known handovers to sets that these do not lead to."""
        there = {get_set(handover.rotation) for handover in handovers}
        return tuple(handover for handover in self.handovers if get_set(handover.rotation) not in there)

    def add(self, signed: SignedObservation, now: int) -> Accepted:
        """Verify a statement and keep it; ``now`` in unix seconds.

        The first head that an operator signed for a number stays: another one comes back as evidence and serves nothing.

        Raises:
            Rejected: "future" (clock more than `MAX_CLOCK_AHEAD_S` ahead), "no_set", and as `observations.verify_observation`.
        """
        o, operator = signed.observation, signed.operator
        if o.clock > now + MAX_CLOCK_AHEAD_S:
            raise Rejected(
                "a clock of the future", got=o.clock, expected=f"<= {now + MAX_CLOCK_AHEAD_S}", reason="future"
            )
        operators = get_operator_set(self.sets, o.clock).operators
        self._now = max(self._now, now)
        known = self._newest.get(operator, {}).get(o.sequence)
        if known == signed:
            return _accept(signed, is_news=False)
        verify_observation(signed, self._rules.vault_id, operators)
        heads = self._first.setdefault(operator, {})
        first = heads.setdefault(o.sequence, signed)
        if first.observation.head != o.head:
            return _accept(signed, is_news=False, evidence=(encode_observation(first), encode_observation(signed)))
        while len(heads) > MAX_HEADS_PER_OPERATOR:
            del heads[next(iter(heads))]
        if known is not None and (o.clock, o.slot) <= (known.observation.clock, known.observation.slot):
            return _accept(signed, is_news=False)
        newest = self._newest.setdefault(operator, {})
        newest[o.sequence] = signed
        if len(newest) > KEPT_PER_OPERATOR:
            del newest[min(newest)]
        return _accept(signed, is_news=o.sequence in newest)

    def get_threshold(self) -> int:
        """How many of the operators in force are needed; Rejected ("no_set") before the first."""
        return get_operator_set(self.sets, self._now).threshold

    def is_in_force(self, clock: int) -> bool:
        """Whether a time (unix seconds) lies in that of the set whose statements count now; Rejected ("no_set") before the first."""
        in_force = get_operator_set(self.sets, self._now)
        until = next((b.since for a, b in pairwise(self.sets) if a == in_force), None)
        return in_force.since <= clock and (until is None or clock < until)

    def get_observations(self) -> tuple[SignedObservation, ...]:
        """The newest statement for each of the newest numbers of every operator in force, made while that set is in force.

        A clock may be ahead: what is said of a time after the next rotation counts once that time has come.
        """
        if not self._now:
            return ()
        return tuple(
            signed
            for operator in get_operator_set(self.sets, self._now).operators
            for _, signed in sorted(self._newest.get(operator, {}).items(), reverse=True)
            if self.is_in_force(signed.observation.clock)
        )


def verify_statements(vault_id: bytes, operators: Sequence[bytes], first: bytes, second: bytes) -> bytes:
    """As `verify_evidence`, judged by an operator set that is given (20 bytes each), whatever the time of the statements."""
    a, b = decode_observation(first), decode_observation(second)
    if a.observation.vault_id != vault_id:
        raise Rejected("of another vault", got=a.observation.vault_id, expected=vault_id, reason="wrong_vault")
    verify_equivocation(a, b, operators)
    return a.operator


def verify_evidence(
    rules: SolanaRules, first: bytes, second: bytes, sets: Sequence[OperatorSet] | None = None
) -> bytes:
    """The operator (20 bytes) that signed two heads for one number of the vault, from the two statements as they were published.

    Args:
        rules: of the vault.
        first: a statement.
        second: another one.
        sets: who signs, from when on; None: as the settings say.

    Raises:
        Rejected: "no_equivocation", "malformed", "wrong_vault" and the other reasons of `observations.verify_equivocation`.
    """
    a, b = decode_observation(first), decode_observation(second)
    if a.observation.vault_id != rules.vault_id:
        raise Rejected("of another vault", got=a.observation.vault_id, expected=rules.vault_id, reason="wrong_vault")
    for signed in (a, b):  # a rotation may lie between the two
        in_force = get_operator_set(rules.sets if sets is None else sets, signed.observation.clock)
        verify_observation(signed, rules.vault_id, in_force.operators)
    verify_equivocation(a, b, (a.operator,))
    return a.operator


def _accept(signed: SignedObservation, *, is_news: bool, evidence: tuple[bytes, bytes] | None = None) -> Accepted:
    o = signed.observation
    return Accepted(signed.operator, o.sequence, o.head, o.slot, o.clock, is_news, evidence)
