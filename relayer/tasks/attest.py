"""attest: read the peers' statements; vote for what equals the own plan, sign what has m votes (protocol.md 8).

Nothing in a message counts before it was checked here: envelope, slot, every cut entry, prices, open packets, and at the end
the plan itself, computed again from own facts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

from chains.base import TOO_FAR, Chain, Head, Point, verify_vouched
from messages.digests import compute_packet_digest, recover_signer
from messages.documents import (
    Cut,
    CutEntry,
    Evidence,
    OpenPacket,
    Plan,
    PlannedPacket,
    Proposal,
    SignedMark,
    SignedReport,
    Vote,
    compute_digest,
    decode_document,
    encode_document,
)
from messages.errors import Conflict, Rejected, Unavailable
from messages.outbox import Claim
from messages.packet import Packet, compute_commitment, decode_packet_abi, encode_packet_abi
from messages.wire import DUPLICATE, MAX_ENVELOPE_BYTES, Envelope, decode_envelope, encode_envelope, verify_envelope
from relayer.database import encode_u64
from relayer.killpoints import reach
from relayer.node import MAX_PEER_PACKETS, Node, run_step
from relayer.rules.ledger import Ledger
from relayer.rules.market import get_settlements_needed
from relayer.rules.plan import finalize_packet
from relayer.rules.prices import SETTLEMENT_SLACK_S, verify_mark, verify_report
from relayer.rules.quorum import (
    MAX_CLOCK_SKEW_S,
    MAX_K_AHEAD,
    MAX_PROPOSAL_ENVELOPE_BYTES,
    Added,
    Ballot,
    Committee,
    PacketBallot,
    SlotVerdict,
    add_signature,
    add_vote,
    compute_packets_equivocation,
    compute_proposal_equivocation,
    get_certificate,
    get_peers_slot,
    get_quorum_votes,
    get_slot,
    verify_equivocation,
    verify_open_packets,
    verify_quorum,
    verify_slot,
    verify_vote,
)
from relayer.rules.statements import ArchivePackets, ArchiveRequest, Equivocation, PacketSignature, SignedPlan
from relayer.states import get_positions, get_price_slots
from relayer.store import HeaderRecord, PacketRecord
from relayer.tasks import observe, watch

MESSAGES_PER_STEP = 512
MAX_WAITING = 64
MAX_KEPT_BALLOTS = 2 * MAX_K_AHEAD
PRICE_MEMORY_S = 9_000
"""How far back prices are offered to a snapshot: the newest of each feed and a reference of up to two hours before."""
MAX_EVIDENCE_PER_OPERATOR = 8
ARCHIVE_BATCH = 256
ARCHIVE_BATCH_BYTES = 400_000
ARCHIVE_ANSWERS_PER_S = 8
"""Per operator that asks: a request is small and its answer is not."""
MAX_PEER_BYTES = 256 << 20
"""Payloads that a peer may have sent of one vault: far above what the largest collect needs (about 50 MB)."""


async def step(node: Node) -> None:
    """Read the mail, look again at proposals that had to wait, say again what others may have missed."""
    for _ in range(min(MESSAGES_PER_STEP, len(node.inbox))):
        _, data = node.inbox.take()
        await run_step(node, "node", "gossip", lambda data=data: read(node, data))  # type: ignore[misc]  # bound now
    if node.inbox:
        node.inbox_wake.set()
    write_held_votes(node)
    for slot in sorted(node.progress.waiting):
        envelope = node.progress.waiting.pop(slot, None)
        if envelope is None:
            continue  # while we waited, this slot was over
        await run_step(node, "node", "gossip", lambda e=envelope: accept_proposal(node, e, e.body))  # type: ignore[misc]  # bound now
    await publish_again(node)


async def read(node: Node, data: bytes) -> None:
    """Check one message's envelope and hand its body to whoever reads its kind.

    Raises:
        Rejected: with the operator as source where the envelope was genuine.
    """
    envelope = decode_envelope(data, MAX_PROPOSAL_ENVELOPE_BYTES)
    handler = _HANDLERS.get(envelope.type)
    if handler is None:
        raise Rejected("unknown kind of message", got=envelope.type, reason="unknown_kind")
    # A proposal names everything, and a signed plan carries every packet: signatures travel nowhere else.
    if envelope.type not in ("proposal", "signed_plan") and len(data) > MAX_ENVELOPE_BYTES:
        raise Rejected("message too large", got=len(data), expected=MAX_ENVELOPE_BYTES, reason="size")
    committee = node.get_committee()
    verify_envelope(envelope, committee.operators, node.committee_id)
    node.guard, freshness = node.guard.record(envelope)
    is_echo = (envelope.operator, envelope.boot_id) == (node.signer.operator, node.signer.journal.boot_id)
    if freshness is DUPLICATE or is_echo:
        return
    try:
        await handler(node, envelope, envelope.body)
    except Rejected as error:
        error.source = error.source or f"0x{envelope.operator.hex()}"
        raise


# ---- proposals ----------------------------------------------------------------------------------------------------------


async def accept_proposal(node: Node, envelope: Envelope, body: bytes) -> None:
    """Judge a proposal and vote for it if the own plan is the same.

    Raises:
        Rejected: why not; the proposer is to blame. Unavailable: facts are missing; the proposal waits.
    """
    proposal = read_proposal(body)
    progress, now = node.progress, node.clock.now()
    slot_key = (proposal.k, proposal.r)
    known = progress.proposals.get(slot_key) or progress.judged.get(slot_key)
    digest = compute_digest(proposal)
    if known is not None and known.body != body and compute_digest(read_proposal(known.body)) != digest:
        if known.operator == envelope.operator:
            evidence = compute_proposal_equivocation(
                envelope.operator,
                encode_envelope(known, MAX_PROPOSAL_ENVELOPE_BYTES),
                encode_envelope(envelope, MAX_PROPOSAL_ENVELOPE_BYTES),
            )
            await record_evidence(node, evidence)
        return
    if digest in progress.refused or has_voted(node, proposal.k, proposal.r):
        progress.proposals.setdefault(slot_key, envelope)
        return
    committee = node.get_committee()
    if progress.since is None and proposal.k >= progress.base_k:
        progress.since = now
    slot = follow_peers(node, committee)
    verdict = verify_slot(proposal, envelope.operator, committee, slot, node.signer.journal.highest_k)
    progress.highest_seen_k = max(progress.highest_seen_k, proposal.k)
    if verdict is SlotVerdict.EARLY:
        _keep_waiting(node, slot_key, envelope)
        return
    # The first proposal of a slot is the only one that costs work: a second, different one is evidence (protocol.md 8.6).
    progress.judged[slot_key] = envelope
    try:
        plan = await verify_proposal(node, proposal, committee)
    except Unavailable:
        _keep_waiting(node, slot_key, envelope)
        raise
    except Rejected as error:
        progress.refused.add(digest)
        if error.reason == "open_missing":
            await publish_signed_plans(node, now)
        raise
    progress.proposals[slot_key] = envelope
    progress.accepted_at[slot_key] = now
    await vote(node, proposal, envelope, plan)


def follow_peers(node: Node, committee: Committee) -> tuple[int, int]:
    """The slot that is due here; a node that is behind (late, restarted, cut off) jumps to where the others are."""
    progress, now, count = node.progress, node.clock.now(), len(committee.operators)
    slot = get_slot(progress.base_k, progress.since, now, node.patience_s, count)
    peers = get_peers_slot(progress.ballots.values(), committee, progress.farthest)
    if slot[0] > progress.base_k:
        # Everybody had a turn here in vain. One who waited alone for long may be ahead for ever, for all go on at one pace and nobody
        # signs below what he signed: where another is dead too, m are only together where he is. A liar moves us once a k, and not far.
        alone = get_peers_slot(progress.ballots.values(), committee, progress.farthest, enough=1)
        peers = max(peers, min(alone, (slot[0] + MAX_K_AHEAD, 0)))
    if peers <= slot or peers[0] < progress.base_k:
        return slot
    progress.base_k, progress.since = peers[0], now - peers[1] * node.patience_s
    return peers


def has_voted(node: Node, k: int, r: int) -> bool:
    """Whether this operator's journal holds a vote in a slot."""
    return node.signer.journal.get_value("vote", encode_u64(k) + encode_u64(r)) is not None


