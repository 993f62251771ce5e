"""Numbers far ahead: one operator can't spend them for the others, and who was away for long finds the others again."""

from __future__ import annotations

from dataclasses import replace

from messages.documents import Proposal, compute_digest, decode_document
from messages.wire import encode_envelope
from relayer.rules.quorum import MAX_K_AHEAD, MAX_PROPOSAL_ENVELOPE_BYTES, get_proposer
from relayer.tasks import attest
from tests.committee import Committee
from tests.scenarios.test_review_committee import put_trade


def get_nodes(c):
    """Nodes by their place in the operator set."""
    operators = next(iter(c.services.values())).node.get_committee().operators
    by_address = {s.node.signer.operator: s.node for s in c.services.values()}
    return [by_address[o] for o in operators if o in by_address]


async def settle_one(c):
    """One trade, proposed, settled and proven; the envelope of a proposal that everybody voted for."""
    put_trade(c.chains[0], c.clock)
    await c.run_for(10)
    envelope = get_nodes(c)[0].progress.proposals[0, 0]
    await c.run_for(60)
    assert c.chains[0].state.inbox_sequence == 1
    return decode_document(Proposal, envelope.body)


def make_proposal(node, known, k):
    """A sound proposal of round 0 of ``k`` by its proposer, at the newest cut and with nothing in it."""
    cut = node.get_cut()
    market = replace(known.market, now=node.clock.now())
    evidence = tuple(
        replace(
            e,
            proof=node.store.get_head(e.vault_id).proof,
            update=node.store.get_header_claim(
                node.chains[e.vault_id].chain_id, node.store.get_head(e.vault_id).point.height
            )
            or b"",
        )
        for e in known.evidence
    )
    empty = replace(known.open_packets, packets=())
    plan = node.get_plan(cut, market, k, empty).plan
    return Proposal(
        k, 0, node.signer.operator, cut, evidence, market, known.parameters_digest, empty, compute_digest(plan)
    )


def show(liar, victim, proposal):
    """Hand a proposal to one node alone."""
    envelope = liar.signer.sign_proposal(proposal)
    victim.receive(liar.get_topic("proposal"), encode_envelope(envelope, MAX_PROPOSAL_ENVELOPE_BYTES))


async def test_one_operator_that_shows_far_rounds_to_single_nodes_stops_no_plan(tmp_path):
    async with Committee(tmp_path) as c:
        known = await settle_one(c)
        nodes = get_nodes(c)
        liar, victims = nodes[3], nodes[:2]
        committee, base_k = liar.get_committee(), liar.progress.base_k
        far = [
            k for k in range(base_k + 1, base_k + MAX_K_AHEAD) if get_proposer(committee, k, 0) == liar.signer.operator
        ]
        for victim, k in zip(victims, (far[2], far[-1]), strict=True):
            show(liar, victim, make_proposal(liar, known, k))
        await c.run_for(5)
        assert not any(attest.has_voted(v, k, 0) for v in victims for k in far)
        assert all(v.progress.waiting for v in victims)
        # it says nothing more: the three others must agree, the two victims among them
        await c.kill(next(i for i, s in c.services.items() if s.node is liar))
        put_trade(c.chains[1], c.clock)
        await c.run_for(60)
        assert c.chains[1].state.inbox_sequence == 1
        assert all(v.progress.base_k <= base_k + 2 for v in victims)


async def test_the_same_proposal_is_answered_once_its_number_is_due(tmp_path):
    async with Committee(tmp_path) as c:
        known = await settle_one(c)
        nodes = get_nodes(c)
        k = nodes[0].progress.base_k
        proposer = next(n for n in nodes if n.signer.operator == get_proposer(n.get_committee(), k, 0))
        victim = next(n for n in nodes if n is not proposer)
        show(proposer, victim, make_proposal(proposer, known, k))
        await c.run_for(5)
        assert attest.has_voted(victim, k, 0)


async def test_a_node_that_slept_through_many_numbers_follows_the_votes_of_the_others(tmp_path):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        nodes = get_nodes(c)
        late = nodes[3]
        await c.kill(next(i for i, s in c.services.items() if s.node is nodes[2]))
        for node in nodes[:2]:
            node.progress.base_k = 4 * MAX_K_AHEAD
        put_trade(c.chains[0], c.clock)
        await c.run_for(60)
        assert c.chains[0].state.inbox_sequence == 1
        assert late.progress.base_k > 4 * MAX_K_AHEAD


async def test_the_votes_of_one_alone_move_nobody(tmp_path):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        nodes = get_nodes(c)
        nodes[3].progress.base_k = 4 * MAX_K_AHEAD
        put_trade(c.chains[0], c.clock)
        await c.run_for(60)
        assert c.chains[0].state.inbox_sequence == 1
        assert all(n.progress.base_k < MAX_K_AHEAD for n in nodes[:3])
