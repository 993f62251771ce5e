"""What happens to proposals and headers while one task of a node waits for an endpoint and another one goes on."""

from __future__ import annotations

from relayer.rules.quorum import get_proposer
from relayer.tasks import attest, watch
from tests.committee import Committee
from tests.scenarios.test_review_committee import put_trade


async def make_late_node(c):
    """A node that knows neither the newest facts nor the proposal for them, and that proposal."""
    await c.run_for(10)
    leader_address = get_proposer(c.services[0].node.get_committee(), 0, 0)
    leader = next(s.node for s in c.services.values() if s.node.signer.operator == leader_address)
    late = next(s.node for s in c.services.values() if s.node is not leader)
    for i in [i for i, s in c.services.items() if s.node not in (leader, late)]:
        await c.kill(i)  # no votes but theirs: what happens is what the test does
    c.bus.cut_off.add(late.name)
    for chain in late.chains.values():
        chain.reader.faults = {"one": "stale", "two": "stale"}
    put_trade(c.chains[0], c.clock)
    await c.run_for(10)
    return leader.progress.proposals[0, 0], late


def interrupt(late, act):
    """Let something happen while the late node waits for packets."""
    happened = []
    for chain in late.chains.values():
        inner = chain.reader.packets

        async def packets(source, span, inner=inner):
            if not happened:
                happened.append(span)
                await act()
            return await inner(source, span)

        chain.reader.packets = packets
    return happened


async def test_a_slot_that_is_over_while_an_earlier_proposal_is_judged_is_passed_over(tmp_path):
    async with Committee(tmp_path) as c:
        envelope, late = await make_late_node(c)
        late.progress.waiting = {(0, 0): envelope, (0, 1): envelope, (7, 0): envelope}

        async def finish():
            attest._finish_k(late, 5, bytes(32))

        happened = interrupt(late, finish)
        await attest.step(late)
        assert happened
        assert late.progress.base_k == 6
        assert late.progress.waiting == {}


async def test_without_an_interruption_every_waiting_proposal_is_judged(tmp_path):
    async with Committee(tmp_path) as c:
        envelope, late = await make_late_node(c)
        late.progress.waiting = {(0, 0): envelope}
        await attest.step(late)
        assert late.progress.waiting == {}
        assert attest.has_voted(late, 0, 0)


async def test_facts_that_the_watch_records_while_a_proposal_brings_them_blame_nobody(tmp_path):
    """An honest proposer was blamed for `bad_sequence`: its facts were right, and on record a moment before."""
    async with Committee(tmp_path) as c:
        envelope, late = await make_late_node(c)
        late.progress.waiting = {(0, 0): envelope}
        vault_id = c.chains[0].vault_id

        async def look():
            late.chains[vault_id].reader.faults = {}
            await watch._look(late, vault_id)

        assert interrupt(late, look) == []
        await attest.step(late)
        late.write_blames()
        assert late.store.get_cursor(vault_id).sequence > 0
        assert late.store.get_blames() == ()
        assert attest.has_voted(late, 0, 0)
        heights = [h.point.height for h in late.store.iterate_headers(late.chains[vault_id].chain_id)]
        assert heights == sorted(set(heights))
