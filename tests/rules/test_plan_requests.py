"""Step 5 of a plan: which trades and withdrawals are accepted (protocol.md 7.5). Each accepting case has a neighbour that is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from messages.bodies import DecideTrades, DecideWithdrawals
from messages.documents import Amount
from messages.ids import HOUSE
from relayer.rules.plan import get_body
from tests.builders import (
    DAY,
    OPERATORS,
    TOKEN,
    TREASURER,
    UNIT,
    make_account,
    make_parameters,
    make_series,
    make_vault,
    series_id,
)
from tests.world import World


def make_world(vaults=1, **changes):
    world = World(vaults, parameters=make_parameters([make_vault(i) for i in range(vaults)], **changes))
    for number in range(vaults):
        world.deposit(HOUSE, 1_000, number)
    world.deposit("alice", 2_000)
    world.deposit("bob", 1_000)
    world.advance(120)
    return world


def get_items(result, kind=DecideTrades):
    bodies = [get_body(p) for p in result.plan.packets]
    return [item.id for body in bodies if isinstance(body, kind) for item in body.items]


def get_code(world, subject):
    return next((note.code for note in world.result.notes if note.subject == subject), None)


CALL = make_series(2000)


def test_a_trade_with_margin_is_accepted():
    world = make_world()
    trade = world.trade("alice", "bob", CALL, 1, 50)
    world.advance(60)
    assert get_items(world.plan()) == [trade]


def test_a_trade_without_margin_is_over():
    world = make_world()
    trade = world.trade("alice", "bob", CALL, 10, 50)
    world.advance(60)
    result = world.plan()
    body = get_body(result.plan.packets[0])
    assert body.items == ()
    assert get_code(world, trade) == "margin_short"
    world.deliver(world.certify(result))
    assert not world.states[world.vaults[0].id].trades
    assert world.states[world.vaults[0].id].endings[-1].reason == "trade_over"


def test_two_trades_that_are_only_good_alone_are_not_both_accepted():
    world = make_world()
    first = world.trade("alice", "bob", CALL, 2, 50)
    second = world.trade("alice", "bob", CALL, 2, 50)
    world.advance(60)
    assert get_items(world.plan()) == [first]
    assert get_code(world, second) == "margin_short"


def test_a_hedge_counts_only_once_it_is_a_fact():
    """The vault may answer 0 to the hedge: the short leg must be good without it."""
    world = make_world()
    world.deposit("mm", 500)
    hedge = make_series(2100)
    long = world.trade("mm", "alice", hedge, 2, 30)
    short = world.trade("alice", "mm", CALL, 2, 50)
    world.advance(60)
    assert get_items(world.plan()) == [long]
    assert get_code(world, short) == "margin_short"
    # the neighbour: the same short, after the Ack of the hedge
    world.deliver(world.certify(world.result))
    again = world.trade("alice", "mm", CALL, 2, 50)
    world.advance(60)
    assert get_items(world.plan()) == [again]


def test_a_deposit_after_the_trade_is_not_counted():
    world = make_world()
    trade = world.trade("alice", "bob", CALL, 4, 50)
    world.advance(60)
    world.deposit("bob", 5_000)
    world.advance(60)
    world.plan()
    assert get_code(world, trade) == "margin_short"


def test_a_deposit_before_the_trade_is_counted():
    world = make_world()
    world.deposit("bob", 5_000)
    world.advance(60)
    trade = world.trade("alice", "bob", CALL, 4, 50)
    world.advance(60)
    assert get_items(world.plan()) == [trade]


@pytest.mark.parametrize("is_late", [False, True])
def test_a_link_counts_for_trades_that_came_after_it(is_late):
    world = make_world(2)
    world.deposit("rich", 50_000, 1)
    world.link("rich", "fund", 1)
    if not is_late:
        world.link("bob", "fund", 0)
        world.advance(60)
    trade = world.trade("alice", "bob", CALL, 4, 50)
    world.advance(60)
    if is_late:
        world.link("bob", "fund", 0)
        world.advance(60)
    assert get_items(world.plan()) == ([] if is_late else [trade])


def test_an_accepted_trade_in_an_open_packet_counts_as_undecided_everywhere():
    world = make_world(2)
    for vault in (0, 1):
        world.link("mm", "mm", vault)
        world.deposit("mm", 400, vault)
    world.deposit("alice", 2_000, 1)
    world.trade("alice", "mm", CALL, 2, 50, 0)
    world.advance(60)
    world.certify(world.plan())  # it stays on its way
    second = world.trade("alice", "mm", CALL, 2, 50, 1)
    world.advance(60)
    assert get_items(world.plan()) == []
    assert get_code(world, second) == "margin_short"


def test_the_same_trade_is_accepted_when_nothing_is_open():
    world = make_world(2)
    for vault in (0, 1):
        world.link("mm", "mm", vault)
        world.deposit("mm", 400, vault)
    world.deposit("alice", 2_000, 1)
    second = world.trade("alice", "mm", CALL, 2, 50, 1)
    world.advance(60)
    assert get_items(world.plan()) == [second]


@pytest.mark.parametrize(("seconds", "accepted"), [(61 + 60, True), (60, False)])
def test_no_trade_is_accepted_within_a_minute_of_expiry(seconds, accepted):
    world = make_world()
    soon = make_series(2000, expiry=world.now + 600)
    trade = world.trade("alice", "bob", soon, 1, 50)
    world.advance(600 - seconds)
    assert get_items(world.plan()) == ([trade] if accepted else [])


def test_one_chain_ahead_of_the_minute_stops_the_trade_on_all():
    world = make_world(2)
    soon = make_series(2000, expiry=world.now + 600)
    world.trade("alice", "bob", soon, 1, 50)
    world.advance(420)
    world.stalled = {world.vaults[1].id: soon.expiry - 60}
    assert get_items(world.plan()) == []
    world.stalled = {world.vaults[1].id: soon.expiry - 61}
    assert len(get_items(world.plan())) == 1


def test_a_trade_below_the_minimum_notional_is_over():
    """Incident H5: amounts so small that a cost rounds away are not for the clearing."""
    world = make_world()
    tiny = world.trade("alice", "bob", CALL, 0.0004, 50)
    enough = world.trade("alice", "bob", CALL, 0.0005, 50)
    world.advance(60)
    assert get_items(world.plan()) == [enough]
    assert get_code(world, tiny) == "below_minimum_notional"


def test_an_unlisted_price_source_is_no_market():
    """Incident H4: anyone registers a series; only those of the operators' price sources are cleared."""
    world = make_world()
    trade = world.trade("alice", "bob", make_series(2000, price_source=make_account("evil feed")), 1, 50)
    world.advance(60)
    assert get_items(world.plan()) == []
    assert get_code(world, trade) == "unknown_market"


