"""Operators of a Solana vault change and no settings are edited: the former set proves the next one, and each counts in its own time."""

from __future__ import annotations

import json
from dataclasses import replace

from chains.solana import rotation
from chains.solana.codec import decode_attested, decode_trusted, encode_attested
from chains.solana.types import OperatorSet
from messages.bodies import RotateOperators, encode_body, make_inbox_packet
from messages.canonical import encode_canonical
from messages.digests import get_address
from messages.documents import Plan, PlannedPacket
from relayer.commands.operators import show_operators
from relayer.commands.proofs import prove_fact, replay_store, verify_file
from relayer.commands.view import ReadOnlyStore, View
from relayer.metrics import compute_families
from relayer.proof_file import decode_proof_file, encode_proof_file
from relayer.rules.plan import PlanResult
from tests.builders import OPERATOR_KEYS, OPERATORS, TREASURER, make_key
from tests.fakes import ToyPlanner
from tests.scenarios.test_solana_committee import Net
from tests.scenarios.test_solana_proofs import make_anchors

DELAY_S = 60
LIFETIME_S = 120
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
            if effective < entry.time + LIFETIME_S + DELAY_S:
                packets += rest
                continue
            body = RotateOperators(epoch, 3, effective, self.treasurers[entry.vault_id], operators)
            packet = make_inbox_packet(entry.vault_id, state.inbox_sequence + 1, entry.time + LIFETIME_S, body)
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

    def start_joining(self):
        """The nodes of those who are operators only after a rotation."""
        for i in range(len(OPERATOR_KEYS), len(self.keys)):
            self.start(i)

    async def begin(self):
        """Everybody runs, and a first deposit is a fact."""
        self.start_joining()
        self.deposit(1_000)
        await self.run_until(self.has_facts(1))

    async def rotate(self, keys, *, epoch=1, wait_s=300):
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


def tell_operators(net, i):
    """`relayer operators` beside a running node."""
    store = ReadOnlyStore(net.folder / f"node{i}.db")
    try:
        return show_operators(View(f"node{i}", store, net.parameters, net.clock.now()), 1, is_full=False)
    finally:
        store.close()


NEW_KEYS = [*OPERATOR_KEYS[2:], *JOINING]
NEW = tuple(sorted(get_address(key) for key in NEW_KEYS))


async def test_the_next_set_settles_with_no_edit_of_settings(tmp_path):
    async with Rotating(tmp_path) as net:
        await net.begin()
        instant = await net.rotate(NEW_KEYS)
        for i in net.services:
            (handover,) = net.get_trusted(i).handovers  # proven as soon as it is a fact, a good while before it counts
            assert (handover.rotation.effective, handover.rotation.operators) == (instant, NEW)
            assert {s.operator for s in handover.seen.observations} <= set(OPERATORS)
        pending = [v["pending"] for v in tell_operators(net, 2).data["vaults"]]
        assert [(p["at"], p["is_handed_over"]) for p in pending] == [(instant, True)] * 2
        assert not any("by hand" in str(part) for part in tell_operators(net, 2).parts)
        await net.pass_to(instant + 40)
        assert [v["epoch"] for v in tell_operators(net, 2).data["vaults"]] == [1, 1]
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
            ages = {f.name: f for f in compute_families(service)}["optsettle_observation_age_seconds"].samples
            assert {dict(s.labels)["operator"] for s in ages} == {"0x" + o.hex() for o in NEW}  # who left may be silent
        assert done


async def test_whoever_joins_late_walks_from_the_first_set_over_two_rotations(tmp_path):
    """A node with an empty store and settings of the first set; another that slept over both rotations; and all at once anew."""
    async with Rotating(tmp_path) as net:
        await net.begin()
        await net.kill(3)
        first = await net.rotate(NEW_KEYS)
        await net.pass_to(first + 30)
        back = tuple(sorted([*OPERATOR_KEYS[1:3], *JOINING], key=get_address))
        second = await net.rotate(back, epoch=2)
        await net.pass_to(second + 30)
        await net.kill(0)
        for i in (3, 6):  # 6 is nobody's key: its store is empty
            net.start(i)
        net.deposit(500)
        await net.run_until(net.has_facts(4), 600)
        for i, service in net.services.items():
            assert net.get_free(service.node) == 1_500
            handovers = net.get_trusted(i).handovers
            assert [h.rotation.effective for h in handovers] == [first, second]
            head = service.node.store.get_head(net.vault_id)
            assert {s.operator for s in decode_attested(head.proof).observations} <= {get_address(k) for k in back}
            assert not service.node.store.get_halts()
        for i in list(net.services):
            await net.kill(i)
        for i in (1, 2, 4, 5):  # nothing was kept in memory, and nobody else is there to tell it
            net.start(i)
        net.request(300)
        await net.run_until(lambda node: net.get_free(node) == 1_200, 400)


async def test_those_who_left_are_believed_by_nobody_and_those_who_come_not_before(tmp_path):
    async with Rotating(tmp_path, honest=3) as net:  # the fourth stays, and carries what others say
        await net.begin()
        instant = await net.rotate(NEW_KEYS)
        state = net.read_state()

        async def lie(keys):
            """The true head at a time that has not come yet: m who are believed would end packets that are still alive."""
            for _ in range(6):
                for key in keys:
                    net.lie(
                        state.outbox_sequence,
                        state.outbox_head,
                        key=key,
                        clock=net.clock.now() + 25,
                        slot=2**40,
                        carrier=OPERATOR_KEYS[3],
                    )
                await net.pass_time(4)
                for service in net.services.values():
                    assert service.node.get_proven_times()[net.vault_id] <= net.clock.now()

        await net.pass_to(instant - 60)
        await lie(NEW_KEYS[1:])  # too early: m of the next set, and one of them in force
        await net.pass_to(instant + 30)
        await lie(OPERATOR_KEYS[:3])  # too late: m of the former set, and one of them in force
        await net.pass_time(60, step=10)
        for i, service in net.services.items():
            assert service.node.get_proven_times()[net.vault_id] >= instant
            assert not service.node.store.get_halts()
            assert ("0x" + OPERATORS[3].hex(), "unknown_signer") in net.get_blames(i)


