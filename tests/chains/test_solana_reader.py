"""From what operators say and endpoints tell to facts: gaps, lies, spam, restarts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chains.base import Head, Span, advance, bootstrap, collect
from chains.solana import history as history_module
from chains.solana.history import VaultHistory
from chains.solana.types import Observation
from messages.bodies import Deposited
from messages.errors import Rejected, Unavailable
from messages.outbox import get_start_cursor
from tests.chains.solana_site import KEYS, OPERATORS, Site


@pytest.fixture
def site():
    return Site("reader")


async def start(site, chain=None):
    """(trusted, cursor) after everything that is final by now."""
    chain = chain or site.chain
    await site.speak(chain=chain, listener=chain)
    _, trusted, _ = await bootstrap(chain, site.now())
    found = await collect(chain, trusted, get_start_cursor(chain.vault_id), 0)
    return trusted, found


async def go_on(site, trusted, cursor, chain=None):
    chain = chain or site.chain
    moved = await advance(chain, trusted, site.now())
    after = moved.steps[-1][1] if moved.steps else trusted
    return after, await collect(chain, after, cursor, trusted.slot)


def get_amounts(found):
    return [fact.body.amount for fact in found.facts if isinstance(fact.body, Deposited)]


async def test_what_three_of_four_operators_say_becomes_facts_of_tier_three(site):
    site.deposit(5, 6)
    site.finalize()
    trusted, found = await start(site)
    assert get_amounts(found) == [5, 6]
    tier = found.proven.tier
    assert (tier.level, tier.m, tier.n) == (3, 3, 4)
    assert (found.head, found.blames) == (Head(2, trusted.head), ())
    site.deposit(7)
    site.finalize()
    await site.speak(*KEYS[1:])
    later, found = await go_on(site, trusted, found.cursor)
    assert get_amounts(found) == [7]
    assert (later.sequence, later.clock > trusted.clock) == (3, True)


async def test_two_of_four_operators_are_not_enough(site):
    site.deposit(5)
    site.finalize()
    await site.speak(*KEYS[:2])
    with pytest.raises(Unavailable):
        await bootstrap(site.chain, site.now())
    await site.speak(KEYS[3])
    assert (await bootstrap(site.chain, site.now()))[1].sequence == 1


async def test_time_moves_without_packets_and_no_endpoint_is_asked_for_it(site):
    site.deposit(5)
    site.finalize()
    trusted, found = await start(site)
    asked = [endpoint.rpc.requests for endpoint in site.sim.endpoints]
    assert (await advance(site.chain, trusted, site.now())).steps == ()
    site.clock.advance(60)
    await site.speak()
    spoken = [endpoint.rpc.requests for endpoint in site.sim.endpoints]
    later, found = await go_on(site, trusted, found.cursor)
    assert later.clock >= trusted.clock + 60
    assert found.facts == ()
    assert [endpoint.rpc.requests for endpoint in site.sim.endpoints] == spoken
    assert sum(spoken) == sum(asked) + 4


async def test_operators_at_several_numbers_stand_for_the_history_up_to_the_lowest(site):
    site.deposit(5)
    site.finalize()
    trusted, found = await start(site)
    for key in KEYS[:3]:
        site.deposit(9)
        site.finalize()
        await site.speak(key)
    later, found = await go_on(site, trusted, found.cursor)
    assert (later.sequence, later.clock) == (2, trusted.clock)
    assert get_amounts(found) == [9]
    proof = found.proof
    assert len(proof.commitments) == 2
    assert site.chain.codec.decode_proof(site.chain.codec.encode_proof(proof)) == proof


async def test_a_liar_with_a_huge_number_makes_nobody_search_for_it(site):
    site.deposit(5)
    site.finalize()
    trusted, found = await start(site)
    site.deposit(6)
    site.finalize()
    honest = await site.speak(KEYS[1])
    site.deposit(7)
    site.finalize()
    await site.speak(KEYS[2])
    site.deposit(8)
    site.finalize()
    await site.speak(KEYS[3])
    liar = replace_claim(honest, sequence=10**15, head=b"\x99" * 32, slot=honest.height + 1)
    site.say(site.chain, liar, KEYS[0])
    later, found = await go_on(site, trusted, found.cursor)
    assert get_amounts(found) == [6]
    assert OPERATORS[0] not in {signed.operator for signed in found.proof.observations}
    assert later.sequence == 2


def replace_claim(seen, **changes):
    from chains.solana.codec import decode_unsigned, encode_unsigned

    claim = decode_unsigned(seen.claim)
    words = {"slot": claim.slot, "clock": claim.clock, "sequence": claim.sequence, "head": claim.head} | changes
    return replace(seen, claim=encode_unsigned(Observation(claim.vault_id, **words)))


async def test_after_a_restart_the_evidence_is_gone_until_operators_speak_again(site):
    site.deposit(5)
    site.finalize()
    trusted, found = await start(site)
    again = site.build()
    with pytest.raises(Unavailable) as caught:
        await collect(again, trusted, get_start_cursor(again.vault_id), 0)
    assert caught.value.reason == "evidence_gone"
    site.clock.advance(30)
    await site.speak(chain=again, listener=again)
    later = (await advance(again, trusted, site.now())).steps[-1][1]
    found = await collect(again, later, get_start_cursor(again.vault_id), 0)
    assert get_amounts(found) == [5]


# ---- what endpoints tell -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lie", "value", "reason"),
    [
        ("drop_events", True, "packets_missing"),
        ("drop_event_every", 2, "packets_missing"),
        ("no_index", True, "packets_missing"),
        ("forge_events", True, "head_mismatch"),
        ("other_program", True, "packets_missing"),
        ("null_inner", True, "no_inner_instructions"),
        ("undo_results", True, "packets_missing"),
        ("down", True, "unreachable"),
        ("unhealthy", True, None),
        ("reorder_events", True, None),
        ("hide_failures", True, None),
    ],
)
async def test_an_endpoint_that_tells_packets_wrongly_is_named_and_the_next_is_asked(site, lie, value, reason):
    site.deposit(5, 6, 7)
    site.finalize()
    await site.speak()
    setattr(site.lies[0], lie, value)
    _, trusted, _ = await bootstrap(site.chain, site.now())
    found = await collect(site.chain, trusted, get_start_cursor(site.chain.vault_id), 0)
    assert get_amounts(found) == [5, 6, 7]
    if reason:
        assert [(blame.source, blame.reason) for blame in found.blames] == [(site.chain.reader.sources[0], reason)]


async def test_an_endpoint_whose_index_lags_serves_again_when_it_has_caught_up_e5(site):
    """E5: a lagging index says "nothing happened", and must not be remembered as one that has told everything."""
    site.deposit(5)
    site.finalize()
    await site.speak()
    source = site.chain.reader.sources[0]
    history = VaultHistory(site.chain.reader._client, source, 0.0)
    site.lies[0].drop_events = True
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            await history.collect(0, 1, 0)
        assert caught.value.reason == "packets_missing"
    site.lies[0].drop_events = False
    assert len(await history.collect(0, 1, 0)) == 1


async def test_an_empty_transaction_is_looked_at_again_when_a_number_stays_missing(site):
    """A node that once told a transaction without its inner instructions is asked for it again, not for ever left at its first word."""
    site.deposit(5)
    site.finalize()
    source = site.chain.reader.sources[0]
    history = VaultHistory(site.chain.reader._client, source, 0.0)
    site.lies[0].other_program = True
    for _ in range(2):
        with pytest.raises(Unavailable):
            await history.collect(0, 1, 0)
    site.lies[0].other_program = False
    assert len(await history.collect(0, 1, 0)) == 1


# ---- spam ----------------------------------------------------------------------------------------------------------------


async def test_a_packet_below_hundreds_of_other_transactions_is_found_and_nothing_is_read_twice(site, monkeypatch):
    monkeypatch.setattr(history_module, "MAX_SIGNATURES", 100)
    site.deposit(5)
    site.spam(250)
    site.deposit(6)
    site.finalize()
    rpc = site.sim.endpoints[0].rpc
    span = Span(0, 2, 0, site.sim.get_slot())
    source = site.chain.reader.sources[0]
    assert len(await site.chain.reader.packets(source, span)) == 2
    first = rpc.asked["getTransaction"]
    assert first >= 250
    site.deposit(7)
    site.finalize()
    assert len(await site.chain.reader.packets(source, replace(span, upto_sequence=3))) == 3
    assert rpc.asked["getTransaction"] <= first + 2 * history_module.PARALLEL
    assert len(await site.chain.reader.packets(source, span)) == 2
    assert rpc.asked["getTransaction"] <= first + 2 * history_module.PARALLEL


class Budget:
    """A client whose source gives ``count`` transactions at a time and then no more."""

    def __init__(self, client, count):
        self._client = client
        self.count = self.left = count
        self.rules = client.rules

    def __getattr__(self, name):
        return getattr(self._client, name)

    async def read_events(self, source, listed):
        self.left -= 1
        if self.left < 0:
            raise Unavailable("too many requests", reason="behind")
        return await self._client.read_events(source, listed)


async def test_where_the_time_is_over_the_next_call_goes_on_from_there(site, monkeypatch):
    """A spammer cannot keep packets away for ever. The twin that begins anew with each call never gets below the spam."""
    monkeypatch.setattr(history_module, "MAX_SIGNATURES", 100)
    site.deposit(5)
    site.spam(300)
    site.finalize()
    client = Budget(site.chain.reader._client, 64)
    source = site.chain.reader.sources[0]
    patient, calls, found, reasons = VaultHistory(client, source, 0.0), 0, (), set()
    while not found:
        calls, client.left = calls + 1, client.count
        try:
            found = await patient.collect(0, 1, 0)
        except Unavailable as error:
            reasons.add(error.reason)
        site.spam(8)  # faster than nothing, slower than we are
        site.finalize()
        assert calls < 10
    assert found[0].packet.sequence == 1
    assert calls > 3
    assert reasons == {"behind"}
    for _ in range(10):
        client.left = client.count
        with pytest.raises(Unavailable):
            await VaultHistory(client, source, 0.0).collect(0, 1, 0)


async def test_a_transaction_that_was_left_out_above_what_was_wanted_is_read_with_the_next_call(site):
    """A busy node gives some of what is asked for at once. What it left out must not count as read."""
    site.deposit(5, 6, 7)
    site.finalize()
    client, source = site.chain.reader._client, site.chain.reader.sources[0]
    newest = next(row.signature for row in await client.list_transactions(source, site.state) if not row.is_failed)

    class Busy(Budget):
        async def read_events(self, source, listed):
            if self.left and listed.signature == newest:
                raise Unavailable("too many requests", reason="behind")
            return await self._client.read_events(source, listed)

    busy = Busy(client, 1)
    history = VaultHistory(busy, source, 0.0)
    assert [claim.packet.sequence for claim in await history.collect(0, 2, 0)] == [1, 2]
    busy.left = 0
    assert [claim.packet.sequence for claim in await history.collect(2, 3, 0)] == [3]


async def test_a_source_that_turns_its_pages_round_is_told(site, monkeypatch):
    monkeypatch.setattr(history_module, "MAX_SIGNATURES", 2)
    site.deposit(5, 6, 7, 8)
    site.finalize()
    client = site.chain.reader._client
    source = site.chain.reader.sources[0]
    assert len(await VaultHistory(client, source, 0.0).collect(0, 4, 0)) == 4

    class Circle(Budget):
        async def list_transactions(self, source, account, *, before="", until="", limit=0):
            return await self._client.list_transactions(source, account, until=until, limit=limit)

    site.spam(3)
    site.finalize()
    with pytest.raises((Rejected, Unavailable)):
        await VaultHistory(Circle(client, 50), source, 0.0).collect(0, 4, 0)


async def test_more_packets_than_anybody_asked_for_are_too_many(site, monkeypatch):
    site.deposit(5, 6, 7)
    site.finalize()
    client, source = site.chain.reader._client, site.chain.reader.sources[0]
    assert len(await VaultHistory(client, source, 0.0).collect(0, 3, 0)) == 3
    monkeypatch.setattr(history_module, "MAX_PACKETS", 2)
    with pytest.raises(Rejected) as caught:
        await VaultHistory(client, source, 0.0).collect(0, 3, 0)
    assert caught.value.reason == "size"


async def test_numbers_are_asked_for_again_from_lower_down(site):
    """Links begin at the trusted number and facts at the recorded one, which may be lower."""
    site.deposit(5, 6, 7)
    site.finalize()
    slot = site.sim.get_slot()
    site.deposit(8)
    site.finalize()
    history = VaultHistory(site.chain.reader._client, site.chain.reader.sources[0], 0.0)
    assert [claim.packet.sequence for claim in await history.collect(3, 4, slot)] == [4]
    assert [claim.packet.sequence for claim in await history.collect(0, 4, 0)] == [1, 2, 3, 4]
    assert [claim.packet.sequence for claim in await history.collect(2, 3, slot)] == [3]


async def test_what_a_fork_takes_back_is_never_read(site):
    site.deposit(5)
    site.finalize()
    trusted, found = await start(site)
    site.deposit(6)
    site.sim.mine()
    site.sim.fork(drop=True)
    site.finalize()
    await site.speak()
    later, found = await go_on(site, trusted, found.cursor)
    assert found.facts == ()
    site.deposit(7)
    site.finalize()
    await site.speak()
    assert get_amounts((await go_on(site, later, found.cursor))[1]) == [7]
