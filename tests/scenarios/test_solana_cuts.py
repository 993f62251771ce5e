"""Cut entries of a vault without headers: honest nodes name different states, evidence decides, and two heads of one number stop the chain."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from chains.solana.codec import decode_attested, encode_attested
from chains.solana.observations import compute_observation_digest
from chains.solana.types import Attested, Observation, SignedObservation
from messages.digests import get_address, sign_digest
from messages.documents import CutEntry, Evidence, Proposal, compute_digest, decode_document
from messages.errors import Rejected, Unavailable
from messages.wire import decode_envelope
from relayer.node import Timing
from relayer.rules.quorum import MAX_PROPOSAL_ENVELOPE_BYTES
from relayer.store import HeadRecord
from relayer.tasks import attest
from tests.builders import OPERATOR_KEYS
from tests.scenarios.test_solana_committee import Net

ZERO32 = bytes(32)


def say(net, key, sequence, head, slot, clock):
    observation = Observation(net.vault_id, slot, clock, sequence, head)
    return SignedObservation(observation, get_address(key), sign_digest(key, compute_observation_digest(observation)))


def make_entry(net, sequence, head, slot, clock, keys=OPERATOR_KEYS[1:4], timed=()):
    """A cut entry with its evidence: these operators at one number."""
    said = tuple(sorted((say(net, key, sequence, head, slot, clock) for key in keys), key=lambda s: s.operator))
    data = encode_attested(Attested(said, (), timed))
    return CutEntry(net.vault_id, slot, ZERO32, clock, sequence, head), Evidence(net.vault_id, data, data)


def get_newest(node, net) -> HeadRecord:
    found = node.store.get_head(net.vault_id)
    assert found is not None
    return found


async def settle_two(net):
    """Two packets on record at every node; returns node 0 and its newest head."""
    net.deposit(1_000)
    net.deposit(500)
    await net.run_until(net.has_facts(2))
    await net.pass_time(30)
    node = net.services[0].node
    return node, get_newest(node, net)


def get_heads(node, net):
    return [node.store.get_fact_head(net.vault_id, n) for n in range(3)]


async def test_another_state_of_the_same_history_is_verified_by_its_evidence_and_halts_nothing(tmp_path):
    async with Net(tmp_path) as net:
        node, newest = await settle_two(net)
        heads, at = get_heads(node, net), newest.point
        for entry, evidence in (
            make_entry(net, 2, heads[2], at.height, at.time + 1),  # the slot on record, another clock
            make_entry(net, 1, heads[1], at.height, at.time - 5),  # the slot on record, another number
            make_entry(net, 2, heads[2], at.height + 1, at.time),
            make_entry(net, 2, heads[2], at.height - 1, at.time - 1),
            make_entry(net, 1, heads[1], 7, at.time - 500),  # before everything on record
        ):
            await attest.verify_entry(node, entry, evidence)
        assert get_newest(node, net) == newest
        assert not node.store.get_halts()


async def test_an_entry_that_its_evidence_does_not_show_is_refused_and_halts_nothing(tmp_path):
    async with Net(tmp_path) as net:
        node, newest = await settle_two(net)
        heads, at = get_heads(node, net), newest.point
        entry, evidence = make_entry(net, 2, heads[2], at.height + 1, at.time + 1)
        await attest.verify_entry(node, entry, evidence)
        weak = Evidence(
            net.vault_id, *[make_entry(net, 2, heads[2], at.height + 1, at.time + 1, OPERATOR_KEYS[:2])[1].proof] * 2
        )
        future = make_entry(net, 2, heads[2], at.height + 1, net.clock.now() + 60)
        for changed, given, reason in (
            (replace(entry, time=entry.time + 1), evidence, "cut_entry"),
            (replace(entry, height=entry.height + 1), evidence, "cut_entry"),
            (replace(entry, header_hash=b"\1" * 32), evidence, "cut_entry"),
            (replace(entry, outbox_sequence=1), evidence, "wrong_number"),
            (replace(entry, outbox_head=heads[1]), evidence, "wrong_head"),
            (entry, weak, "too_few"),
            (*future, "future"),
            (entry, replace(evidence, proof=newest.proof), "wrong_evidence"),
        ):
            with pytest.raises(Rejected) as caught:
                await attest.verify_entry(node, changed, given)
            assert caught.value.reason == reason
        with pytest.raises(Unavailable):
            await attest.verify_entry(node, entry, Evidence(net.vault_id, b"", b""))
        assert not node.store.get_halts()


async def test_m_operators_with_another_head_for_a_number_on_record_stop_the_chain(tmp_path):
    async with Net(tmp_path) as net:
        node, newest = await settle_two(net)
        entry, evidence = make_entry(net, 1, b"\7" * 32, newest.point.height + 1, newest.point.time + 1)
        with pytest.raises(Rejected) as caught:
            await attest.verify_entry(node, entry, evidence)
        assert caught.value.reason == "halted"
        (halt,) = node.store.get_halts()
        assert (halt.subject, halt.reason) == (f"chain:{net.network.chain}", "two_heads")
        # what is on record still counts, anything else does not while people look
        own = CutEntry(net.vault_id, newest.point.height, ZERO32, newest.point.time, newest.sequence, newest.head)
        await attest.verify_entry(node, own, Evidence(net.vault_id, b"", b""))
        true, shown = make_entry(net, 2, newest.head, newest.point.height + 1, newest.point.time + 1)
        with pytest.raises(Rejected) as caught:
            await attest.verify_entry(node, true, shown)
        assert caught.value.reason == "halted"


async def test_evidence_of_later_packets_brings_the_facts_with_it(tmp_path):
    async with Net(tmp_path, timing=Timing(poll_s=3_000.0)) as net:
        await net.pass_time(6)
        node = net.services[0].node
        await net.run_until(lambda n: n.store.get_head(net.vault_id) is not None)
        newest = get_newest(node, net)
        net.deposit(1_000)
        await net.clock.advance(20)  # final, and nobody has looked
        state = net.read_state()
        assert node.store.get_cursor(net.vault_id).sequence == 0
        slot, clock = net.network.compute_view().finalized, net.clock.now() - 13
        behind, evidence = make_entry(net, 1, state.outbox_head, newest.point.height, clock)
        with pytest.raises(Unavailable):  # a later number in a slot on record: the own record goes on by itself
            await attest.verify_entry(node, behind, evidence)
        await attest.verify_entry(node, *make_entry(net, 1, state.outbox_head, slot, clock))
        assert net.get_free(node) == 1_000
        now = get_newest(node, net)
        assert (now.point.height, now.point.time, now.sequence) == (slot, clock, 1)
        forged, evidence = make_entry(net, 2, b"\7" * 32, slot + 50, clock)
        with pytest.raises(Unavailable):  # m operators may stand for it: without packets it is nothing
            await attest.verify_entry(node, forged, evidence)
        assert node.store.get_cursor(net.vault_id).sequence == 1


async def test_no_two_recorded_states_share_a_slot_and_what_is_proposed_stands_alone(tmp_path):
    async with Net(tmp_path) as net:
        net.deposit(1_000)
        net.request(300)
        await net.run_until(lambda node: {p.status for p in node.store.get_packets()} == {"done"}, 180)
        for service in net.services.values():
            node = service.node
            headers = [h.point for h in node.store.iterate_headers(net.network.chain)]
            assert len(headers) > 2
            assert all(a.height < b.height and a.time <= b.time for a, b in pairwise(headers))
            heads = [h.point.height for h in node.store.iterate_heads(net.vault_id)]
            assert len(set(heads)) == len(heads)
        (data, *_) = net.services[0].node.store.get_documents("proposal")
        proposal = decode_document(Proposal, decode_envelope(data, MAX_PROPOSAL_ENVELOPE_BYTES).body)
        (evidence,) = [e for e in proposal.evidence if e.vault_id == net.vault_id]
        assert len(decode_attested(evidence.update).observations) == 3
        assert compute_digest(proposal.cut)


async def test_the_first_state_of_a_node_is_evidence_for_others_too(tmp_path):
    """No checkpoint gives all of them the same first state: each begins at what it heard first."""
    async with Net(tmp_path) as net:
        await net.run_until(lambda node: node.store.get_head(net.vault_id) is not None)
        first, other = net.services[0].node, net.services[1].node
        head = next(first.store.iterate_heads(net.vault_id))
        claim = first.store.get_header_claim(net.network.chain, head.point.height, may_bootstrap=True)
        assert claim is not None
        entry = CutEntry(net.vault_id, head.point.height, ZERO32, head.point.time, head.sequence, head.head)
        await attest.verify_entry(other, entry, Evidence(net.vault_id, claim, head.proof))
