"""What one lying operator, a crash between two statements or an old cut must never bring about (protocol.md 5 to 9)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from messages.bodies import Deposited, Execute, SeriesListed, SeriesPrice, TradePending, encode_body
from messages.digests import compute_packet_digest, sign_digest
from messages.documents import (
    MarketSnapshot,
    OpenPacket,
    OpenPackets,
    Proposal,
    compute_digest,
    decode_document,
    encode_document,
)
from messages.documents import Plan as PlanDocument
from messages.errors import Rejected, Unavailable
from messages.outbox import Claim
from messages.packet import compute_commitment
from messages.wire import encode_envelope
from relayer import node as node_module
from relayer.database import encode_u64
from relayer.keys import Journal, Secret, Signer
from relayer.rules.plan import finalize_packet
from relayer.rules.quorum import (
    Ballot,
    compute_packets_equivocation,
    compute_vote_equivocation,
    get_proposer,
    get_quorum_votes,
    verify_equivocation,
    verify_open_packets,
)
from relayer.rules.statements import PacketSignature, SignedPlan
from relayer.states import get_positions
from relayer.tasks import attest, settle, submit, watch
from tests.builders import OPERATOR_KEYS, TOKEN, make_account, make_series, series_id
from tests.committee import Committee

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


def get_reasons(node):
    node.write_blames()
    return {blame.reason for blame, _, _ in node.store.get_blames()}


def make_liar(tmp_path, c, i, name="liar"):
    """Key ``i`` with a memory of its own: what a stolen key, or a faulty operator, can say."""
    Journal.create_first(tmp_path / f"{name}.db", c.clock.now())
    journal = Journal(tmp_path / f"{name}.db", c.clock.now() + 1000, 60)
    return Signer(Secret(OPERATOR_KEYS[i]), journal, c.services[i].node.committee_id)


def say(c, signer, kind, document):
    envelope = (
        signer.sign_proposal(document) if kind == "proposal" else signer.sign_envelope(kind, encode_document(document))
    )
    node = next(iter(c.services.values())).node
    c.bus.inject(node.get_topic(kind), encode_envelope(envelope, 9 * 1024 * 1024))


def make_proposal(node, k, r, *, open_packets=None, cut=None, planner=None):
    """What an honest proposer would say from the records of ``node``, or what it is told to say instead."""
    committee = node.get_committee()
    cut = cut or node.get_cut()
    states = node.get_states_at(cut)
    positions = get_positions(states, {e.vault_id: e.time for e in cut.entries})
    if open_packets is None:
        open_packets = node.get_open_packets(positions, committee)
    market = MarketSnapshot(node.clock.now(), (), (), ())
    plan = (planner or node.planner).compute_plan(node.get_ledger(cut), market, node.parameters, k, open_packets).plan
    return Proposal(
        k,
        r,
        get_proposer(committee, k, r),
        cut,
        tuple(settle._make_evidence(node, e.vault_id, e.height) for e in cut.entries),
        market,
        node.parameters_digest,
        open_packets,
        compute_digest(plan),
    )


def get_plan(node, k):
    return decode_document(PlanDocument, node.store.get_documents("plan", k)[0])


# ---- open packets


async def test_a_packet_that_is_not_in_the_plan_its_votes_are_for_is_no_open_packet(tmp_path):
    """Else one proposer binds a settlement price of his own: real votes of an old plan around a packet of his own making."""
    async with Committee(tmp_path) as c:
        put_trade(c.chains[0], c.clock)
        await c.run_for(60)
        assert count_accepted(c.chains[0]) == 1
        node = c.services[0].node
        (done,) = node.store.get_packets("done")
        committee = node.get_committee()
        votes = get_quorum_votes(Ballot(done.k, node.store.get_votes(done.plan_digest)), done.plan_digest, committee)
        body = Execute(done.plan_digest, (SeriesPrice(series_id(SERIES), 1),), ())
        forged = OpenPacket(
            c.chains[1].vault_id, 0, 1, c.clock.now() + 1800, encode_body(body), done.plan_digest, votes
        )
        real = OpenPacket(
            done.vault_id,
            done.operator_epoch,
            done.sequence + 1,
            done.timeout + 1800,
            done.value,
            done.plan_digest,
            votes,
        )
        for lie in (forged, real):
            proposal = make_proposal(node, 1, 0, open_packets=OpenPackets((lie,)))
            with pytest.raises(Rejected) as caught:
                await attest.verify_proposal(c.services[1].node, proposal, committee)
            assert caught.value.reason == "open_forged"
        await attest.verify_proposal(c.services[1].node, make_proposal(node, 1, 0), committee)


async def test_an_open_packet_of_a_plan_that_is_unknown_here_waits_until_the_plan_is_known(tmp_path):
    async with Committee(tmp_path) as c:
        for chain in c.chains:
            chain.drop_transactions = True
        await c.run_for(10)
        c.bus.cut_off.add("node3")
        put_trade(c.chains[0], c.clock)
        await c.run_for(30)
        informed, ignorant = c.services[0].node, c.services[3].node
        (packet,) = informed.store.get_packets("open")
        assert ignorant.store.get_document(packet.plan_digest) is None
        proposal = make_proposal(informed, 1, 0)
        with pytest.raises(Unavailable) as caught:
            await attest.verify_proposal(ignorant, proposal, ignorant.get_committee())
        assert caught.value.reason == "open_unknown"
        c.bus.cut_off.clear()
        await c.run_for(30)
        await attest.verify_proposal(ignorant, make_proposal(informed, 1, 0), ignorant.get_committee())


async def test_an_older_cut_brings_back_the_open_packets_that_it_does_not_settle(tmp_path):
    """A packet answered in newer facts is open at an older cut: what it decided counts there, so it must be listed there."""
    async with Committee(tmp_path) as c:
        c.chains[0].drop_transactions = True
        put_trade(c.chains[0], c.clock)
        await c.run_for(25)
        node, voter = c.services[0].node, c.services[1].node
        old_cut = node.get_cut()
        (packet,) = node.store.get_packets("open")
        c.chains[0].drop_transactions = False
        await c.run_for(60)
        assert [p.status for p in voter.store.get_packets()] == ["done"]
        honest = make_proposal(node, 1, 0, cut=old_cut)
        assert [p.sequence for p in honest.open_packets.packets] == [packet.sequence]
        await attest.verify_proposal(voter, honest, voter.get_committee())
        forgetful = make_proposal(node, 1, 0, cut=old_cut, open_packets=OpenPackets(()))
        with pytest.raises(Rejected) as caught:
            await attest.verify_proposal(voter, forgetful, voter.get_committee())
        assert caught.value.reason == "open_missing"


async def open_twins(c, tmp_path):
    """Two plans of k = 0 with one packet number and one timeout, both with m votes, none with m signatures."""
    await c.run_for(10)
    for service in c.services.values():
        service.node.signer.journal.record_quarantine(0, "so that nobody signs")
    put_trade(c.chains[0], c.clock)
    for vault_id in c.services[0].node.vault_ids:
        c.chains[0].sync()
        for service in c.services.values():
            await watch.step(service.node, vault_id)
    node = c.services[0].node
    cut = node.get_cut()
    plans = []
    for r, offset in ((0, 0), (1, 1)):
        market = MarketSnapshot(c.clock.now() + offset, (), (), ())
        plan = node.planner.compute_plan(node.get_ledger(cut), market, node.parameters, 0, OpenPackets(())).plan
        digest = compute_digest(plan)
        votes = []
        for i in range(3):
            liar = make_liar(tmp_path, c, i, f"twin{r}{i}")
            votes.append(liar.sign_vote(0, r, digest))
            liar.journal.close()
        plans.append((plan, tuple(votes)))
    for service in c.services.values():
        for plan, votes in plans:
            await attest.open_and_sign(service.node, plan, votes)
    return plans


async def test_two_plans_of_one_k_that_both_got_m_votes_do_not_stop_the_committee(tmp_path):
    """Equal number and timeout are no contradiction: a chain finalizes slower than proposers take turns."""
    async with Committee(tmp_path) as c:
        c.chains[0].drop_transactions = True
        await open_twins(c, tmp_path)
        node, voter = c.services[0].node, c.services[1].node
        packets = node.store.get_packets("open")
        assert len({(p.vault_id, p.sequence, p.timeout) for p in packets}) == 1 < len(packets)
        proposal = make_proposal(node, 1, 0)
        assert len(proposal.open_packets.packets) == 2
        await attest.verify_proposal(voter, proposal, voter.get_committee())
        from relayer.rules.plan_context import get_open_view

        view = get_open_view(node.get_ledger(node.get_cut()), proposal.open_packets)
        assert len(view.bodies) == 2
        doubled = replace(proposal, open_packets=OpenPackets(proposal.open_packets.packets[:1] * 2))
        with pytest.raises(Rejected) as caught:
            await attest.verify_proposal(voter, doubled, voter.get_committee())
        assert caught.value.reason == "open_order"


async def test_a_twin_that_was_never_signed_does_not_keep_the_certified_one_from_its_vault(tmp_path):
    async with Committee(tmp_path) as c:
        plans = await open_twins(c, tmp_path)
        node = c.services[0].node
        first = node.store.get_packets("open")[0]
        plan = next(p for p, _ in plans if compute_digest(p) != first.plan_digest)
        planned = plan.packets[0]
        packet = finalize_packet(planned, compute_digest(plan))
        digest = compute_packet_digest(planned.vault_id, 0, planned.sequence, compute_commitment(packet))
        from tests.builders import OPERATORS

        signatures = [
            PacketSignature(planned.vault_id, planned.sequence, OPERATORS[i], sign_digest(OPERATOR_KEYS[i], digest))
            for i in range(3)
        ]
        attest.add_signatures(node, plan, compute_digest(plan), signatures)
        node.timing = replace(node.timing, takeover_s=0)
        await submit.step(node)
        assert count_accepted(c.chains[0]) == 1


async def test_any_number_of_absences_leaves_a_list_that_the_others_accept(tmp_path):
    """A chain that nobody can pay for fails again and again: the list of what failed must not outgrow what a voter reads."""
    async with Committee(tmp_path) as c:
        c.chains[0].drop_transactions = True
        put_trade(c.chains[0], c.clock)
        await c.run_for(30)
        node = c.services[0].node
        (packet,) = node.store.get_packets("open")
        plan = get_plan(node, packet.k)
        votes = node.store.get_votes(packet.plan_digest)
        rows = []
        for i in range(300):
            other = replace(packet, timeout=packet.timeout - 1 - i, status="absent", commitment=encode_u64(i + 1) * 4)
            rows.append(other)
        node.store.record_open_packets(rows, votes)
        del plan
        cut = node.get_cut()
        positions = get_positions(node.get_states_at(cut), {e.vault_id: e.time for e in cut.entries})
        later = {v: (s, t + 3600) for v, (s, t) in positions.items()}
        listed = node.get_open_packets(later, node.get_committee()).packets
        assert 6 <= len(listed) <= 32
        verify_open_packets(listed, set(), later, node.get_committee())


# ---- numbers and shapes from others


@pytest.mark.parametrize("field", ["k", "r", "height", "sequence"])
async def test_a_negative_number_in_a_proposal_is_refused_and_stops_nobody(tmp_path, field):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        node = c.services[0].node
        good = make_proposal(node, 0, 0)
        index = node.get_committee().operators.index(good.proposer)
        liar = make_liar(tmp_path, c, index)
        if field in ("k", "r"):
            bad = replace(good, **{field: -1})
        else:
            name = {"height": "height", "sequence": "outbox_sequence"}[field]
            entry = replace(good.cut.entries[0], **{name: -1})
            bad = replace(good, cut=replace(good.cut, entries=(entry, *good.cut.entries[1:])))
        body = encode_document(bad)
        envelope = liar._sign_envelope("proposal", body)
        c.bus.inject(node.get_topic("proposal"), encode_envelope(envelope))
        await c.run_for(10)
        put_trade(c.chains[0], c.clock)
        await c.run_for(150)
        assert count_accepted(c.chains[0]) == 1
        liar.journal.close()


async def test_a_forged_signature_in_our_name_does_not_silence_us(tmp_path):
    """Only a signature that this key really made proves that the journal forgot something."""
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        c.bus.cut_off.add("node3")
        put_trade(c.chains[0], c.clock)
        await c.run_for(30)
        plan = get_plan(c.services[0].node, 0)
        digest = compute_digest(plan)
        votes = c.services[0].node.store.get_votes(digest)[:3]
        victim = c.services[3].node
        c.bus.cut_off.clear()
        for signature in (b"\1" * 65, sign_digest(OPERATOR_KEYS[2], digest), b""):
            signed = SignedPlan(
                plan, votes, (PacketSignature(plan.packets[0].vault_id, 1, victim.signer.operator, signature),)
            )
            envelope = c.services[2].node.signer.sign_envelope("signed_plan", encode_document(signed))
            with pytest.raises(Rejected):
                await attest.read(victim, encode_envelope(envelope))
            assert victim.signer.journal.quarantine_until is None
        packet = finalize_packet(plan.packets[0], digest)
        real = sign_digest(
            OPERATOR_KEYS[3],
            compute_packet_digest(plan.packets[0].vault_id, 0, packet.sequence, compute_commitment(packet)),
        )
        signed = SignedPlan(plan, votes, (PacketSignature(plan.packets[0].vault_id, 1, victim.signer.operator, real),))
        envelope = c.services[2].node.signer.sign_envelope("signed_plan", encode_document(signed))
        await attest.read(victim, encode_envelope(envelope))
        assert victim.signer.journal.quarantine_until is not None


async def test_a_vote_of_our_key_that_differs_from_our_journal_silences_us(tmp_path):
    """Two processes with one key: the loser stops (fault 19)."""
    async with Committee(tmp_path) as c:
        put_trade(c.chains[0], c.clock)
        await c.run_for(40)
        node = c.services[1].node
        assert attest.has_voted(node, 0, 0)
        twin = make_liar(tmp_path, c, 1)
        say(c, twin, "vote", twin.sign_vote(0, 0, b"\7" * 32))
        await c.run_for(5)
        assert node.signer.journal.quarantine_until is not None
        twin.journal.close()


async def test_one_operator_can_not_fill_the_store_with_proofs_against_itself(tmp_path):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        node = c.services[0].node
        votes = []
        for i in range(40):
            liar = make_liar(tmp_path, c, 3, f"liar{i}")
            votes.append(liar.sign_vote(0, 0, bytes([i + 1]) * 32))
            liar.journal.close()
        for i in range(1, 40):
            await attest.record_evidence(node, compute_vote_equivocation(votes[0], votes[i]))
        assert 1 <= len(node.store.get_evidence()) <= 8


async def test_a_packet_that_names_no_plan_proves_no_equivocation(tmp_path):
    """A control change has no plan digest inside: one honest signature over it would fit any number of invented plans."""
    from messages.bodies import Unpause
    from messages.documents import PlannedPacket
    from tests.builders import OPERATORS

    async with Committee(tmp_path) as c:
        node = c.services[0].node
        committee = node.get_committee()

        def make(body, market):
            planned = PlannedPacket(c.chains[0].vault_id, 0, 1, 1000, encode_body(body), "x")
            plan = PlanDocument(1, b"\1" * 32, market, b"\1" * 32, b"\1" * 32, (planned,))
            packet = finalize_packet(planned, compute_digest(plan))
            said = compute_packet_digest(planned.vault_id, 0, 1, compute_commitment(packet))
            return SignedPlan(
                plan, (), (PacketSignature(planned.vault_id, 1, OPERATORS[0], sign_digest(OPERATOR_KEYS[0], said)),)
            )

        framed = compute_packets_equivocation(OPERATORS[0], make(Unpause(), b"\2" * 32), make(Unpause(), b"\3" * 32))
        with pytest.raises(Rejected):
            verify_equivocation(framed, committee)
        body = Execute(bytes(32), (), ())
        guilty = compute_packets_equivocation(OPERATORS[0], make(body, b"\2" * 32), make(body, b"\3" * 32))
        verify_equivocation(guilty, committee)


# ---- halts, crashes, races


async def test_a_halted_node_signs_no_packet_it_voted_for_before(tmp_path):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        put_trade(c.chains[0], c.clock)
        for vault_id in c.services[0].node.vault_ids:
            for service in c.services.values():
                await watch.step(service.node, vault_id)
        node = c.services[0].node
        proposal = make_proposal(node, 0, 0)
        plan = await attest.verify_proposal(node, proposal, node.get_committee())
        digest = compute_digest(plan)
        own = node.signer.sign_vote(0, 0, digest)
        node.store.record_vote(own)
        votes = [own]
        for i in (1, 2):
            liar = make_liar(tmp_path, c, i, f"voter{i}")
            votes.append(liar.sign_vote(0, 0, digest))
            liar.journal.close()
        halt = node.store.record_halt("node", "conservation", "one unit", c.clock.now())
        await attest.open_and_sign(node, plan, votes)
        assert node.signer.journal.get_value("plan", encode_u64(0)) is None
        for person in ("Ann", "Bob"):
            node.store.record_halt_clearance(halt, person, "looked", c.clock.now())
        await attest.accept_signed_plan(node, None, encode_document(SignedPlan(plan, tuple(votes), ())))
        assert node.signer.journal.get_value("plan", encode_u64(0)) == digest


async def test_a_signature_that_died_with_the_process_after_its_journal_entry_is_made_again(tmp_path):
    async with Committee(tmp_path) as c:
        c.chains[0].drop_transactions = True
        await c.run_for(10)
        node = c.services[0].node
        original = attest.add_signatures

        def die(node_, plan, digest, signatures):
            if node_ is not node:
                original(node_, plan, digest, signatures)

        attest.add_signatures = die  # the journal is written, the signatures never reach the store
        try:
            put_trade(c.chains[0], c.clock)
            await c.run_for(30)
        finally:
            attest.add_signatures = original
        (packet,) = node.store.get_packets("open")
        assert node.signer.journal.get_value("plan", encode_u64(0)) == packet.plan_digest
        key = (packet.vault_id, packet.sequence, packet.commitment)
        assert node.signer.operator not in node.store.get_signatures(*key)
        await c.stop(0)
        c.start(0)
        await c.run_for(40)
        node = c.services[0].node
        assert node.signer.operator in node.store.get_signatures(*key)


async def test_m_votes_on_record_open_their_packets_after_a_crash_of_everybody(tmp_path):
    async with Committee(tmp_path) as c:
        c.chains[0].drop_transactions = True
        await c.run_for(10)
        original = attest.open_and_sign

        async def die(node, plan, votes):
            del node, plan, votes

        attest.open_and_sign = die
        try:
            put_trade(c.chains[0], c.clock)
            await c.run_for(25)
        finally:
            attest.open_and_sign = original
        nodes = [s.node for s in c.services.values()]
        assert all(not n.store.get_packets("open") and len(n.store.get_votes_of(0)) >= 3 for n in nodes)
        for i in range(4):
            await c.stop(i)
            c.start(i)
        await c.run_for(25)
        for service in c.services.values():
            assert {p.k for p in service.node.store.get_packets("open")} == {0}


async def test_conservation_that_broke_right_before_a_crash_halts_at_the_next_start(tmp_path):
    from messages.bodies import Claimed

    async with Committee(tmp_path) as c:
        await c.run_for(10)
        original = node_module.verify_conservation
        node_module.verify_conservation = lambda states, parameters: None  # the process dies before it looks
        try:
            c.chains[0].put(Deposited(ALICE, TOKEN, 10), c.clock.now())
            c.chains[0].put(Claimed(ALICE, TOKEN, 1), c.clock.now())
            await c.run_for(10)
            await c.stop(0)
        finally:
            node_module.verify_conservation = original
        service = c.open(0)
        assert service.node.store.is_halted("node")
        service.close()


async def test_the_floor_of_cuts_never_falls_whatever_plan_gets_its_votes_last(tmp_path):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        node = c.services[0].node
        early = node.get_cut()
        await c.run_for(20)
        late = node.get_cut()
        assert late.entries[0].height > early.entries[0].height
        for cut, r in ((late, 0), (early, 1)):
            proposal = make_proposal(node, 0, r, cut=cut)
            index = node.get_committee().operators.index(proposal.proposer)
            liar = make_liar(tmp_path, c, index, f"proposer{r}")
            node.progress.proposals[0, r] = liar.sign_proposal(proposal)
            liar.journal.close()
            attest._finish_k(node, 0, proposal.plan_digest)
        assert node.get_cut_floor().entries[0].height == late.entries[0].height
        assert node.store.get_number("base_k") == 1


async def test_a_header_that_excludes_one_on_record_halts_its_chain_and_no_other(tmp_path):
    from tests.fakes import sign_header

    async with Committee(tmp_path) as c:
        await c.run_for(10)
        put_trade(c.chains[0], c.clock)
        await c.run_for(60)
        node, victim = c.services[0].node, c.chains[0]
        head = node.store.get_head(victim.vault_id)
        fork = sign_header(head.point.height, head.point.time, bytes([7]) * 32)
        proposal = make_proposal(node, 1, 0)
        entries = list(proposal.cut.entries)
        at = next(i for i, e in enumerate(entries) if e.vault_id == victim.vault_id)
        entries[at] = replace(entries[at], header_hash=fork.hash)
        evidence = list(proposal.evidence)
        evidence[at] = replace(evidence[at], update=node.chains[victim.vault_id].codec.encode_update(fork))
        bad = replace(proposal, cut=replace(proposal.cut, entries=tuple(entries)), evidence=tuple(evidence))
        with pytest.raises(Rejected) as caught:
            await attest.verify_proposal(node, bad, node.get_committee())
        assert caught.value.reason == "halted"
        assert node.store.is_halted(f"chain:{victim.chain_id}")
        assert not node.store.is_halted("node")


async def test_a_node_whose_operator_left_the_set_does_not_fall_over_an_open_packet(tmp_path):
    async with Committee(tmp_path) as c:
        c.chains[0].drop_transactions = True
        put_trade(c.chains[0], c.clock)
        await c.run_for(40)
        node = c.services[0].node
        assert node.store.get_packets("open")
        former = node.get_committee()
        others = tuple(o for o in former.operators if o != node.signer.operator)
        node.get_committee = lambda: replace(former, operators=others)
        await submit.step(node)
        assert not get_reasons(node) & {"bad_certificate"}


async def test_packets_that_a_peer_made_up_do_not_keep_us_from_the_own_endpoints(tmp_path):
    """What nobody proved may be tried, never insisted on."""
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        put_trade(c.chains[0], c.clock)
        speaker, node = c.services[0].node, c.services[1].node
        await watch.step(speaker, c.chains[0].vault_id)
        vault_id = c.chains[0].vault_id
        good = [Claim(p, i) for p, i in c.chains[0].packets]
        node.peer_packets[vault_id] = {
            x.packet.sequence: replace(x, packet=replace(x.packet, timeout_timestamp=x.packet.timeout_timestamp + 1))
            for x in good
        }
        assert node.store.get_cursor(vault_id).sequence == 0
        await attest.verify_proposal(node, make_proposal(speaker, 0, 0), node.get_committee())
        assert node.store.get_cursor(vault_id).sequence == 3


async def test_facts_that_arrive_while_a_proposal_is_checked_do_not_make_it_wrong(tmp_path):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        put_trade(c.chains[0], c.clock)
        speaker, node = c.services[0].node, c.services[1].node
        vault_id = c.chains[0].vault_id
        await watch.step(speaker, vault_id)
        proposal = make_proposal(speaker, 0, 0)
        reader = node.chains[vault_id].reader
        packets, is_first = reader.packets, True

        async def slow(source, span):
            nonlocal is_first
            if is_first:
                is_first = False
                await watch.step(node, vault_id)  # the other loop is faster
            return await packets(source, span)

        reader.packets = slow
        plan = await attest.verify_proposal(node, proposal, node.get_committee())
        assert compute_digest(plan) == proposal.plan_digest
        assert not is_first


async def test_a_settlement_price_binds_every_series_that_settles_by_it(tmp_path):
    """One price per (underlying, expiry, source, window): another strike at another price is a second price (7.1, 8.4)."""
    from messages.documents import PlannedPacket
    from relayer.rules.prices import get_settlement_key

    other = make_series(4000)
    assert get_settlement_key(other) == get_settlement_key(SERIES)
    async with Committee(tmp_path) as c:
        for series in (SERIES, other):
            c.chains[0].put(SeriesListed(series_id(series), series), c.clock.now())
        await c.run_for(10)
        node = c.services[0].node

        def make(k, series, price):
            body = Execute(bytes(32), (SeriesPrice(series_id(series), price),), ())
            planned = PlannedPacket(c.chains[0].vault_id, 0, k, 2**40, encode_body(body), "x")
            return PlanDocument(k, b"\1" * 32, b"\1" * 32, b"\1" * 32, b"\1" * 32, (planned,))

        async def sign(plan):
            digest = compute_digest(plan)
            votes = [node.signer.sign_vote(plan.k, 0, digest)]
            node.store.record_vote(votes[0])
            for i in (1, 2):
                liar = make_liar(tmp_path, c, i, f"voter{plan.k}{i}")
                votes.append(liar.sign_vote(plan.k, 0, digest))
                liar.journal.close()
            await attest.open_and_sign(node, plan, votes)
            return node.signer.journal.get_value("plan", encode_u64(plan.k)) == digest

        assert await sign(make(1, SERIES, 100))
        assert not await sign(make(2, other, 101))
        assert await sign(make(3, other, 100))
        assert "signed_otherwise" in get_reasons(node)


async def test_a_proposer_that_says_many_things_in_one_slot_costs_us_one_plan_and_is_convicted(tmp_path):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        node = c.services[0].node
        good = make_proposal(node, 0, 0)
        index = node.get_committee().operators.index(good.proposer)
        victim = c.services[(index + 1) % 4].node
        planned, refusals = [], []
        compute_plan = victim.planner.compute_plan

        class Counting(type(victim.planner)):
            def compute_plan(self, *args):
                planned.append(args)
                return compute_plan(*args)

        victim.planner = Counting()
        for i in range(10):
            liar = make_liar(tmp_path, c, index, f"many{i}")
            envelope = liar.sign_proposal(replace(good, plan_digest=bytes([i + 1]) * 32))
            liar.journal.close()
            try:
                await attest.accept_proposal(victim, envelope, envelope.body)
            except Rejected as error:
                refusals.append(error.reason)
        assert refusals == ["plan_mismatch"]
        assert len(planned) == 1
        assert {(operator, kind) for operator, kind, _ in victim.store.get_evidence()} == {(good.proposer, "proposal")}


@pytest.mark.parametrize("liar_answers_first", [False, True])
async def test_a_long_archive_comes_in_batches_and_past_a_peer_that_lies(tmp_path, liar_answers_first, monkeypatch):
    from messages.packet import encode_packet_abi
    from relayer.rules.statements import ArchivePackets

    monkeypatch.setattr(attest, "ARCHIVE_BATCH", 2)
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        node, vault_id = c.services[2].node, c.chains[0].vault_id
        for chain in node.chains.values():
            chain.reader.faults.update({"one": "no_packets", "two": "no_packets"})
        for i in range(7):
            c.chains[0].put(Deposited(ALICE, TOKEN, 1000 + i), c.clock.now())
        if liar_answers_first:
            lies = [replace(p, timeout_timestamp=p.timeout_timestamp + 1) for p, _ in c.chains[0].packets]
            document = ArchivePackets(vault_id, 0, tuple(encode_packet_abi(p) for p in lies), (b"",) * len(lies))
            liar = make_liar(tmp_path, c, 0)
            node.asked_archive[vault_id] = c.clock.now()
            await attest.read(node, encode_envelope(liar.sign_envelope("archive_packets", encode_document(document))))
            liar.journal.close()
            assert node.peer_packets[vault_id]
        await c.run_for(150)
        assert node.store.get_cursor(vault_id).sequence == 7
        assert ("bad_archive" in get_reasons(node)) == liar_answers_first