def _keep_waiting(node: Node, slot: tuple[int, int], envelope: Envelope) -> None:
    waiting = node.progress.waiting
    waiting[slot] = envelope
    while len(waiting) > MAX_WAITING:
        del waiting[max(waiting)]


async def verify_proposal(node: Node, proposal: Proposal, committee: Committee) -> Plan:
    """Compute the own plan from what a proposal names, every claim in it checked; cheap checks first.

    Raises:
        Rejected: any claim does not hold, or the own plan differs (``plan_mismatch``).
        Unavailable: facts up to the cut could not be had yet. Conflict: the own plan changes somebody's worth.
    """
    if proposal.parameters_digest != node.parameters_digest:
        raise Rejected(
            "the proposal was made under other parameters", got=proposal.parameters_digest,
            expected=node.parameters_digest, reason="parameters",
        )  # fmt: skip
    if [e.vault_id for e in proposal.cut.entries] != list(node.vault_ids) or [
        e.vault_id for e in proposal.evidence
    ] != list(node.vault_ids):
        raise Rejected("cut and evidence name every vault once, ascending", reason="cut_shape")
    verify_forward(proposal.cut, node.get_cut_floor())
    _verify_time(node, proposal.market.now)
    for entry, evidence in zip(proposal.cut.entries, proposal.evidence, strict=True):
        if node.store.get_head_at(entry.vault_id, entry.height) is not None:
            await verify_entry(node, entry, evidence)
            continue
        async with node.take_turn(entry.vault_id):  # watch may be at the same header right now
            await verify_entry(node, entry, evidence)
    states = node.get_states_at(proposal.cut)
    positions = get_positions(states, {e.vault_id: e.time for e in proposal.cut.entries})
    own = {(p.vault_id, p.sequence, p.plan_digest) for p in node.get_open_records(positions)}
    verify_open_packets(proposal.open_packets.packets, own, positions, committee)
    for listed in proposal.open_packets.packets:
        verify_listed(node, listed)
    node.planner.verify_market(proposal.market, node.parameters, node.store.get_number("market_now"), node.clock.now())
    result = node.get_plan(proposal.cut, proposal.market, proposal.k, proposal.open_packets)
    if compute_digest(result.plan) != proposal.plan_digest:
        raise Rejected(
            "this node computes another plan from the same facts", got=proposal.plan_digest,
            expected=compute_digest(result.plan), reason="plan_mismatch",
        )  # fmt: skip
    for planned in result.plan.packets:
        chain = node.chains[planned.vault_id]
        if node.store.is_halted(f"chain:{chain.chain_id}"):
            raise Rejected("the plan has a packet for a halted chain", got=chain.chain_id, reason="halted")
    return result.plan


def verify_listed(node: Node, listed: OpenPacket) -> None:
    """Check that a listed packet is in the plan that its votes are for.

    Votes cover a plan digest and not the packet beside them. Without the plan itself one proposer could wrap the votes of any
    old plan around a packet of his own making: a price that binds everybody, a decision that nobody made (protocol.md 7.1, 8.3).

    Raises:
        Rejected: ``open_forged``. Unavailable: this node does not know the plan yet (``open_unknown``); its peers repeat it.
    """
    data = node.store.get_document(listed.plan_digest)
    if data is None:
        raise Unavailable(
            "the plan of an open packet is not known here yet", got=listed.sequence, reason="open_unknown"
        )
    try:
        plan, _ = read_plan(data)
        is_planned = any(
            (p.vault_id, p.operator_epoch, p.sequence, p.timeout)
            == (listed.vault_id, listed.operator_epoch, listed.sequence, listed.timeout)
            and finalize(p, listed.plan_digest)[0].payloads[0].value == listed.value
            for p in plan.packets
        )
    except Rejected as error:  # the digest is that of a document of another kind
        raise Rejected("an open packet of no plan", got=listed.plan_digest, reason="open_forged") from error
    if not is_planned or any(v.k != plan.k for v in listed.votes):
        raise Rejected("a listed packet is not in its plan", got=listed.sequence, reason="open_forged")


def verify_forward(cut: Cut, floor: Cut | None) -> None:
    """Check that a cut lies nowhere below the last agreed one (protocol.md 5).

    Raises:
        Rejected: ``cut_backwards``.
    """
    if floor is None:
        return
    lowest = {e.vault_id: e for e in floor.entries}
    for entry in cut.entries:
        low = lowest.get(entry.vault_id)
        if low is not None and (
            entry.height < low.height or entry.outbox_sequence < low.outbox_sequence or entry.time < low.time
        ):
            raise Rejected(
                "a cut only moves forward", got=(entry.height, entry.outbox_sequence),
                expected=(low.height, low.outbox_sequence), reason="cut_backwards",
            )  # fmt: skip


