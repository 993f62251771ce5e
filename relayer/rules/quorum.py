"""The committee: slots, votes, signatures, open packets, evidence (protocol.md 8). Pure.

Nothing here knows a clock, a store or a network: time and records are arguments, results are values. A duplicate or a missing
quorum is a value; an invalid statement is `Rejected`; two statements that exclude each other come back as `Equivocation`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise

from messages.bodies import DecideTrades, DecideWithdrawals, Execute
from messages.digests import (
    Certificate,
    compute_packet_digest,
    compute_statement_digest,
    compute_vote_digest,
    recover_signer,
    verify_certificate,
    verify_operators,
)
from messages.documents import (
    OpenPacket,
    Proposal,
    Vote,
    compute_digest,
    decode_document,
    encode_document,
)
from messages.errors import Rejected
from messages.packet import Packet, compute_commitment
from messages.wire import decode_envelope, verify_envelope
from relayer.rules.plan import finalize_packet, get_body
from relayer.rules.statements import Equivocation, SignedParameters, SignedPlan, SignedState

MAX_K_AHEAD = 64
"""How far above its own k a node keeps what others say: proposals that wait, votes that may add up."""

MAX_CLOCK_SKEW_S = 30
"""How far the time of a market snapshot may be from a signer's own clock (protocol.md 5)."""

MAX_OPEN_PACKETS = 256
PARAMETERS_STATEMENT = "Parameters"
MAX_STATE_BYTES = 8_192
"""An operator's statement about a vault, as it travels."""

VerifyStatements = Callable[[bytes, bytes, bytes], bytes]
"""(vault id, first statement, second statement) -> the operator that contradicts itself with them; Rejected where nobody does."""


@dataclass(frozen=True, slots=True)
class Committee:
    """An operator set in force: id (salt of off-chain statements), epoch, addresses ascending, threshold m with 3m > 2n.

    Raises:
        Rejected: n or m make no quorum, or addresses repeat, are zero or out of order; reason ``bad_operators``.
    """

    id: bytes
    epoch: int
    operators: tuple[bytes, ...]
    threshold: int

    def __post_init__(self) -> None:
        verify_operators(self.operators, self.threshold)
        if len(self.id) != 32 or self.id == bytes(32):
            raise Rejected("a committee id has 32 bytes and is not zero", got=self.id, reason="bad_operators")


# ---- slots --------------------------------------------------------------------------------------------------------------


def get_proposer(committee: Committee, k: int, r: int) -> bytes:
    """operators[(k + r) mod n] (protocol.md 8.1)."""
    return committee.operators[(k + r) % len(committee.operators)]


def get_slot(base_k: int, since: int | None, now: int, patience_s: int, count: int) -> tuple[int, int]:
    """Which proposal (k, r) is due (protocol.md 8.1).

    Args:
        base_k: the lowest k that is neither certified nor given up.
        since: when this node first saw work for ``base_k`` (unix seconds), None while there is none.
        now: unix seconds.
        patience_s: time each proposer has.
        count: operators; after all of them had their turn, the next k begins.
    """
    if since is None or patience_s <= 0:
        return base_k, 0
    turns = max(0, now - since) // patience_s
    return base_k + turns // count, turns % count


class SlotVerdict(Enum):
    """What to do with a proposal by its slot alone."""

    DUE = "due"
    EARLY = "early"


def verify_slot(
    proposal: Proposal, sender: bytes, committee: Committee, slot: tuple[int, int], highest_signed_k: int
) -> SlotVerdict:
    """Judge a proposal by its slot: right proposer, not below what this node signed, not ahead of its time.

    An early one is kept and looked at again: if round r + 1 could begin whenever its proposer likes, one operator could split
    the votes of every k. So could it with a higher k, shown to one node at a time: who has voted there signs nothing below any more.
    A higher k is due once a certificate, enough peers (`get_peers_slot`) or patience have brought this node there.

    Args:
        proposal: with its (k, r) and proposer.
        sender: who signed the envelope.
        committee: in force.
        slot: `get_slot` of this node now.
        highest_signed_k: from the journal; a node signs nothing of a lower k after a higher (protocol.md 8.1).

    Raises:
        Rejected: ``wrong_proposer``, ``old_k``, ``far_k``.
    """
    expected = get_proposer(committee, proposal.k, proposal.r)
    if proposal.proposer != expected or sender != expected:
        raise Rejected("another operator proposes in this slot", got=sender, expected=expected, reason="wrong_proposer")
    if proposal.k < max(highest_signed_k, slot[0] - 1):
        raise Rejected(
            "this k is over", got=proposal.k, expected=f">= {max(highest_signed_k, slot[0] - 1)}", reason="old_k"
        )
    if proposal.k > slot[0] + MAX_K_AHEAD:
        raise Rejected(
            "this k is too far ahead", got=proposal.k, expected=f"<= {slot[0] + MAX_K_AHEAD}", reason="far_k"
        )
    is_due = proposal.k < slot[0] or (proposal.k == slot[0] and proposal.r <= slot[1])
    return SlotVerdict.DUE if is_due else SlotVerdict.EARLY


