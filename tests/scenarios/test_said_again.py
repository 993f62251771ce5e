"""What was said a moment ago is not repeated in the middle of its own agreement; whatever is not finished is repeated in its time."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from messages.documents import OpenPackets
from messages.errors import Rejected
from messages.wire import decode_envelope
from relayer.rules.quorum import MAX_PROPOSAL_ENVELOPE_BYTES, get_proposer
from relayer.tasks import attest
from tests.committee import Committee
from tests.scenarios.test_review_committee import make_proposal, put_trade

EVERYTHING = {"proposal", "vote"}


async def freeze(c):
    """Stop every node and leave its files open: from now on happens what the test does."""
    for i in list(c.tasks):
        task = c.tasks.pop(i)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.contextmanager
def closing(c):
    """Close the frozen nodes at the end."""
    try:
        yield
    finally:
        for service in c.services.values():
            service.close()


def listen(node):
    """Kinds of what a node hands to its carrier from now on."""
    said = []
    true_publish = node.gossip.publish

    async def publish(topic, data):
        said.append(decode_envelope(data, MAX_PROPOSAL_ENVELOPE_BYTES).type)
        await true_publish(topic, data)

    node.gossip.publish = publish
    return said


async def make_voted(tmp_path):
    """A node with a proposal it voted for and too few others to agree, and the second in which it did."""
    c = Committee(tmp_path)
    async with c:
        await c.run_for(10)
        leader_address = get_proposer(c.services[0].node.get_committee(), 0, 0)
        i = next(i for i, s in c.services.items() if s.node.signer.operator == leader_address)
        for other in [j for j in c.services if j not in (i, (i + 1) % 4)]:
            await c.kill(other)
        put_trade(c.chains[0], c.clock)
        await c.run_for(10)
        await freeze(c)
    node = c.services[i].node
    assert set(node.progress.proposals) == set(node.progress.accepted_at) == {(0, 0)}
    assert node.progress.base_k == 0
    return c, i, node.progress.accepted_at[0, 0]


async def make_opened(tmp_path):
    """Four nodes that agreed on a packet which no chain has taken, and the second in which the first one learnt that."""
    c = Committee(tmp_path)
    async with c:
        for chain in c.chains:
            chain.drop_transactions = True
        await c.run_for(10)
        put_trade(c.chains[0], c.clock)
        await c.run_for(10)
        await freeze(c)
    (packet,) = c.services[0].node.store.get_packets("open")
    return c, packet.seen_at


async def say_again_at(c, node, at, *, last_at):
    """What a node repeats at a second, if it did so before at another one."""
    await c.clock.advance(at - c.clock.now())
    node.progress.last_publish_at = last_at
    said = listen(node)
    await attest.publish_again(node)
    return said


@pytest.mark.parametrize("after_s", [0, 1, 9])
async def test_a_proposal_that_was_accepted_a_moment_ago_is_not_repeated(tmp_path, after_s):
    c, i, accepted_at = await make_voted(tmp_path)
    with closing(c):
        node = c.services[i].node
        now = max(c.clock.now(), accepted_at + after_s)
        node.progress.accepted_at[0, 0] = now - after_s
        assert await say_again_at(c, node, now, last_at=now - node.timing.republish_s) == []
        # at the next round it is
        said = await say_again_at(c, node, now + node.timing.republish_s, last_at=now)
        assert set(said) == EVERYTHING


@pytest.mark.parametrize("after_s", [10, 11, 500])
async def test_a_proposal_is_repeated_once_half_the_time_between_two_rounds_has_passed(tmp_path, after_s):
    c, i, _ = await make_voted(tmp_path)
    with closing(c):
        node = c.services[i].node
        now = c.clock.now()
        assert node.timing.republish_s // 2 == 10
        node.progress.accepted_at[0, 0] = now - after_s
        said = await say_again_at(c, node, now, last_at=now - node.timing.republish_s)
        assert sorted(said) == ["proposal", "vote"]


async def test_before_its_round_nothing_is_repeated(tmp_path):
    c, i, accepted_at = await make_voted(tmp_path)
    with closing(c):
        node = c.services[i].node
        now = accepted_at + 100
        assert await say_again_at(c, node, now, last_at=now - node.timing.republish_s + 1) == []
        assert set(await say_again_at(c, node, now + 1, last_at=now - node.timing.republish_s + 1)) == EVERYTHING


async def test_after_a_reconnect_everything_unfinished_is_said_at_once(tmp_path):
    c, i, _ = await make_voted(tmp_path)
    with closing(c):
        node = c.services[i].node
        now = c.clock.now()
        node.progress.accepted_at[0, 0] = now
        node.progress.last_publish_at = now - node.timing.republish_s
        node.publish_soon()
        said = listen(node)
        await attest.publish_again(node)
        assert set(said) == EVERYTHING
        said.clear()
        await attest.publish_again(node)
        assert said == []  # once


async def test_after_a_restart_everything_unfinished_is_said_at_once(tmp_path):
    c, i, _ = await make_voted(tmp_path)
    c.services[i].close()
    with closing(c):
        node = c.open(i).node
        assert node.progress.accepted_at == {}
        said = listen(node)
        await attest.publish_again(node)
        assert set(said) == EVERYTHING


async def test_a_plan_that_was_opened_a_moment_ago_is_repeated_in_the_next_round_and_not_in_this(tmp_path):
    c, seen_at = await make_opened(tmp_path)
    with closing(c):
        node, every_s = c.services[0].node, c.services[0].node.timing.republish_s
        now = max(c.clock.now(), seen_at)
        assert now - seen_at < every_s // 2
        assert "signed_plan" not in await say_again_at(c, node, now, last_at=now - every_s)
        assert "signed_plan" in await say_again_at(c, node, now + every_s, last_at=now)


@pytest.mark.parametrize(("age_s", "is_said"), [(9, False), (10, True)])
async def test_an_open_plan_is_repeated_from_half_the_time_between_two_rounds_on(tmp_path, age_s, is_said):
    c, seen_at = await make_opened(tmp_path)
    with closing(c):
        node = c.services[0].node
        now = seen_at + age_s
        assert now >= c.clock.now()
        said = await say_again_at(c, node, now, last_at=now - node.timing.republish_s)
        assert ("signed_plan" in said) is is_said


async def test_after_a_reconnect_or_a_restart_young_packets_are_said_at_once(tmp_path):
    c, seen_at = await make_opened(tmp_path)
    with closing(c):
        node = c.services[0].node
        now = c.clock.now()
        assert now - seen_at < node.timing.republish_s // 2
        node.progress.last_publish_at = now
        node.publish_soon()
        said = listen(node)
        await attest.publish_again(node)
        assert "signed_plan" in said
        c.services[0].close()
        node = c.open(0).node
        said = listen(node)
        await attest.publish_again(node)
        assert "signed_plan" in said


@pytest.mark.parametrize("is_forgetful", [True, False])
async def test_who_forgets_a_young_open_packet_is_told_it_at_once(tmp_path, is_forgetful):
    c, seen_at = await make_opened(tmp_path)
    with closing(c):
        committee = c.services[0].node.get_committee()
        proposer = get_proposer(committee, 1, 0)
        leader = next(s.node for s in c.services.values() if s.node.signer.operator == proposer)
        voter = next(s.node for s in c.services.values() if s.node is not leader)
        assert c.clock.now() - seen_at < voter.timing.republish_s // 2
        proposal = make_proposal(leader, 1, 0, open_packets=OpenPackets(()) if is_forgetful else None)
        envelope, said = leader.signer.sign_proposal(proposal), listen(voter)
        if is_forgetful:
            with pytest.raises(Rejected) as caught:
                await attest.accept_proposal(voter, envelope, envelope.body)
            assert caught.value.reason == "open_missing"
            assert said == ["signed_plan"]
        else:
            await attest.accept_proposal(voter, envelope, envelope.body)
            assert said == ["vote"]
