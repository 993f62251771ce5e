"""A node that joins a vault with more packets than one collect takes: same end as the others, in parts, whatever happens in between."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest

from chains.base import MAX_PACKETS_PER_COLLECT, Point
from messages.bodies import Deposited, RotateOperators, SeriesListed, TradePending
from messages.documents import decode_document, encode_document
from messages.errors import Conflict
from messages.packet import decode_packet_abi, encode_packet_abi
from relayer import killpoints
from relayer import node as node_module
from relayer import states as states_module
from relayer import store as store_module
from relayer.archive import ArchiveStart, iterate_chain_records, read_archive, write_archive
from relayer.clock import VirtualClock
from relayer.health import get_missing
from relayer.keys import Journal
from relayer.proof_file import Anchor, Judge
from relayer.replay import Replay
from relayer.rules.ledger import encode_vault_state, get_initial_state
from relayer.rules.statements import ArchivePackets
from relayer.store import HeadRecord, Store
from relayer.tasks import attest, watch
from tests.builders import (
    OPERATORS,
    START,
    TOKEN,
    TREASURER,
    Outbox,
    make_account,
    make_parameters,
    make_series,
    make_vault,
    series_id,
)
from tests.committee import Committee
from tests.fakes import ToyChain, ToyCodec, ToyVerifier
from tests.scenarios import test_solana_rotation

ALICE, BOB = make_account("alice"), make_account("bob")
SERIES = make_series(3000)
LATE = 3
FIRST = 52
"""Packets on each chain before the late node starts; it folds 16 in one collect and 5 in one part."""


class LongWay(Committee):
    """A committee whose late node has small bounds."""

    def open(self, i):
        service = super().open(i)
        if i == LATE:
            chains = service.node.chains
            for vault_id, chain in chains.items():
                chains[vault_id] = replace(chain, max_packets=16, part_packets=5)
        return service

    async def __aenter__(self):
        for i in range(4):
            if i != LATE:
                self.start(i)
        return self

    async def live(self):
        """A past for each chain: many deposits, a trade that was decided."""
        for chain in self.chains:
            chain.put(SeriesListed(series_id(SERIES), SERIES), self.clock.now())
            chain.put(Deposited(ALICE, TOKEN, 1_000), self.clock.now())
            for n in range(FIRST // 2 - 2):
                chain.put(Deposited(make_account(f"a{n}"), TOKEN, n + 1), self.clock.now())
            put_trade(chain, self.clock)
        await self.run_for(60)
        for chain in self.chains:
            for n in range(FIRST // 2 - 2):
                chain.put(Deposited(make_account(f"b{n}"), TOKEN, n + 1), self.clock.now())
        await self.run_for(20)
        assert [len(chain.packets) for chain in self.chains] == [FIRST] * 2

    async def run_until_joined(self, seconds=300):
        for _ in range(seconds // 5):
            await self.run_for(5)
            if self.has_joined():
                return
        raise AssertionError(get_sequences(self, LATE))

    def has_joined(self):
        return (
            get_sequences(self, LATE) == [len(chain.packets) for chain in self.chains]
            and not self.services[LATE].node.find_unfinished()
        )


def put_trade(chain, clock, nonce=1):
    chain.put(
        TradePending(ALICE, BOB, series_id(SERIES), TOKEN, 10**8, 40, clock.now() + 36_000, ALICE, 1, nonce),
        clock.now(),
    )


def get_sequences(c, i):
    return [c.services[i].node.store.get_cursor(chain.vault_id).sequence for chain in c.chains]


def get_states(c, i):
    states = c.services[i].node.states
    return [encode_vault_state(states.get_newest(chain.vault_id)) for chain in c.chains]


def count_parts(monkeypatch):
    """Sizes of the parts that are recorded from now on."""
    sizes = []
    record_part = Store.record_part

    def count(self, vault_id, facts, snapshots=()):
        sizes.append(len(facts))
        record_part(self, vault_id, facts, snapshots)

    monkeypatch.setattr(Store, "record_part", count)
    return sizes


async def test_a_late_node_joins_in_parts_and_ends_where_the_others_are(tmp_path, monkeypatch):
    sizes = count_parts(monkeypatch)
    async with LongWay(tmp_path) as c:
        await c.live()
        assert sizes == []  # the others were there from the start
        c.start(LATE)
        await c.run_until_joined()
        assert len(sizes) >= 2 * (FIRST // 5 - 1)
        assert set(sizes) == {5}
        assert get_states(c, LATE) == get_states(c, 0)
        late = c.services[LATE].node
        assert late.store.verify_all()["facts"] == sum(len(chain.packets) for chain in c.chains)
        assert late.store.get_blames() == ()
        # and it is one of them: with another one dead, nothing is decided without it
        await c.kill(0)
        before = [sum(accepted for _, accepted in chain.received) for chain in c.chains]
        put_trade(c.chains[0], c.clock, nonce=2)
        await c.run_for(200)
        assert sum(accepted for _, accepted in c.chains[0].received) == before[0] + 1
        assert get_states(c, LATE) == get_states(c, 1)


async def test_on_a_long_way_only_states_are_kept_that_stay(tmp_path, monkeypatch):
    for module in (states_module, store_module):
        monkeypatch.setattr(module, "SNAPSHOT_EVERY", 5)
        monkeypatch.setattr(module, "SNAPSHOTS_KEPT", 2)
        monkeypatch.setattr(module, "SPARSE_SNAPSHOT_EVERY", 20)
    async with LongWay(tmp_path) as c:
        await c.live()
        c.start(LATE)
        await c.run_until_joined()
        store, vault_id = c.services[LATE].node.store, c.chains[0].vault_id
        last = len(c.chains[0].packets)
        found = {store.get_snapshot(vault_id, n)[0] for n in range(20, last + 1)}
        assert found == {n for n in range(20, last + 1, 5) if n % 20 == 0 or n >= last - 10}
        for n in (3, 20, 33, last):
            states = [c.services[i].node.states.get_at(vault_id, n) for i in (LATE, 0)]
            assert encode_vault_state(states[0]) == encode_vault_state(states[1])


async def test_without_parts_it_would_never_join(tmp_path, monkeypatch):
    """The hole that this closes: a head beyond the bound was refused for ever."""

    async def give_up(node, chain, trusted, headers):
        raise watch.Unavailable("the claimed outbox number does not fit", reason="head_number")

    monkeypatch.setattr(watch, "catch_up", give_up)
    async with LongWay(tmp_path) as c:
        await c.live()
        c.start(LATE)
        await c.run_for(120)
        assert get_sequences(c, LATE) == [0, 0]


@pytest.mark.parametrize("fault", ["down", "withhold", "forge"])
async def test_one_bad_endpoint_on_a_long_way_is_blamed_and_stops_nothing(tmp_path, fault):
    async with LongWay(tmp_path) as c:
        await c.live()
        service = c.open(LATE)
        for chain in service.node.chains.values():
            chain.reader.faults["one"] = fault
        c.tasks[LATE] = asyncio.create_task(service.run())
        await c.run_until_joined()
        assert get_states(c, LATE) == get_states(c, 0)
        assert {blame.source for blame, _, _ in service.node.store.get_blames()} == {"one"}


async def test_all_endpoints_lying_about_a_long_way_give_no_fact_and_no_peer_is_needed_to_see_it(tmp_path):
    async with LongWay(tmp_path) as c:
        await c.live()
        for i in range(3):
            await c.kill(i)
        service = c.open(LATE)
        for chain in service.node.chains.values():
            chain.reader.faults.update({"one": "forge", "two": "withhold"})
        c.tasks[LATE] = asyncio.create_task(service.run())
        await c.run_for(60)
        assert get_sequences(c, LATE) == [0, 0]


# ---- what a part must not decide


async def stop_after_parts(c, monkeypatch, parts):
    """Run the late node until so many parts are recorded on the first chain, and no further."""
    paused = [True]
    collect_parts = watch.collect_parts

    async def pause(chain, *args):
        seen = 0
        async for part in collect_parts(chain, *args):
            while chain.chain_id == c.chains[0].chain_id and seen == parts and paused:
                await c.clock.sleep(5)
            seen += 1
            yield part

    monkeypatch.setattr(watch, "collect_parts", pause)
    c.start(LATE)
    await c.run_for(30)
    return paused


async def test_a_node_on_its_way_has_no_cut_no_vote_and_settles_nothing(tmp_path, monkeypatch):
    async with LongWay(tmp_path) as c:
        await c.live()
        paused = await stop_after_parts(c, monkeypatch, 3)
        node, vault_id = c.services[LATE].node, c.chains[0].vault_id
        assert get_sequences(c, LATE)[0] == 15
        assert node.store.get_head(vault_id) is None
        assert node.get_cut() is None
        assert node.find_unfinished() == (vault_id,)
        put_trade(c.chains[1], c.clock, nonce=2)
        await c.run_for(60)
        assert sum(accepted for _, accepted in c.chains[1].received) == 2  # the others went on
        assert node.signer.journal.highest_k == 0  # it signed nothing
        assert get_sequences(c, LATE)[0] == 15
        assert node.store.get_halts() == ()
        paused.clear()
        await c.run_until_joined()
        assert get_states(c, LATE) == get_states(c, 0)


async def test_an_open_packet_is_not_called_absent_before_the_end_of_the_way(tmp_path, monkeypatch):
    """Its Ack lies far ahead, and the proven time is long after its timeout: from a part of the way it would look as if it never came."""
    async with LongWay(tmp_path) as c:
        c.start(LATE)
        await c.run_for(10)
        chain, vault_id = c.chains[0], c.chains[0].vault_id
        chain.put(SeriesListed(series_id(SERIES), SERIES), c.clock.now())
        chain.put(Deposited(ALICE, TOKEN, 1_000), c.clock.now())
        await c.run_for(10)
        for each in c.chains:
            each.drop_transactions = True
        put_trade(chain, c.clock)
        await c.run_for(40)
        (packet,) = c.services[LATE].node.store.get_packets("open")
        await c.kill(LATE)
        for n in range(30):
            chain.put(Deposited(make_account(f"c{n}"), TOKEN, n + 1), c.clock.now())
        for each in c.chains:
            each.drop_transactions = False
        await c.run_for(120)
        assert [accepted for _, accepted in chain.received if accepted] == [True]
        await c.run_for(1_200, step=60)
        assert chain.times[-1] > packet.timeout
        paused = await stop_after_parts(c, monkeypatch, 2)
        store = c.services[LATE].node.store
        assert 0 < store.get_cursor(vault_id).sequence < len(chain.packets) - 5
        assert [p.status for p in store.get_packets()] == ["open"]
        # the twin: whoever takes the part for the state at the end of the way says that the packet never came, and it would be sent again
        settled = []
        monkeypatch.setattr(Store, "record_packet_status", lambda *args: settled.append(args[-1]))
        end = replace(store.get_head(vault_id).point, time=chain.times[-1])
        node = c.services[LATE].node
        watch.settle_packets(node, vault_id, end, node.states.get_newest(vault_id).inbox_sequence)
        assert settled == ["absent"]
        monkeypatch.undo()
        paused.clear()
        await c.run_until_joined()
        assert [p.status for p in store.get_packets()] == ["done"]


# ---- killed between parts


@pytest.mark.parametrize("kill_at", ["before_facts:4", "after_facts:1", "after_facts:4", "after_facts:9"])
def test_a_node_that_is_killed_between_parts_goes_on_from_the_last_one(tmp_path, kill_at):
    asyncio.run(live_in_files(tmp_path))
    assert run_late(tmp_path, kill_at) == -signal.SIGKILL
    store = Store(tmp_path / f"node{LATE}.db")
    counts = store.verify_all()
    store.close()
    assert counts["facts"] % 5 == 0
    assert run_late(tmp_path, "") == 0
    asyncio.run(compare_with_others(tmp_path))


async def live_in_files(folder):
    async with LongWay(folder, files=True) as c:
        await c.live()
        for i in range(3):
            await c.stop(i)


def run_late(folder, kill_at):
    """Fork a process with the late node alone; returns how it ended (0, or minus the signal)."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.environ["RELAYER_KILL_AT"] = kill_at
            killpoints.arm()
            asyncio.run(join_alone(folder))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def open_again(folder):
    """The committee of a folder; its clock starts after everything that is on the chains."""
    probe = LongWay(folder, files=True)
    return LongWay(folder, files=True, start=max(chain.times[-1] for chain in probe.chains) + 10)


