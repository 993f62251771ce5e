"""Steps 1 and 2 of a plan: expiry, netting, insurance, socialised loss (protocol.md 7.1, 7.2)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from messages.bodies import Execute, LegKind, SeriesPrice, encode_body
from messages.documents import Amount
from messages.errors import Conflict
from messages.ids import HOUSE, INSURANCE, compute_due_id
from relayer.rules.ledger import compute_ledger
from relayer.rules.plan import compute_plan, get_body, verify_worth_unchanged
from tests.builders import UNIT, USDC, make_account, make_parameters, make_report, make_series, make_vault, series_id
from tests.world import World

DUE = compute_due_id(USDC)


def make_world(vaults=2, **changes):
    world = World(vaults, parameters=make_parameters([make_vault(i) for i in range(vaults)], **changes))
    for number in range(vaults):
        world.deposit(HOUSE, 1_000, number)
    world.deposit(INSURANCE, 1_000, 0)
    world.advance(120)
    return world


def open_position(world, buyer, seller, definition, quantity=1.0, premium=1.0, vault=0):
    world.trade(buyer, seller, definition, quantity, premium, vault)
    world.advance(60)
    world.round()
    model = world.vaults[vault]
    assert model.position[make_account(buyer), series_id(definition)] > 0, world.result.notes


def expire(world, definition, spot):
    world.spot = spot
    world.jump(definition.expiry - 3_600)
    world.advance(3_600 + 120)


def get_legs(result, kind=None):
    legs = [leg for p in result.plan.packets for leg in get_body(p).legs if isinstance(get_body(p), Execute)]
    return [leg for leg in legs if kind is None or leg.kind == kind]


def test_an_expired_call_pays_the_difference_in_cash_and_positions_go_to_zero():
    world, call = make_world(), make_series(2000)
    world.deposit("alice", 2_000)
    world.deposit("bob", 5_000)
    open_position(world, "alice", "bob", call)
    alice, bob = world.free("alice"), world.free("bob")
    expire(world, call, 2_100)
    world.round()
    assert world.free("alice") == alice + 100 * UNIT
    assert world.free("bob") == bob - 100 * UNIT
    assert not world.vaults[0].position
    assert world.free(HOUSE) == 1_000 * UNIT


def test_before_the_vaults_own_time_reaches_expiry_nothing_settles_there():
    world, call = make_world(), make_series(2000)
    world.deposit("alice", 2_000)
    world.deposit("bob", 5_000)
    open_position(world, "alice", "bob", call)
    expire(world, call, 2_100)
    # the clock of the market is past expiry, the newest proven state of the vault is not
    world.stalled = {world.vaults[0].id: call.expiry - 1}
    assert not world.plan().plan.packets
    world.stalled = {world.vaults[0].id: call.expiry}
    assert world.plan().plan.packets


def test_a_put_out_of_the_money_only_closes_positions():
    world, put = make_world(), make_series(2000, right=0)
    world.deposit("alice", 2_000)
    world.deposit("bob", 5_000)
    open_position(world, "alice", "bob", put)
    before = dict(world.vaults[0].free)
    expire(world, put, 2_100)
    world.round()
    assert world.vaults[0].free == before
    assert not world.vaults[0].position


def test_the_price_travels_in_execute_and_is_the_average_over_the_window():
    world, call = make_world(), make_series(2000)
    world.deposit("alice", 2_000)
    world.deposit("bob", 5_000)
    open_position(world, "alice", "bob", call)
    world.spot = 2_100
    world.jump(call.expiry - 3_600)
    world.advance(1_800 + 900)
    world.spot = 2_200  # the second half of the window
    world.advance(900 + 120)
    body = get_body(world.plan().plan.packets[0])
    assert body.prices == (SeriesPrice(series_id(call), 2_150 * 10**8),)


def test_without_both_reports_an_expiry_waits_and_says_so():
    world, call = make_world(), make_series(2000)
    world.deposit("alice", 2_000)
    world.deposit("bob", 5_000)
    open_position(world, "alice", "bob", call)
    world.jump(call.expiry + 60)  # nobody reported the start of the window
    result = world.plan()
    assert not result.plan.packets
    assert "expiry_not_priced" in world.codes()


def test_a_price_in_an_open_packet_binds_the_other_vaults():
    world, call = make_world(), make_series(2000)
    for who in ("alice", "carol"):
        world.deposit(who, 2_000, 0)
        world.deposit(who, 2_000, 1)
    world.deposit("bob", 5_000, 0)
    world.deposit("bob", 5_000, 1)
    open_position(world, "alice", "bob", call, vault=0)
    open_position(world, "carol", "bob", call, vault=1)
    expire(world, call, 2_100)
    # vault 1 is not there yet: only vault 0 settles, and its packet stays open
    world.stalled = {world.vaults[1].id: call.expiry - 60}
    first = world.plan()
    world.certify(first)
    assert {p.vault_id for p in first.plan.packets} == {world.vaults[0].id}
    world.stalled = {}
    # the feed is silent about the expiry now, yet vault 1 settles at the bound price
    world.reports = world.reports[-1:]
    second = world.plan()
    assert {p.vault_id for p in second.plan.packets} == {world.vaults[1].id}
    assert get_body(second.plan.packets[0]).prices == get_body(first.plan.packets[0]).prices


def test_two_prices_for_one_expiry_are_a_conflict():
    world, call = make_world(), make_series(2000)
    for vault in (0, 1):
        world.deposit("alice", 2_000, vault)
        world.deposit("bob", 5_000, vault)
        open_position(world, "alice", "bob", call, vault=vault)
    expire(world, call, 2_100)
    ledger = world.get_ledger()
    market = world.get_market(ledger)
    states = {}
    for number, vault in enumerate(world.vaults):
        states[vault.id] = replace(ledger.states[vault.id], prices={series_id(call): 2_100 * 10**8 + number})
    with pytest.raises(Conflict) as caught:
        compute_ledger(states, world.get_cut(), world.parameters)
    assert caught.value.reason == "two_prices"
    same = {v: replace(s, prices={series_id(call): 2_100 * 10**8}) for v, s in states.items()}
    assert compute_plan(
        compute_ledger(same, world.get_cut(), world.parameters), market, world.parameters, 1, world.get_open()
    )


def test_a_loser_without_cash_owes_a_due_and_the_house_pays_the_winner():
    world, call = make_world(), make_series(2000)
    world.deposit("alice", 2_000)
    world.deposit("mm", 300, 0)
    world.deposit("mm", 6_000, 1)
    world.link("mm", "mm", 0)
    world.link("mm", "mm", 1)
    open_position(world, "alice", "mm", call)
    alice = world.free("alice")
    expire(world, call, 2_500)
    world.round()
    mm = make_account("mm")
    assert world.free("alice") == alice + 500 * UNIT
    assert world.free("mm") == 0
    owed = 500 * UNIT - 301 * UNIT
    assert world.vaults[0].position[mm, DUE] == -owed
    assert world.vaults[0].position[HOUSE, DUE] == owed
    assert world.free(HOUSE) == 1_000 * UNIT - owed


def test_a_winner_that_owes_elsewhere_takes_a_due_and_no_cash_moves_for_it():
    world, call = make_world(), make_series(2000)
    for vault in (0, 1):
        world.link("mm", "mm", vault)
    world.deposit("mm", 2_000, 0)
    world.deposit("mm", 5_000, 1)
    world.deposit("alice", 3_000, 0)
    world.deposit("bob", 9_000, 1)
    open_position(world, "alice", "mm", call, vault=0)  # mm is short on 0
    open_position(world, "mm", "bob", call, vault=1)  # and long on 1
    # mm takes its cash out of vault 0 as far as margin allows: what is left does not pay the loss
    world.request("mm", 2_001, 0)
    world.advance(60)
    world.round()
    assert world.free("mm", 0) == 0
    expire(world, call, 2_400)
    before = world.free("mm", 1)
    result = world.plan()
    world.deliver(world.certify(result))
    mm = make_account("mm")
    assert world.vaults[0].position[mm, DUE] == -400 * UNIT
    assert world.vaults[1].position[mm, DUE] == 400 * UNIT
    assert world.free("mm", 1) == before
    statistics = result.netting[USDC]
    assert statistics.gross == 800 * UNIT
    assert statistics.net < statistics.gross


def test_winners_who_cannot_be_paid_in_cash_get_a_due_pro_rata():
    world, call = make_world(vaults=2), make_series(2000)
    world.link("mm", "mm", 0)
    world.link("mm", "mm", 1)
    world.deposit("mm", 100, 0)
    world.deposit("mm", 90_000, 1)
    for who in ("alice", "carol"):
        world.deposit(who, 2_000, 0)
    open_position(world, "alice", "mm", call, 1.0)
    open_position(world, "carol", "mm", call, 3.0)
    expire(world, call, 3_000)
    before = {who: world.free(who) for who in ("alice", "carol")}
    world.round()
    # pool: 104 of mm and 1,000 of the house, for 1,000 and 3,000
    assert world.free("alice") - before["alice"] == 276 * UNIT
    assert world.free("carol") - before["carol"] == 828 * UNIT
    assert world.vaults[0].position[make_account("alice"), DUE] == 724 * UNIT
    assert world.vaults[0].position[make_account("carol"), DUE] == 2_172 * UNIT
    # and the loser's cash on the other chain pays the house back, step by step
    world.advance(60)
    world.round()
    assert (
        sum(m.position.get((make_account("mm"), DUE), 0) for m in world.vaults) < 0
        or world.free(HOUSE, 1) > 3_000 * UNIT
    )


def test_insurance_pays_what_a_portfolio_lacks_and_no_more():
    world, call = make_world(), make_series(2000)
    world.deposit("alice", 2_000)
    world.deposit("bob", 400)
    open_position(world, "alice", "bob", call)
    expire(world, call, 2_600)
    world.round()  # bob pays 401 and owes 199
    bob = make_account("bob")
    assert world.vaults[0].position[bob, DUE] == -199 * UNIT
    world.advance(60)
    world.round()
    assert "account_insolvent" in world.codes()
    assert (bob, DUE) not in world.vaults[0].position
    assert world.vaults[0].position[INSURANCE, DUE] == -199 * UNIT
    world.advance(60)
    world.round()  # INSURANCE pays the house in cash
    assert (INSURANCE, DUE) not in world.vaults[0].position
    assert world.free(INSURANCE) == 801 * UNIT
    assert world.free(HOUSE) == 1_000 * UNIT


def test_insurance_pays_nothing_for_a_portfolio_that_has_cash_elsewhere():
    world, call = make_world(), make_series(2000)
    world.deposit("alice", 2_000)
    world.vaults[1].list_series(call)
    for vault in (0, 1):
        world.link("bob", "bob", vault)
    world.deposit("bob", 400, 0)
    world.deposit("bob", 300, 1)
    open_position(world, "alice", "bob", call)
    expire(world, call, 2_600)
    for _ in range(3):
        world.round()
        world.advance(60)
    assert world.free(INSURANCE) == 1_000 * UNIT
    assert world.free("bob", 1) == 101 * UNIT  # 199 were lifted
    assert world.free(HOUSE, 1) == 1_199 * UNIT


def test_what_insurance_lacks_is_borne_by_all_pro_rata_and_only_once():
    world, call = make_world(), make_series(2000)
    world.deposit("alice", 2_999)
    world.deposit("carol", 1_000)
    world.deposit("bob", 400)
    open_position(world, "alice", "bob", call)
    expire(world, call, 4_000)
    for _ in range(6):
        world.round()
        world.advance(60)
    # bob lost 2,000 and had 401: 1,599 less the 1,000 of INSURANCE are borne by alice and carol
    assert world.free(INSURANCE) == 0
    worth = {}
    for who in ("alice", "carol"):
        worth[who] = world.free(who) + world.vaults[0].position.get((make_account(who), DUE), 0)
    borne = (4_998 + 1_000) * UNIT - worth["alice"] - worth["carol"]
    assert 599 * UNIT <= borne <= 599 * UNIT + 2  # payers round up
    assert worth["carol"] < 1_000 * UNIT
    assert not world.plan().plan.packets


def test_a_loss_is_taken_over_and_borne_in_different_plans():
    """Found by a random history: two purposes in one leg of INSURANCE hide each other from the second look."""
    world, call = make_world(), make_series(2000)
    later = make_series(4500, expiry=call.expiry + 86_400)
    world.deposit("alice", 6_000)
    for who in ("bob", "dave"):
        world.deposit(who, 400)
    open_position(world, "alice", "bob", call)
    open_position(world, "alice", "dave", later)
    expire(world, call, 4_000)
    world.round()  # bob settles; dave's loss comes a minute later
    world.spot = 9_000
    world.advance(60)
    for _ in range(20):
        result = world.plan()
        purposes = {word for p in result.plan.packets for word in p.purpose.split("+")}
        assert not {"insurance", "socialised_loss"} <= purposes
        world.deliver(world.certify(result))
        world.advance(60)
    assert world.free(INSURANCE) == 0
    assert not world.plan().plan.packets


def test_nobody_bears_a_loss_that_insurance_covers():
    world, call = make_world(), make_series(2000)
    world.deposit("alice", 2_000)
    world.deposit("carol", 1_000)
    world.deposit("bob", 400)
    open_position(world, "alice", "bob", call)
    expire(world, call, 2_600)
    for _ in range(5):
        world.round()
        world.advance(60)
    assert world.free("carol") == 1_000 * UNIT
    assert (make_account("carol"), DUE) not in world.vaults[0].position


def test_payers_round_up_receivers_down_and_the_house_keeps_the_rest():
    world = make_world()
    call = make_series(2000, multiplier_e8=33_333_333)
    world.deposit("alice", 2_000)
    world.deposit("bob", 5_000)
    open_position(world, "alice", "bob", call, quantity=0.1000001)
    alice, bob, house = world.free("alice"), world.free("bob"), world.free(HOUSE)
    world.spot = 2_100
    world.jump(call.expiry - 3_600)
    world.cumulative += 7
    world.advance(3_720)
    world.round()
    exact = 100 * UNIT * 10_000_010 * 33_333_333 / 10**16
    assert exact != int(exact)
    assert world.free("alice") == alice + int(exact)
    assert world.free("bob") == bob - int(exact) - 1
    assert world.free(HOUSE) == house + 1


def test_more_holders_than_legs_are_settled_in_several_packets_each_balanced():
    world, call = make_world(), make_series(2000)
    world.deposit("bob", 90_000)
    names = [f"user {i}" for i in range(40)]
    for name in names:
        world.deposit(name, 200)
        world.trade(name, "bob", call, 0.1, 1.0)
    for _ in range(6):
        world.advance(60)
        world.round()
    assert sum(1 for q in world.vaults[0].position.values() if q > 0) == 40
    expire(world, call, 2_100)
    result = world.plan()
    bodies = [get_body(p) for p in result.plan.packets]
    assert len(bodies) == 2
    for body in bodies:
        assert len(body.legs) <= 64
        sums = {}
        for leg in body.legs:
            sums[leg.kind, leg.id] = sums.get((leg.kind, leg.id), 0) + leg.delta
        assert not any(sums.values())
    world.deliver(world.certify(result))
    assert not world.vaults[0].position


def test_a_loss_beyond_the_caps_becomes_a_due_and_the_position_still_settles():
    parameters = make_parameters([make_vault(0)])
    caps = parameters.vaults[0].caps[0]
    tight = replace(caps, per_packet=Amount(50 * UNIT), per_hour=Amount(80 * UNIT), per_day=Amount(500 * UNIT))
    vault = replace(parameters.vaults[0], caps=(tight,))
    world = World(1, parameters=replace(parameters, vaults=(vault,)))
    world.deposit(HOUSE, 1_000)
    world.advance(120)
    call = make_series(2000)
    world.deposit("alice", 2_000)
    world.deposit("bob", 5_000)
    open_position(world, "alice", "bob", call)
    expire(world, call, 2_100)
    world.round()
    assert "cap_window_full" in world.codes()
    assert not [key for key in world.vaults[0].position if key[1] != DUE]
    assert world.vaults[0].position[make_account("bob"), DUE] == -50 * UNIT
    world.advance(60)
    world.round()  # a quarter of the hour at most, and what is left of it
    assert world.vaults[0].position[make_account("bob"), DUE] == -30 * UNIT


def test_the_second_look_refuses_a_plan_with_one_unit_more():
    world, call = make_world(), make_series(2000)
    world.deposit("alice", 2_000)
    world.deposit("bob", 5_000)
    open_position(world, "alice", "bob", call)
    expire(world, call, 2_100)
    result = world.plan()
    planned = result.plan.packets[0]
    body = get_body(planned)
    alice, bob = make_account("alice"), make_account("bob")
    legs = tuple(
        replace(leg, delta=leg.delta + (1 if leg.account == alice else -1))
        if leg.kind == LegKind.CASH and leg.account in (alice, bob)
        else leg
        for leg in body.legs
    )
    forged = replace(planned, value=encode_body(replace(body, legs=legs)))
    plan = replace(result.plan, packets=(forged,))
    with pytest.raises(Conflict) as caught:
        verify_worth_unchanged(world.ledger, world.snapshot, world.parameters, world.get_open(), plan)
    assert caught.value.reason == "worth_changed"


def test_the_second_look_refuses_another_price():
    world, call = make_world(), make_series(2000)
    world.deposit("alice", 2_000)
    world.deposit("bob", 5_000)
    open_position(world, "alice", "bob", call)
    expire(world, call, 2_100)
    result = world.plan()
    planned = result.plan.packets[0]
    body = get_body(planned)
    prices = (replace(body.prices[0], price_e8=body.prices[0].price_e8 + 1),)
    forged = replace(planned, value=encode_body(replace(body, prices=prices)))
    with pytest.raises(Conflict):
        verify_worth_unchanged(
            world.ledger, world.snapshot, world.parameters, world.get_open(), replace(result.plan, packets=(forged,))
        )


def test_what_was_settled_is_not_settled_again():
    """Incident G5: a claim that is not closed pays as often as it is asked."""
    world, call = make_world(), make_series(2000)
    world.deposit("alice", 2_000)
    world.deposit("bob", 5_000)
    open_position(world, "alice", "bob", call)
    expire(world, call, 2_100)
    world.round()
    after = dict(world.vaults[0].free)
    for _ in range(5):
        world.advance(60)
        assert not world.round()
    assert world.vaults[0].free == after


def test_a_settlement_price_five_times_off_the_last_spot_settles_nothing():
    """Incident H2: an oracle whose decimals changed must not set an expiry price."""
    world, call = make_world(), make_series(2000)
    world.deposit("alice", 2_000)
    world.deposit("bob", 5_000)
    open_position(world, "alice", "bob", call)
    world.jump(call.expiry - 3_600)
    world.advance(1_700)
    world.advance(1_900 + 120)
    # every report after the start of the window shows a cumulative in 18 decimals
    world.reports = [
        make_report(
            r.report.stamp,
            2000,
            cumulative=r.report.cumulative_e8_seconds * (10**10 if r.report.stamp >= call.expiry else 1),
        )
        for r in world.reports
    ]
    ledger = world.get_ledger()
    market = world.get_market(ledger)
    assert not market.settlements
    result = compute_plan(ledger, market, world.parameters, 1, world.get_open())
    assert not result.plan.packets
