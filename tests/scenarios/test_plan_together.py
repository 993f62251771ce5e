"""Chains that finalize at one moment get one plan, and a chain whose look hangs holds a plan up by a moment at most."""

from __future__ import annotations

import asyncio
import socket

import pytest

from relayer import service as service_module
from relayer.service import TOGETHER_S, Service
from tests.committee import Committee
from tests.scenarios.test_review_committee import count_accepted, put_trade

LOOK_S = 0.005
"""How long an answer of the slower chain takes: a look asks for a few, and all of them come within what a planner waits."""


def slow_down(c, i, seconds):
    """Every look at one chain takes so long, at every node; () is what it is at once."""
    for service in c.services.values():
        reader = service.node.chains[c.chains[i].vault_id].reader
        true_update = reader.update

        async def update(source, trusted, true_update=true_update):
            await c.clock.sleep(seconds)
            return await true_update(source, trusted)

        reader.update = update


def finalize_both(c):
    """A trade on each chain is final at one moment, and every node gets a hint of both."""
    for chain in c.chains:
        put_trade(chain, c.clock)
        chain.mine(c.clock.now())
    for service in c.services.values():
        for wake in service.node.watch_wakes.values():
            wake.set()


def get_packets(node):
    return [(p.k, p.vault_id) for p in sorted(node.store.get_packets(), key=lambda p: (p.k, p.vault_id))]


@pytest.mark.parametrize("slow", [0, 1])
async def test_two_chains_that_finalize_at_one_moment_give_one_plan(tmp_path, slow):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        slow_down(c, slow, LOOK_S)
        finalize_both(c)
        await c.run_for(40)
        assert [count_accepted(chain) for chain in c.chains] == [1, 1]
        for service in c.services.values():
            assert get_packets(service.node) == [(0, v) for v in service.node.vault_ids]


async def test_without_waiting_for_looks_the_slower_chain_needs_a_plan_of_its_own(tmp_path, monkeypatch):
    """The twin: what the test above guards against."""

    async def do_not_wait(_):
        """As before."""

    monkeypatch.setattr(Service, "_let_looks_end", do_not_wait)
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        slow_down(c, 1, LOOK_S)
        finalize_both(c)
        await c.run_for(60)
        assert [count_accepted(chain) for chain in c.chains] == [1, 1]
        assert [k for k, _ in get_packets(c.services[0].node)] == [0, 1]


async def test_a_chain_whose_looks_hang_holds_up_no_other_chain(tmp_path):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        slow_down(c, 1, 10_000)
        finalize_both(c)
        await c.run_for(40)
        assert [count_accepted(chain) for chain in c.chains] == [1, 0]
        for service in c.services.values():
            assert get_packets(service.node) == [(0, c.chains[0].vault_id)]


# ---- how long


@pytest.fixture
def alone(tmp_path):
    """One open node of which nothing runs."""
    c = Committee(tmp_path)
    service = c.open(0)
    yield c, service
    service.close()


async def test_a_planner_waits_for_nothing_where_nobody_looks(alone):
    c, service = alone
    waiting = asyncio.create_task(service._let_looks_end())
    await c.clock.settle()
    for _ in range(service_module.NEWS_TURNS):
        await asyncio.sleep(0)
    assert waiting.done()
    assert not service.node.is_planner_waiting


async def test_a_look_that_hangs_is_waited_for_a_moment_and_no_longer(alone):
    c, service = alone
    node = service.node
    with node.look(node.vault_ids[0]), node.look(node.vault_ids[1]):
        waiting = asyncio.create_task(service._let_looks_end())
        await asyncio.sleep(0.01)
        await c.clock.advance(TOGETHER_S - 0.001)
        assert not waiting.done()
        assert node.is_planner_waiting
        await c.clock.advance(0.001)
        assert waiting.done()
        assert not node.is_planner_waiting


async def test_news_again_and_again_hold_a_plan_up_once_per_vault_at_most(alone):
    c, service = alone
    node = service.node
    with node.look(node.vault_ids[0]):
        waiting = asyncio.create_task(service._let_looks_end())
        await asyncio.sleep(0.01)
        for _ in node.vault_ids:
            assert not waiting.done()
            await c.clock.advance(TOGETHER_S - 0.001)
            node.settle_wake.set()
            await c.clock.settle()
        assert waiting.done()


async def test_the_last_look_that_ends_lets_the_planner_go_on_at_once(alone):
    c, service = alone
    node = service.node
    first, second = (node.look(v) for v in node.vault_ids)
    first.__enter__()
    second.__enter__()
    waiting = asyncio.create_task(service._let_looks_end())
    await asyncio.sleep(0.01)
    first.__exit__(None, None, None)
    await c.clock.settle()
    assert not waiting.done()
    second.__exit__(None, None, None)
    await c.clock.settle()
    assert waiting.done()  # and no time has gone by


async def test_a_look_that_fails_has_ended_too(alone):
    _, service = alone
    node = service.node
    with pytest.raises(ZeroDivisionError), node.look(node.vault_ids[0]):
        raise ZeroDivisionError
    assert node.looking == set()


async def test_a_look_wakes_a_planner_only_if_one_waits(alone):
    c, service = alone
    node = service.node
    for is_waiting in (False, True):
        node.is_planner_waiting = is_waiting
        with node.look(node.vault_ids[0]):
            pass
        woken = asyncio.create_task(c.clock.wait(node.settle_wake, 1))
        await asyncio.sleep(0)
        await c.clock.advance(1)
        assert await woken is is_waiting


@pytest.mark.parametrize("is_before", [True, False])
async def test_a_node_that_stops_is_not_held_up(alone, is_before):
    c, service = alone
    node = service.node
    with node.look(node.vault_ids[0]):
        if is_before:
            service.stop()
        waiting = asyncio.create_task(service._let_looks_end())
        await asyncio.sleep(0.01)
        assert waiting.done() is is_before
        service.stop()
        await c.clock.settle()
        assert waiting.done()


async def test_a_planner_that_is_cancelled_waits_no_more(alone):
    _, service = alone
    node = service.node
    with node.look(node.vault_ids[0]):
        waiting = asyncio.create_task(service._let_looks_end())
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert not node.is_planner_waiting


@pytest.mark.parametrize(("turns", "is_seen"), [(service_module.NEWS_TURNS, True), (0, False)])
async def test_a_look_whose_hint_waits_in_a_socket_is_under_way_too(alone, monkeypatch, turns, is_seen):
    """The second case is the twin: without turns for what has arrived, the plan is made before the hint is read."""
    c, service = alone
    node, end = service.node, asyncio.Event()
    monkeypatch.setattr(service_module, "NEWS_TURNS", turns)
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)

    async def look():
        await reader.readline()
        with node.look(node.vault_ids[0]):
            await end.wait()

    looking = asyncio.create_task(look())
    await asyncio.sleep(0.01)
    theirs.send(b"news\n")
    waiting = asyncio.create_task(service._let_looks_end())
    await asyncio.sleep(0.05)
    assert node.looking == {node.vault_ids[0]}
    assert waiting.done() is not is_seen
    end.set()
    await looking
    await c.clock.settle()
    assert waiting.done()
    writer.close()
    await writer.wait_closed()
    theirs.close()
