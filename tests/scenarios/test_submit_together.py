"""Packets of one plan go to their vaults at the same time: one vault's nodes hold up no other's, and whose trouble it was is told."""

from __future__ import annotations

import asyncio

import pytest

from messages.errors import Rejected, Unavailable
from relayer.node import StepResult
from relayer.tasks import submit
from tests.committee import Committee
from tests.scenarios.test_review_committee import put_trade


@pytest.fixture
async def ready(tmp_path, monkeypatch):
    """A node with one certified packet for each of two vaults, none of them sent; nothing else runs."""
    committee = Committee(tmp_path)
    with monkeypatch.context() as patch:

        async def wait(_):
            """Nobody submits yet."""

        patch.setattr(submit, "step", wait)
        async with committee as c:
            for chain in c.chains:
                put_trade(chain, c.clock)
            await c.run_for(30)
            for i in range(4):
                await c.stop(i)
    service = c.open(0)
    node = service.node
    open_packets = node.store.get_packets("open")
    assert [p.vault_id for p in open_packets] == list(node.vault_ids)
    assert all(node.store.get_certificate_signatures(p) for p in open_packets)
    await c.clock.advance(node.timing.takeover_s * 4)  # whose turn it is does not matter
    yield c, service
    service.close()


def get_sent(c):
    """What each vault got, in the order of their ids."""
    return [chain.received for chain in sorted(c.chains, key=lambda chain: chain.vault_id)]


def replace_prepare(node, i, prepare):
    node.chains[node.vault_ids[i]].submitter.prepare = prepare


def make_failing(error):
    async def prepare(*_):
        raise error

    return prepare


async def test_packets_of_one_plan_are_prepared_at_the_same_time(ready):
    c, service = ready
    node, under_way, meet = service.node, [], asyncio.Barrier(2)
    for i in range(2):
        submitter = node.chains[node.vault_ids[i]].submitter

        async def prepare(certificate, previous, i=i, true=submitter.prepare):
            under_way.append(i)
            await meet.wait()  # one after the other, this would be for ever
            return await true(certificate, previous)

        submitter.prepare = prepare
    await asyncio.wait_for(submit.step(node), 20)
    assert sorted(under_way) == [0, 1]
    assert get_sent(c) == [[(1, True)], [(1, True)]]


class OneAfterTheOther:
    """What the step would be without doing things at the same time."""

    @staticmethod
    async def gather(*steps, return_exceptions):
        assert return_exceptions
        return [await step for step in steps]


@pytest.mark.parametrize(("stuck", "is_together"), [(0, True), (1, True), (0, False)])
async def test_an_endpoint_that_does_not_answer_holds_up_no_other_vault(ready, monkeypatch, stuck, is_together):
    """The last case is the twin: one after the other, the first vault's endpoint holds the second one up."""
    c, service = ready
    node, is_answered = service.node, asyncio.Event()
    submitter = node.chains[node.vault_ids[stuck]].submitter
    true_prepare = submitter.prepare

    async def prepare(certificate, previous):
        await is_answered.wait()
        return await true_prepare(certificate, previous)

    submitter.prepare = prepare
    if not is_together:
        monkeypatch.setattr(submit, "asyncio", OneAfterTheOther)
    step = asyncio.create_task(submit.step(node))
    other = node.chains[node.vault_ids[1 - stuck]].submitter
    for _ in range(1000):
        await asyncio.sleep(0)
    assert bool(other.sent) is (is_together or stuck == 1)
    assert not submitter.sent
    assert not step.done()
    is_answered.set()
    await asyncio.wait_for(step, 20)
    assert get_sent(c) == [[(1, True)], [(1, True)]]


@pytest.mark.parametrize("broken", [0, 1])
async def test_a_bug_in_one_vaults_submitter_stops_the_process(ready, broken):
    c, service = ready
    replace_prepare(service.node, broken, make_failing(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        await service._submit()
    assert [bool(s) for s in get_sent(c)] == [broken == 1, broken == 0]


@pytest.mark.parametrize("broken", [0, 1])
async def test_a_bug_is_told_before_another_vaults_trouble(ready, broken):
    _, service = ready
    replace_prepare(service.node, broken, make_failing(ZeroDivisionError()))
    replace_prepare(service.node, 1 - broken, make_failing(Unavailable("away", reason="no_endpoint")))
    with pytest.raises(ZeroDivisionError):
        await submit.step(service.node)


@pytest.mark.parametrize("kind", [Unavailable, Rejected])
@pytest.mark.parametrize("failing", [0, 1])
async def test_one_vaults_trouble_is_told_with_its_chain_and_the_other_is_served(ready, failing, kind):
    c, service = ready
    replace_prepare(service.node, failing, make_failing(kind("no", reason="one")))
    with pytest.raises(kind) as caught:
        await submit.step(service.node)
    assert caught.value.source == service.node.chains[service.node.vault_ids[failing]].chain_id
    assert [bool(s) for s in get_sent(c)] == [failing == 1, failing == 0]


async def test_of_two_troubles_the_first_is_told_and_a_source_that_is_named_stays(ready):
    c, service = ready
    replace_prepare(service.node, 0, make_failing(Unavailable("first", reason="one", source="its endpoint")))
    replace_prepare(service.node, 1, make_failing(Rejected("second", reason="two")))
    with pytest.raises(Unavailable) as caught:
        await submit.step(service.node)
    assert caught.value.source == "its endpoint"
    assert await service._submit() == StepResult.UNAVAILABLE
    assert get_sent(c) == [[], []]


async def test_a_step_that_is_cancelled_leaves_no_submission_under_way(ready):
    c, service = ready
    node, is_answered = service.node, asyncio.Event()
    for i in range(2):
        submitter = node.chains[node.vault_ids[i]].submitter

        async def prepare(certificate, previous, true=submitter.prepare):
            await is_answered.wait()
            return await true(certificate, previous)

        submitter.prepare = prepare
    step = asyncio.create_task(submit.step(node))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    is_answered.set()
    for _ in range(100):
        await asyncio.sleep(0)
    assert get_sent(c) == [[], []]