async def test_keys_in_quarantine_say_what_they_read_over_the_instant(tmp_path):
    """One who stays and one who comes lost their journals: they sign no packets, and what they read still counts."""
    async with Rotating(tmp_path) as net:
        await net.begin()
        instant = await net.rotate(NEW_KEYS)
        for i in (2, 4):
            net.services[i].node.signer.journal.record_quarantine(net.clock.now(), "test")
        await net.pass_to(instant + 30)
        await net.kill(0)
        await net.kill(1)
        await net.kill(5)  # three of the next set are left, two of them in quarantine
        net.deposit(500)
        await net.run_until(net.has_facts(3), 120)
        assert {net.get_free(s.node) for s in net.services.values()} == {1_500}


async def test_an_operator_whose_settings_name_both_sets_by_hand_goes_along(tmp_path):
    async with Rotating(tmp_path) as net:
        await net.begin()
        instant = await net.rotate(NEW_KEYS)
        await net.kill(2)
        first = net.sets
        net.sets = (*first, OperatorSet(instant, NEW, 3))
        net.start(2)
        net.sets = first
        await net.pass_to(instant + 30)
        net.deposit(500)
        net.request(300)
        await net.run_until(lambda node: net.get_free(node) == 1_200, 300)
        assert not any(s.node.store.get_halts() for s in net.services.values())


async def test_what_is_proven_after_a_rotation_is_proven_to_others_from_the_first_set_alone(tmp_path, monkeypatch):
    async with Rotating(tmp_path) as net:
        await net.begin()
        instant = await net.rotate(NEW_KEYS)
        await net.pass_to(instant + 30)
        net.deposit(500)
        net.request(300)
        await net.run_until(lambda node: net.get_free(node) == 1_200, 300)
        await net.pass_time(60)
        for i in list(net.services):
            await net.kill(i)
        anchors = make_anchors(net, monkeypatch)
        store = ReadOnlyStore(tmp_path / "node2.db")
        view = View("node2", store, net.parameters, net.clock.now())
        count = store.get_cursor(net.vault_id).sequence
        assert count == 5
        path = tmp_path / "proof.json"
        for number in range(1, count + 1):
            data = prove_fact(view, anchors, f"{net.network.chain}:{number}")
            path.write_bytes(data)
            assert verify_file(path, anchors, None, None, net.clock.now()).data["verified"]
            proof = decode_proof_file(data)
            steps = [decode_attested(step.claim) for step in (proof.bootstrap, *proof.updates)]
            assert any(step.handovers for step in steps) == (number > 2)
        # the twin: without the handover, or with another one, it is worth nothing
        carrier = next(n for n, step in enumerate(steps) if step.handovers) - 1
        (handover,) = steps[carrier + 1].handovers
        other = replace(handover, rotation=replace(handover.rotation, effective=instant - 60))
        for handovers in ((), (other,)):
            claim = encode_attested(replace(steps[carrier + 1], handovers=handovers))
            updates = list(proof.updates)
            updates[carrier] = replace(updates[carrier], claim=claim)
            path.write_bytes(encode_proof_file(replace(proof, updates=tuple(updates))))
            refused = verify_file(path, anchors, None, None, net.clock.now())
            assert not refused.data["verified"]
        answer = replay_store(view, anchors, None, is_full=False)
        assert answer.code == 0, answer.data
        assert len(answer.data["plans"]) >= 2
        # the same archive says nothing under another first set
        false = json.loads(anchors[net.vault_id].settings)
        false["operator_sets"][0]["operators"] = ["0x" + o.hex() for o in NEW]
        anchors[net.vault_id] = replace(anchors[net.vault_id], settings=encode_canonical(false).decode())
        assert replay_store(view, anchors, None, is_full=False).code == 1
        store.close()


async def test_a_rotation_that_nobody_proved_in_time_is_told_and_named_by_hand(tmp_path, monkeypatch):
    """Too much happened between the Ack and what operators next saw: the way without proof is the way of before."""
    monkeypatch.setattr(rotation, "MAX_HANDOVER_LINKS", -1)
    async with Rotating(tmp_path) as net:
        net.start_joining()
        instant = await net.rotate(NEW_KEYS)
        assert net.get_trusted(2).handovers == ()
        answer = tell_operators(net, 2)
        told = {v["chain"]: v["pending"]["is_handed_over"] for v in answer.data["vaults"]}
        assert told == {net.network.chain: False, net.toy.chain_id: True}
        (remark,) = [part for part in answer.parts if "by hand" in str(part)]
        assert net.network.chain in remark
        net.sets = (*net.sets, OperatorSet(instant, NEW, 3))
        for i in list(net.services):
            await net.kill(i)
            net.start(i)
        await net.pass_to(instant + 30)
        net.deposit(500)
        net.request(300)
        await net.run_until(lambda node: net.get_free(node) == 200, 300)
