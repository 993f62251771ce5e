"""Step 4 of a plan: liquidation (protocol.md 7.4)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from messages.bodies import DecideTrades, LegKind, encode_body
from messages.errors import Conflict
from messages.ids import HOUSE, compute_due_id
from relayer.rules.market import compute_snapshot
from relayer.rules.plan import compute_plan, get_body, verify_worth_unchanged
from tests.builders import (
    DAY,
    TOKEN,
    UNIT,
    USDC,
    make_account,
    make_mark,
    make_parameters,
    make_series,
    make_vault,
    series_id,
)
from tests.world import World

DUE = compute_due_id(USDC)
CALL = make_series(2000)
BOB = make_account("bob")


def make_world(vaults=1, bob=1_200, quantity=2):
    world = World(vaults, parameters=make_parameters([make_vault(i) for i in range(vaults)]))
    for vault in range(vaults):
        world.deposit(HOUSE, 5_000, vault)
    world.deposit("alice", 5_000)
    world.deposit("bob", bob)
    world.advance(120)
    world.trade("alice", "bob", CALL, quantity, 50)
    world.advance(60)
    world.round()
    assert world.vaults[0].position[BOB, series_id(CALL)] < 0
    return world


def test_a_portfolio_below_maintenance_gives_a_step_to_the_house():
    world = make_world()
    world.spot = 2_450
    world.advance(60)
    result = world.plan()
    assert [p.purpose for p in result.plan.packets] == ["liquidation"]
    world.deliver(world.certify(result))
    model = world.vaults[0]
    assert model.position[BOB, series_id(CALL)] == -150_000_000, "a quarter of 2 contracts"
    assert model.position[HOUSE, series_id(CALL)] == -50_000_000
    # half a contract at a mark of about 451 and 5 % on it
    assert -245 * UNIT < model.position[BOB, DUE] < -235 * UNIT


def test_a_portfolio_at_maintenance_is_left_alone():
    world = make_world()
    world.spot = 2_100
    world.advance(60)
    assert not world.plan().plan.packets


def test_steps_go_on_until_maintenance_is_met_and_then_stop():
    world = make_world()
    world.spot = 2_450
    for _ in range(12):
        world.advance(60)
        if not world.round():
            break
    assert not world.plan().plan.packets
    left = world.vaults[0].position.get((BOB, series_id(CALL)), 0)
    assert -200_000_000 < left < 0, "in part"
    assert world.vaults[0].position.get((BOB, DUE), 0) == 0, "what it cost was lifted from its cash"


def test_what_is_worth_nothing_goes_at_once():
    world = make_world()
    world.spot = 3_500
    world.advance(60)
    world.round()
    assert (BOB, series_id(CALL)) not in world.vaults[0].position


def test_an_open_liquidation_leg_stops_the_next():
    world = make_world(2)
    world.deposit("bob", 10, 1)
    world.spot = 2_450
    world.advance(60)
    world.certify(world.plan())
    world.advance(60)
    assert not [p for p in world.plan().plan.packets if "liquidation" in p.purpose]
    assert "in_liquidation" in world.codes()


def test_a_liquidated_portfolio_neither_trades_nor_withdraws():
    world = make_world()
    world.spot = 2_450
    request = world.request("bob", 100)
    trade = world.trade("alice", "bob", CALL, 0.1, 500)
    world.advance(60)
    result = world.plan()
    kinds = [type(get_body(p)) for p in result.plan.packets]
    assert kinds[-1] is DecideTrades
    assert get_body(result.plan.packets[-1]).items == ()
    found = {(n.code, n.subject) for n in result.notes}
    assert ("in_liquidation", request) in found
    assert ("in_liquidation", trade) in found


def test_without_any_usable_price_nobody_is_liquidated():
    world = make_world()
    world.spot = 2_450
    world.quiet = True
    world.advance(600)
    assert not world.plan().plan.packets
    assert "price_missing" in world.codes()


def test_a_stale_price_still_liquidates_but_does_not_let_trade():
    """margin.md 6, rule 2: staleness refuses margin decisions, never liquidation."""
    world = make_world()
    world.spot = 2_450
    world.advance(60)
    mark_time = world.now
    trade = world.trade("alice", "carol", CALL, 0.1, 500)
    world.quiet = True
    world.advance(150)  # beyond 120 s, within the heartbeat of 180 s
    ledger = world.get_ledger()
    market = compute_snapshot(world.now, world.reports, [make_mark(mark_time - mark_time % 60, CALL.expiry, 2_450)])
    result = compute_plan(ledger, market, world.parameters, 9, world.get_open())
    assert [p.purpose for p in result.plan.packets] == ["liquidation"]
    assert ("price_missing", trade) in {(n.code, n.subject) for n in result.notes}


def sell_house(world, premium, quantity=0.5, maker="carol"):
    """A maker offers to sell to the house what it is short, and takes it in the name of the house."""
    model = world.vaults[0]
    number = model.offer(
        make_account(maker), 1, series_id(CALL), TOKEN, round(quantity * 10**8), round(premium * UNIT), world.now + DAY
    )
    world.nonce += 1
    return model.take(make_account(maker), number, round(quantity * 10**8), world.nonce, for_house=True)


def test_the_house_buys_back_at_the_auction_price_or_better_and_only_towards_zero():
    world = make_world()
    world.deposit("carol", 50_000)
    world.spot = 2_450
    world.advance(60)
    world.round()
    held = -world.vaults[0].position[HOUSE, series_id(CALL)]
    dear = sell_house(world, 490)
    much = sell_house(world, 450, held / 10**8 * 2)
    good = sell_house(world, 450, held / 10**8)
    world.advance(60)
    result = world.plan()
    items = [i.id for p in result.plan.packets if isinstance(get_body(p), DecideTrades) for i in get_body(p).items]
    assert items == [good]
    found = {(n.code, n.subject) for n in result.notes}
    assert ("house_price", dear) in found
    assert ("house_position", much) in found
    world.deliver(world.certify(result))
    assert abs(world.vaults[0].position.get((HOUSE, series_id(CALL)), 0)) < held


def test_the_second_look_refuses_a_better_liquidation_price():
    world = make_world()
    world.spot = 2_450
    world.advance(60)
    result = world.plan()
    planned = result.plan.packets[0]
    body = get_body(planned)
    legs = tuple(
        replace(leg, delta=leg.delta + (2 if leg.account == BOB else -2))
        if leg.kind == LegKind.POSITION and leg.id == DUE
        else leg
        for leg in body.legs
    )
    forged = replace(result.plan, packets=(replace(planned, value=encode_body(replace(body, legs=legs))),))
    with pytest.raises(Conflict):
        verify_worth_unchanged(world.ledger, world.snapshot, world.parameters, world.get_open(), forged)
    verify_worth_unchanged(world.ledger, world.snapshot, world.parameters, world.get_open(), result.plan)
