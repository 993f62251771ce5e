"""A long way, seen by somebody who wants it to go wrong."""

from __future__ import annotations

import pytest

from messages.documents import CutEntry, Evidence
from messages.errors import Unavailable
from relayer.archive import iterate_chain_records
from relayer.tasks import attest
from tests.scenarios.test_long_way import LATE, LongWay, get_sequences, replay, stop_after_parts


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