def _verify_time(node: Node, market_now: int) -> None:
    """`now` of a plan never falls and is near every signer's own clock (protocol.md 5)."""
    now, last = node.clock.now(), node.store.get_number("market_now")
    if market_now < last or abs(market_now - now) > MAX_CLOCK_SKEW_S:
        raise Rejected(
            "the time of the market snapshot", got=market_now, expected=f">= {last}, within {MAX_CLOCK_SKEW_S} s of {now}",
            reason="market_time",
        )  # fmt: skip


async def verify_entry(node: Node, entry: CutEntry, evidence: Evidence) -> None:
    """Check one cut entry against own records, or by its evidence from an own light-client state; facts come in on the way.

    Raises:
        Rejected: ``cut_entry`` or what the verifier says; ``halted`` where a verified header excludes one on record, which
            halts the chain. Unavailable: nothing to verify from, or no packets.
    """
    chain = node.chains[entry.vault_id]
    if chain.observer is not None:
        await _verify_said_entry(node, chain, entry, evidence)
        return
    if node.store.is_halted(f"chain:{chain.chain_id}"):
        known = node.store.get_head_at(entry.vault_id, entry.height)
        if known is None:
            raise Rejected("this chain is halted here: only states on record count", reason="halted")
    known = node.store.get_head_at(entry.vault_id, entry.height)
    if known is not None:
        own = CutEntry(
            entry.vault_id, known.point.height, known.point.header_hash, known.point.time, known.sequence, known.head
        )
        if own == entry:
            return
        if known.point.header_hash == entry.header_hash:
            raise _bad_entry(entry, own)
    try:
        trusted, header = _verify_header(node, chain, entry, evidence)
        if known is not None:
            # Both verify and differ: two finalized headers at one height.
            raise Conflict(
                f"two finalized headers of {chain.chain_id} at one height", got=entry.header_hash,
                expected=known.point.header_hash, reason="two_headers",
            )  # fmt: skip
    except Conflict as error:
        # It is this chain that can't be believed any more; the others go on (protocol.md 8.3).
        node.halt(f"chain:{chain.chain_id}", error)
        raise Rejected(f"{chain.chain_id} has two histories", got=entry.header_hash, reason="halted") from error
    head, proof = Head(entry.outbox_sequence, entry.outbox_head), chain.codec.decode_proof(evidence.proof)
    cursor = node.store.get_cursor(entry.vault_id)
    if entry.outbox_sequence <= cursor.sequence:
        proven = chain.verifier.verify_head(trusted, head, proof)
        recorded = node.store.get_fact_head(entry.vault_id, entry.outbox_sequence)
        if proven.head != entry.outbox_head or recorded != entry.outbox_head:
            raise _bad_entry(entry, recorded)
        return
    if header is None and node.store.get_trusted_at(chain.chain_id, entry.height) is None:
        # Steps are on record before the facts behind them where packets are late or far away. A head between two steps would have none of its
        # own, and what is on record would prove nothing any more.
        raise Unavailable(
            f"this node is on its way to a later state of {chain.chain_id}: it goes on by itself first",
            got=entry.height,
            reason="no_base",
        )
    collected = await watch.collect_here_or_from_peers(node, chain, trusted, (head, proof))
    newest = node.store.get_trusted(chain.chain_id)
    is_behind = header is not None and newest is not None and newest[0].height >= header.point.height
    if is_behind or node.store.get_cursor(entry.vault_id) != cursor:
        # watch was faster while we waited: that makes no entry wrong, so look again from what is on record now.
        await verify_entry(node, entry, evidence)
        return
    if collected.head != head:
        raise _bad_entry(entry, collected.head)
    headers = [header] if header is not None else []
    watch.record(node, chain, headers, chain.verifier.get_point(trusted), collected)


async def _verify_said_entry(node: Node, chain: Chain[Any, Any, Any, Any], entry: CutEntry, evidence: Evidence) -> None:
    """As `verify_entry`, for a family without headers: the entry is what m operators said, and its evidence stands alone.

    Each node chooses m from what it has heard, so two honest ones may name different slots, clocks and numbers, even one slot with two
    clocks. That is no contradiction; two heads for one number are.
    """
    subject, store = f"chain:{chain.chain_id}", node.store
    known = store.get_head_at(entry.vault_id, entry.height)
    if known is not None and entry == CutEntry(
        entry.vault_id, known.point.height, known.point.header_hash, known.point.time, known.sequence, known.head
    ):
        return
    if store.is_halted(subject):
        raise Rejected("this chain is halted here: only states on record count", reason="halted")
    if not evidence.update:
        raise Unavailable(f"nothing to verify a state of {chain.chain_id} by", got=entry.height, reason="no_base")
    own, claim = watch.get_newest_trusted(node, chain), chain.codec.decode_bootstrap(evidence.update)
    said = chain.verifier.verify_alone(own, claim, node.clock.now())
    verify_vouched(chain, said, await watch.get_unfinished_rotations(node, chain))
    point = chain.verifier.get_point(said)
    if (point.height, point.header_hash, point.time) != (entry.height, entry.header_hash, entry.time):
        raise _bad_entry(entry, point)
    head, proof = Head(entry.outbox_sequence, entry.outbox_head), chain.codec.decode_proof(evidence.proof)
    chain.verifier.verify_head(said, head, proof)
    cursor = store.get_cursor(entry.vault_id)
    try:
        recorded = store.get_fact_head(entry.vault_id, entry.outbox_sequence)
        if recorded is not None and recorded != entry.outbox_head:
            raise Conflict(
                f"operators of {chain.chain_id} stand for two heads of number {entry.outbox_sequence}",
                got=entry.outbox_head,
                expected=recorded,
                reason="two_heads",
            )
        if entry.outbox_sequence <= cursor.sequence:
            return
        header = _verify_newer(node, chain, point, evidence)
    except Conflict as error:
        node.halt(subject, error)
        raise Rejected(f"{chain.chain_id} has two histories", got=entry.outbox_head, reason="halted") from error
    collected = await watch.collect_here_or_from_peers(node, chain, said, (head, proof))
    if store.get_cursor(entry.vault_id) != cursor or store.get_trusted(chain.chain_id) != header.base:
        await _verify_said_entry(node, chain, entry, evidence)  # watch was faster while we waited
        return
    if collected.head != head:
        raise _bad_entry(entry, collected.head)
    watch.record(node, chain, [header.record], point, collected)