def test_without_a_fresh_price_a_trade_waits_and_is_not_over():
    world = make_world()
    trade = world.trade("alice", "bob", CALL, 1, 50)
    world.quiet = True
    world.advance(600)
    result = world.plan()
    assert not result.plan.packets
    assert get_code(world, trade) == "price_missing"
    world.quiet = False
    world.advance(60)
    assert get_items(world.plan()) == [trade]


def test_a_trade_older_than_a_day_is_over():
    world = make_world()
    model = world.vaults[0]
    model.list_series(CALL)
    number = model.offer(make_account("bob"), 1, series_id(CALL), TOKEN, 10**8, 50 * UNIT, world.now + 5 * DAY)
    trade = model.take(make_account("alice"), number, 10**8, 1)
    world.jump(world.now + DAY + 60)
    world.plan()
    assert get_code(world, trade) == "trade_over"


def test_at_most_eight_items_of_a_portfolio_are_undecided():
    world = make_world()
    trades = []
    for number in range(10):
        world.deposit(f"buyer {number}", 100)
        trades.append(world.trade(f"buyer {number}", "bob", CALL, 0.05, 10))
    world.advance(60)
    result = world.plan()
    assert get_items(result) == trades[:8]
    assert get_code(world, trades[8]) == "too_many_undecided"
    assert get_body(result.plan.packets[0]).upto < world.states[world.vaults[0].id].outbox_sequence
    world.deliver(world.certify(result))
    world.advance(60)
    assert get_items(world.plan()) == trades[8:]


def test_shortfalls_at_a_vault_stay_within_its_inventory_parameter():
    def run(limit):
        world = make_world(2)
        vaults = tuple(replace(v, inventory_limit=Amount(limit)) for v in world.parameters.vaults)
        world.parameters = replace(world.parameters, vaults=vaults)
        for vault in (0, 1):
            world.link("mm", "mm", vault)
        world.deposit("mm", 50_000, 1)
        trade = world.trade("alice", "mm", CALL, 5, 50, 0)
        world.advance(60)
        return trade, get_items(world.plan()), get_code(world, trade)

    trade, accepted, _ = run(10_000 * UNIT)
    assert accepted == [trade]
    trade, accepted, code = run(100 * UNIT)
    assert (accepted, code) == ([], "no_house_inventory")


def test_a_second_claim_to_the_same_cash_is_refused():
    """Incident G6: n identical claims are paid once per funded claim."""
    world = make_world()
    trades = [world.trade("alice", "bob", make_series(2500), 1, 900) for _ in range(3)]
    world.advance(60)
    assert get_items(world.plan()) == trades[:2]
    assert get_code(world, trades[2]) == "no_cash"


# ---------------------------------------------------------------- withdrawals


def test_a_withdrawal_of_free_cash_is_accepted_and_paid_once():
    world = make_world()
    request = world.request("alice", 500)
    world.advance(60)
    assert get_items(world.plan(), DecideWithdrawals) == [request]
    world.deliver(world.certify(world.result))
    assert world.vaults[0].claimable[make_account("alice"), TOKEN] == 500 * UNIT
    world.advance(60)
    assert not world.plan().plan.packets


