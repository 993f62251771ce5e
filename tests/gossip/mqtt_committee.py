"""Four services over four MQTT connections, on a clock that waits like the machine's and shows one instant for ever.

With time frozen, one submitter and no repetition by time, a whole run is a function of what happened on the chains: its plan
digests can be compared with those of another run, byte for byte.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from messages.bodies import Deposited, WithdrawalRequested
from relayer.clock import SystemClock
from relayer.gossip import Faults
from relayer.log import make_logger
from relayer.mqtt import MqttGossip
from relayer.node import Timing
from tests.builders import START, TOKEN, make_account, make_parameters, make_vault
from tests.committee import open_toy_service
from tests.fakes import ToyChain, ToyPlanner
from tests.gossip.broker import until
from tests.scenarios.test_node_committee import trade

ALICE, BOB = make_account("alice"), make_account("bob")
TIMING = Timing(poll_s=0.05, settle_s=0.1, submit_s=0.1, republish_s=1)


class FrozenClock(SystemClock):
    def now(self):
        return START + 60


class LossyGossip:
    """A connection that loses, doubles, delays and reorders what arrives; seeded."""

    def __init__(self, inner: MqttGossip, faults: Faults, seed: int):
        self.inner = inner
        self._faults = faults
        self._random = random.Random(seed)
        self._held = []

    async def publish(self, topic, data):
        await self.inner.publish(topic, data)

    def subscribe(self, topic, handler):
        def deliver(t, data):
            if self._is(self._faults.drop):
                return
            for _ in range(2 if self._is(self._faults.duplicate) else 1):
                self._held.append((t, data))
            if not self._is(self._faults.hold) or len(self._held) > 8:
                self._random.shuffle(self._held)
                while self._held:
                    handler(*self._held.pop())

        return self.inner.subscribe(topic, deliver)

    def _is(self, per_mille):
        return self._random.randrange(1000) < per_mille


@dataclass(frozen=True)
class Ending:
    """What must be the same in every run: per node its packets with their plans, and what the vaults hold."""

    packets: tuple
    holdings: tuple


class MqttCommittee:
    """Use as ``async with``; ``broker`` runs already."""

    def __init__(self, folder, broker, *, faults=None, clock=None, timing=TIMING):
        self.folder, self.broker, self.faults = folder, broker, faults
        self.clock, self.timing = clock or FrozenClock(), timing
        vaults = sorted((make_vault(i) for i in range(2)), key=lambda v: v.chain)
        self.parameters = make_parameters(vaults, patience_s=30)
        self.chains = [ToyChain(v) for v in vaults]
        self.gossips, self.services, self.tasks = [], [], []

    def open(self, i):
        gossip = MqttGossip(self.broker.settings(i), make_logger(level="error"))
        heard = gossip if self.faults is None else LossyGossip(gossip, self.faults, i)
        service = open_toy_service(
            self.folder, i, self.parameters, self.chains, self.clock, heard, planner=ToyPlanner(), timing=self.timing
        )
        gossip.on_connect = service.node.publish_soon
        return gossip, service

    async def _say_again(self):
        """In the place of time, which stands still."""
        while True:
            await asyncio.sleep(0.25)
            for service in self.services:
                service.node.publish_soon()

    async def __aenter__(self):
        for i in range(4):
            gossip, service = self.open(i)
            self.gossips.append(gossip)
            self.services.append(service)
            self.tasks += [asyncio.create_task(gossip.run()), asyncio.create_task(service.run())]
        self._again = asyncio.create_task(self._say_again())
        return self

    async def __aexit__(self, *_):
        self._again.cancel()
        for service in self.services:
            service.stop()
        for gossip in self.gossips:
            gossip.stop()
        await asyncio.wait_for(asyncio.gather(*self.tasks), 30)
        for service in self.services:
            service.close()

    async def until(self, condition, seconds=50):
        await until(condition, self.tasks, seconds)

    def put_trades(self):
        for chain in self.chains:
            chain.put(Deposited(ALICE, TOKEN, 100), self.clock.now())
            trade(chain, self.clock)
        self._wake_watchers()

    def put_requests(self):
        for chain in self.chains:
            chain.put(WithdrawalRequested(BOB, TOKEN, 30), self.clock.now())
        self._wake_watchers()

    def _wake_watchers(self):
        for service in self.services:
            for wake in service.node.watch_wakes.values():
                wake.set()

    def is_settled(self, packets):
        """Whether every node knows so many packets, and all their Acks as facts.

        Not the status in its store: a packet that became known after its Ack is done at the next header, and here none comes.
        """
        return all(
            len(s.node.store.get_packets()) == packets
            and {s.node.states.get_newest(c.vault_id).inbox_sequence for c in self.chains} == {packets // 2}
            for s in self.services
        )

    def get_ending(self):
        packets = {
            tuple((p.vault_id, p.sequence, p.k, p.plan_digest, p.commitment) for p in s.node.store.get_packets())
            for s in self.services
        }
        holdings = tuple(
            (sorted(c.state.free.items()), sorted(c.state.claimable.items()), sorted(c.state.positions.items()))
            for c in self.chains
        )
        assert all(s.node.store.get_halts() == () for s in self.services)
        assert all(s.node.store.get_evidence() == () for s in self.services)
        assert [[accepted for _, accepted in c.received].count(True) for c in self.chains] == [2, 2]
        return Ending(tuple(sorted(packets)), holdings)


async def run_story(folder, broker, *, faults=None, during=None, is_ready=lambda: True, enough=lambda: True):
    """Deposits and trades, settled; withdrawals, settled.

    ``during(committee)`` runs beside it and is ended with it; nothing happens before it ``is_ready``, and the second half waits until there
    was ``enough`` of it.
    """
    folder.mkdir(exist_ok=True)
    committee = MqttCommittee(folder, broker, faults=faults)
    async with committee as c:
        disturbance = asyncio.create_task(during(c)) if during is not None else None
        try:
            # who listens too late to what four quick nodes say to each other hears nothing that it could say again
            await c.until(lambda: is_ready() or (disturbance is not None and disturbance.done()))
            c.put_trades()
            await c.until(lambda: c.is_settled(2))
            await c.until(enough)
            c.put_requests()
            await c.until(lambda: c.is_settled(4))
        finally:
            if disturbance is not None:
                if disturbance.done():
                    disturbance.result()
                # asyncio.wait_for of Python 3.11 loses a cancellation that comes together with the answer it waits for
                while not disturbance.done():
                    disturbance.cancel()
                    await asyncio.wait([disturbance], timeout=1)
        return c.get_ending(), c