@dataclass(frozen=True)
class _NewHeader:
    """What a proposal's evidence adds to the own record, and the state on record that it was verified from."""

    record: HeaderRecord
    base: tuple[Point, bytes]


def _verify_newer(node: Node, chain: Chain[Any, Any, Any, Any], point: Point, evidence: Evidence) -> _NewHeader:
    """The step to a proposal's state from the newest on record, as the own record goes on: forward in every respect.

    Raises Unavailable where the own state is later in one respect and earlier in another: watch gets there by itself.
    """
    base = node.store.get_trusted(chain.chain_id)
    if base is None or point.height <= base[0].height or point.time < base[0].time:
        raise Unavailable(
            f"this node's newest state of {chain.chain_id} lies beside the proposed one: it goes on by itself first",
            got=point.height,
            reason="no_base",
        )
    update = chain.codec.decode_update(evidence.update)
    after = chain.verifier.verify_update(chain.codec.decode_trusted(base[1]), update, node.clock.now())
    return _NewHeader(HeaderRecord(point, "update", evidence.update, chain.codec.encode_trusted(after), after), base)


def _verify_header(
    node: Node, chain: Chain[Any, Any, Any, Any], entry: CutEntry, evidence: Evidence
) -> tuple[Any, HeaderRecord | None]:
    """The light-client state an entry names, from the store or by its update; the header is new if it is returned."""
    stored = node.store.get_trusted_at(chain.chain_id, entry.height)
    if stored is not None and stored[0].header_hash == entry.header_hash:
        if stored[0].time != entry.time:
            raise _bad_entry(entry, stored[0])
        return chain.codec.decode_trusted(stored[1]), None
    base = node.store.get_trusted(chain.chain_id, below_height=entry.height)
    if base is None or not evidence.update:
        raise Unavailable(
            f"nothing on record to verify a header of {chain.chain_id} from", got=entry.height, reason="no_base"
        )
    update = chain.codec.decode_update(evidence.update)
    try:
        trusted = chain.verifier.verify_update(chain.codec.decode_trusted(base[1]), update, node.clock.now())
    except Rejected as error:
        if error.reason != TOO_FAR:
            raise
        # The proposer leapt from a state that this node does not have; its own steps will come near enough.
        raise Unavailable(
            f"a header of {chain.chain_id} is too far from what is on record here", got=entry.height, reason="no_base"
        ) from error
    point = chain.verifier.get_point(trusted)
    if (point.height, point.header_hash, point.time) != (entry.height, entry.header_hash, entry.time):
        raise _bad_entry(entry, point)
    newest = node.store.get_trusted(chain.chain_id)
    if newest is not None and newest[0].height >= point.height:
        return trusted, None
    return trusted, HeaderRecord(point, "update", evidence.update, chain.codec.encode_trusted(trusted), trusted)


def _bad_entry(entry: CutEntry, own: object) -> Rejected:
    return Rejected("a cut entry is not what its proof shows", got=entry, expected=own, reason="cut_entry")


# ---- votes --------------------------------------------------------------------------------------------------------------


async def vote(node: Node, proposal: Proposal, envelope: Envelope, plan: Plan) -> None:
    """Say that the own plan is the proposed one: documents first, then the journal, then the vote, then the world."""
    now, digest = node.clock.now(), proposal.plan_digest
    if node.store.is_halted("node"):
        raise Rejected("this node is halted: halts list says why", reason="halted")
    try:
        own_vote = node.signer.sign_vote(proposal.k, proposal.r, digest)
    except Conflict as refusal:
        # The journal has the last word, even over our own memory.
        raise Rejected(str(refusal), reason=refusal.reason, source="own journal") from refusal
    store = node.store
    times = node.progress.voted_times
    times[digest] = {entry.vault_id: entry.time for entry in proposal.cut.entries}
    while len(times) > MAX_KEPT_BALLOTS:
        del times[next(iter(times))]
    k, r, proposer = proposal.k, proposal.r, proposal.proposer
    with store.together():
        store.record_document("plan", digest, encode_document(plan), now, k=k, r=r, operator=proposer)
        sent = encode_envelope(envelope, MAX_PROPOSAL_ENVELOPE_BYTES)
        store.record_document("proposal", compute_digest(proposal), sent, now, k=k, r=r, operator=proposer)
        store.record_vote(own_vote)
        node.record_journal_tip()
    reach("after_vote")
    node.log.debug("voted", k=k, r=r)
    await node.publish("vote", own_vote)
    await add_and_act(node, own_vote, is_written=True)


async def accept_vote(node: Node, envelope: Envelope, body: bytes) -> None:
    """A peer's vote, possibly carried by another peer."""
    del envelope
    await add_and_act(node, decode_document(Vote, body))


async def add_and_act(node: Node, new: Vote, *, is_written: bool = False) -> None:
    """Count a vote; on m for one plan open its packets and sign them. ``is_written``: it is in the store already.

    Raises:
        Rejected: the vote is not sound or of no current k.
    """
    progress = node.progress
    if new.k < progress.base_k - 3:
        raise Rejected("a vote of a k that is over", got=new.k, expected=progress.base_k, reason="old_k")
    committee = node.get_committee()
    if new.k > progress.base_k + MAX_K_AHEAD:
        # One number for each operator: enough to follow the others after a long absence, whatever a liar says.
        verify_vote(new, committee)
        progress.farthest[new.operator] = max(progress.farthest.get(new.operator, (0, 0)), (new.k, new.r))
        follow_peers(node, committee)
        if new.k > progress.base_k + MAX_K_AHEAD:
            return
    ballot, added, evidence = add_vote(progress.ballots.get(new.k, Ballot(new.k)), new, committee)
    _look_for_own_vote(node, new)
    if evidence is not None:
        await record_evidence(node, evidence)
    if added is Added.DUPLICATE:
        if new.k < progress.base_k and new.operator != node.signer.operator:
            # Who repeats a vote of a k that is over here did not hear how it ended; `publish_again` says it once more.
            progress.unheard.add(new.k)
        return
    progress.ballots[new.k] = ballot
    while len(progress.ballots) > MAX_KEPT_BALLOTS:
        del progress.ballots[min(progress.ballots)]
    progress.highest_seen_k = max(progress.highest_seen_k, new.k)
    if not is_written:
        progress.held_votes.append(new)
    if added is Added.CERTIFIED:
        await open_voted(node, ballot, new.plan_digest, committee)