def test_a_withdrawal_needs_initial_margin_in_every_outcome():
    world = make_world()
    trade = world.trade("alice", "bob", CALL, 2, 50)
    request = world.request("bob", 600)
    world.advance(60)
    result = world.plan()
    assert get_items(result) == [trade]
    assert get_items(result, DecideWithdrawals) == []
    assert get_code(world, request) == "margin_short"


def test_a_withdrawal_that_leaves_margin_is_accepted_beside_a_trade():
    world = make_world()
    trade = world.trade("alice", "bob", CALL, 2, 50)
    request = world.request("bob", 300)
    world.advance(60)
    result = world.plan()
    assert get_items(result) == [trade]
    assert get_items(result, DecideWithdrawals) == [request]


@pytest.mark.parametrize(("age", "accepted"), [(DAY, True), (DAY + 1, False)])
def test_a_request_lapses_after_24_hours(age, accepted):
    world = make_world()
    request = world.request("alice", 500)
    world.jump(world.now + age)
    assert get_items(world.plan(), DecideWithdrawals) == ([request] if accepted else [])


def test_a_withdrawal_stays_within_the_caps():
    parameters = make_parameters([make_vault(0)])
    caps = replace(parameters.vaults[0].caps[0], per_packet=Amount(400 * UNIT), per_hour=Amount(600 * UNIT))
    world = World(1, parameters=replace(parameters, vaults=(replace(parameters.vaults[0], caps=(caps,)),)))
    for who in ("alice", "bob"):
        world.deposit(who, 1_000)
    first = world.request("alice", 400)
    second = world.request("bob", 300)
    world.advance(60)
    assert get_items(world.plan(), DecideWithdrawals) == [first]
    assert get_code(world, second) == "cap_window_full"
    world.deliver(world.certify(world.result))
    world.advance(3_600)
    assert get_items(world.plan(), DecideWithdrawals) == [second]


def test_small_change_may_leave_only_as_the_whole_balance():
    world = make_world()
    world.deposit("dust", 0.4)
    part = world.request("dust", 0.3)
    world.advance(60)
    assert get_items(world.plan(), DecideWithdrawals) == []
    assert get_code(world, part) == "below_minimum_notional"
    whole = world.request("dust", 0.4)
    world.advance(60)
    assert get_items(world.plan(), DecideWithdrawals) == [whole]


def test_the_house_may_withdraw_while_backing_holds():
    world = make_world()
    request = world.vaults[0].request_withdrawal(TREASURER, TOKEN, 900 * UNIT, for_house=True)
    world.advance(60)
    assert get_items(world.plan(), DecideWithdrawals) == [request]
    world.deliver(world.certify(world.result))
    assert world.vaults[0].claimable[TREASURER, TOKEN] == 900 * UNIT


@pytest.mark.parametrize(("amount", "accepted"), [(1_000, False), (2, True)])
def test_the_house_may_not_withdraw_what_stands_behind_its_dues(amount, accepted):
    """A loser owes more than it has: until that is borne, the house needs its cash elsewhere for the winners."""
    world = make_world(2)
    world.deposit("mm", 2_000)
    world.deposit("carol", 2_000)
    for buyer, quantity in (("alice", 1), ("carol", 3)):
        world.trade(buyer, "mm", CALL, quantity, 1)
    world.advance(60)
    world.round()
    world.spot = 3_000
    world.jump(CALL.expiry - 3_600)
    world.advance(3_720)
    world.round()
    request = world.vaults[1].request_withdrawal(TREASURER, TOKEN, amount * UNIT, for_house=True)
    world.advance(60)
    assert get_items(world.plan(), DecideWithdrawals) == ([request] if accepted else [])
    assert get_code(world, request) == (None if accepted else "backing")


def test_a_paused_vault_gets_no_decisions():
    world = make_world()
    trade = world.trade("alice", "bob", CALL, 1, 50)
    world.vaults[0].pause(OPERATORS[0])
    world.advance(60)
    assert not world.plan().plan.packets
    assert get_code(world, trade) == "paused"


def test_authority_is_that_of_the_debited_party():
    """Incident C7: who signs the take never decides whose cash moves; the buyer pays, in whatever role."""
    world = make_world()
    model = world.vaults[0]
    model.list_series(CALL)
    # bob offers to buy, alice takes: alice is the seller and bob the one who is debited
    number = model.offer(make_account("bob"), 0, series_id(CALL), TOKEN, 10**8, 60 * UNIT, world.now + DAY)
    model.take(make_account("alice"), number, 10**8, 7)
    world.advance(60)
    before = (world.free("alice"), world.free("bob"))
    world.round()
    assert (world.free("alice"), world.free("bob")) == (before[0] + 60 * UNIT, before[1] - 60 * UNIT)
    assert model.position[make_account("alice"), series_id(CALL)] == -(10**8)
