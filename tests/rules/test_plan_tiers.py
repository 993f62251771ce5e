"""Plans over a vault whose facts are only attested: where its tier bites, and the neighbour where it does not (protocol.md 10)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from messages.bodies import DecideTrades, DecideWithdrawals, LegKind
from messages.documents import Amount, TierParameters
from messages.errors import Rejected
from messages.ids import HOUSE, compute_due_id
from messages.outbox import TrustTier
from relayer.rules.ledger import compute_ledger, compute_ledger_digest
from relayer.rules.plan import compute_plan, compute_plan_digest, get_body
from relayer.rules.plan_context import Context
from relayer.rules.views import compute_margin_view, get_positions
from tests.builders import TOKEN, TREASURER, UNIT, USDC, make_account, make_parameters, make_series, make_vault
from tests.world import World

DUE = compute_due_id(USDC)
CALL = make_series(2000)
MM = make_account("mm")


def make_tier(limit, *, level=3, haircut=5_000, hourly=10_000):
    return TierParameters(level, haircut, hourly, 20_000, 40_000, Amount(limit * UNIT))


def make_world(*, tier=3, limit=1_000_000, house=(5_000, 0), cash=3_000):
    """Vault 0 is proven by a light client, vault 1 has the tier; mm has cash at vault 1 alone."""
    vaults = [make_vault(0), make_vault(1, family="solana" if tier == 3 else "evm")]
    parameters = make_parameters(vaults, tiers=(make_tier(limit),))
    families = tuple(replace(f, timeout_s=1_800, max_legs=64) for f in parameters.families)
    world = World(2, parameters=replace(parameters, families=families), tiers={1: tier})
    for number in (0, 1):
        if house[number]:
            world.deposit(HOUSE, house[number], number)
        world.vaults[number].list_series(CALL)
        world.link("mm", "mm", number)
    world.deposit("mm", cash, 1)
    world.advance(120)
    return world


def get_code(world, subject):
    return next((note.code for note in world.result.notes if note.subject == subject), None)


def get_items(result, kind):
    return [item.id for p in result.plan.packets if isinstance(body := get_body(p), kind) for item in body.items]


def get_lifted(result):
    return sum(
        leg.delta
        for p in result.plan.packets
        if p.purpose == "lift"
        for leg in get_body(p).legs
        if (leg.kind, leg.id) == (LegKind.POSITION, DUE) and leg.account != HOUSE
    )


# ---------------------------------------------------------------- withdrawals elsewhere


@pytest.mark.parametrize(("tier", "limit", "good"), [(3, 1_000, True), (3, 999, False), (1, 999, True)])
def test_cash_that_is_only_attested_pays_on_another_chain_up_to_the_limit_of_its_tier(tier, limit, good):
    world = make_world(tier=tier, limit=limit)
    request = world.request("mm", 1_000, 0)
    world.advance(60)
    result = world.plan()
    assert get_lifted(result) == (1_000 * UNIT if good else 0)
    assert get_code(world, request) == ("lift_not_acked" if good else "tier_limit")
    if good:
        world.deliver(world.certify(result))
        for _ in range(2):
            world.advance(60)
            world.round()
        assert world.vaults[0].claimable[MM, TOKEN] == 1_000 * UNIT


@pytest.mark.parametrize(("limit", "held", "lifted"), [(1_000, 0, 1_000), (1_400, 400, 1_000), (1_399, 400, 999)])
def test_the_house_takes_over_no_more_cash_on_the_word_of_operators_than_the_limit_of_their_tier(limit, held, lifted):
    world = make_world(limit=limit, house=(5_000, held))
    world.request("mm", 1_000, 0)
    world.advance(60)
    assert get_lifted(world.plan()) == lifted * UNIT
    assert ("tier_limit" in world.codes()) is (lifted < 1_000)


def test_what_was_lifted_counts_against_the_limit_until_the_house_has_given_it_back():
    world = make_world(limit=1_000)
    world.request("mm", 1_000, 0)
    world.advance(60)
    world.round()
    for _ in range(2):
        world.advance(60)
        world.round()
    world.request("mm", 500, 0)
    world.advance(60)
    assert get_lifted(world.plan()) == 0
    assert "tier_limit" in world.codes()


def test_everybody_gets_all_of_it_out_on_the_chain_where_it_lies_whatever_its_tier_may_carry():
    world = make_world(limit=0)
    request = world.request("mm", 3_000, 1)
    world.advance(60)
    assert get_items(world.plan(), DecideWithdrawals) == [request]


# ---------------------------------------------------------------- trades


@pytest.mark.parametrize(
    ("tier", "limit", "code"), [(3, 1_000_000, None), (3, 100, "tier_limit"), (1, 100, None), (3, 300, None)]
)
def test_a_short_on_a_proven_chain_rests_on_attested_cash_up_to_the_limit(tier, limit, code):
    world = make_world(tier=tier, limit=limit)
    world.deposit("alice", 1_000, 0)
    world.advance(60)
    trade = world.trade("alice", "mm", CALL, 1, 150)
    world.advance(60)
    result = world.plan()
    assert get_items(result, DecideTrades) == ([] if code else [trade])
    assert get_code(world, trade) == code


def test_the_same_short_on_the_attested_chain_itself_needs_no_better_tier():
    world = make_world(limit=0)
    world.deposit("alice", 1_000, 1)
    world.advance(60)
    trade = world.trade("alice", "mm", CALL, 1, 150, 1)
    world.advance(60)
    assert get_items(world.plan(), DecideTrades) == [trade]


def test_a_hedge_that_is_only_attested_releases_no_more_than_the_limit():
    """mm is short on the proven chain and long on the attested one: netted it needs nothing, but its cash stays where it is proven."""

    def run(limit):
        world = make_world(limit=limit)
        world.deposit("mm", 2_000, 0)
        world.deposit("alice", 1_000, 0)
        world.deposit("bob", 2_000, 1)
        world.advance(60)
        world.trade("alice", "mm", CALL, 2, 50, 0)
        world.trade("mm", "bob", CALL, 2, 50, 1)
        world.advance(60)
        world.round()
        amount = world.free("mm", 0) // UNIT
        request = world.request("mm", amount, 0)
        world.advance(60)
        items = get_items(world.plan(), DecideWithdrawals)
        return items == [request], get_code(world, request)

    assert run(1_000_000) == (True, None)
    assert run(100) == (False, "tier_limit")


# ---------------------------------------------------------------- the house


@pytest.mark.parametrize(
    ("where", "amount", "limit", "code"),
    [
        (0, 4_500, 1_000, None),
        (0, 4_501, 1_000, "tier_limit"),
        (0, 4_501, 1_000_000, None),
        (1, 9_000, 1_000, None),
    ],
)
def test_house_cash_that_is_only_attested_stands_behind_the_house_up_to_the_limit(where, amount, limit, code):
    """The house owes 1,500, has 5,000 proven and 9,500 attested; of these a limit of 1,000 counts, so 4,500 may go."""
    world = make_world(limit=20_000, house=(5_000, 8_000))
    world.request("mm", 1_500, 0)
    world.advance(60)
    world.round()
    assert world.free(HOUSE, 1) == 9_500 * UNIT
    world.parameters = replace(world.parameters, tiers=(make_tier(limit),))
    world.request("mm", 1_000_000, 0)  # it replaces the other one and nothing lands for it: the due stays owed
    request = world.vaults[where].request_withdrawal(TREASURER, TOKEN, amount * UNIT, for_house=True)
    world.advance(60)
    result = world.plan()
    assert get_code(world, request) == code
    assert (request in get_items(result, DecideWithdrawals)) is (code is None)


# ---------------------------------------------------------------- haircut, views, determinism


def test_the_haircut_of_a_tier_and_of_its_age_is_in_the_margin_that_people_see():
    seen = {}
    for tier, stall in ((1, 0), (3, 0), (3, 1_200)):
        world = make_world(tier=tier)
        world.advance(1_800)
        world.stalled = {world.vaults[1].id: world.now - stall}
        ledger = world.get_ledger()
        view = compute_margin_view(ledger, world.get_market(ledger), world.parameters, make_account("mm"))
        seen[tier, stall] = view.together
    assert seen[1, 0].equity == 3_000 * UNIT
    assert seen[3, 0].equity == 2_985 * UNIT
    assert seen[3, 1_200].equity == 3_000 * UNIT - 3_000 * (5_000 + 3_334)
    # initial margin further loses the weight of what the chain carries; nobody is liquidated for it
    assert seen[3, 0].initial == 2_985 * UNIT - 2_985 * 20_000
    assert seen[3, 0].maintenance == 2_985 * UNIT
    assert seen[1, 0].initial == 3_000 * UNIT


def test_positions_carry_the_whole_tier_and_a_vault_without_facts_that_of_its_family():
    world = make_world()
    tiers = {row.vault_id: row.tier for row in get_positions(world.get_ledger(), world.parameters)}
    assert tiers == {world.vaults[0].id: TrustTier(1), world.vaults[1].id: TrustTier(3, 3, 4)}
    empty = World(2, parameters=world.parameters)
    assert empty.states[world.vaults[1].id].tier == TrustTier(3, 3, 4)
    assert empty.states[world.vaults[0].id].tier == TrustTier(1)


def test_nodes_that_folded_under_heads_of_different_sets_compute_one_ledger_digest_and_one_plan():
    """Around a rotation the same packets may be attested by 3 of 4 on one node and by 5 of 7 on another."""
    world = make_world(limit=500)
    world.deposit("alice", 1_000, 0)
    world.trade("alice", "mm", CALL, 1, 150)
    world.request("mm", 1_000, 0)
    world.advance(60)
    first = world.plan()
    vault_id = world.vaults[1].id
    state = world.states[vault_id]
    digests, plans = set(), set()
    for tier in (TrustTier(3, 3, 4), TrustTier(3, 5, 7)):
        states = {**world.states, vault_id: replace(state, tier=tier)}
        ledger = compute_ledger(states, world.ledger.cut, world.parameters)
        digests.add(compute_ledger_digest(ledger))
        result = compute_plan(ledger, world.snapshot, world.parameters, world.k, world.get_open())
        plans.add(compute_plan_digest(result.plan))
    assert len(digests) == 1
    assert plans == {compute_plan_digest(first.plan)}
    better = compute_ledger(
        {**world.states, vault_id: replace(state, tier=TrustTier(1))}, world.ledger.cut, world.parameters
    )
    assert compute_ledger_digest(better) not in digests


def test_a_vault_of_light_client_facts_is_judged_as_if_there_were_no_tiers():
    world = make_world(tier=1, limit=0)
    ledger = world.get_ledger()
    context = Context(ledger, world.get_market(ledger), world.parameters, world.get_open())
    assert not context.apart
    holdings = context.make_holdings(context.get_book(make_account("mm")))
    assert holdings.parts == ()


def test_parameters_in_which_a_worse_tier_is_the_better_one_make_no_plan():
    world = make_world()
    world.parameters = replace(world.parameters, tiers=(make_tier(1_000, haircut=0),))
    with pytest.raises(Rejected) as error:
        world.plan()
    assert error.value.reason == "bad_parameters"
