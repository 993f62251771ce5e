"""A long way, seen by somebody who wants it to go wrong."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from messages.documents import CutEntry, Evidence, decode_document, encode_document
from messages.errors import Unavailable
from relayer.archive import iterate_chain_records
from relayer.proof_file import encode_claim
from relayer.rules.statements import ArchivePackets
from relayer.tasks import attest
from tests.scenarios.test_long_way import (
    LATE,
    LongWay,
    get_sequences,
    get_states,
    replay,
    start_with_peers_only,
    stop_after_parts,
)


async def test_a_proposal_of_before_the_head_of_the_way_leaves_no_head_without_its_header(tmp_path, monkeypatch):
    """The steps to the end of a way are on record before its packets; an older state between the two would have no step of its own."""
    async with LongWay(tmp_path) as c:
        await c.live()
        paused = await stop_after_parts(c, monkeypatch, 3)
        node, chain = c.services[LATE].node, c.chains[0]
        cursor, store = node.store.get_cursor(chain.vault_id), c.services[0].node.store
        newest = node.store.get_trusted(chain.chain_id)[0].height
        older = next(
            h
            for h in store.iterate_heads(chain.vault_id)
            if h.sequence > cursor.sequence and h.point.height < newest and h.sequence <= cursor.sequence + 16
        )
        entry = CutEntry(
            chain.vault_id, older.point.height, older.point.header_hash, older.point.time, older.sequence, older.head
        )
        claim = store.get_header_claim(chain.chain_id, older.point.height)
        evidence = Evidence(chain.vault_id, claim, older.proof)
        with pytest.raises(Unavailable) as waits:  # nobody is blamed, and nothing is recorded
            await attest.verify_entry(node, entry, evidence)
        assert waits.value.reason == "no_base"
        list(iterate_chain_records(node.store, chain.chain_id, chain.vault_id))  # what is on record holds together
        paused.clear()
        await c.run_until_joined()
        assert get_sequences(c, LATE)[0] == len(chain.packets)
        replay(c, LATE)


@pytest.mark.parametrize(("max_packets", "every_s"), [(16, 20), (20_000, 20)])
async def test_a_peer_that_sends_one_packet_at_a_time_does_not_hold_a_way_up(
    tmp_path, monkeypatch, max_packets, every_s
):
    async with LongWay(tmp_path) as c:
        await c.live()
        liar = c.services[0].node.signer.operator
        late, accept, under_way = [], attest.accept_archive_packets, {}

        async def bring(node, envelope, archive):
            await c.clock.sleep(every_s)
            one = replace(archive, packets=archive.packets[:1], answered=archive.answered[:1])
            await accept(node, envelope, encode_document(one))

        async def dribble(node, envelope, body):
            if node not in late:
                return  # nobody else asked
            archive = decode_document(ArchivePackets, body)
            if liar in node.doubted_peers.get(archive.vault_id, ()):
                await accept(node, envelope, body)
            elif envelope.operator == liar:
                last = under_way.get(archive.vault_id)
                if last is None or last.done():
                    under_way[archive.vault_id] = asyncio.create_task(bring(node, envelope, archive))

        monkeypatch.setitem(attest._HANDLERS, "archive_packets", dribble)
        node = await start_with_peers_only(c)
        late.append(node)
        for vault_id, chain in node.chains.items():
            node.chains[vault_id] = replace(chain, max_packets=max_packets)
        await c.run_until_joined(400)  # one by one it would take far longer
        assert get_states(c, LATE) == get_states(c, 1)
        named = {blame.source for blame, _, _ in node.store.get_blames() if blame.reason == "bad_archive"}
        assert named == {f"0x{liar.hex()}"}


async def test_what_a_peer_sends_is_bounded_in_bytes_too(tmp_path, monkeypatch):
    async with LongWay(tmp_path) as c:
        await c.live()
        node, chain = c.open(LATE).node, c.chains[0]
        node.asked_archive[chain.vault_id] = 0
        facts = c.services[0].node.store.iterate_facts(chain.vault_id, 0, 20)
        claims = [encode_claim(fact) for fact in facts]
        archive = ArchivePackets(chain.vault_id, 0, tuple(x.packet for x in claims), tuple(x.answered for x in claims))
        body = encode_document(archive)
        envelope = SimpleNamespace(operator=c.services[0].node.signer.operator)
        monkeypatch.setattr(attest, "MAX_PEER_BYTES", 2_000)
        for _ in range(2):
            await attest.accept_archive_packets(node, envelope, body)
        assert (
            0 < sum(len(held.packet.payloads[0].value) for held in node.peer_packets[chain.vault_id].values()) <= 2_000
        )
        monkeypatch.undo()
        await attest.accept_archive_packets(node, envelope, body)
        assert len(node.peer_packets[chain.vault_id]) == 20
