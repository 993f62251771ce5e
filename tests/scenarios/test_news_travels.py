"""Nothing waits for a clock that could be told: hints, late packets, silent proposers, two tasks at one header."""

from __future__ import annotations

import asyncio

import pytest

from messages.errors import Unavailable
from relayer.keys import Journal, Secret
from relayer.log import make_logger
from relayer.node import Timing
from relayer.rules.quorum import get_proposer
from relayer.service import Service
from relayer.tasks import attest, settle, watch
from tests.builders import OPERATOR_KEYS
from tests.committee import Committee
from tests.fakes import ToyPlanner, ToyReader, make_toy_chain
from tests.scenarios.test_review_committee import put_trade

SELDOM_S = 100_000.0


class HintingReader(ToyReader):
    """Hints when somebody says so; breaks once before."""

    def __init__(self, chain):
        super().__init__(chain)
        self.news = asyncio.Event()
        self.follows = 0
        self.is_followed = asyncio.Event()

    async def follow(self, source, hint):
        self.follows += 1
        if source != "one":
            return
        if self.follows == 1:
            raise Unavailable("it broke", reason="stream", source=source)
        self.is_followed.set()
        while True:
            await self.news.wait()
            self.news.clear()
            hint()


def open_lonely(c, folder, reader):
    """A node that looks once a day."""
    Journal.create_first(folder / "lonely.journal", c.clock.now())
    chains = [make_toy_chain(chain, "lonely", c.clock) for chain in c.chains]
    object.__setattr__(chains[0], "reader", reader)
    return Service.open(
        name="lonely",
        store_path=folder / "lonely.db",
        journal_path=folder / "lonely.journal",
        operator_key=Secret(OPERATOR_KEYS[0]),
        parameters=c.parameters,
        chains=chains,
        clock=c.clock,
        gossip=c.bus.connect("lonely"),
        planner=ToyPlanner(),
        timing=Timing(poll_s=SELDOM_S, settle_s=SELDOM_S),
        log=make_logger(level="error"),
    )


@pytest.mark.parametrize("is_told", [True, False])
async def test_a_node_looks_when_a_source_hints_and_otherwise_when_it_is_time(tmp_path, monkeypatch, is_told):
    monkeypatch.setattr("relayer.service.MIN_FOLLOW_S", 0.01)
    c = Committee(tmp_path)
    reader = HintingReader(c.chains[0])
    service = open_lonely(c, tmp_path, reader)
    vault_id = c.chains[0].vault_id
    task = asyncio.create_task(service.run())
    await c.clock.settle()
    await asyncio.wait_for(reader.is_followed.wait(), 5)  # the broken stream again
    put_trade(c.chains[0], c.clock)
    c.chains[0].mine(c.clock.now())
    await c.clock.advance(60)
    c.chains[0].mine(c.clock.now())
    if is_told:
        reader.news.set()
    await asyncio.sleep(0.05)
    await c.clock.settle()
    assert (service.node.store.get_cursor(vault_id).sequence > 0) is is_told
    service.stop()
    await asyncio.wait_for(task, 5)
    service.close()


async def test_a_packet_that_becomes_known_after_its_answer_is_settled_at_once(tmp_path):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        late = c.services[3].node
        c.bus.cut_off.add(late.name)
        put_trade(c.chains[0], c.clock)
        await c.run_for(60)
        assert c.chains[0].state.inbox_sequence == 1
        (packet,) = [p for p in c.services[0].node.store.get_packets() if p.vault_id == c.chains[0].vault_id]
        assert packet.status == "done"
        assert late.store.get_packets() == ()
        await watch.step(late, packet.vault_id)
        other = c.services[0].node
        plan = attest.read_plan(other.store.get_document(packet.plan_digest))[0]
        await attest.open_and_sign(late, plan, other.store.get_votes(packet.plan_digest))
        assert [p.status for p in late.store.get_packets()] == ["done"]


async def test_the_next_proposer_wakes_when_the_patience_with_a_dead_one_is_over(tmp_path):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        node = c.services[0].node
        assert settle.get_turn_in_s(node) is None
        dead = get_proposer(node.get_committee(), 0, 0)
        await c.kill(next(i for i, s in c.services.items() if s.node.signer.operator == dead))
        put_trade(c.chains[0], c.clock)
        c.chains[0].mine(c.clock.now())
        await c.run_for(10)
        alive = [s.node for s in c.services.values()]
        waits = [settle.get_turn_in_s(n) for n in alive]
        assert all(w is not None and 0 < w <= n.patience_s for n, w in zip(alive, waits, strict=True))
        await c.run_for(30)
        assert all(n.progress.base_k == 1 for n in alive)


async def test_two_tasks_take_turns_at_a_header_and_a_stuck_one_holds_up_nobody(tmp_path):
    async with Committee(tmp_path) as c:
        node = c.services[0].node
        vault_id = c.chains[0].vault_id
        order = []

        async def work(name, seconds):
            async with node.take_turn(vault_id):
                order.append(name)
                await asyncio.sleep(seconds)
                order.append(name)

        await asyncio.gather(work("a", 0.02), work("b", 0.0))
        assert order == ["a", "a", "b", "b"]
        order.clear()
        stuck = asyncio.create_task(work("stuck", 30))
        await asyncio.sleep(0)
        await work("b", 0.0)
        assert order == ["stuck", "b", "b"]
        stuck.cancel()
        await asyncio.gather(stuck, return_exceptions=True)
        await work("c", 0.0)
        assert order == ["stuck", "b", "b", "c", "c"]