def write_held_votes(node: Node) -> None:
    """Write what was counted: a peer's vote binds nobody here, so it does not cost a synced write of its own."""
    held, node.progress.held_votes = node.progress.held_votes, []
    if held:
        with node.store.together():
            for counted in held:
                node.store.record_vote(counted)


async def open_voted(node: Node, ballot: Ballot, digest: bytes, committee: Committee) -> None:
    """Open the packets of a plan that has m votes and is known here; of two such plans of one k the journal signs one."""
    data, votes = node.store.get_document(digest), get_quorum_votes(ballot, digest, committee)
    if data is None or not votes:
        return
    plan, _ = read_plan(data)
    # one more vote than m says nothing new of a plan that is open here, and signed as far as this node signs it
    is_signed = _is_signed_here(node, plan, digest) or not _may_sign(node, digest)
    if not is_signed or not _are_packets_known(node, plan, digest):
        await open_and_sign(node, plan, votes)


def _look_for_own_vote(node: Node, verified: Vote) -> None:
    """A vote of this key that its journal does not hold: the journal was lost or restored, or somebody else has the key."""
    journal = node.signer.journal
    if verified.operator != node.signer.operator or verified.k < journal.released_k:
        return
    if not journal.has_said("vote", encode_u64(verified.k) + encode_u64(verified.r), verified.plan_digest):
        quarantine(node, "a vote of this key that its journal does not know")


def quarantine(node: Node, why: str) -> None:
    """Something signed by this key is unknown to its journal: the journal was lost or restored (protocol.md 8.4)."""
    node.log.error("quarantine", why=why)
    # By the latest of all clocks: a slow one of our own must not end the silence before the packets are dead.
    node.signer.journal.record_quarantine(max(node.clock.now(), *node.get_proven_times().values()), why)
    node.blame("node", "own key", "journal_lost", why)


@lru_cache(maxsize=4)
def read_proposal(body: bytes) -> Proposal:
    """The proposal of a message, remembered while it is voted on."""
    return decode_document(Proposal, body)


@lru_cache(maxsize=64)
def read_plan(data: bytes) -> tuple[Plan, bytes]:
    """A stored plan and its digest, remembered: every message about a k is compared with the plans of that k."""
    return _read_told_plan(data)


@lru_cache(maxsize=4)
def _read_told_plan(data: bytes) -> tuple[Plan, bytes]:
    # few: what a peer tells may be large
    plan = decode_document(Plan, data)
    return plan, compute_digest(plan)


_AFTER_PLAN = f',"schema":"{SignedPlan.SCHEMA}","signatures":['.encode()


def read_signed_plan(body: bytes) -> SignedPlan:
    """A plan with votes and signatures; a plan that was read before is not read again: every operator sends the same one.

    In the canonical form the plan stands first, and what follows it cannot stand inside a string. Whatever is not exactly so is
    read, or refused, as a whole.

    Raises:
        Rejected: as `decode_document`.
    """
    at = body.rfind(_AFTER_PLAN)
    if at < 0 or not body.startswith(b'{"plan":'):
        return decode_document(SignedPlan, body)
    plan, _ = _read_told_plan(body[len(b'{"plan":') : at])
    rest = decode_document(_Rest, b"{" + body[at + 1 :])
    return SignedPlan(plan, rest.votes, rest.signatures)


@dataclass(frozen=True, slots=True)
class _Rest:
    """A signed plan without its plan: the same keys in the same places."""

    SCHEMA: ClassVar[str] = SignedPlan.SCHEMA
    votes: tuple[Vote, ...]
    signatures: tuple[PacketSignature, ...]


@lru_cache(maxsize=1024)
def finalize(planned: PlannedPacket, plan_digest: bytes) -> tuple[Packet, bytes]:
    """The packet that operators sign and its commitment, remembered: every message about a plan names all of its packets."""
    packet = finalize_packet(planned, plan_digest)
    return packet, compute_commitment(packet)


# ---- packets ------------------------------------------------------------------------------------------------------------


async def open_and_sign(node: Node, plan: Plan, votes: Sequence[Vote]) -> None:
    """Record the packets of a plan with m votes as open; sign them if the plan is our own too; tell everybody."""
    digest, now = compute_digest(plan), node.clock.now()
    is_new = not _are_packets_known(node, plan, digest)
    records = []
    for planned in plan.packets:
        packet, commitment = finalize(planned, digest)
        records.append(
            PacketRecord(
                planned.vault_id, planned.sequence, commitment, planned.operator_epoch, planned.timeout,
                packet.payloads[0].value, digest, plan.k, planned.purpose, "open", now,
            )
        )  # fmt: skip
    with node.store.together():
        write_held_votes(node)
        node.store.record_document("plan", digest, encode_document(plan), now, k=plan.k)
        node.store.record_open_packets(records, votes)
        _settle_late(node, {p.vault_id for p in plan.packets})
        _finish_k(node, plan.k, digest)
    signatures: tuple[PacketSignature, ...] = ()
    if _may_sign(node, digest) and not _is_halted_for(node, plan):
        slots = get_price_slots(node.states.get_all_newest().values())
        try:
            signatures = node.signer.sign_packets(
                plan, tuple(votes), node.get_committee(), _get_known_times(node, digest), slots
            )
        except Conflict as refusal:
            # The journal has the last word: another plan of this k, or another packet under a number, was signed.
            node.progress.unsigned.add(digest)
            node.blame("node", "own journal", refusal.reason, str(refusal))
        except Rejected as refusal:
            if refusal.reason not in ("old_k", "quarantine"):
                raise
            node.progress.unsigned.add(digest)
            node.blame("node", "own journal", refusal.reason, str(refusal))
    with node.store.together():
        node.record_journal_tip()
        add_signatures(node, plan, digest, signatures)
    reach("after_signatures")
    node.log.debug("opened", k=plan.k, signed=len(signatures))
    if is_new or signatures:  # an answer to an answer would never end
        await publish_signed_plan(node, plan, votes)


def _get_known_times(node: Node, digest: bytes) -> dict[bytes, int]:
    """Per vault the newest time that is proven here, by the own record or by the evidence of the proposal that was voted for.

    Else a node that has seen by that evidence alone that a packet is dead would vote for the next one and then never sign it.
    """
    times, voted = node.get_proven_times(), node.progress.voted_times.get(digest, {})
    return {vault_id: max(time, voted.get(vault_id, 0)) for vault_id, time in times.items()}