# ---- votes --------------------------------------------------------------------------------------------------------------


class Added(Enum):
    """What adding one statement did."""

    DUPLICATE = "duplicate"
    NO_QUORUM_YET = "no quorum yet"
    CERTIFIED = "certified"


@dataclass(frozen=True, slots=True)
class Ballot:
    """The votes of one k, by (operator, r). At most n * n of them are kept."""

    k: int
    votes: tuple[Vote, ...] = ()


def verify_vote(vote: Vote, committee: Committee) -> None:
    """Check that a current operator signed the vote (protocol.md 8.2); Rejected ``not_operator`` or ``bad_signature``."""
    if vote.operator not in committee.operators:
        raise Rejected("a vote of nobody in the set", got=vote.operator, reason="not_operator")
    signer = recover_signer(compute_vote_digest(committee.id, vote.k, vote.r, vote.plan_digest), vote.signature)
    if signer != vote.operator:
        raise Rejected("a vote signed by somebody else", got=signer, expected=vote.operator, reason="bad_signature")


def add_vote(ballot: Ballot, vote: Vote, committee: Committee) -> tuple[Ballot, Added, Equivocation | None]:
    """Add one vote; a bad one harms nobody else's.

    Returns:
        The next ballot, what the vote did (CERTIFIED: its plan has m votes now, or had them already with this one counted),
        and evidence if the operator has voted differently in the same slot (then the first vote stays).

    Raises:
        Rejected: ``wrong_slot``, ``not_operator``, ``bad_signature``.
    """
    if vote.k != ballot.k or not 0 <= vote.r < 2 * len(committee.operators):
        raise Rejected("a vote of another slot", got=(vote.k, vote.r), expected=ballot.k, reason="wrong_slot")
    verify_vote(vote, committee)
    for known in ballot.votes:
        if (known.operator, known.r) == (vote.operator, vote.r):
            if known.plan_digest == vote.plan_digest:
                return ballot, Added.DUPLICATE, None
            return ballot, Added.DUPLICATE, compute_vote_equivocation(known, vote)
    after = replace(ballot, votes=(*ballot.votes, vote))
    is_certified = len(get_voters(after, vote.plan_digest)) >= committee.threshold
    return after, Added.CERTIFIED if is_certified else Added.NO_QUORUM_YET, None


def get_voters(ballot: Ballot, plan_digest: bytes) -> tuple[bytes, ...]:
    """Distinct operators that voted for a plan in any round of k, ascending."""
    return tuple(sorted({v.operator for v in ballot.votes if v.plan_digest == plan_digest}))


def get_certified_plan(ballot: Ballot, committee: Committee) -> bytes | None:
    """The plan with m votes, the one certified first if a faulty set voted twice; None while there is none."""
    for i in range(len(ballot.votes)):
        digest = ballot.votes[i].plan_digest
        if len(get_voters(replace(ballot, votes=ballot.votes[: i + 1]), digest)) >= committee.threshold:
            return digest
    return None


def get_quorum_votes(ballot: Ballot, plan_digest: bytes, committee: Committee) -> tuple[Vote, ...]:
    """Exactly m votes of distinct operators for a plan, ascending by operator; () while there are fewer."""
    chosen: dict[bytes, Vote] = {}
    for vote in sorted(ballot.votes, key=lambda v: (v.operator, v.r)):
        if vote.plan_digest == plan_digest:
            chosen.setdefault(vote.operator, vote)
    return tuple(chosen.values())[: committee.threshold] if len(chosen) >= committee.threshold else ()


