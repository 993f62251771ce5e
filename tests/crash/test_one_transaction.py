"""Head, facts and what they say of open packets are one transaction: a process that dies in between has written all of it or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import pytest

from relayer import killpoints
from relayer.store import Store
from relayer.tasks import watch
from tests.committee import Committee
from tests.scenarios.test_review_committee import put_trade

LATE = 3


def open_committee(folder):
    probe = Committee(folder, count=1, files=True)
    return Committee(folder, count=1, files=True, start=probe.chains[0].times[-1] + 60)


def make_late_node(folder):
    """Files of a node that has an open packet and has not seen its answer, which is on the chain."""

    async def run():
        async with open_committee(folder) as c:
            await c.run_for(10)
            late = c.services[LATE].node
            chain = late.chains[c.chains[0].vault_id]
            true_update = chain.reader.update

            async def update(source, trusted):
                return None if late.store.get_packets() else await true_update(source, trusted)

            chain.reader.update = update
            put_trade(c.chains[0], c.clock)
            await c.run_for(60)
            assert c.chains[0].state.inbox_sequence == 1
            assert [p.status for p in late.store.get_packets()] == ["open"]
            assert {p.status for p in c.services[0].node.store.get_packets()} == {"done"}

    asyncio.run(run())


def look_in_a_child(folder, kill_at="", *, is_together=True):
    """The late node comes back, looks once at its chain, and dies at a point; returns how it ended."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.environ["RELAYER_KILL_AT"] = kill_at
            killpoints.arm()
            if not is_together:
                Store.together = lambda _: contextlib.nullcontext()

            async def look():
                c = open_committee(folder)
                service = c.open(LATE)
                await watch.step(service.node, c.chains[0].vault_id)
                service.close()

            asyncio.run(look())
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def read(folder):
    """(number of the newest fact, that of the newest head, states of packets) on record."""
    store = Store(folder / f"node{LATE}.db")
    store.verify_all()
    vault_id = Committee(folder, count=1, files=True).chains[0].vault_id
    found = store.get_cursor(vault_id).sequence, store.get_head(vault_id).sequence
    statuses = [p.status for p in store.get_packets()]
    store.close()
    return *found, statuses


@pytest.mark.parametrize("name", ["before_facts", "after_facts"])
def test_a_kill_between_the_facts_and_the_fate_of_a_packet_leaves_neither(tmp_path, name):
    make_late_node(tmp_path)
    before = read(tmp_path)
    assert before[2] == ["open"]
    assert look_in_a_child(tmp_path, name) == -signal.SIGKILL
    assert read(tmp_path) == before
    assert look_in_a_child(tmp_path) == 0
    after = read(tmp_path)
    assert after[0] == after[1] > before[0]
    assert after[2] == ["done"]


def test_a_kill_after_the_fate_of_a_packet_is_written_leaves_all_of_it(tmp_path):
    make_late_node(tmp_path)
    before = read(tmp_path)
    assert look_in_a_child(tmp_path, "after_fates") == -signal.SIGKILL
    facts, head, statuses = read(tmp_path)
    assert facts == head > before[0]
    assert statuses == ["done"]
    assert look_in_a_child(tmp_path) == 0
    assert read(tmp_path) == (facts, head, ["done"])


def test_written_one_after_the_other_a_kill_leaves_an_answered_packet_open(tmp_path):
    """The twin: what the test above guards against."""
    make_late_node(tmp_path)
    before = read(tmp_path)
    assert look_in_a_child(tmp_path, "after_facts", is_together=False) == -signal.SIGKILL
    facts, head, statuses = read(tmp_path)
    assert facts == head > before[0]
    assert statuses == ["open"]


async def test_a_fate_that_cannot_be_written_takes_head_and_facts_with_it(tmp_path, monkeypatch):
    c = Committee(tmp_path)
    service = c.open(0)
    node, vault_id = service.node, c.chains[0].vault_id
    await watch.step(node, vault_id)
    put_trade(c.chains[0], c.clock)
    c.chains[0].mine(c.clock.now())
    await c.clock.advance(60)
    c.chains[0].mine(c.clock.now())
    before = node.store.get_cursor(vault_id), node.store.get_head(vault_id), node.states.get_newest(vault_id)

    def break_down(*_, **__):
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(watch, "settle_packets", break_down)
        with pytest.raises(ZeroDivisionError):
            await watch.step(node, vault_id)
    found = node.store.get_cursor(vault_id), node.store.get_head(vault_id), node.states.get_newest(vault_id)
    assert found == before
    await watch.step(node, vault_id)
    assert node.store.get_cursor(vault_id).sequence == node.store.get_head(vault_id).sequence == 3
    assert node.states.get_newest(vault_id).outbox_sequence == 3
    service.close()