def _settle_late(node: Node, vault_ids: Iterable[bytes]) -> None:
    """What the newest proven states say of packets that become known only now; else they would look open until the next header."""
    for vault_id in sorted(vault_ids):
        head = node.store.get_head(vault_id)
        if head is not None:
            watch.settle_packets(node, vault_id, head.point, node.states.get_newest(vault_id).inbox_sequence)


def _may_sign(node: Node, digest: bytes) -> bool:
    """Whether this operator voted for a plan and its journal has not refused it before."""
    is_ours = any(v.operator == node.signer.operator for v in node.store.get_votes(digest))
    return is_ours and digest not in node.progress.unsigned


def _is_halted_for(node: Node, plan: Plan) -> bool:
    """Whether a halt that came after the vote forbids to sign: of the whole node, or of a chain that gets a packet."""
    subjects = {f"chain:{node.chains[p.vault_id].chain_id}" for p in plan.packets if p.vault_id in node.chains}
    return any(node.store.is_halted(subject) for subject in ("node", *subjects))


def _finish_k(node: Node, k: int, plan_digest: bytes) -> None:
    """A plan of k has m votes: the next k begins, and the agreed cut and time are the floor of later ones.

    One transaction: a process that died in between would begin the next k without the floor of this one.
    """
    progress = node.progress
    agreed: dict[str, bytes] = {}
    for (pk, _), envelope in progress.proposals.items():
        if pk == k:
            proposal = read_proposal(envelope.body)
            if proposal.plan_digest == plan_digest:
                agreed["cut_floor"] = encode_document(_get_higher(node.get_cut_floor(), proposal.cut))
                agreed["market_now"] = encode_u64(max(proposal.market.now, node.store.get_number("market_now")))
    if k >= progress.base_k:
        progress.base_k, progress.since = k + 1, None
        agreed["base_k"] = encode_u64(k + 1)
    if agreed:
        node.store.record_settings(agreed)
    progress.proposals = {key: e for key, e in progress.proposals.items() if key[0] >= k}
    progress.accepted_at = {key: at for key, at in progress.accepted_at.items() if key[0] >= k}
    progress.waiting = {key: e for key, e in progress.waiting.items() if key[0] >= k}
    progress.judged = {key: e for key, e in progress.judged.items() if key[0] >= k}
    progress.refused.clear()
    node.settle_wake.set()


def _get_higher(floor: Cut | None, cut: Cut) -> Cut:
    """Entry by entry the higher of two cuts: a second plan of one k may name an older one."""
    known = {e.vault_id: e for e in floor.entries} if floor is not None else {}
    return Cut(
        tuple(max(e, known.get(e.vault_id, e), key=lambda x: (x.height, x.outbox_sequence)) for e in cut.entries)
    )


def add_signatures(node: Node, plan: Plan, digest: bytes, signatures: Sequence[PacketSignature]) -> None:
    """Check and keep packet signatures, each on its own; make certificates of what is complete.

    Raises:
        Rejected: some signature was not sound; the sound ones are kept all the same.
    """
    committee, now = node.get_committee(), node.clock.now()
    bad: Rejected | None = None
    with node.store.together():
        for planned in plan.packets:
            packet, commitment = finalize(planned, digest)
            known = node.store.get_signatures(planned.vault_id, planned.sequence, commitment)
            given = [s for s in signatures if (s.vault_id, s.sequence) == (planned.vault_id, planned.sequence)]
            record = node.store.get_packet(planned.vault_id, planned.sequence, commitment)
            is_certified = record is not None and node.store.get_certificate_signatures(record) is not None
            if is_certified and all(known.get(s.operator) == s.signature for s in given):
                continue  # said again, as gossip does
            ballot = PacketBallot(planned.vault_id, planned.operator_epoch, packet, tuple(sorted(known.items())))
            new = []
            for s in given:
                try:
                    ballot, added = add_signature(ballot, s.operator, s.signature, committee)
                except Rejected as error:
                    bad = error
                    continue
                if added is not Added.DUPLICATE:
                    new.append((planned.vault_id, planned.sequence, commitment, s.operator, s.signature))
            if new:
                node.store.record_signatures(new)
            if record is None or is_certified:
                continue
            certificate = get_certificate(ballot, committee)
            if certificate is not None:
                node.store.record_certificate(certificate, now)
                node.log.info("certified", vault=planned.vault_id.hex()[:8], sequence=planned.sequence, k=plan.k)
                node.submit_wake.set()
    if bad is not None:
        raise bad


async def accept_signed_plan(node: Node, envelope: Envelope, body: bytes) -> None:
    """A plan with its votes and signatures from a peer: it is open now; signed if it is ours too.

    Raises:
        Rejected: the votes are no quorum for this plan, or a signature is not sound.
    """
    del envelope
    signed = read_signed_plan(body)
    digest = compute_digest(signed.plan)
    committee = node.get_committee()
    verify_quorum(signed.votes, signed.plan.k, digest, committee)
    unknown = not node.store.get_votes(digest)
    for vote_ in signed.votes:
        await _look_for_two_votes(node, vote_, committee)
    await _look_for_two_plans(node, signed, digest)
    own_signed = node.signer.journal.get_value("plan", encode_u64(signed.plan.k))
    _look_for_own_signatures(node, signed, digest)
    is_missing = unknown or not _are_packets_known(node, signed.plan, digest)
    # Not signed yet, or signed by the journal alone: the process died before the signatures reached the store.
    is_unsigned = own_signed in (None, digest) and not _is_signed_here(node, signed.plan, digest)
    if is_missing or (is_unsigned and _may_sign(node, digest) and not _is_halted_for(node, signed.plan)):
        await open_and_sign(node, signed.plan, signed.votes)
    add_signatures(node, signed.plan, digest, signed.signatures)
    await asyncio.sleep(0)  # a certificate does not wait for the rest of the mail


def _are_packets_known(node: Node, plan: Plan, digest: bytes) -> bool:
    return all(node.store.get_packet(p.vault_id, p.sequence, finalize(p, digest)[1]) is not None for p in plan.packets)


def _is_signed_here(node: Node, plan: Plan, digest: bytes) -> bool:
    return all(
        node.signer.operator in node.store.get_signatures(p.vault_id, p.sequence, finalize(p, digest)[1])
        for p in plan.packets
    )