def verify_quorum(votes: Sequence[Vote], k: int, plan_digest: bytes, committee: Committee) -> None:
    """Check that these are m votes of distinct operators for one plan of one k (protocol.md 8.2, 8.3).

    Raises:
        Rejected: ``no_quorum``, ``wrong_slot``, ``not_operator``, ``bad_signature``.
    """
    if len(votes) > len(committee.operators) or len({v.operator for v in votes}) != len(votes):
        raise Rejected("votes must be of distinct operators", got=len(votes), reason="no_quorum")
    if len(votes) < committee.threshold:
        raise Rejected("fewer votes than m", got=len(votes), expected=committee.threshold, reason="no_quorum")
    for vote in votes:
        if vote.k != k or vote.plan_digest != plan_digest:
            raise Rejected("a vote for another plan", got=vote.plan_digest, expected=plan_digest, reason="wrong_slot")
        verify_vote(vote, committee)


def get_peers_slot(
    ballots: Collection[Ballot],
    committee: Committee,
    farthest: Mapping[bytes, tuple[int, int]] | None = None,
    enough: int | None = None,
) -> tuple[int, int]:
    """The highest slot that more operators than may be faulty have reached: a node that is behind follows it.

    n - m + 1 votes hold at least one of an honest operator whose patience was over; (0, 0) while nobody voted.

    Args:
        ballots: verified votes, of any k.
        committee: in force.
        farthest: by operator the highest slot of a verified vote that is kept in no ballot.
        enough: how many operators, if not n - m + 1.
    """
    reached = dict(farthest or {})
    for ballot in ballots:
        for vote in ballot.votes:
            reached[vote.operator] = max(reached.get(vote.operator, (0, 0)), (vote.k, vote.r))
    if enough is None:
        enough = len(committee.operators) - committee.threshold + 1
    slots = sorted((slot for operator, slot in reached.items() if operator in committee.operators), reverse=True)
    return slots[enough - 1] if len(slots) >= enough else (0, 0)


# ---- packet signatures --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PacketBallot:
    """The signatures of one inbox packet, by operator."""

    vault_id: bytes
    operator_epoch: int
    packet: Packet
    signatures: tuple[tuple[bytes, bytes], ...] = ()


def add_signature(
    ballot: PacketBallot, operator: bytes, signature: bytes, committee: Committee
) -> tuple[PacketBallot, Added]:
    """Add one packet signature; a bad one harms nobody else's.

    Raises:
        Rejected: ``not_operator``, ``bad_signature``.
    """
    if any(known == operator for known, _ in ballot.signatures):
        return ballot, Added.DUPLICATE
    if operator not in committee.operators:
        raise Rejected("a signature of nobody in the set", got=operator, reason="not_operator")
    digest = compute_packet_digest(
        ballot.vault_id, ballot.operator_epoch, ballot.packet.sequence, compute_commitment(ballot.packet)
    )
    if recover_signer(digest, signature) != operator:
        raise Rejected("a packet signed by somebody else", expected=operator, reason="bad_signature")
    after = replace(ballot, signatures=tuple(sorted((*ballot.signatures, (operator, signature)))))
    is_certified = len(after.signatures) >= committee.threshold
    return after, Added.CERTIFIED if is_certified else Added.NO_QUORUM_YET


def get_certificate(ballot: PacketBallot, committee: Committee) -> Certificate | None:
    """The certificate with exactly m signatures, lowest addresses first, checked as the vault will; None before."""
    if len(ballot.signatures) < committee.threshold:
        return None
    chosen = tuple(signature for _, signature in ballot.signatures[: committee.threshold])
    certificate = Certificate(ballot.packet, ballot.vault_id, ballot.operator_epoch, chosen)
    verify_certificate(certificate, committee.operators, committee.threshold)
    return certificate


# ---- open packets -------------------------------------------------------------------------------------------------------


class Fate(Enum):
    """What a cut says of a packet with m votes (protocol.md 2, 8.3)."""

    OPEN = "open"
    ANSWERED = "answered"
    ABSENT = "absent"


def get_fate(sequence: int, timeout: int, inbox_sequence: int, state_time: int) -> Fate:
    """What a vault's proven state says of inbox packet ``sequence``.

    Args:
        sequence: its number.
        timeout: unix seconds; `recv` takes it only in a block with time < timeout.
        inbox_sequence: highest number that an Ack among the facts answers.
        state_time: unix seconds of the proven state.
    """
    if inbox_sequence >= sequence:
        return Fate.ANSWERED
    return Fate.ABSENT if state_time >= timeout else Fate.OPEN


