"""What goes wrong around a node: dead and lying operators, endpoints that withhold, a carrier that loses, restarts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from messages.bodies import Deposited, SeriesListed, TradePending, WithdrawalRequested
from messages.documents import OpenPackets, decode_document, encode_document
from messages.wire import encode_envelope
from relayer.gossip import Faults
from relayer.keys import Journal, Secret, Signer
from relayer.rules.plan import PlanResult
from relayer.rules.quorum import get_proposer, verify_equivocation
from relayer.rules.statements import Equivocation
from tests.builders import OPERATOR_KEYS, TOKEN, make_account, make_series, series_id
from tests.committee import Committee
from tests.fakes import ToyPlanner, sign_header

ALICE, BOB = make_account("alice"), make_account("bob")
SERIES = make_series(3000)


def put_trade(chain, clock, nonce=1):
    if not chain.state.series:
        chain.put(SeriesListed(series_id(SERIES), SERIES), clock.now())
        chain.put(Deposited(ALICE, TOKEN, 1000), clock.now())
    chain.put(
        TradePending(ALICE, BOB, series_id(SERIES), TOKEN, 10**8, 40, clock.now() + 36_000, ALICE, 1, nonce),
        clock.now(),
    )


def count_accepted(chain):
    return sum(accepted for _, accepted in chain.received)


def get_blames(committee, i):
    return {(chain, reason) for chain, _, reason, _ in committee.services[i].get_status().blames}


def get_leader(committee):
    """Index of the operator whose turn k = 0 is."""
    node = next(iter(committee.services.values())).node
    return node.get_committee().operators.index(get_proposer(node.get_committee(), 0, 0))


async def test_a_dead_proposer_only_delays(tmp_path):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        await c.kill(get_leader(c))
        for chain in c.chains:
            put_trade(chain, c.clock)
        await c.run_for(20)
        assert [count_accepted(chain) for chain in c.chains] == [0, 0]  # its patience is not over
        await c.run_for(100)
        assert [count_accepted(chain) for chain in c.chains] == [1, 1]


async def test_two_dead_operators_of_four_stop_everything_and_nothing_breaks(tmp_path):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        await c.kill(2)
        await c.kill(3)
        put_trade(c.chains[0], c.clock)
        await c.run_for(200)
        assert count_accepted(c.chains[0]) == 0
        assert not c.services[0].get_status().halts
        c.start(3)
        await c.run_for(150)
        assert count_accepted(c.chains[0]) == 1


async def test_the_next_operator_submits_when_the_first_one_cannot(tmp_path):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        leader = get_leader(c)
        for chain in c.services[leader].node.chains.values():
            chain.submitter.send = _nowhere  # what it sends is lost
        put_trade(c.chains[0], c.clock)
        await c.run_for(100)
        assert count_accepted(c.chains[0]) == 1
        assert {p.status for p in c.services[leader].get_status().packets} == {"done"}


async def _nowhere(signed):
    return signed.tx_id


async def test_all_submitting_at_once_is_harmless(tmp_path):
    async with Committee(tmp_path) as c:
        for service in c.services.values():
            service.node.timing = replace(service.node.timing, takeover_s=0)
        put_trade(c.chains[0], c.clock)
        await c.run_for(100)
        chain = c.chains[0]
        assert count_accepted(chain) == 1
        assert len(chain.received) > 1  # somebody else's came too, and the vault refused it
        assert chain.state.free[BOB, TOKEN] == 40


async def test_a_lossy_carrier_is_survived_and_gives_the_same_end(tmp_path):
    ends = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        faults = Faults(drop=150, duplicate=300, hold=300, replay=300)
        async with Committee(folder, faults=faults, seed=seed) as c:
            for chain in c.chains:
                put_trade(chain, c.clock)
            await c.run_for(100)
            for chain in c.chains:
                chain.put(WithdrawalRequested(BOB, TOKEN, 10), c.clock.now())
            await c.run_for(120)
            ends.append([(chain.state.free, chain.state.claimable, chain.state.inbox_sequence) for chain in c.chains])
            assert all(not s.get_status().halts for s in c.services.values())
    assert ends[0] == ends[1]
    assert [x[2] for x in ends[0]] == [2, 2]


async def test_a_partitioned_node_catches_up(tmp_path):
    async with Committee(tmp_path) as c:
        c.bus.cut_off.add("node3")
        put_trade(c.chains[0], c.clock)
        await c.run_for(60)
        assert count_accepted(c.chains[0]) == 1
        c.bus.cut_off.clear()
        put_trade(c.chains[0], c.clock, nonce=2)
        await c.run_for(120)
        assert count_accepted(c.chains[0]) == 2
        assert c.services[3].node.progress.base_k == c.services[0].node.progress.base_k


async def test_who_waited_alone_is_met_where_he_is_when_another_one_dies(tmp_path):
    async with Committee(tmp_path) as c:
        put_trade(c.chains[0], c.clock)
        await c.run_for(60)
        c.bus.cut_off.add("node3")
        for i in (0, 1):
            await c.kill(i)
        put_trade(c.chains[0], c.clock, nonce=2)
        await c.run_for(500)  # node 3 goes through one k after the other, and signs in each
        await c.kill(2)
        c.bus.cut_off.clear()
        for i in (0, 1):
            c.start(i)
        await c.run_for(400)
        assert count_accepted(c.chains[0]) == 2


async def test_a_restarted_node_goes_on_from_its_files(tmp_path):
    async with Committee(tmp_path) as c:
        put_trade(c.chains[0], c.clock)
        await c.run_for(60)
        await c.stop(1)
        c.start(1)
        status = c.services[1].get_status()
        assert {p.status for p in status.packets} == {"done"}
        assert status.k == 1
        put_trade(c.chains[0], c.clock, nonce=2)
        await c.run_for(60)
        assert count_accepted(c.chains[0]) == 2


# ---- sources


@pytest.mark.parametrize("fault", ["down", "withhold", "forge", "stale", "bad_signature"])
async def test_one_bad_endpoint_is_blamed_and_stops_nothing(tmp_path, fault):
    async with Committee(tmp_path) as c:
        for service in c.services.values():
            for chain in service.node.chains.values():
                chain.reader.faults["one"] = fault
        put_trade(c.chains[0], c.clock)
        await c.run_for(60)
        assert count_accepted(c.chains[0]) == 1
        if fault != "stale":  # having nothing new is no misdeed
            assert any(b[1] == "one" for b in c.services[0].get_status().blames)


async def test_all_endpoints_lying_gives_no_fact_at_all(tmp_path):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        for service in c.services.values():
            for chain in service.node.chains.values():
                chain.reader.faults.update({"one": "forge", "two": "withhold"})
        put_trade(c.chains[0], c.clock)
        await c.run_for(60)
        for service in c.services.values():
            assert {x.outbox_sequence for x in service.get_status().chains} == {0}
        assert count_accepted(c.chains[0]) == 0


async def test_a_node_whose_endpoints_withhold_packets_takes_them_from_its_peers(tmp_path):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        for chain in c.services[2].node.chains.values():
            chain.reader.faults.update({"one": "no_packets", "two": "no_packets"})
        put_trade(c.chains[0], c.clock)
        await c.run_for(90)
        status = c.services[2].get_status()
        assert next(x for x in status.chains if x.chain == c.chains[0].chain_id).outbox_sequence == 4
        assert {p.status for p in status.packets} == {"done"}


@pytest.mark.parametrize("packets_from", ["own endpoints", "peers"])
async def test_a_node_with_stale_endpoints_follows_the_evidence_of_a_proposal(tmp_path, packets_from):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        behind = (get_leader(c) + 1) % 4
        node = c.services[behind].node
        for chain in node.chains.values():
            chain.reader.faults = dict.fromkeys(
                ("one", "two"), "stale" if packets_from == "own endpoints" else "stale_no_packets"
            )
        put_trade(c.chains[0], c.clock)
        await c.run_for(60)
        assert node.store.get_cursor(c.chains[0].vault_id).sequence == 3
        if packets_from == "own endpoints":  # the peers' answer comes after the other three have agreed
            assert node.signer.operator in {v.operator for v in node.store.get_votes_of(0)}
        assert node.store.verify_all()["facts"] == 3


async def test_a_proposal_with_another_proof_or_cut_gets_no_vote(tmp_path):
    """The proposer names a head its proof does not show; nobody whose own records are behind believes it."""
    from relayer.tasks import settle

    async with Committee(tmp_path) as c:
        await c.run_for(10)
        leader = get_leader(c)
        others = [i for i in range(4) if i != leader]
        for i in others:
            for chain in c.services[i].node.chains.values():
                chain.reader.faults = {"one": "stale", "two": "stale"}
        make_evidence = settle._make_evidence
        settle._make_evidence = lambda node, vault_id, height: replace(
            make_evidence(node, vault_id, height), proof=b"x"
        )
        try:
            put_trade(c.chains[0], c.clock)
            await c.run_for(25)
        finally:
            settle._make_evidence = make_evidence
        for i in others:
            assert not any(
                v.operator == c.services[i].node.signer.operator for v in c.services[i].node.store.get_votes_of(0)
            )
            assert c.services[i].node.store.get_cursor(c.chains[0].vault_id).sequence == 0


async def test_packets_from_a_lying_peer_do_not_fold_and_are_forgotten(tmp_path):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        for chain in c.services[2].node.chains.values():
            chain.reader.faults.update({"one": "no_packets", "two": "no_packets"})
        put_trade(c.chains[0], c.clock)
        node = c.services[2].node
        vault_id = c.chains[0].vault_id
        from messages.outbox import Claim

        good = [Claim(p, i) for p, i in c.chains[0].packets]
        bad = {
            x.packet.sequence: replace(x, packet=replace(x.packet, timeout_timestamp=x.packet.timeout_timestamp + 1))
            for x in good
        }
        node.peer_packets[vault_id] = bad
        await c.run_for(90)
        assert node.store.get_cursor(vault_id).sequence == 4
        for fact, claim in zip(node.store.iterate_facts(vault_id), good, strict=False):
            assert fact.packet == claim.packet


async def test_two_finalized_headers_at_one_height_halt_that_chain_durably(tmp_path):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        service, victim = c.services[0], c.chains[0]
        reader = service.node.chains[victim.vault_id].reader
        height = victim.get_finalized()

        async def fork(source, trusted):
            return sign_header(trusted.height, trusted.time + 1, bytes([7]) * 32)

        reader.update = fork
        await c.run_for(20)
        assert height > 0
        halts = service.get_status().halts
        assert [(h.subject, h.reason) for h in halts] == [(f"chain:{victim.chain_id}", "two_headers")]
        await c.stop(0)
        c.start(0)
        store = c.services[0].node.store
        assert store.is_halted(f"chain:{victim.chain_id}")
        assert not store.is_halted(f"chain:{c.chains[1].chain_id}")
        assert not store.record_halt_clearance(halts[0].id, "Ann", "looked", c.clock.now())
        assert not store.record_halt_clearance(halts[0].id, " ann ", "again", c.clock.now())
        assert store.is_halted(f"chain:{victim.chain_id}")
        assert store.record_halt_clearance(halts[0].id, "Bob", "agreed", c.clock.now())
        assert not store.is_halted(f"chain:{victim.chain_id}")


async def test_facts_that_break_conservation_halt_the_whole_node(tmp_path):
    from messages.bodies import Claimed

    async with Committee(tmp_path) as c:
        c.chains[0].put(Deposited(ALICE, TOKEN, 10), c.clock.now())
        c.chains[0].put(Claimed(ALICE, TOKEN, 1), c.clock.now())  # a right vault never pays what is not claimable
        put_trade(c.chains[1], c.clock)
        await c.run_for(60)
        assert all(s.node.store.is_halted("node") for s in c.services.values())
        assert count_accepted(c.chains[1]) == 0


# ---- operators


async def test_a_plan_that_is_not_ours_gets_no_vote(tmp_path):
    class Greedy(ToyPlanner):
        def compute_plan(self, ledger, market, parameters, k, open_packets):
            plan = super().compute_plan(ledger, market, parameters, k, open_packets).plan
            packets = tuple(replace(p, timeout=p.timeout + 1) for p in plan.packets)
            return PlanResult(replace(plan, packets=packets), (), {})

    async with Committee(tmp_path) as c:
        await c.run_for(10)
        liar = get_leader(c)
        c.services[liar].node.planner = Greedy()
        put_trade(c.chains[0], c.clock)
        await c.run_for(25)
        assert count_accepted(c.chains[0]) == 0
        honest = next(i for i in range(4) if i != liar)
        assert ("gossip", "plan_mismatch") in get_blames(c, honest)
        await c.run_for(100)
        assert count_accepted(c.chains[0]) == 1  # the next proposer's turn


async def test_two_votes_in_one_slot_become_portable_evidence_everywhere(tmp_path):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        node = c.services[0].node
        traitor = c.services[3].node
        # A stolen key has no journal that stops it: sign straight from a fresh one.
        Journal.create_first(tmp_path / "stolen.db", c.clock.now())
        for name, digest in (("stolen.db", b"\1" * 32), ("stolen2.db", b"\2" * 32)):
            if name == "stolen2.db":
                Journal.create_first(tmp_path / name, c.clock.now())
            journal = Journal(tmp_path / name, c.clock.now() + 100 + len(name), 60)
            key = Signer(Secret(OPERATOR_KEYS[3]), journal, node.committee_id)
            vote = key.sign_vote(0, 0, digest)
            c.bus.inject(node.get_topic("vote"), encode_envelope(key.sign_envelope("vote", encode_document(vote))))
            journal.close()
        await c.run_for(20)
        for i in (0, 1, 2):
            ((operator, kind, body),) = c.services[i].node.store.get_evidence()
            assert (operator, kind) == (traitor.signer.operator, "vote")
            verify_equivocation(decode_document(Equivocation, body), node.get_committee())
        # The operator itself sees votes of its key that its journal does not know: it must not sign any more.
        assert traitor.signer.journal.quarantine_until is not None


async def test_a_proposal_that_forgets_an_open_packet_is_refused(tmp_path):
    async with Committee(tmp_path) as c:
        for service in c.services.values():
            for chain in service.node.chains.values():
                chain.submitter.send = _nowhere
        put_trade(c.chains[0], c.clock)
        await c.run_for(40)
        packets = c.services[0].get_status().packets
        assert [p.status for p in packets] == ["open"]
        # k = 1 is proposed by the next operator; make it forget.
        node = c.services[0].node
        operators = node.get_committee().operators
        forgetful = operators.index(get_proposer(node.get_committee(), 1, 0))
        c.services[forgetful].node.get_open_packets = lambda positions, committee: OpenPackets(())
        put_trade(c.chains[1], c.clock)
        await c.run_for(25)
        honest = next(i for i in range(4) if i != forgetful)
        assert ("gossip", "open_missing") in get_blames(c, honest)
        assert count_accepted(c.chains[1]) == 0


async def test_a_packet_proven_absent_frees_its_number(tmp_path):
    async with Committee(tmp_path) as c:
        c.chains[0].drop_transactions = True
        put_trade(c.chains[0], c.clock)
        await c.run_for(60)
        assert [p.status for p in c.services[0].get_status().packets] == ["open"]
        await c.run_for(600, step=30)
        statuses = [p.status for p in c.services[0].get_status().packets]
        assert statuses[0] == "absent"
        c.chains[0].drop_transactions = False
        await c.run_for(200, step=10)
        packets = c.services[0].get_status().packets
        assert packets[-1].status == "done"
        assert {p.sequence for p in packets} == {1}
        assert count_accepted(c.chains[0]) == 1


async def test_a_stalled_chain_holds_up_only_itself(tmp_path):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        c.chains[0].is_stalled_at = c.chains[0].get_finalized()
        put_trade(c.chains[0], c.clock)
        put_trade(c.chains[1], c.clock)
        await c.run_for(60)
        assert [count_accepted(chain) for chain in c.chains] == [0, 1]
        c.chains[0].is_stalled_at = None
        await c.run_for(60)
        assert [count_accepted(chain) for chain in c.chains] == [1, 1]


# ---- memory


async def test_a_node_that_lost_its_journal_signs_nothing_until_its_old_packets_are_dead(tmp_path):
    async with Committee(tmp_path) as c:
        put_trade(c.chains[0], c.clock)
        await c.run_for(60)
        await c.stop(1)
        (tmp_path / "journal1.db").unlink()
        c.start(1)
        journal = c.services[1].node.signer.journal
        assert journal.quarantine_until is not None
        put_trade(c.chains[0], c.clock, nonce=2)
        await c.run_for(60)
        assert count_accepted(c.chains[0]) == 2  # three others are enough
        assert not any(kind in ("vote", "packet") for kind, *_ in journal.get_entries())
        await c.run_for(2100, step=60)
        assert journal.quarantine_until is None
        before = journal.highest_k
        put_trade(c.chains[0], c.clock, nonce=3)
        await c.run_for(120)
        assert count_accepted(c.chains[0]) == 3
        assert before >= 2


async def test_a_journal_restored_from_a_backup_is_noticed_at_the_start(tmp_path):
    import shutil

    async with Committee(tmp_path) as c:
        await c.run_for(10)
        await c.stop(1)
        shutil.copy(tmp_path / "journal1.db", tmp_path / "backup.db")
        c.start(1)
        put_trade(c.chains[0], c.clock)
        await c.run_for(60)
        await c.stop(1)
        shutil.copy(tmp_path / "backup.db", tmp_path / "journal1.db")
        c.start(1)
        assert c.services[1].node.signer.journal.quarantine_until is not None


async def test_store_and_journal_restored_together_are_noticed_from_what_the_peers_say(tmp_path):
    import shutil

    async with Committee(tmp_path) as c:
        await c.run_for(10)
        await c.stop(1)
        for name in ("journal1.db", "node1.db"):
            shutil.copy(tmp_path / name, tmp_path / f"{name}.backup")
        c.start(1)
        c.chains[0].drop_transactions = True  # so that the packet stays open and is told again
        put_trade(c.chains[0], c.clock)
        await c.run_for(40)
        await c.stop(1)
        for name in ("journal1.db", "node1.db"):
            shutil.copy(tmp_path / f"{name}.backup", tmp_path / name)
        c.start(1)
        assert c.services[1].node.signer.journal.quarantine_until is None
        await c.run_for(60)
        assert c.services[1].node.signer.journal.quarantine_until is not None


async def test_what_a_stranger_says_changes_nothing_and_costs_little(tmp_path):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        node = c.services[0].node
        from tests.builders import make_key

        Journal.create_first(tmp_path / "stranger.db", c.clock.now())
        journal = Journal(tmp_path / "stranger.db", c.clock.now(), 60)
        stranger = Signer(Secret(make_key("stranger")), journal, node.committee_id)
        vote = encode_document(stranger.sign_vote(0, 0, b"\1" * 32))
        for kind in ("vote", "proposal", "signed_plan", "nonsense"):
            if kind != "proposal":
                c.bus.inject(node.get_topic("vote"), encode_envelope(stranger.sign_envelope(kind, vote)))
        for data in (b"", b"\0" * 300, b"\1" + b"\xff" * 5000, b"{" * 100_000):
            c.bus.inject(node.get_topic("proposal"), data)
        before = node.store.get_votes_of(0)
        await c.run_for(20)
        assert node.store.get_votes_of(0) == before == ()
        assert {"not_operator", "bad_envelope"} <= {reason for _, reason in get_blames(c, 0)}
        journal.close()


async def test_journals_that_refuse_a_plan_cause_no_storm_of_messages(tmp_path):
    from relayer.database import encode_u64
    from relayer.keys import Statement

    async with Committee(tmp_path) as c:
        await c.run_for(10)
        slot = c.chains[0].vault_id + encode_u64(1)
        for service in c.services.values():  # as if each had signed another packet under number 1 that is not dead yet
            service.node.signer.journal.record_statements([Statement("packet", slot, b"other", 0, 2**40)], {})
        put_trade(c.chains[0], c.clock)
        before = c.bus.delivered
        await c.run_for(60)
        assert [p.status for p in c.services[0].get_status().packets] == ["open"]
        assert count_accepted(c.chains[0]) == 0
        assert ("node", "signed_otherwise") in get_blames(c, 0)
        assert c.bus.delivered - before < 150
