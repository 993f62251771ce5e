"""A chain that makes a block a second: what a node keeps of it, what it does not wait for, and what it sends anew."""

from __future__ import annotations

import pytest

from chains.base import TOO_FAR
from messages.documents import Cut, CutEntry, Proposal, decode_document, encode_document
from messages.errors import Rejected, Unavailable
from relayer.tasks import attest, watch
from tests.committee import Committee
from tests.scenarios.test_review_committee import count_accepted, put_trade
from tests.scenarios.test_waiting_proposals import make_late_node


@pytest.fixture
def alone(tmp_path):
    """A committee of which one node is open and none runs: what is looked at is looked at by the test."""
    c = Committee(tmp_path)
    service = c.open(0)
    yield c, service.node, c.chains[0]
    service.close()


def count_headers(node, chain):
    return len(list(node.store.iterate_headers(chain.chain_id)))


async def look_each_second(c, node, chain, seconds):
    for _ in range(seconds):
        await c.clock.advance(1)
        chain.mine(c.clock.now())
        await watch.step(node, chain.vault_id)


async def test_seconds_in_which_nothing_happens_are_recorded_now_and_then(alone):
    c, node, chain = alone
    await look_each_second(c, node, chain, 2)
    before = count_headers(node, chain)
    await look_each_second(c, node, chain, 3 * watch.RECORD_EVERY_S)
    assert count_headers(node, chain) == before + 3


async def test_a_fact_is_recorded_in_the_second_in_which_it_is_proven(alone):
    c, node, chain = alone
    await look_each_second(c, node, chain, 3)
    before = count_headers(node, chain)
    put_trade(chain, c.clock)
    await look_each_second(c, node, chain, 1)
    assert node.store.get_cursor(chain.vault_id).sequence == 3
    assert count_headers(node, chain) == before + 1


async def test_an_agreed_cut_above_the_record_is_caught_up_with_at_once(alone):
    c, node, chain = alone
    await look_each_second(c, node, chain, 3)
    before = count_headers(node, chain)
    head = node.store.get_head(chain.vault_id)
    for height, recorded in ((head.point.height, 0), (head.point.height + 1, 1)):
        entry = CutEntry(chain.vault_id, height, bytes(32), head.point.time, head.sequence, head.head)
        node.store.record_settings({"cut_floor": encode_document(Cut((entry,)))})
        await look_each_second(c, node, chain, 1)
        assert count_headers(node, chain) == before + recorded


async def test_an_outage_of_packets_is_no_reason_to_record_every_second(alone):
    c, node, chain = alone
    await look_each_second(c, node, chain, 3)
    before = count_headers(node, chain)
    node.chains[chain.vault_id].reader.faults = {"one": "no_packets", "two": "no_packets"}
    put_trade(chain, c.clock)
    for _ in range(2 * watch.RECORD_EVERY_S):
        with pytest.raises(Unavailable):
            await look_each_second(c, node, chain, 1)
    assert before + 1 <= count_headers(node, chain) <= before + 3


async def test_a_header_out_of_reach_is_waited_for_and_blames_nobody(tmp_path):
    async with Committee(tmp_path) as c:
        envelope, late = await make_late_node(c)
        proposal = decode_document(Proposal, envelope.body)
        reasons = []
        for chain in late.chains.values():
            true_verify = chain.verifier.verify_update

            def verify(trusted, update, now, true_verify=true_verify):
                true_verify(trusted, update, now)
                raise Rejected("too few of the trusted validators signed", reason=reasons[-1])

            chain.verifier.verify_update = verify
        for reason, kind in ((TOO_FAR, Unavailable), ("bad_signature", Rejected)):
            reasons.append(reason)
            with pytest.raises(kind):
                await attest.verify_proposal(late, proposal, late.get_committee())


async def test_a_transaction_that_nodes_will_never_take_is_replaced(tmp_path):
    """Before, what had never been handed over was handed over again for ever."""
    async with Committee(tmp_path) as c:
        refused = set()
        for service in c.services.values():
            for chain in service.node.chains.values():
                submitter = chain.submitter
                true_send = submitter.send

                async def send(signed, submitter=submitter, true_send=true_send):
                    if submitter not in refused or signed.tx_id in refused:
                        refused.update({submitter, signed.tx_id})
                        raise Unavailable("its last height is past", reason="stale")
                    return await true_send(signed)

                submitter.send = send
        put_trade(c.chains[0], c.clock)
        await c.run_for(150)
        assert count_accepted(c.chains[0]) > 0
        assert refused
