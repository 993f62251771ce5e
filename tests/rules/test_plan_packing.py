"""Steps 6 and 7 of a plan: heartbeat, packing, numbers, timeouts, open packets, control changes (protocol.md 7.6, 7.7, 8.3, 8.5)."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from messages.bodies import (
    WIDEST_LIMITS,
    DecideTrades,
    DecideWithdrawals,
    Execute,
    RotateOperators,
    SetCaps,
    Unpause,
    decode_inbox_body,
    encode_body,
    is_sorted_legs,
)
from messages.digests import get_address
from messages.documents import (
    ControlParameters,
    FamilyParameters,
    OpenPacket,
    OpenPackets,
    Plan,
    decode_document,
    encode_document,
)
from messages.errors import Rejected
from messages.ids import HOUSE, ZERO32
from relayer.rules.plan import compute_plan, compute_plan_digest, finalize_packet, get_body
from relayer.rules.plan_context import Context, Unit
from relayer.rules.plan_packing import _Draft, get_balanced
from tests.builders import (
    DAY,
    OPERATORS,
    START,
    TOKEN,
    TREASURER,
    make_account,
    make_key,
    make_parameters,
    make_series,
    make_vault,
)
from tests.world import World

CALL = make_series(2000)


def make_world(vaults=1, **changes):
    world = World(vaults, parameters=make_parameters([make_vault(i) for i in range(vaults)], **changes))
    for number in range(vaults):
        world.deposit(HOUSE, 1_000, number)
        world.deposit("alice", 2_000, number)
        world.deposit("bob", 2_000, number)
    world.advance(120)
    return world


def test_a_quiet_world_plans_nothing():
    assert make_world().plan().plan.packets == ()


@pytest.mark.parametrize(("seconds", "beats"), [(7 * DAY - 1, 0), (7 * DAY, 1)])
def test_a_vault_without_a_packet_for_seven_days_gets_an_empty_execute(seconds, beats):
    world = make_world()
    world.jump(START + seconds)
    packets = world.plan().plan.packets
    assert len(packets) == beats
    if beats:
        assert get_body(packets[0]) == Execute(ZERO32, (), ())
        world.deliver(world.certify(world.result))
        world.advance(60)
        assert not world.plan().plan.packets


def test_packets_of_one_plan_have_consecutive_numbers_and_one_timeout():
    world = make_world()
    world.trade("alice", "bob", CALL, 1, 50)
    world.request("alice", 100)
    world.advance(60)
    packets = world.plan().plan.packets
    assert [type(get_body(p)) for p in packets] == [DecideTrades, DecideWithdrawals]
    assert [p.sequence for p in packets] == [1, 2]
    assert {p.timeout for p in packets} == {world.now + 1_800}
    acks = world.deliver(world.certify(world.result))
    assert [a.inbox_sequence for a in acks] == [1, 2]
    world.request("alice", 100)
    world.advance(60)
    assert [p.sequence for p in world.plan().plan.packets] == [3]


def test_a_vault_with_an_open_packet_gets_no_new_one():
    world = make_world()
    world.request("alice", 100)
    world.advance(60)
    world.certify(world.plan())
    world.request("bob", 100)
    world.advance(60)
    assert not world.plan().plan.packets
    assert "open_packet_on_vault" in world.codes()


def test_a_number_is_free_again_only_when_a_state_at_or_after_the_timeout_is_proven():
    world = make_world()
    world.request("alice", 100)
    world.advance(60)
    world.certify(world.plan())
    timeout = world.open[0].timeout
    world.advance(1_860)
    world.stalled = {world.vaults[0].id: timeout - 1}
    assert not world.plan().plan.packets
    world.stalled = {world.vaults[0].id: timeout}
    assert [p.sequence for p in world.plan().plan.packets] == [1]


def test_a_stalled_chain_gets_no_packet_that_is_dead_at_birth():
    world = make_world()
    world.request("alice", 100)
    world.advance(60)
    world.stalled = {world.vaults[0].id: world.now - 1_800}
    assert not world.plan().plan.packets
    assert "chain_stalled" in world.codes()
    world.stalled = {world.vaults[0].id: world.now - 1_799}
    assert world.plan().plan.packets


def test_after_two_absences_the_leg_limit_is_halved():
    world = make_world()
    ledger = world.get_ledger()
    market = world.get_market(ledger)
    vault_id = world.vaults[0].id

    def get_limit(absences):
        packets = tuple(
            OpenPacket(vault_id, 0, 1, START + i, encode_body(Execute(ZERO32, (), ())), bytes([9]) * 32, ())
            for i in range(absences)
        )
        context = Context(ledger, market, world.parameters, OpenPackets(packets))
        assert vault_id not in context.blocked
        return context.get_leg_limit(vault_id)

    assert [get_limit(n) for n in range(7)] == [64, 64, 32, 32, 16, 16, 8]


def test_open_packets_out_of_order_are_refused():
    world = make_world()
    ledger = world.get_ledger()
    packet = OpenPacket(world.vaults[0].id, 0, 1, START, encode_body(Unpause()), bytes([9]) * 32, ())
    later = replace(packet, timeout=START + 1)
    for packets in ((later, packet), (packet, packet)):
        with pytest.raises(Rejected) as caught:
            compute_plan(ledger, world.get_market(ledger), world.parameters, 1, OpenPackets(packets))
        assert caught.value.reason == "bad_open_packets"


def test_the_house_balances_every_asset_and_series():
    a, b, asset, series = (make_account(x) for x in "abcd")
    unit = Unit("test", 0, (a,), {(0, a, asset): -5, (0, b, asset): 3, (1, a, series): 7, (1, b, series): -7})
    legs = get_balanced(unit.legs)
    assert ((0, HOUSE, asset), 2) in legs
    assert not [leg for leg in legs if leg[0] == (1, HOUSE, series)]
    assert legs == sorted(legs)


def test_legs_ascend_and_a_packet_holds_no_more_than_its_family_allows():
    families = (FamilyParameters("evm", 1_800, 8, 256),)
    world = make_world(families=families)
    world.deposit("bob", 50_000)
    for number in range(6):
        world.deposit(f"user {number}", 300)
        world.trade(f"user {number}", "bob", CALL, 0.1, 1)
    world.advance(60)
    world.round()
    world.spot = 2_300
    world.jump(CALL.expiry - 3_600)
    world.advance(3_720)
    result = world.plan()
    bodies = [get_body(p) for p in result.plan.packets]
    assert len(bodies) > 1
    for body in bodies:
        assert len(body.legs) <= 8
        assert is_sorted_legs(body.legs)
    # the loser pays first, so that the house never pays what it has not got yet
    assert any(leg.account == make_account("bob") and leg.delta < 0 for leg in bodies[0].legs if leg.id == TOKEN)
    world.deliver(world.certify(result))
    assert not world.vaults[0].position


def test_a_plan_digest_covers_packets_with_zero_digests_and_finalizing_puts_it_in():
    world = make_world()
    world.request("alice", 100)
    world.advance(60)
    plan = world.plan().plan
    digest = compute_plan_digest(plan)
    packet = finalize_packet(plan.packets[0], digest)
    assert decode_inbox_body(packet.payloads[0].value, WIDEST_LIMITS).plan_digest == digest
    assert get_body(plan.packets[0]).plan_digest == ZERO32
    with pytest.raises(Rejected):
        finalize_packet(replace(plan.packets[0], value=packet.payloads[0].value), digest)
    with pytest.raises(Rejected):
        finalize_packet(plan.packets[0], ZERO32)
    assert decode_document(Plan, encode_document(plan)) == plan
    assert compute_plan_digest(replace(plan, k=plan.k + 1)) != digest


# ---------------------------------------------------------------- control changes


def test_new_caps_are_planned_until_the_facts_show_them():
    world = make_world()
    body = SetCaps(TOKEN, 10**12, 5 * 10**12, 16 * 10**12)
    control = ControlParameters(world.vaults[0].id, encode_body(body))
    world.with_parameters(controls=(control,))
    world.advance(60)
    assert [get_body(p) for p in world.plan().plan.packets] == [body]
    world.deliver(world.certify(world.result))
    world.advance(60)
    assert not world.plan().plan.packets, "pending is enough"


def test_falling_caps_go_alone_so_that_nothing_is_refused_under_them():
    world = make_world()
    body = SetCaps(TOKEN, 10, 10, 10)
    world.with_parameters(controls=(ControlParameters(world.vaults[0].id, encode_body(body)),))
    request = world.request("alice", 100)
    world.advance(60)
    assert [get_body(p) for p in world.plan().plan.packets] == [body]
    world.deliver(world.certify(world.result))
    world.advance(60)
    assert not world.plan().plan.packets
    assert ("cap_window_full", request) in {(n.code, n.subject) for n in world.result.notes}


@pytest.mark.parametrize(("family", "fits"), [("evm", True), ("solana", False)])
def test_a_leg_of_the_house_is_a_number_the_vault_can_hold(family, fits):
    world = World(1, parameters=make_parameters([make_vault(0, family=family)]))
    ledger = world.get_ledger()
    vault_id = world.vaults[0].id
    context = Context(ledger, world.get_market(ledger), world.parameters, world.get_open())
    a, b, series = make_account("a"), make_account("b"), make_account("series")
    draft = _Draft(context, vault_id)
    assert draft.try_add(Unit("test", 0, (a,), {(1, a, series): 2**62}))
    assert draft.try_add(Unit("test", 0, (b,), {(1, b, series): 2**62})) == fits


def test_parameters_that_name_no_class_or_two_models_are_refused():
    world = make_world()
    ledger = world.get_ledger()
    market = world.get_market(ledger)
    one = world.parameters.underlyings[0]
    for changes in (
        {"classes": (), "assets": ()},
        {"underlyings": (one, replace(one, underlying=ZERO32, model="pm2"))},
    ):
        with pytest.raises(Rejected) as caught:
            compute_plan(ledger, market, replace(world.parameters, **changes), 1, world.get_open())
        assert caught.value.reason == "bad_parameters"


def test_a_rotation_goes_alone_and_nothing_is_sent_that_could_arrive_after_it():
    world = make_world()
    effective = START + 3 * DAY
    new = tuple(sorted(get_address(make_key(f"new {i}")) for i in range(4)))
    body = RotateOperators(1, 3, effective, TREASURER, new)
    world.with_parameters(controls=(ControlParameters(world.vaults[0].id, encode_body(body)),))
    world.request("alice", 100)
    world.advance(60)
    assert [get_body(p) for p in world.plan().plan.packets] == [body]
    world.deliver(world.certify(world.result))
    world.advance(60)
    assert len(world.plan().plan.packets) == 1, "until then the old operators go on"
    world.jump(effective - 1_800)
    world.request("bob", 100)
    assert len(world.plan().plan.packets) == 1
    world.advance(60)
    assert not world.plan().plan.packets
    assert "rotation" in world.codes()
    world.jump(effective)
    packets = world.plan().plan.packets
    assert [p.operator_epoch for p in packets] == [1]
    assert world.ledger.states[world.vaults[0].id].operators == new


def test_a_rotation_too_late_for_its_delay_is_not_planned():
    world = make_world()
    body = RotateOperators(1, 3, world.now + 60 + DAY, TREASURER, OPERATORS)
    world.with_parameters(controls=(ControlParameters(world.vaults[0].id, encode_body(body)),))
    world.advance(60)
    assert not world.plan().plan.packets


def test_a_paused_vault_gets_only_control_packets():
    world = make_world()
    world.vaults[0].pause(OPERATORS[1])
    world.advance(60)
    unpause = (ControlParameters(world.vaults[0].id, encode_body(Unpause())),)
    world.with_parameters(controls=unpause, effective=world.now)
    world.request("alice", 100)
    world.advance(60)
    assert [get_body(p) for p in world.plan().plan.packets] == [Unpause()]
    world.deliver(world.certify(world.result))
    world.jump(world.now + DAY)
    world.request("alice", 100)
    world.advance(60)
    assert len(world.plan().plan.packets) == 1
    assert "paused" not in world.codes()


def test_an_unpause_ends_no_pause_of_after_the_instant_of_its_parameters():
    world = make_world()
    world.vaults[0].pause(OPERATORS[1])
    world.advance(60)
    unpause = (ControlParameters(world.vaults[0].id, encode_body(Unpause())),)
    world.with_parameters(controls=unpause, effective=world.now)
    world.deliver(world.certify(world.plan()))
    world.jump(world.now + DAY)
    assert not world.plan().plan.packets
    world.vaults[0].pause(OPERATORS[2])
    world.advance(60)
    assert not world.plan().plan.packets  # the set that is in force still says unpause, and did not mean this one
    assert world.ledger.states[world.vaults[0].id].paused
    world.with_parameters(controls=unpause, effective=world.now)
    assert [get_body(p) for p in world.plan().plan.packets] == [Unpause()]


# ---------------------------------------------------------------- determinism

SCRIPT = """
import random, sys
from dataclasses import replace
from relayer.rules.ledger import compute_ledger, compute_ledger_digest
from relayer.rules.plan import compute_plan, compute_plan_digest
from tests.rules.test_plan_properties import History
history = History(4242)
for _ in range(4):
    for _ in range(4):
        history.act()
    history.world.advance(60)
    history.round(lossy=False)