def _look_for_own_signatures(node: Node, signed: SignedPlan, digest: bytes) -> None:
    """A real packet signature of this key that its journal does not hold; what somebody only says in our name proves nothing."""
    journal = node.signer.journal
    if signed.plan.k < journal.released_k:
        return
    for planned in signed.plan.packets:
        said = compute_packet_digest(
            planned.vault_id, planned.operator_epoch, planned.sequence,
            finalize(planned, digest)[1],
        )  # fmt: skip
        for s in signed.signatures:
            if (s.vault_id, s.sequence, s.operator) != (planned.vault_id, planned.sequence, node.signer.operator):
                continue
            try:
                is_own = recover_signer(said, s.signature) == node.signer.operator
            except Rejected:
                is_own = False  # blamed where the signatures are added
            if is_own and not journal.has_said("packet", planned.vault_id + encode_u64(planned.sequence), said):
                quarantine(node, "a packet signature of this key that its journal does not know")


async def _look_for_two_votes(node: Node, new: Vote, committee: Committee) -> None:
    """A verified vote that came with a plan; kept like one that came alone, evidence included."""
    ballot, added, evidence = add_vote(node.progress.ballots.get(new.k, Ballot(new.k)), new, committee)
    _look_for_own_vote(node, new)
    if evidence is not None:
        await record_evidence(node, evidence)
    if added is not Added.DUPLICATE:
        node.progress.ballots[new.k] = ballot


async def _look_for_two_plans(node: Node, signed: SignedPlan, digest: bytes) -> None:
    """Evidence: one operator signed packets of two plans of one k (protocol.md 8.2, 8.6)."""
    for data in node.store.get_documents("plan", signed.plan.k):
        other, other_digest = read_plan(data)
        if other_digest == digest:
            continue
        for planned in other.packets:
            commitment = finalize(planned, other_digest)[1]
            known = node.store.get_signatures(planned.vault_id, planned.sequence, commitment)
            for s in signed.signatures:
                if s.operator in known:
                    theirs = PacketSignature(planned.vault_id, planned.sequence, s.operator, known[s.operator])
                    evidence = compute_packets_equivocation(
                        s.operator, SignedPlan(other, (), (theirs,)), replace(signed, signatures=(s,))
                    )
                    try:
                        await record_evidence(node, evidence)
                    except Rejected:
                        # The signature in the message was not sound: it says nothing about that operator.
                        continue


# ---- say it again -------------------------------------------------------------------------------------------------------


async def publish_again(node: Node) -> None:
    """Repeat from the store what is not finished: gossip promises nothing, and peers restart (incidents.md 5)."""
    now, progress = node.clock.now(), node.progress
    if now - progress.last_publish_at < node.timing.republish_s:
        return
    # What was said a moment ago is on its way: repeating it in the middle of its own agreement would only hold that up.
    since = now - node.timing.republish_s // 2 if progress.last_publish_at else now
    progress.last_publish_at = now
    node.write_blames()
    for slot, envelope in sorted(progress.proposals.items()):
        if slot[0] >= progress.base_k and progress.accepted_at.get(slot, 0) <= since:
            await node.publish_envelope(envelope)
    for k in range(max(0, progress.base_k), progress.base_k + 2):
        for own in progress.ballots.get(k, Ballot(k)).votes:
            if own.operator == node.signer.operator and progress.accepted_at.get((own.k, own.r), 0) <= since:
                await node.publish("vote", own)
    await open_again(node)
    await publish_signed_plans(node, since)


async def open_again(node: Node) -> None:
    """Open what has m votes on record and is not open: the process died after the last vote, as everybody's may have."""
    committee = node.get_committee()
    for k, ballot in sorted(node.progress.ballots.items()):
        for digest in sorted({v.plan_digest for v in ballot.votes}) if k >= node.progress.base_k else ():
            data = node.store.get_document(digest)
            if data is not None and not _are_packets_known(node, read_plan(data)[0], digest):
                await open_voted(node, ballot, digest, committee)


async def publish_signed_plans(node: Node, since: int) -> None:
    """Tell everybody again the packets that are open here ``since`` then (unix seconds), each plan with its votes and all signatures known here.

    So too the plans of absent packets that a proposal lists: a node without them could not check that list. And what somebody still votes
    for who missed its end: its packets may be done long since.
    """
    committee = node.get_committee()
    open_packets = node.store.get_packets("open")
    digests = {p.plan_digest for p in open_packets}
    young = {p.plan_digest for p in open_packets if p.seen_at > since}
    unheard, node.progress.unheard = node.progress.unheard, set()
    for ballot in (node.progress.ballots[k] for k in unheard & node.progress.ballots.keys()):
        digests |= {d for d in {v.plan_digest for v in ballot.votes} if get_quorum_votes(ballot, d, committee)}
    cut = node.get_cut()
    if cut is not None:
        positions = get_positions(node.get_states_at(cut), {e.vault_id: e.time for e in cut.entries})
        digests |= {p.plan_digest for p in node.get_open_packets(positions, committee).packets}
    for digest in sorted(digests - young):
        data = node.store.get_document(digest)
        if data is None:
            continue
        plan, _ = read_plan(data)
        votes = get_quorum_votes(Ballot(plan.k, node.store.get_votes(digest)), digest, committee)
        if votes:
            await publish_signed_plan(node, plan, votes)


async def publish_signed_plan(node: Node, plan: Plan, votes: Sequence[Vote]) -> None:
    """One plan with its votes and signatures."""
    digest = compute_digest(plan)
    signatures = []
    for planned in plan.packets:
        commitment = finalize(planned, digest)[1]
        known = node.store.get_signatures(planned.vault_id, planned.sequence, commitment)
        signatures += [PacketSignature(planned.vault_id, planned.sequence, o, s) for o, s in known.items()]
    await node.publish("signed_plan", SignedPlan(plan, tuple(votes), tuple(signatures)))


# ---- evidence -----------------------------------------------------------------------------------------------------------


async def record_evidence(node: Node, evidence: Equivocation) -> None:
    """Keep and publish a proof of equivocation, once.

    Raises:
        Rejected: it proves nothing.
    """
    if node.store.count_evidence(evidence.operator) >= MAX_EVIDENCE_PER_OPERATOR:
        return  # enough to convict; who says two things can say a million
    verify_equivocation(evidence, node.get_committee(), lambda *said: observe.verify_statements(node, *said))
    body = encode_document(evidence)
    if node.store.record_evidence(compute_digest(evidence), evidence.operator, evidence.kind, body, node.clock.now()):
        node.log.error("equivocation", operator=evidence.operator.hex(), kind=evidence.kind)
        node.blame("gossip", f"0x{evidence.operator.hex()}", "equivocation", f"two {evidence.kind} statements")
        if len(body) < MAX_ENVELOPE_BYTES // 2:
            await node.publish("evidence", evidence)