async def join_alone(folder):
    c = open_again(folder)
    c.start(LATE)
    await c.run_until_joined()
    await c.stop(LATE)


async def compare_with_others(folder):
    c = open_again(folder)
    for i in (0, LATE):
        c.open(i)
    for known, chain in zip(get_sequences(c, 0), c.chains, strict=True):
        stores = [c.services[i].node.store for i in (0, LATE)]
        assert [store.get_fact_head(chain.vault_id, known) for store in stores] == [chain.positions[-1][1]] * 2
    report = replay(c, LATE)
    assert [each.facts for each in report.chains] == sorted_by_vault(c, get_sequences(c, LATE))
    for i in (0, LATE):
        c.services[i].close()


def sorted_by_vault(c, numbers):
    return [n for _, n in sorted(zip((chain.vault_id for chain in c.chains), numbers, strict=True))]


def replay(c, i):
    """Write a node's records to an archive and compute it again from that alone."""
    store = c.services[i].node.store
    vaults = {chain.chain_id: chain.vault for chain in c.chains}
    anchors = {chain.vault_id: make_anchor(chain) for chain in c.chains}
    out = io.BytesIO()
    records = [ArchiveStart(c.clock.now(), tuple(anchors[v] for v in sorted(anchors)))]
    for chain in c.chains:
        records += iterate_chain_records(store, chain.chain_id, chain.vault_id)
    write_archive(records, out)

    def make_judge(anchor):
        limits = c.services[i].node.chains[ToyVerifier(vaults[anchor.chain]).vault_id].limits
        verifier = ToyVerifier(vaults[anchor.chain])
        return Judge(verifier.vault_id, limits, verifier, ToyCodec())

    again = Replay(make_judge, None, recorded=store.get_fact_head)
    report = again.run(read_archive(io.BytesIO(out.getvalue())))
    assert report.differences == ()
    return report