for _ in range(6):
    history.act()
w = history.world
w.spot = 2600
w.advance(60)
w.fold()
rnd = random.Random(int(sys.argv[1]))
def shuffle(table):
    rows = list(table.items()); rnd.shuffle(rows); return dict(rows)
tables = ("free", "claimable", "positions", "trades", "requests", "links", "series", "dues", "caps")
states = {v: replace(s, **{t: shuffle(getattr(s, t)) for t in tables}) for v, s in shuffle(w.states).items()}
ledger = compute_ledger(states, w.get_cut(), w.parameters)
reports = list(w.reports); rnd.shuffle(reports); w.reports = reports
plan = compute_plan(ledger, w.get_market(ledger), w.parameters, 7, w.get_open())
print(compute_ledger_digest(ledger).hex(), compute_plan_digest(plan.plan).hex(), len(plan.plan.packets), hash("x"))
"""


def test_the_plan_is_the_same_under_shuffled_input_and_other_hash_seeds():
    root = Path(__file__).resolve().parents[2]
    outputs = []
    for seed in ("1", "2", "77"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, seed], env=env, cwd=root, capture_output=True, text=True, check=True
        )
        outputs.append(done.stdout.split())
    assert len({tuple(out[:3]) for out in outputs}) == 1
    assert int(outputs[0][2]) > 0
    assert len({out[3] for out in outputs}) == 3, "the hash seeds were really different"
