"""What a node does with mail in bulk: the cost of bad messages is bounded, and the bad ones hide no good one."""

from __future__ import annotations

from messages.bodies import Deposited
from messages.documents import encode_document
from messages.wire import encode_envelope
from relayer.node import MAX_HELD_BLAMES, MAX_INBOX
from relayer.rules.statements import ArchiveRequest
from relayer.tasks import attest
from tests.builders import TOKEN, make_account, make_series, series_id
from tests.committee import Committee
from tests.scenarios.test_node_committee import trade

ALICE = make_account("alice")


def spoil(data):
    return data[:-2] + bytes([data[-2] ^ 1]) + data[-1:]


async def test_a_flood_of_bad_messages_is_a_handful_of_transactions_and_counted_right(tmp_path):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        node, other = c.services[0].node, c.services[1].node
        bad = spoil(encode_envelope(other.signer.sign_envelope("vote", b"x" * 200)))
        for _ in range(2 * MAX_INBOX):
            node.inbox.put("flood", bad)
        transactions = []
        node.store._file.connection.set_trace_callback(transactions.append)
        while node.inbox:
            before = len(node.inbox)
            await attest.step(node)
            assert 0 < before - len(node.inbox) <= attest.MESSAGES_PER_STEP
        for _ in range(200):  # one at a time, as a slow reader gets them
            node.inbox.put("flood", bad)
            await attest.step(node)
        node.store._file.connection.set_trace_callback(None)
        assert transactions.count("COMMIT") <= MAX_INBOX // MAX_HELD_BLAMES + 3
        counts = {(source, reason): n for _, source, reason, n in c.services[0].get_status().blames}
        assert counts["node", "bad_signature"] == MAX_INBOX + 200
        assert node.inbox.dropped == MAX_INBOX


async def test_a_node_under_flood_still_votes_and_settles(tmp_path):
    async with Committee(tmp_path, count=1) as c:
        chain = c.chains[0]
        chain.put(Deposited(ALICE, TOKEN, 100), c.clock.now())
        trade(chain, c.clock)
        for _ in range(6):
            for service in c.services.values():
                for i in range(600):
                    service.node.receive("flood", b"%d" % i)
            await c.run_for(10)
        assert chain.state.positions[ALICE, series_id(make_series(3000))] == 10**8


async def test_an_operator_that_asks_for_the_archive_without_end_is_answered_a_few_times_a_second(tmp_path):
    async with Committee(tmp_path, count=1) as c:
        c.chains[0].put(Deposited(ALICE, TOKEN, 100), c.clock.now())
        await c.run_for(20)
        node, asker = c.services[0].node, c.services[1].node
        sent = []

        async def publish(topic, data):
            sent.append((topic, data))

        node.gossip.publish = publish
        request = encode_document(ArchiveRequest(c.chains[0].vault_id, 0, 1))
        for number in range(3):
            for _ in range(50):
                node.receive("archive", encode_envelope(asker.signer.sign_envelope("archive_request", request)))
            await c.clock.advance(1)
            answers = [t for t, _ in sent if t.endswith("archive_packets")]
            assert len(answers) == (number + 1) * attest.ARCHIVE_ANSWERS_PER_S