def verify_open_packets(
    listed: Sequence[OpenPacket],
    own: Collection[tuple[bytes, int, bytes]],
    positions: Mapping[bytes, tuple[int, int]],
    committee: Committee,
) -> None:
    """Check the open packets a proposal lists: all of ours are there, each has its m votes, none is settled (8.3).

    What they say is not judged here: votes are for a plan, and that a packet is in it only the plan itself shows.

    Args:
        listed: from the proposal: open ones, and those proven absent whose number is not used up (the plan halves its limit
            by them).
        own: (vault id, sequence, plan digest) of each packet this node knows to have m votes, or has signed, and that the
            proposed cut does not settle.
        positions: per vault id (inbox sequence, state time) at the proposed cut.
        committee: in force.

    Raises:
        Rejected: ``open_missing``, ``open_order``, ``open_settled``, ``open_vault``, or as `verify_quorum`.
    """
    # Two plans of one k may both have m votes, and carry one number with one timeout while the cut stands still.
    keys = [(p.vault_id, p.sequence, p.timeout, p.plan_digest) for p in listed]
    if len(listed) > MAX_OPEN_PACKETS or any(a >= b for a, b in pairwise(keys)):
        raise Rejected(
            "open packets ascend by (vault, number, timeout, plan), each once", got=len(listed), reason="open_order"
        )
    missing = set(own) - {(p.vault_id, p.sequence, p.plan_digest) for p in listed}
    if missing:
        vault_id, sequence, _ = min(missing)
        raise Rejected(
            "the proposal forgets an open packet",
            got=f"{len(missing)} missing, first {vault_id.hex()} {sequence}",
            reason="open_missing",
        )
    for p in listed:
        if p.vault_id not in positions:
            raise Rejected("an open packet of an unknown vault", got=p.vault_id, reason="open_vault")
        if get_fate(p.sequence, p.timeout, *positions[p.vault_id]) is Fate.ANSWERED:
            raise Rejected("a listed packet is answered at this cut", got=p.sequence, reason="open_settled")
        if p.operator_epoch != committee.epoch and (p.vault_id, p.sequence, p.plan_digest) in own:
            continue  # a rotation came: its votes are on record here, checked against the set that was in force then
        if not p.votes:
            raise Rejected("an open packet without votes", got=p.sequence, reason="no_quorum")
        verify_quorum(p.votes, p.votes[0].k, p.plan_digest, committee)


# ---- parameters ---------------------------------------------------------------------------------------------------------


def compute_parameters_statement(committee: Committee, digest: bytes) -> bytes:
    """What an operator signs to put a parameter set in force (data.md 2)."""
    return compute_statement_digest(committee.id, PARAMETERS_STATEMENT, digest)


def verify_parameters(signed: SignedParameters, digest: bytes, effective: int, now: int, committee: Committee) -> None:
    """Check that m operators signed a parameter set and that it is in force (data.md 2).

    Raises:
        Rejected: ``parameters_digest``, ``not_effective``, ``no_quorum``, ``not_operator``, ``bad_signature``.
    """
    if signed.digest != digest:
        raise Rejected("signatures of other parameters", got=signed.digest, expected=digest, reason="parameters_digest")
    if now < effective:
        raise Rejected(
            "these parameters are not in force yet", got=now, expected=f">= {effective}", reason="not_effective"
        )
    if len(signed.signatures) > len(committee.operators):
        raise Rejected("more signatures than operators", got=len(signed.signatures), reason="no_quorum")
    statement = compute_parameters_statement(committee, digest)
    signers = {recover_signer(statement, signature) for signature in signed.signatures}
    if not signers <= set(committee.operators):
        raise Rejected("signed by nobody in the set", reason="not_operator")
    if len(signers) < committee.threshold:
        raise Rejected(
            "fewer operators than m signed", got=len(signers), expected=committee.threshold, reason="no_quorum"
        )


# ---- evidence -----------------------------------------------------------------------------------------------------------


def compute_vote_equivocation(first: Vote, second: Vote) -> Equivocation:
    """The portable proof of two votes in one slot, in one order whoever saw which first."""
    a, b = sorted((_encode(first), _encode(second)))
    return Equivocation("vote", first.operator, a, b)


def compute_proposal_equivocation(operator: bytes, first: bytes, second: bytes) -> Equivocation:
    """The portable proof of two proposals in one slot, from their encoded envelopes."""
    a, b = sorted((first, second))
    return Equivocation("proposal", operator, a, b)


def compute_packets_equivocation(operator: bytes, first: SignedPlan, second: SignedPlan) -> Equivocation:
    """The portable proof that one operator signed packets of two plans of one k."""
    a, b = sorted((_encode(_only(first, operator)), _encode(_only(second, operator))))
    return Equivocation("packets", operator, a, b)


