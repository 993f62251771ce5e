"""Operators over a simulated Solana cluster with the real vault: what m of them saw counts, and who lies is named and changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest
from solders.pubkey import Pubkey

from chains.registry import build_solana_sim_chain
from chains.sim_clock import ManualClock
from chains.solana.codec import encode_observation
from chains.solana.observations import compute_observation_digest
from chains.solana.sim import SimSolana
from chains.solana.types import Observation, OperatorSet, SignedObservation
from contracts.solana import client
from messages.bodies import AckStatus, WithdrawalRequested
from messages.digests import get_address, sign_digest
from messages.documents import decode_document, encode_document
from messages.outbox import get_start_cursor
from messages.wire import Envelope, compute_envelope_digest, encode_envelope
from relayer.clock import VirtualClock
from relayer.gossip import Faults, MemoryBus
from relayer.keys import Journal, Secret
from relayer.log import make_logger
from relayer.metrics import compute_families
from relayer.node import Timing
from relayer.rules.quorum import verify_equivocation
from relayer.rules.statements import Equivocation, SignedState
from relayer.service import Service
from relayer.tasks.observe import MAX_SAID_BYTES
from tests.builders import OPERATOR_KEYS, OPERATORS, START, make_key, make_parameters, make_vault
from tests.fakes import ToyChain, ToyPlanner, make_toy_chain

CAP = 10**12
SLOT_S = 0.4


class Net:
    """A Solana vault and a toy vault, some of four operators, one virtual clock, one bus. Use as ``async with``."""

    delay_s = 86_400

    def __init__(self, folder, *, honest=4, faults=None, timing=None):
        self.folder, self.honest, self.timing = folder, honest, timing or Timing(poll_s=2.0)
        self.keys = list(OPERATOR_KEYS)
        self.planner = ToyPlanner()
        manual = ManualClock(START + 60)
        self.network = net = SimSolana("sim-1", manual)
        self.user_key = net.make_key("user")
        self.user = net.get_account_key(self.user_key)
        self.asset = net.create_mint(6)
        net.mint_to(self.asset, self.user, CAP)
        net.mine()
        vault = net.create_vault(self.user_key, OPERATORS, 3, self.user, self.delay_s, {self.asset: (CAP, CAP, CAP)})
        self.calls = client.Vault(net.program, Pubkey.from_bytes(vault))
        self.payer = Pubkey.from_bytes(self.user)
        net.send(
            self.user_key, [client.make_open(self.calls, self.payer, client.get_balance_id(self.user, self.asset))]
        )
        net.finalize()
        self.clock = VirtualClock(manual())
        net.clock = self.clock.now
        self.bus = MemoryBus(faults, 1)
        self.clock.sources.append(self.bus.flush)
        terms = {"family": "solana", "chain": net.chain, "account": vault, "treasurer": self.user, "caps": ()}
        solana = make_vault(0, delay_s=self.delay_s, **terms)
        toy = make_vault(1, delay_s=self.delay_s)
        self.toy = ToyChain(toy)
        self.parameters = make_parameters(sorted((solana, toy), key=lambda v: v.chain), patience_s=30)
        self.sets = (OperatorSet(0, OPERATORS, 3),)
        self.vault = vault
        self.services, self.tasks = {}, {}
        self.vault_id = self.make_chain(0).vault_id

    def make_chain(self, i):
        key = self.network.make_key(f"submitter {i}")
        return build_solana_sim_chain(self.network, self.vault, key, operator_sets=self.sets)

    def open(self, i):
        journal = self.folder / f"journal{i}.db"
        if not journal.exists():
            Journal.create_first(journal, self.clock.now())
        self.services[i] = Service.open(
            name=f"node{i}",
            store_path=self.folder / f"node{i}.db",
            journal_path=journal,
            operator_key=Secret(self.keys[i] if i < len(self.keys) else make_key("no operator")),
            parameters=self.parameters,
            chains=[self.make_chain(i), make_toy_chain(self.toy, f"account{i}", self.clock)],
            clock=self.clock,
            gossip=self.bus.connect(f"node{i}"),
            planner=self.planner,
            timing=self.timing,
            log=make_logger(level="error"),
        )
        return self.services[i]

    def start(self, i):
        self.tasks[i] = asyncio.create_task(self.open(i).run())

    async def kill(self, i):
        task = self.tasks.pop(i)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        self.services.pop(i).close()

    async def __aenter__(self):
        for i in range(self.honest):
            self.start(i)
        return self

    async def __aexit__(self, *_):
        for i in list(self.tasks):
            await self.kill(i)

    async def pass_time(self, seconds, step=2):
        for _ in range(0, seconds, step):
            self.toy.mine(self.clock.now())
            await self.clock.advance(step)
            for task in self.tasks.values():
                if task.done():
                    task.result()

    async def run_until(self, is_done, within_s=120):
        for _ in range(0, within_s, 2):
            if all(is_done(s.node) for s in self.services.values()):
                return
            await self.pass_time(2)
        status = self.services[min(self.services)].get_status()
        pytest.fail(f"not within {within_s} s: {status.chains} {status.packets} {status.blames} {status.halts}")

    # ---- what happens on the chain

    def deposit(self, amount):
        call = client.make_deposit(self.calls, self.payer, self.asset, amount, self.user)
        self.network.send(self.user_key, [call])

    def request(self, amount):
        self.network.send(self.user_key, [client.make_request_withdrawal(self.calls, self.payer, self.asset, amount)])

    def read_state(self):
        return client.decode_state(self.network.read(self.calls.state))

    # ---- what nodes know

    def has_facts(self, count):
        return lambda node: node.store.get_cursor(self.vault_id).sequence >= count

    def get_free(self, node):
        return node.states.get_newest(self.vault_id).free.get((self.user, self.asset), 0)

    def get_blames(self, i):
        return {(b.source, b.reason) for b, _, _ in self.services[i].node.store.get_blames()}

    # ---- what one operator that lies says

    def lie(self, sequence, head, *, key=OPERATOR_KEYS[3], clock=None, slot=None, carrier=None):
        clock = self.clock.now() - 13 if clock is None else clock
        slot = self.network.compute_view().finalized if slot is None else slot
        observation = Observation(self.vault_id, slot, clock, sequence, head)
        signature = sign_digest(key, compute_observation_digest(observation))
        statement = encode_observation(SignedObservation(observation, get_address(key), signature))
        self.say(encode_document(SignedState(self.vault_id, statement)), carrier or key)

    def say(self, body, key=OPERATOR_KEYS[3]):
        self.said = getattr(self, "said", 0) + 1
        node = self.services[0].node
        bare = Envelope(get_address(key), 1, self.said, "observation", body)
        signed = replace(bare, signature=sign_digest(key, compute_envelope_digest(bare, node.committee_id)))
        self.bus.inject(node.get_topic("observation"), encode_envelope(signed))


async def test_deposits_and_withdrawals_are_settled_by_what_operators_saw(tmp_path):
    async with Net(tmp_path) as net:
        net.deposit(1_000)
        await net.run_until(net.has_facts(1))
        assert {net.get_free(s.node) for s in net.services.values()} == {1_000}
        net.request(300)
        await net.run_until(lambda node: {p.status for p in node.store.get_packets()} == {"done"}, 180)
        assert net.read_state().inbox_sequence == 1
        for i, service in net.services.items():
            node = service.node
            fact = node.store.get_fact(net.vault_id, 1)
            assert (fact.tier.level, fact.tier.m, fact.tier.n) == (3, 3, 4)
            assert node.store.get_fact(net.vault_id, 3).body.status == AckStatus.DONE
            assert not node.store.get_halts()
            assert not node.store.get_evidence()
            assert net.get_blames(i) == set()


async def test_what_nobody_says_is_not_known_and_two_of_four_are_nobody(tmp_path):
    async with Net(tmp_path, honest=2) as net:
        net.deposit(1_000)
        await net.pass_time(90)
        for service in net.services.values():
            assert service.node.store.get_head(net.vault_id) is None
        net.start(2)
        await net.run_until(net.has_facts(1))


async def test_a_node_of_no_operator_hears_what_is_said_and_says_nothing(tmp_path):
    async with Net(tmp_path, honest=3) as net:
        net.start(4)
        net.deposit(1_000)
        await net.run_until(net.has_facts(1))
        stranger = net.services[4].node
        assert net.get_free(stranger) == 1_000
        assert stranger.signer.journal.get_highest_number("observation", net.vault_id) is None
        assert net.services[0].node.signer.journal.get_highest_number("observation", net.vault_id) == 1
        assert net.get_blames(4) == set()


async def test_keys_in_quarantine_say_what_they_read_so_that_the_time_they_wait_for_comes(tmp_path):
    async with Net(tmp_path) as net:
        journals = [net.services[i].node.signer.journal for i in (2, 3)]  # m - 1 others: not enough by themselves
        for journal in journals:
            journal.record_quarantine(net.clock.now(), "test")
        net.deposit(1_000)
        await net.run_until(net.has_facts(1))
        for i in range(4):
            assert net.get_free(net.services[i].node) == 1_000
        until = max(journal.quarantine_until for journal in journals)
        while net.clock.now() <= until:
            await net.pass_time(120, step=20)
        await net.pass_time(200, step=20)
        assert [journal.quarantine_until for journal in journals] == [None, None]


async def test_one_operator_that_signs_wrong_heads_is_named_and_changes_nothing(tmp_path):
    async with Net(tmp_path, honest=3) as net:
        net.deposit(1_000)
        for second in range(10):
            net.lie(1, bytes([7]) * 32)
            net.lie(2 + second, bytes([8 + second]) * 32)
            await net.pass_time(4)
        net.deposit(500)
        await net.run_until(net.has_facts(2))
        await net.pass_time(100, step=10)
        for i, service in net.services.items():
            assert net.get_free(service.node) == 1_500
            assert service.node.store.get_fact_head(net.vault_id, 2) == net.read_state().outbox_head
            assert (f"0x{OPERATORS[3].hex()}", "wrong_head") in net.get_blames(i)
            assert not {source for source, reason in net.get_blames(i) if reason == "wrong_head"} - {
                f"0x{OPERATORS[3].hex()}"
            }
            assert not service.node.store.get_halts()
            assert not service.node.store.get_evidence()  # it never said two things about one number
            ages = {f.name: f for f in compute_families(service)}["optsettle_observation_age_seconds"].samples
            assert {dict(s.labels)["operator"]: s.value > 75 for s in ages} == {
                f"0x{operator.hex()}": operator == OPERATORS[3] for operator in OPERATORS
            }  # who went silent is seen


async def test_two_heads_for_one_number_are_evidence_on_every_node(tmp_path):
    async with Net(tmp_path, honest=3) as net:
        await net.pass_time(10)
        net.lie(4, bytes([7]) * 32)
        net.lie(4, bytes([7]) * 32, slot=20_000)  # the same head again is no fault
        await net.pass_time(4)
        assert not any(s.node.store.get_evidence() for s in net.services.values())
        net.lie(4, bytes([8]) * 32)
        await net.pass_time(4)
        for i, service in net.services.items():
            ((operator, kind, body),) = service.node.store.get_evidence()
            assert (operator, kind) == (OPERATORS[3], "observation")
            node = service.node
            observer = node.chains[net.vault_id].observer
            evidence = decode_document(Equivocation, body)
            verify_equivocation(evidence, node.get_committee(), lambda _, a, b, o=observer: o.verify_evidence(a, b))
            assert (f"0x{OPERATORS[3].hex()}", "equivocation") in net.get_blames(i)
        net.deposit(1_000)
        await net.run_until(net.has_facts(1))


async def test_statements_that_nobody_may_make_are_blamed_on_who_sends_them(tmp_path):
    async with Net(tmp_path, honest=3) as net:
        await net.pass_time(10)
        net.lie(4, bytes([7]) * 32, clock=net.clock.now() + 3_600)
        net.say(encode_document(SignedState(bytes(31) + b"\\1", b"x")))
        net.say(encode_document(SignedState(net.vault_id, b"x")))
        net.say(b"x" * (MAX_SAID_BYTES + 1))
        await net.pass_time(4)
        liar = f"0x{OPERATORS[3].hex()}"
        reasons = {reason for source, reason in net.get_blames(0) if source == liar}
        assert {"future", "unknown_vault", "not_canonical", "size"} <= reasons | {"malformed"}
        assert len(reasons) >= 3


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ({"forge_head": True}, "other_head"),
        ({"missing_vault": True}, "missing"),
        ({"down": True}, None),
        ({"clock_ahead_s": 900}, None),
        ({"clock_ahead_s": -900}, None),
        ({"slot_ahead": -500, "clock_ahead_s": -200}, None),
    ],
)
async def test_one_endpoint_of_four_that_lies_is_named_and_changes_nothing(tmp_path, lie, reason):
    async with Net(tmp_path) as net:
        for name, value in lie.items():
            setattr(net.network.endpoints[0].lies, name, value)
        net.deposit(1_000)
        await net.run_until(net.has_facts(1))
        await net.pass_time(80, step=10)
        for i, service in net.services.items():
            assert net.get_free(service.node) == 1_000
            assert service.node.store.get_fact_head(net.vault_id, 1) == net.read_state().outbox_head
            # nobody holds the time: what is final is 13 s old, and is said every minute while nothing waits
            assert 10 <= net.clock.now() - service.node.get_proven_times()[net.vault_id] <= 13 + 60 + 15
            named = {r for source, r in net.get_blames(i) if source == net.network.endpoints[0].name}
            assert named
            assert reason is None or reason in named
            others = {e.name for e in net.network.endpoints[1:]}
            assert not {source for source, _ in net.get_blames(i)} & others
            assert not service.node.store.get_halts()


async def test_two_endpoints_of_four_that_lie_make_the_operator_abstain_and_are_named(tmp_path):
    async with Net(tmp_path) as net:
        await net.pass_time(20)
        for endpoint in net.network.endpoints[:2]:
            endpoint.lies.forge_head = True
        net.deposit(1_000)
        await net.pass_time(60)
        for i, service in net.services.items():
            assert service.node.store.get_cursor(net.vault_id) == get_start_cursor(net.vault_id)
            named = {source for source, reason in net.get_blames(i) if reason == "other_head"}
            assert named >= {e.name for e in net.network.endpoints[:2]}
        for endpoint in net.network.endpoints[:2]:
            endpoint.lies.forge_head = False
        await net.run_until(net.has_facts(1))


async def test_endpoints_that_agree_on_another_head_than_was_signed_stop_the_chain(tmp_path):
    async with Net(tmp_path) as net:
        net.deposit(1_000)
        await net.run_until(net.has_facts(1))
        for endpoint in net.network.endpoints:
            endpoint.lies.forge_head = True
        await net.pass_time(30)
        for service in net.services.values():
            (halt,) = service.node.store.get_halts()
            assert halt.subject == f"chain:{net.network.chain}"
            assert halt.reason in ("two_heads", "signed_otherwise")
            assert net.get_free(service.node) == 1_000


async def test_after_a_restart_of_all_nodes_time_goes_on_from_what_is_said_next(tmp_path):
    async with Net(tmp_path) as net:
        net.deposit(1_000)
        await net.run_until(net.has_facts(1))
        for i in range(4):
            await net.kill(i)
        net.deposit(500)
        for i in range(4):
            net.start(i)
        await net.run_until(net.has_facts(2))
        assert {net.get_free(s.node) for s in net.services.values()} == {1_500}
        net.request(100)
        await net.run_until(lambda node: {p.status for p in node.store.get_packets()} == {"done"}, 180)


async def test_absence_is_proven_soon_after_a_timeout(tmp_path):
    async with Net(tmp_path, timing=Timing(poll_s=5.0)) as net:
        net.deposit(1_000)
        for endpoint in net.network.endpoints:
            endpoint.lies.drop_sent = True
        net.request(300)
        await net.run_until(lambda node: bool(node.store.get_packets("open")), 180)
        (packet,) = net.services[0].node.store.get_packets("open")
        await net.pass_time(packet.timeout - net.clock.now() - 20, step=30)
        assert all(s.node.store.get_packets("open") for s in net.services.values())
        await net.pass_time(20 + 13 + 10)  # finality, and a look
        for service in net.services.values():
            absent = {p.timeout for p in service.node.store.get_packets("absent")}
            assert packet.timeout in absent
            assert service.node.get_proven_times()[net.vault_id] < packet.timeout + 25


async def test_the_story_is_the_same_over_a_bus_that_loses_and_holds_messages(tmp_path):
    async with Net(tmp_path, faults=Faults(drop=100, hold=200, duplicate=100)) as net:
        net.deposit(1_000)
        net.request(300)
        await net.run_until(
            lambda node: {p.status for p in node.store.get_packets()} == {"done"} and net.has_facts(3)(node), 600
        )
        bodies = [type(f.body) for f in net.services[0].node.store.iterate_facts(net.vault_id)]
        assert WithdrawalRequested in bodies
        assert net.read_state().inbox_sequence == 1
        for service in net.services.values():
            assert not service.node.store.get_halts()
            assert not service.node.store.get_evidence()
