"""Operators of a Solana vault change and no settings are edited: the former set proves the next one, and each counts in its own time."""

from __future__ import annotations

from chains.solana.codec import decode_attested, decode_trusted
from messages.bodies import RotateOperators, encode_body, make_inbox_packet
from messages.digests import get_address
from messages.documents import Plan, PlannedPacket
from relayer.rules.plan import PlanResult
from tests.builders import OPERATOR_KEYS, OPERATORS, TREASURER, make_key
from tests.fakes import ToyPlanner
from tests.scenarios.test_solana_committee import Net

DELAY_S = 300
JOINING = [make_key("joining 1"), make_key("joining 2")]


class RotatingPlanner(ToyPlanner):
    """Brings a rotation to every vault once it is told to; all else as ever, but nothing that could arrive after the instant."""

    def __init__(self, treasurers):
        self.treasurers, self.wanted = treasurers, None

    def compute_plan(self, ledger, market, parameters, k, open_packets):
        plan = super().compute_plan(ledger, market, parameters, k, open_packets).plan
        busy = {p.vault_id for p in open_packets.packets if ledger.entries[p.vault_id].time < p.timeout}
        packets = []
        for entry in ledger.cut.entries:
            state = ledger.states[entry.vault_id]
            pending = state.pending_operators
            rest = [p for p in plan.packets if p.vault_id == entry.vault_id]
            if self.wanted is None or pending is not None or state.operator_epoch >= self.wanted[0]:
                packets += [p for p in rest if pending is None or p.timeout <= pending.at]
                continue
            if entry.vault_id in busy:
                continue
            epoch, effective, operators = self.wanted
            if effective < entry.time + 600 + DELAY_S:
                packets += rest
                continue
            body = RotateOperators(epoch, 3, effective, self.treasurers[entry.vault_id], operators)
            packet = make_inbox_packet(entry.vault_id, state.inbox_sequence + 1, entry.time + 600, body)
            packets.append(
                PlannedPacket(
                    entry.vault_id,
                    state.operator_epoch,
                    packet.sequence,
                    packet.timeout_timestamp,
                    encode_body(body),
                    "toy",
                )
            )
        return PlanResult(Plan(plan.k, *_get_digests(plan), tuple(packets)), (), {})


def _get_digests(plan):
    fields = [getattr(plan, name) for name in plan.__slots__]
    return fields[1:-1]


class Rotating(Net):
    """As Net, with short delays, a planner that can rotate, and keys of operators who join."""

    delay_s = DELAY_S

    def __init__(self, folder, **changes):
        super().__init__(folder, **changes)
        self.keys += JOINING
        self.planner = RotatingPlanner({self.vault_id: self.user, self.toy.vault_id: TREASURER})

    async def rotate(self, keys, *, epoch=1, wait_s=1_200):
        """Have the committee bring a rotation to both vaults; returns its instant."""
        operators = tuple(sorted(get_address(key) for key in keys))
        instant = self.clock.now() + wait_s
        self.planner.wanted = (epoch, instant, operators)
        for service in self.services.values():
            service.node.settle_wake.set()
        await self.run_until(
            lambda node: all(s.pending_operators is not None for s in node.states.get_all_newest().values()), 500
        )
        assert self.clock.now() < instant - 60
        return instant

    async def pass_to(self, time, step=10):
        while self.clock.now() < time:
            await self.pass_time(step, step=step)

    def get_trusted(self, i):
        return decode_trusted(self.services[i].node.store.get_trusted(self.network.chain)[1])


NEW_KEYS = [*OPERATOR_KEYS[2:], *JOINING]
NEW = tuple(sorted(get_address(key) for key in NEW_KEYS))


async def test_the_next_set_settles_with_no_edit_of_settings(tmp_path):
    async with Rotating(tmp_path) as net:
        for i in (4, 5):
            net.start(i)
        net.deposit(1_000)
        await net.run_until(net.has_facts(1))
        instant = await net.rotate(NEW_KEYS)
        for i in net.services:
            (handover,) = net.get_trusted(i).handovers  # proven as soon as it is a fact, a good while before it counts
            assert (handover.rotation.effective, handover.rotation.operators) == (instant, NEW)
            assert {s.operator for s in handover.seen.observations} <= set(OPERATORS)
        await net.pass_to(instant + 40)
        for i in (0, 1):
            await net.kill(i)
        net.deposit(500)
        net.request(300)
        done = [p.sequence for p in net.services[2].node.store.get_packets() if p.status == "done"]
        await net.run_until(lambda node: net.read_state().inbox_sequence == 2 and net.has_facts(5)(node), 300)
        for service in net.services.values():
            node = service.node
            assert net.get_free(node) == 1_200
            head = node.store.get_head(net.vault_id)
            signers = {s.operator for s in decode_attested(head.proof).observations}
            assert len(signers) == 3
            assert signers <= set(NEW)
            assert head.point.time >= instant
            assert not node.store.get_halts()
            assert not node.store.get_evidence()
        assert done