def make_anchor(chain):
    return Anchor(chain.chain_id, "evm", chain.vault.account, bytes(31) + b"\1", "{}")


async def test_what_was_joined_in_parts_is_replayed_under_one_head(tmp_path):
    async with LongWay(tmp_path) as c:
        await c.live()
        c.start(LATE)
        await c.run_until_joined()
        late, other = replay(c, LATE), replay(c, 0)
        assert [(x.facts, x.head) for x in late.chains] == [(x.facts, x.head) for x in other.chains]
        assert all(a.heads < b.heads for a, b in zip(late.chains, other.chains, strict=True))


# ---- from peers


async def start_with_peers_only(c):
    service = c.open(LATE)
    for chain in service.node.chains.values():
        chain.reader.faults.update({"one": "no_packets", "two": "no_packets"})
    c.tasks[LATE] = asyncio.create_task(service.run())
    return service.node


async def test_a_long_way_comes_from_peers_where_endpoints_withhold_it(tmp_path, monkeypatch):
    monkeypatch.setattr(attest, "ARCHIVE_BATCH", 7)
    monkeypatch.setattr(attest, "MAX_PEER_PACKETS", 14)
    sizes = count_parts(monkeypatch)
    async with LongWay(tmp_path) as c:
        await c.live()
        node = await start_with_peers_only(c)
        await c.run_until_joined(900)
        assert get_states(c, LATE) == get_states(c, 0)
        assert len(sizes) >= 2 * (FIRST // 5 - 1)
        assert node.peer_ways == {}


async def test_a_peer_that_lies_on_a_long_way_is_named_and_another_one_is_heard(tmp_path, monkeypatch):
    monkeypatch.setattr(attest, "ARCHIVE_BATCH", 7)
    async with LongWay(tmp_path) as c:
        await c.live()
        liar = c.services[0].node.signer.operator
        accept = attest.accept_archive_packets

        async def change(node, envelope, body):
            archive = decode_document(ArchivePackets, body)
            if envelope.operator == liar and archive.after_sequence >= 14:
                packet = decode_packet_abi(archive.packets[0])
                forged = encode_packet_abi(replace(packet, timeout_timestamp=packet.timeout_timestamp + 1))
                body = encode_document(replace(archive, packets=(forged, *archive.packets[1:])))
            # the liar is heard first
            if envelope.operator == liar or liar in node.doubted_peers.get(archive.vault_id, ()):
                await accept(node, envelope, body)

        monkeypatch.setitem(attest._HANDLERS, "archive_packets", change)
        node = await start_with_peers_only(c)
        await c.run_until_joined(1_500)
        assert get_states(c, LATE) == get_states(c, 1)
        named = {blame.source for blame, _, _ in node.store.get_blames() if blame.reason == "bad_archive"}
        assert named == {f"0x{liar.hex()}"}


# ---- a vault whose operators change on the way


class SmallSteps(test_solana_rotation.Rotating):
    """As Rotating, with nodes that fold one packet in a collect and one in a part: every way is long."""

    def start(self, i):
        super().start(i)
        chains = self.services[i].node.chains
        for vault_id, chain in chains.items():
            chains[vault_id] = replace(chain, max_packets=1, part_packets=1)


async def test_operators_change_on_a_long_way_as_on_a_short_one(tmp_path, monkeypatch):
    monkeypatch.setattr(test_solana_rotation, "Rotating", SmallSteps)
    await test_solana_rotation.test_whoever_joins_late_walks_from_the_first_set_over_two_rotations(tmp_path)


async def test_rotations_beyond_the_proven_head_are_found_after_a_restart_and_kept_as_parts_come(tmp_path):
    """A process that ended on its way must not forget who became operator there, when it judges who vouches for the rest."""
    outbox = Outbox(make_vault(0))
    rotation = RotateOperators(1, 3, outbox.time + 90_000, TREASURER, tuple(OPERATORS[:3]))
    for n in range(9):
        if n in {1, 4, 7}:
            outbox.ack(rotation)
        else:
            outbox.put(Deposited(ALICE, TOKEN, n + 1))
    facts, vault_id = outbox.facts(), outbox.vault_id
    store = Store(tmp_path / "node.db")
    states = SimpleNamespace(get_newest=lambda _: get_initial_state(make_vault(0)))
    node = SimpleNamespace(store=store, unfinished_rotations={}, states=states, clock=VirtualClock(START))
    chain = SimpleNamespace(vault_id=vault_id, observer=SimpleNamespace(get_operators=lambda _: OPERATORS))
    assert list(await watch.get_unfinished_rotations(node, chain)) == []
    head = HeadRecord(vault_id, Point(1, bytes([1]) * 32, outbox.time), 3, facts[2].head, b"proof")
    store.record_collected("eip155:1000", [], head, facts[:3])
    store.record_part(vault_id, facts[3:6])
    node.unfinished_rotations.clear()  # as after a start
    assert list(await watch.get_unfinished_rotations(node, chain)) == [facts[4]]
    node.states = SimpleNamespace(compute_after=lambda *_, **__: (None, ()), record_part=lambda *_: None)
    watch.record_part(node, vault_id, SimpleNamespace(facts=facts[6:]), 20)
    assert list(await watch.get_unfinished_rotations(node, chain)) == [facts[4], facts[7]]
    chain.observer = None  # headers prove its states: nobody is asked who vouches
    assert await watch.get_unfinished_rotations(node, chain) == ()
    store.close()


# ---- the loop and the node around a long way


async def test_a_node_is_not_ready_on_its_way_looks_alive_and_stops_at_the_next_part(tmp_path, monkeypatch):
    async with LongWay(tmp_path) as c:
        c.start(LATE)
        await c.run_for(10)
        await c.kill(LATE)
        await c.live()
        chain_id, vault_id = c.chains[0].chain_id, c.chains[0].vault_id
        paused = await stop_after_parts(c, monkeypatch, 2)
        service = c.services[LATE]
        assert get_missing(service, None) == (f"packets up to the proven head of {chain_id}",)
        began = service.last_steps[f"watch {chain_id}"]
        assert service.node.active_at[f"watch {chain_id}"] >= began
        service.stop()
        paused.clear()
        await c.run_for(10)
        assert c.tasks[LATE].done()
        assert service.node.store.get_cursor(vault_id).sequence < FIRST
        assert service.node.store.verify_all()["facts"] > 0
        await c.stop(LATE)
        monkeypatch.undo()
        c.start(LATE)
        await c.run_until_joined()
        assert get_missing(c.services[LATE], None) == ()


@pytest.mark.parametrize(("reason", "is_halted"), [("backing", False), ("conservation", True)])
async def test_what_stands_behind_debts_is_judged_when_no_vault_is_on_its_way(tmp_path, monkeypatch, reason, is_halted):
    """One vault is there and the other is far: the house may owe here what lies in packets that are still to come there."""

    def refuse(states, parameters):
        raise Conflict("the house owes more than stands behind it", reason=reason)

    async with LongWay(tmp_path) as c:
        await c.live()
        paused = await stop_after_parts(c, monkeypatch, 2)
        node = c.services[LATE].node
        assert node.find_unfinished() == (c.chains[0].vault_id,)
        monkeypatch.setattr(node_module, "verify_conservation", refuse)
        node.verify_worth()
        assert node.store.is_halted("node") == is_halted
        if not is_halted:
            paused.clear()
            for _ in range(60):
                await c.run_for(5)
                if not node.find_unfinished():
                    break
            assert node.store.is_halted("node")  # nothing is on its way any more: now it counts


async def test_a_proposal_far_ahead_waits_and_nobody_is_blamed_for_it(tmp_path, monkeypatch):
    async with LongWay(tmp_path) as c:
        await c.live()
        paused = await stop_after_parts(c, monkeypatch, 1)
        node = c.services[LATE].node
        put_trade(c.chains[0], c.clock, nonce=2)
        await c.run_for(30)
        assert node.store.get_blames() == ()
        paused.clear()
        await c.run_until_joined()
        # what waited meanwhile has grown old, and that is said of nobody
        assert {(b.chain, b.source, b.reason) for b, _, _ in node.store.get_blames()} <= {
            ("gossip", "node", "market_time")
        }


@pytest.mark.slow
async def test_a_node_joins_more_packets_than_one_collect_takes_with_the_bounds_as_they_are(tmp_path):
    from bench import far, fold

    vault = make_vault(0)
    clock = VirtualClock(START + 20_000)
    Journal.create_first(tmp_path / "journal.db", clock.now())
    source = far.Source(ToyChain(vault), vault.caps[0].asset)
    while source.heads[source.finalized][0] <= MAX_PACKETS_PER_COLLECT + 2_000:
        source.finalize()
    service = fold.open_service(tmp_path, source, make_parameters([vault]), clock)
    await far.join(service, source)
    sequence, head = source.heads[source.finalized]
    cursor = service.node.store.get_cursor(source.chain.vault_id)
    assert (cursor.sequence, cursor.head) == (sequence, head)
    assert service.node.find_unfinished() == ()
    assert service.node.store.verify_all() == {"headers": 2, "heads": 1, "facts": sequence}
    service.close()
