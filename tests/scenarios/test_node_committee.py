"""Four nodes over the toy family: what is deposited, traded and withdrawn is certified and settled exactly once."""

from __future__ import annotations

from messages.bodies import Deposited, SeriesListed, TradePending, WithdrawalRequested
from tests.builders import TOKEN, make_account, make_series, series_id
from tests.committee import Committee

ALICE, BOB = make_account("alice"), make_account("bob")


def trade(chain, clock, *, nonce=1, cost=40):
    series = make_series(3000)
    if not chain.state.series:
        chain.put(SeriesListed(series_id(series), series), clock.now())
    chain.put(
        TradePending(ALICE, BOB, series_id(series), TOKEN, 10**8, cost, clock.now() + 3600, ALICE, 1, nonce),
        clock.now(),
    )


async def test_a_trade_and_a_withdrawal_are_settled_once_on_each_vault(tmp_path):
    async with Committee(tmp_path) as c:
        for chain in c.chains:
            chain.put(Deposited(ALICE, TOKEN, 100), c.clock.now())
            trade(chain, c.clock)
        await c.run_for(60)
        for chain in c.chains:
            assert chain.state.positions[ALICE, series_id(make_series(3000))] == 10**8
            assert chain.state.free[BOB, TOKEN] == 40
            assert [accepted for _, accepted in chain.received].count(True) == 1
            chain.put(WithdrawalRequested(BOB, TOKEN, 30), c.clock.now())
        await c.run_for(60)
        for chain in c.chains:
            assert chain.state.claimable[BOB, TOKEN] == 30
            assert chain.state.inbox_sequence == 2
        for service in c.services.values():
            status = service.get_status()
            assert {p.status for p in status.packets} == {"done"}
            assert not status.halts
            assert [x.outbox_sequence for x in status.chains] == [
                next(h for h in c.chains if h.vault_id == x.vault_id).state.outbox_sequence for x in status.chains
            ]


async def test_nothing_to_do_means_nothing_is_proposed(tmp_path):
    async with Committee(tmp_path) as c:
        for chain in c.chains:
            chain.put(Deposited(ALICE, TOKEN, 100), c.clock.now())
        await c.run_for(60)
        assert all(chain.state.inbox_sequence == 0 for chain in c.chains)
        assert all(not s.get_status().packets for s in c.services.values())
