"""How the people of the demo use a Solana vault: the program's own code in LiteSVM behind the calls that every family shares."""

from __future__ import annotations

import pytest
from solders.pubkey import Pubkey

from chains.registry import build_rules_of
from chains.solana.codec import decode_observation, encode_observation
from chains.solana.observations import compute_observation_digest
from chains.solana.pool import Pool
from chains.solana.types import Observation, SignedObservation
from chains.solana.verifier import build_rules
from contracts.solana import client
from messages.canonical import encode_canonical
from messages.digests import get_address, sign_digest
from messages.errors import Rejected
from relayer.demo.calls import Approve, Claim, ListSeries, Offer, RequestWithdrawal, Take
from relayer.demo.scenario import load_scenario
from relayer.demo.site import DEPLOYER, TREASURER
from relayer.demo.world import DECIMALS, UNIT, World

CONTRACT = 10**8


@pytest.fixture
async def world():
    made = World(5, load_scenario(5, ("solana", "solana")), endpoints=2)
    await made.build()
    return made


@pytest.fixture
def site(world):
    return world.sites["one"]


async def offer(world, site, seller="alice", contracts=2, premium=45 * UNIT):
    """List the series, have a seller offer contracts of it: number 1."""
    await world.act(site, DEPLOYER, ListSeries(world.get_series()))
    series = world.get_series_id()
    await world.act(site, seller, Offer(1, series, contracts * CONTRACT, premium, world.scenario.expiry))


def get_rules(site):
    """What an operator's table of this site makes of it."""
    table = site.make_table()
    settings = encode_canonical(table["settings"]).decode()
    build_rules_of("solana", site.chain, site.account, bytes.fromhex(table["checkpoint"][2:]), settings)
    return build_rules(site.chain, site.account, settings)


async def test_people_pay_in_link_trade_and_ask_for_their_money_by_the_calls_of_every_family(world, site):
    await world.deposit(site, "maker", 600)
    await world.deposit(site, TREASURER, 50, "HOUSE")
    await world.link(site, "maker")
    await offer(world, site)
    await world.act(site, "maker", Take(1, 2 * CONTRACT, 1))
    await world.act(site, "maker", RequestWithdrawal(7 * UNIT))

    # two deposits, the link, the series, the trade that waits, the request; an offer is told to nobody
    assert site.get_outbox_sequence() == 6
    assert site.get_tokens(site.account) == 650 * UNIT
    assert site.get_tokens(site.get_account("maker")) == 0
    data = site.read(site.vault.find(client.get_balance_id(site.get_account("HOUSE"), site.asset)))
    free, claimable = client.decode_record(
        client.get_balance_id(site.get_account("HOUSE"), site.asset), data, site.account
    )
    assert (free, claimable) == (50 * UNIT, 0)
    mint = site.read(Pubkey.from_bytes(site.asset))
    assert mint[44] == DECIMALS


async def test_an_offer_is_taken_in_the_name_of_the_house_with_the_money_of_the_house(world, site):
    await world.deposit(site, TREASURER, 500, "HOUSE")
    await offer(world, site, seller="carol", contracts=20)
    await world.act(site, "carol", Take(1, 2 * CONTRACT, 2, for_house=True))
    trade = client.get_trade_id(site.get_account("HOUSE"), 1, 2)
    assert site.read(site.vault.find(trade)) is not None
    with pytest.raises(Rejected) as refused:
        await world.act(site, "carol", Take(1, 20 * CONTRACT, 3, for_house=True))
    assert "(cash)" in str(refused.value)


async def test_a_call_that_the_vault_refuses_is_refused_with_its_word(world, site):
    await world.deposit(site, "maker", 600)
    with pytest.raises(Rejected) as refused:
        await world.act(site, "maker", Claim(site.get_account("maker")))
    assert refused.value.reason == "reverted"
    assert "(amount)" in str(refused.value)


async def test_an_offer_that_is_not_there_is_taken_by_nobody(world, site):
    await world.deposit(site, "maker", 600)
    with pytest.raises(Rejected) as refused:
        await world.act(site, "maker", Take(1, CONTRACT, 1))
    assert refused.value.reason == "reverted"


async def test_an_approval_needs_no_transaction_here(world, site):
    before = world.transactions
    await world.act(site, "maker", Approve(UNIT))
    assert world.transactions == before


async def test_a_fork_before_finality_keeps_what_people_did_and_there_is_none_after_it(world, site):
    await world.deposit(site, "maker", 600)
    sequence = site.get_outbox_sequence()
    assert site.reorg() is not None
    assert site.get_outbox_sequence() == sequence
    await world.pass_time(60)
    assert site.reorg() is None
    assert site.get_outbox_sequence() == sequence


async def test_a_site_has_as_many_endpoints_as_its_family_needs_to_agree_though_fewer_were_asked_for(world, site):
    assert len(site.make_table()["endpoints"]) == 4
    assert len(World(5, world.scenario, endpoints=5).sites["one"].network.endpoints) == 5


async def test_a_table_is_of_the_operators_that_the_vault_was_created_with(world, site):
    rules = get_rules(site)
    assert rules.vault_id == site.vault_id
    assert [s.operators for s in rules.sets] == [tuple(get_address(key) for key in world.operator_keys)]
    unbuilt = World(5, world.scenario, endpoints=4).sites["one"]
    with pytest.raises(RuntimeError, match="not created yet"):
        unbuilt.make_table()


async def test_what_a_lying_operator_signs_is_evidence_against_it_and_counts_for_nothing(world, site):
    await world.deposit(site, "maker", 600)
    await world.pass_time(60)
    key = world.operator_keys[3]
    lie = decode_observation(site.forge_statement(key))
    told = lie.observation
    state = client.decode_state(site.read(site.vault.state))
    assert told.sequence == state.outbox_sequence
    assert told.head != state.outbox_head
    truth = Observation(told.vault_id, told.slot, told.clock, told.sequence, state.outbox_head)
    honest = SignedObservation(truth, get_address(key), sign_digest(key, compute_observation_digest(truth)))

    pool, now = Pool(get_rules(site)), world.clock.now()
    assert pool.add(honest, now).evidence is None
    found = pool.add(lie, now)
    assert found.operator == get_address(key)
    assert found.evidence == (encode_observation(honest), encode_observation(lie))
    assert pool.get_observations() == (honest,)


async def test_no_lie_of_an_operator_is_told_where_headers_prove_states():
    world = World(5, load_scenario(5, ("evm", "evm")), endpoints=2)
    assert world.sites["one"].forge_statement(world.operator_keys[0]) is None