def compute_observation_equivocation(operator: bytes, vault_id: bytes, first: bytes, second: bytes) -> Equivocation:
    """The portable proof that one operator signed two heads under one number of a vault, from the statements as they were published."""
    a, b = sorted(encode_document(SignedState(vault_id, statement)) for statement in (first, second))
    return Equivocation("observation", operator, a, b)


def refuse_statements(vault_id: bytes, first: bytes, second: bytes) -> bytes:
    """Judge of statements about vaults where no family is known: Rejected (``unknown_vault``)."""
    del first, second
    raise Rejected("statements about a vault of no known family", got=vault_id, reason="unknown_vault")


def verify_equivocation(
    evidence: Equivocation, committee: Committee, verify_statements: VerifyStatements = refuse_statements
) -> None:
    """Check that two statements of one operator exclude each other (protocol.md 8.6).

    Args:
        evidence: what is claimed.
        committee: the set that the operator belonged to.
        verify_statements: judges two statements about a vault, which only its family can read.

    Raises:
        Rejected: ``no_equivocation``, or why one of the statements is not sound.
    """
    if evidence.operator not in committee.operators:
        raise Rejected("evidence about nobody in the set", got=evidence.operator, reason="not_operator")
    if evidence.kind == "observation":
        states = [
            decode_document(SignedState, data, max_bytes=MAX_STATE_BYTES) for data in (evidence.first, evidence.second)
        ]
        if states[0].vault_id != states[1].vault_id:
            raise Rejected("statements about two vaults", got=states[1].vault_id, reason="no_equivocation")
        author = verify_statements(states[0].vault_id, states[0].statement, states[1].statement)
        _verify_author(author, evidence.operator)
        return
    get_slot_of = _STATEMENTS.get(evidence.kind)
    if get_slot_of is None:
        raise Rejected("unknown kind of evidence", got=evidence.kind, reason="no_equivocation")
    slots = [get_slot_of(data, evidence.operator, committee) for data in (evidence.first, evidence.second)]
    if slots[0][0] != slots[1][0] or slots[0][1] == slots[1][1]:
        raise Rejected("these two statements do not exclude each other", reason="no_equivocation")


def _get_vote_slot(data: bytes, operator: bytes, committee: Committee) -> tuple[tuple[int, ...], bytes]:
    vote = decode_document(Vote, data)
    verify_vote(vote, committee)
    _verify_author(vote.operator, operator)
    return (vote.k, vote.r), vote.plan_digest


def _get_proposal_slot(data: bytes, operator: bytes, committee: Committee) -> tuple[tuple[int, ...], bytes]:
    envelope = decode_envelope(data, MAX_PROPOSAL_ENVELOPE_BYTES)
    verify_envelope(envelope, committee.operators, committee.id)
    _verify_author(envelope.operator, operator)
    proposal = decode_document(Proposal, envelope.body)
    return (proposal.k, proposal.r), compute_digest(proposal)


def _get_packets_slot(data: bytes, operator: bytes, committee: Committee) -> tuple[tuple[int, ...], bytes]:
    signed = decode_document(SignedPlan, data)
    digest = compute_digest(signed.plan)
    for signature in signed.signatures:
        for planned in signed.plan.packets:
            if (planned.vault_id, planned.sequence) != (signature.vault_id, signature.sequence):
                continue
            if not isinstance(get_body(planned), Execute | DecideTrades | DecideWithdrawals):
                continue  # no plan digest inside: an honest signature over it would fit any invented plan
            packet = finalize_packet(planned, digest)
            ballot = PacketBallot(planned.vault_id, planned.operator_epoch, packet)
            add_signature(ballot, signature.operator, signature.signature, committee)
            _verify_author(signature.operator, operator)
            return (signed.plan.k,), digest
    raise Rejected("no signature over a packet of this plan", reason="no_equivocation")


_STATEMENTS = {"vote": _get_vote_slot, "proposal": _get_proposal_slot, "packets": _get_packets_slot}

MAX_PROPOSAL_ENVELOPE_BYTES = 9 * 1024 * 1024
"""A proposal of 8 MiB in its envelope."""


def _verify_author(got: bytes, expected: bytes) -> None:
    if got != expected:
        raise Rejected("a statement of another operator", got=got, expected=expected, reason="no_equivocation")


def _encode(document: Vote | SignedPlan) -> bytes:
    return encode_document(document)


def _only(signed: SignedPlan, operator: bytes) -> SignedPlan:
    own = tuple(s for s in signed.signatures if s.operator == operator)
    return replace(signed, votes=(), signatures=own[:1])
