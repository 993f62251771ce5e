"""settle: compute the plan at the newest cut and, when it is this operator's turn, propose it (protocol.md 7, 8.1)."""

from __future__ import annotations

from messages.documents import Cut, Evidence, Proposal, compute_digest
from messages.errors import Rejected, RelayerError
from messages.hashing import keccak256
from relayer.database import encode_u64
from relayer.node import Node
from relayer.rules.quorum import Committee, get_proposer
from relayer.states import get_positions
from relayer.tasks import attest


async def step(node: Node) -> bool:
    """Look whether there is work, and propose it if it is our turn; True if something was proposed.

    Raises:
        Rejected, Conflict: from the rules: parameters or prices that make no plan, or a broken ledger.
    """
    await update_prices(node)
    journal, progress = node.signer.journal, node.progress
    if journal.quarantine_until is not None:
        highest_k = max(
            progress.highest_seen_k, journal.highest_k, progress.base_k - 1
        )  # the last one outlives a restart
        if not journal.record_release(node.get_proven_times(), highest_k):
            return False
        progress.unsigned.clear()
    cut = node.get_cut()
    if cut is None or node.store.is_halted("node") or not _is_above_floor(node, cut):
        return False
    now = node.clock.now()
    committee = node.get_committee()
    states = node.get_states_at(cut)
    positions = get_positions(states, {e.vault_id: e.time for e in cut.entries})
    open_packets = node.get_open_packets(positions, committee)

    slot = attest.follow_peers(node, committee)
    is_mine = _is_mine(node, committee, slot)
    key = keccak256(compute_digest(cut) + compute_digest(open_packets) + repr(progress.base_k).encode())
    is_idle = progress.since is None or not is_mine
    if key == progress.last_plan_key and is_idle and now - progress.last_plan_at < node.timing.look_again_s:
        return False
    progress.last_plan_key, progress.last_plan_at = key, now

    ledger = node.get_ledger(cut)
    reports, marks = attest.get_prices(node, ledger, now)
    market_now = max(now, node.store.get_number("market_now"))
    market = node.planner.compute_market(market_now, ledger, node.parameters, reports, marks)
    result = node.get_plan(cut, market, slot[0], open_packets)
    progress.result = result
    if not result.plan.packets:
        progress.since = None
        return False
    if progress.since is None:
        progress.since = now
        node.log.info("there is work", k=slot[0], packets=len(result.plan.packets))
    if not is_mine:
        return False
    if slot[0] < journal.highest_k:
        return False
    proposal = Proposal(
        slot[0],
        slot[1],
        node.signer.operator,
        cut,
        tuple(_make_evidence(node, entry.vault_id, entry.height) for entry in cut.entries),
        market,
        node.parameters_digest,
        open_packets,
        compute_digest(result.plan),
    )
    envelope = node.signer.sign_proposal(proposal)
    await node.publish_envelope(envelope)
    node.log.info("propose", k=slot[0], r=slot[1], packets=len(result.plan.packets))
    node.record_journal_tip()
    # The own proposal goes the same road as everybody's: it is verified, voted for and recorded by attest.
    await attest.accept_proposal(node, envelope, envelope.body)
    return True


async def get_ready(node: Node) -> None:
    """Compute the ledger at the newest cut while another plans: its proposal is most often made there.

    Raises:
        Rejected, Conflict: as `step`, which would say so a moment later.
    """
    cut = node.get_cut()
    if cut is not None and not node.store.is_halted("node") and _is_above_floor(node, cut):
        node.get_ledger(cut)


async def update_prices(node: Node) -> None:
    """Read the feeds and keep what verifies; a silent or lying feed is blamed and stops nothing."""
    now = node.clock.now()
    for number, feed in enumerate(node.feeds):
        try:
            reports, marks = await feed.fetch(now)
            attest.record_prices(node, reports, marks, now)
        except RelayerError as error:
            node.blame("feeds", error.source or f"feed {number}", error.reason or "feed", str(error))


def is_turn(node: Node) -> bool:
    """Whether this operator proposes in the slot that is due; cheap."""
    committee = node.get_committee()
    return _is_mine(node, committee, attest.follow_peers(node, committee))


def get_turn_in_s(node: Node) -> float | None:
    """Seconds until the next slot is due by this node's clock; None while there is no work."""
    since = node.progress.since
    if since is None:
        return None
    return float(node.patience_s - max(0, node.clock.now() - since) % node.patience_s)


def _is_mine(node: Node, committee: Committee, slot: tuple[int, int]) -> bool:
    """Whether this operator may still propose in a slot; a proposal signed before a crash is not signed otherwise after it."""
    said = node.signer.journal.get_value("proposal", encode_u64(slot[0]) + encode_u64(slot[1]))
    return get_proposer(committee, *slot) == node.signer.operator and said is None


def _is_above_floor(node: Node, cut: Cut) -> bool:
    """A cut below the last agreed one would be refused by everybody: this node has to catch up first."""
    try:
        attest.verify_forward(cut, node.get_cut_floor())
    except Rejected:
        return False
    return True


def _make_evidence(node: Node, vault_id: bytes, height: int) -> Evidence:
    head = node.store.get_head_at(vault_id, height)
    chain = node.chains[vault_id]
    # what operators said first is evidence like what they said later: no checkpoint holds it that everybody has
    claim = node.store.get_header_claim(chain.chain_id, height, may_bootstrap=chain.observer is not None)
    known = node.store.get_trusted_at(chain.chain_id, height) if chain.observer is not None else None
    if claim and known is not None:
        # it stands alone: whoever joined late has to be led from the operators that people named to those that say this
        update = chain.verifier.add_known(chain.codec.decode_trusted(known[1]), chain.codec.decode_update(claim))
        claim = chain.codec.encode_update(update)
    return Evidence(vault_id, claim or b"", head.proof if head is not None else b"")
