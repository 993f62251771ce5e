"""Step 3 of a plan: lifts and lands (protocol.md 4.3, 7.3)."""

from __future__ import annotations

from dataclasses import replace

from messages.bodies import Execute, LegKind
from messages.documents import Amount, Report
from messages.hashing import keccak256
from messages.ids import HOUSE, compute_due_id
from relayer.rules.plan import get_body
from tests.builders import TOKEN, UNIT, USDC, make_account, make_parameters, make_series, make_vault, sign_report
from tests.world import World

DUE = compute_due_id(USDC)
MM = make_account("mm")
CALL = make_series(2000)


def make_world(parameters=None, house=5_000):
    world = World(2, parameters=parameters)
    for vault in (0, 1):
        world.deposit(HOUSE, house, vault)
        world.vaults[vault].list_series(CALL)
        world.link("mm", "mm", vault)
    world.deposit("mm", 3_000, 1)
    world.advance(120)
    return world


def test_a_request_where_there_is_no_cash_is_served_by_lift_then_land_then_decision():
    world = make_world()
    world.request("mm", 1_000, 0)
    world.advance(60)
    world.round()  # lift
    assert world.free("mm", 1) == 2_000 * UNIT
    assert world.vaults[1].position[MM, DUE] == 1_000 * UNIT
    assert world.free("mm", 0) == 0, "nothing lands before the Ack of the lift is a fact"
    world.advance(60)
    world.round()  # land
    assert world.free("mm", 0) == 1_000 * UNIT
    assert world.vaults[0].position[MM, DUE] == -1_000 * UNIT
    world.advance(60)
    world.round()  # decide
    assert world.vaults[0].claimable[MM, TOKEN] == 1_000 * UNIT


def test_nothing_lands_while_the_lift_is_only_certified():
    world = make_world()
    world.request("mm", 1_000, 0)
    world.advance(60)
    world.certify(world.plan())
    world.advance(60)
    result = world.plan()
    assert not result.plan.packets
    world.advance(1_800)  # proven absent: it is planned again, once
    assert [p.purpose for p in world.plan().plan.packets] == ["lift"]


def test_a_due_is_spent_once_though_two_requests_wait_for_it():
    world = make_world()
    for vault in (0, 1):
        world.link("mm2", "mm", vault)
    world.request("mm", 1_000, 0)
    world.advance(60)
    world.round()
    world.request("mm2", 1_000, 0)
    world.advance(60)
    result = world.plan()
    landed = [
        leg
        for p in result.plan.packets
        for leg in get_body(p).legs
        if leg.id == DUE and leg.account != HOUSE and leg.delta < 0
    ]
    assert sum(-leg.delta for leg in landed) == 1_000 * UNIT


def test_a_due_that_an_open_packet_spends_is_not_spent_again():
    parameters = make_parameters([make_vault(i) for i in range(3)])
    world = World(3, parameters=parameters)
    for vault in range(3):
        world.deposit(HOUSE, 5_000, vault)
        world.vaults[vault].list_series(CALL)
        world.link("mm", "mm", vault)
    world.deposit("mm", 3_000, 1)
    world.advance(120)
    world.request("mm", 1_000, 0)
    world.advance(60)
    world.round()
    world.advance(60)
    world.certify(world.plan())  # the land at vault 0 is open now
    world.request("mm", 1_000, 2)
    world.advance(60)
    result = world.plan()
    legs = [leg for p in result.plan.packets for leg in get_body(p).legs if leg.id == DUE and leg.account == MM]
    assert all(leg.delta > 0 for leg in legs), "a new lift, no second land"


def test_no_move_for_an_amount_the_portfolio_is_not_good_for():
    world = make_world()
    request = world.request("mm", 3_001, 0)
    world.advance(60)
    assert not world.plan().plan.packets
    assert ("margin_short", request) in {(n.code, n.subject) for n in world.result.notes}


def test_a_stalled_chain_is_not_lifted_from():
    world = make_world()
    world.request("mm", 1_000, 0)
    world.advance(60)
    world.stalled = {world.vaults[1].id: world.now - 1_801}
    assert not world.plan().plan.packets
    assert "chain_stalled" in world.codes()


def test_a_token_off_its_peg_is_not_lifted():
    parameters = make_parameters([make_vault(0), make_vault(1)])
    source = parameters.underlyings[0].price_source
    assets = tuple(replace(a, price_source=source) for a in parameters.assets)
    parameters = replace(parameters, assets=assets)

    def run(price_e8):
        world = make_world(parameters)
        world.request("mm", 1_000, 0)
        world.advance(60)
        stamp = world.now - world.now % 60
        for asset in assets:
            feed = keccak256(asset.caip19.encode())
            world.reports.append(
                sign_report(Report(source, feed, stamp, Amount(stamp * price_e8), Amount(price_e8), Amount(10**8)))
            )
        return [p.purpose for p in world.plan().plan.packets], world.codes()

    assert run(100_000_000)[0] == ["lift"]
    packets, codes = run(103_000_001)
    assert packets == []
    assert "off_peg" in codes


def test_the_house_takes_no_more_of_a_token_than_its_limit():
    parameters = make_parameters([make_vault(0), make_vault(1)])
    assets = tuple(replace(a, lift_limit=Amount(5_400 * UNIT)) for a in parameters.assets)
    world = make_world(replace(parameters, assets=assets))
    world.request("mm", 1_000, 0)
    world.advance(60)
    result = world.plan()
    legs = [leg for leg in get_body(result.plan.packets[0]).legs if leg.kind == LegKind.CASH and leg.account == HOUSE]
    assert [leg.delta for leg in legs] == [400 * UNIT]
    assert "lift_limit" in world.codes()


def test_a_move_uses_at_most_a_quarter_of_a_cap_window():
    parameters = make_parameters([make_vault(0), make_vault(1)])
    caps = replace(parameters.vaults[1].caps[0], per_hour=Amount(2_000 * UNIT))
    vaults = (parameters.vaults[0], replace(parameters.vaults[1], caps=(caps,)))
    world = make_world(replace(parameters, vaults=vaults))
    world.request("mm", 1_000, 0)
    world.advance(60)
    world.round()
    assert world.vaults[1].position[MM, DUE] == 500 * UNIT
    assert "cap_window_full" in world.codes()


def test_without_inventory_nothing_lands_and_nothing_is_lifted_for_it():
    world = make_world(house=0.5)
    request = world.request("mm", 1_000, 0)
    world.advance(60)
    world.round()
    assert world.vaults[1].position.get((MM, DUE), 0) <= UNIT
    assert ("no_house_inventory", request) in {(n.code, n.subject) for n in world.result.notes}


def test_every_lift_and_land_is_balanced_by_the_house():
    world = make_world()
    world.request("mm", 1_000, 0)
    for _ in range(2):
        world.advance(60)
        result = world.plan()
        for planned in result.plan.packets:
            body = get_body(planned)
            assert isinstance(body, Execute)
            assert {leg.account for leg in body.legs} == {MM, HOUSE}
            assert sum(leg.delta for leg in body.legs if leg.id == DUE) == 0
        world.deliver(world.certify(result))