async def accept_evidence(node: Node, envelope: Envelope, body: bytes) -> None:
    """Evidence found by a peer; checked like our own."""
    del envelope
    await record_evidence(node, decode_document(Equivocation, body))


async def accept_observation(node: Node, envelope: Envelope, body: bytes) -> None:
    """What an operator says of a vault whose states nobody can prove; two heads for one number become evidence."""
    del envelope
    evidence = observe.accept(node, body)
    if evidence is not None:
        await record_evidence(node, evidence)


# ---- archive ------------------------------------------------------------------------------------------------------------


async def accept_archive_request(node: Node, envelope: Envelope, body: bytes) -> None:
    """Serve outbox packets with the inbox packets they answer, in bounded batches (protocol.md 12)."""
    request = decode_document(ArchiveRequest, body)
    if request.vault_id not in node.chains:
        raise Rejected("a request for an unknown vault", got=request.vault_id, reason="unknown_vault")
    if request.after_sequence < 0 or node.store.get_cursor(request.vault_id).sequence <= request.after_sequence:
        return
    now = node.clock.now()
    second, answers = node.served_archive.get(envelope.operator, (0, 0))
    answers = answers + 1 if second == now else 1
    node.served_archive[envelope.operator] = now, answers
    if answers > ARCHIVE_ANSWERS_PER_S:
        return
    packets: list[bytes] = []
    answered: list[bytes] = []
    size = 0
    upto = min(request.upto_sequence, request.after_sequence + ARCHIVE_BATCH)
    for fact in node.store.iterate_facts(request.vault_id, request.after_sequence, max(0, upto)):
        packets.append(encode_packet_abi(fact.packet))
        answered.append(encode_packet_abi(fact.inbox) if fact.inbox is not None else b"")
        size += len(packets[-1]) + len(answered[-1])
        if size > ARCHIVE_BATCH_BYTES:
            break
    if packets:
        await node.publish(
            "archive_packets",
            ArchivePackets(request.vault_id, request.after_sequence, tuple(packets), tuple(answered)),
        )


async def accept_archive_packets(node: Node, envelope: Envelope, body: bytes) -> None:
    """Keep packets that a peer sent until a fold has judged them; of one peer at a time, so that a lie has an author."""
    archive = decode_document(ArchivePackets, body)
    cursor = node.store.get_cursor(archive.vault_id) if archive.vault_id in node.chains else None
    if cursor is None or archive.vault_id not in node.asked_archive or len(archive.packets) != len(archive.answered):
        return  # nobody asked
    held = node.peer_packets.setdefault(archive.vault_id, {})
    if envelope.operator in node.doubted_peers.get(archive.vault_id, set()):
        return
    if held and node.peer_sources.get(archive.vault_id) != envelope.operator:
        return
    node.peer_sources[archive.vault_id] = envelope.operator
    room = MAX_PEER_BYTES - sum(_count_bytes(claim) for claim in held.values())
    for i in range(len(archive.packets)):
        packet = decode_packet_abi(archive.packets[i])
        inbox = decode_packet_abi(archive.answered[i]) if archive.answered[i] else None
        claim = Claim(packet, inbox)
        room -= _count_bytes(claim)
        if packet.sequence > cursor.sequence and len(held) < MAX_PEER_PACKETS and room >= 0:
            held.setdefault(packet.sequence, claim)
    node.asked_archive[archive.vault_id] = 0
    node.watch_wakes[archive.vault_id].set()


def _count_bytes(claim: Claim) -> int:
    packets = (claim.packet,) if claim.inbox is None else (claim.packet, claim.inbox)
    return sum(len(payload.value) for packet in packets for payload in packet.payloads)


# ---- prices -------------------------------------------------------------------------------------------------------------


def record_prices(node: Node, reports: Sequence[SignedReport], marks: Sequence[SignedMark], now: int) -> None:
    """Keep signed prices that verify; the first of a slot stays.

    Raises:
        Rejected: one of them is not sound (those before it are kept).
    """
    signers, threshold = node.parameters.price_signers, node.parameters.price_threshold
    rows: list[tuple[str, bytes, bytes, int, int, bytes]] = []
    try:
        for signed in reports:
            r = signed.report
            verify_report(signed, signers=signers, threshold=threshold, now=now, heartbeat_s=None)
            rows.append(("report", r.source, r.underlying, 0, r.stamp, encode_document(signed)))
        for signed_mark in marks:
            m = signed_mark.mark
            verify_mark(signed_mark, signers=signers, threshold=threshold, now=now, heartbeat_s=None)
            rows.append(("mark", m.source, m.underlying, m.expiry, m.stamp, encode_document(signed_mark)))
    finally:
        node.store.record_prices(rows)


def get_prices(node: Node, ledger: Ledger, now: int) -> tuple[list[SignedReport], list[SignedMark]]:
    """What a snapshot may need: prices of the last hours, and the reports around every expiry that is to be settled."""
    data = node.store.get_prices("report", since=now - PRICE_MEMORY_S)
    for key in get_settlements_needed(ledger, now):
        for instant in (key.expiry - key.twap_seconds, key.expiry):
            data += node.store.get_prices(
                "report", since=instant, upto=instant + SETTLEMENT_SLACK_S, feed=(key.price_source, key.underlying)
            )
    return (
        [_decode_report(d) for d in data],
        [_decode_mark(d) for d in node.store.get_prices("mark", since=now - PRICE_MEMORY_S)],
    )


@lru_cache(maxsize=16_384)
def _decode_report(data: bytes) -> SignedReport:
    return decode_document(SignedReport, data)


@lru_cache(maxsize=16_384)
def _decode_mark(data: bytes) -> SignedMark:
    return decode_document(SignedMark, data)


_HANDLERS = {
    "proposal": accept_proposal,
    "vote": accept_vote,
    "signed_plan": accept_signed_plan,
    "evidence": accept_evidence,
    "archive_request": accept_archive_request,
    "archive_packets": accept_archive_packets,
    "observation": accept_observation,
}
