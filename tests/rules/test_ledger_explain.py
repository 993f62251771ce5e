"""Every cause has a test that brings it about; every code a rule uses has a sentence and a next step."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from messages.errors import Conflict
from messages.ids import HOUSE
from relayer.rules import explain as explain_module
from relayer.rules.explain import CAUSES, ChainStatus, Situation, explain
from relayer.rules.lifecycle import NEXT, TERMINAL, PacketEvent, PacketState, get_next, is_proven_absent
from relayer.rules.views import compute_margin_view, get_open_rows, get_positions, get_vault_rows
from tests.builders import OPERATORS, TOKEN, UNIT, make_account, make_parameters, make_series, make_vault
from tests.world import World

CALL = make_series(2000)
RULES = Path(explain_module.__file__).parent


def make_world(vaults=1):
    world = World(vaults, parameters=make_parameters([make_vault(i) for i in range(vaults)]))
    for number in range(vaults):
        world.deposit(HOUSE, 1_000, number)
        world.deposit("alice", 2_000, number)
        world.deposit("bob", 1_000, number)
    world.advance(120)
    return world


def ask(world, subject, **changes):
    situation = Situation(world.get_ledger(), world.now, world.result.notes, world.get_open(), **changes)
    found = explain(subject, situation)
    assert all(e.text and e.next_step for e in found)
    return [e.code for e in found]


def test_every_code_that_rules_use_has_a_cause():
    used = set()
    for path in RULES.glob("*.py"):
        text = path.read_text()
        used |= set(re.findall(r'\.note\(\s*"(\w+)"', text))
        used |= set(re.findall(r'_(?:Wait|Over)\(\s*"(\w+)"', text))
        used |= set(re.findall(r'record_ending\(fact, "(\w+)"', text))
        used |= set(re.findall(r'"(trade_\w+)" if done else "(\w+)"', text)[0]) if "if done else" in text else set()
        used |= set(re.findall(r'_make\("(\w+)"', text))
    assert len(used) > 30
    assert used <= set(CAUSES)


def test_a_trade_short_of_margin_is_explained_before_and_after_it_is_over():
    world = make_world()
    trade = world.trade("alice", "bob", CALL, 10, 50)
    world.advance(60)
    world.plan()
    assert ask(world, trade) == ["margin_short"]
    world.deliver(world.certify(world.result))
    assert ask(world, trade) == ["trade_over"]


def test_a_decided_trade_is_explained_while_its_packet_is_under_way_and_when_it_is_done():
    world = make_world()
    trade = world.trade("alice", "bob", CALL, 1, 50)
    world.advance(60)
    packets = world.certify(world.plan())
    assert ask(world, trade) == ["decided_not_acked"]
    world.advance(60)
    world.plan()
    assert "open_packet_on_vault" in ask(world, trade)
    world.advance(3_600)
    world.stalled = {world.vaults[0].id: world.now - 3_000}
    world.plan()
    assert "timeout_not_proven_absent" in ask(world, trade)
    world.stalled = {}
    world.advance(60)
    world.vaults[0].time = world.open[0].timeout - 1  # it arrives in the last second
    world.deliver(packets)
    assert ask(world, trade) == ["trade_done"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"unproven_packets": 2}, "not_finalized_yet"),
        ({"state_time": 0}, "waiting_for_head"),
        ({"state_time": 1}, "chain_stalled"),
        ({"is_frozen": True}, "chain_frozen"),
        ({}, "waiting_for_plan"),
    ],
)
def test_what_the_chain_lacks_is_named(change, code):
    world = make_world()
    world.plan()
    vault_id = world.vaults[0].id
    status = replace(ChainStatus(vault_id, world.now), **change)
    assert ask(world, make_account("alice"), chains=[status]) == [code]


def test_a_missing_quorum_a_pause_and_a_refusal_are_named():
    world = make_world()
    world.plan()
    vault_id = world.vaults[0].id
    assert ask(world, vault_id, votes=2) == ["no_quorum"]
    assert ask(world, vault_id, votes=3) == ["waiting_for_plan"]
    world.request("alice", 100)
    world.advance(60)
    packets = world.certify(world.plan())
    world.vaults[0].pause(OPERATORS[0])
    world.deliver(packets)
    world.plan()
    codes = ask(world, make_account("alice"))
    assert codes[-2:] == ["paused", "refused_by_vault"]


def test_lift_inventory_lapse_link_and_unknown_are_named():
    world = make_world(2)
    world.vaults[1].list_series(CALL)
    world.vaults[0].list_series(CALL)
    for vault in (0, 1):
        world.link("mm", "mm", vault)
    world.deposit("mm", 500, 1)
    request = world.request("mm", 400, 0)
    world.link("mm", "thief", 0)
    world.advance(60)
    world.plan()
    assert ask(world, request)[:2] == ["lift_not_acked", "no_cash"]
    assert "link_void" in ask(world, make_account("mm"))
    assert ask(world, bytes([5]) * 32) == ["unknown_subject"]
    world.jump(world.now + 86_401)
    world.plan()
    assert "request_lapsed" in ask(world, request)


# ---------------------------------------------------------------- lifecycle


def test_every_state_and_event_has_one_outcome_or_is_a_conflict():
    for state in PacketState:
        for event in PacketEvent:
            if (state, event) in NEXT:
                assert get_next(state, event) is NEXT[state, event]
            else:
                # nothing uncertified is ever sent; and two facts may not exclude each other
                assert state in TERMINAL or (state, event) == (PacketState.PLANNED, PacketEvent.TRANSACTION_STORED)
                with pytest.raises(Conflict):
                    get_next(state, event)


def test_terminal_states_exclude_each_other_in_every_order_of_facts():
    """Incident G4, for packets: no order of events leads from one end to another."""
    facts = {
        PacketEvent.ACK_DONE: PacketState.ACKNOWLEDGED,
        PacketEvent.ACK_REFUSED: PacketState.REFUSED,
        PacketEvent.PROVEN_ABSENT: PacketState.ABSENT,
    }
    for first, end in facts.items():
        state = get_next(PacketState.SENT, first)
        assert state is end
        for second in facts:
            if second is first:
                assert get_next(state, second) is end
            else:
                with pytest.raises(Conflict):
                    get_next(state, second)
        assert get_next(state, PacketEvent.TRANSACTION_STORED) is end


@pytest.mark.parametrize(
    ("inbox", "time", "absent"), [(3, 1_000, True), (3, 999, False), (4, 1_000, False), (4, 5_000, False)]
)
def test_absence_needs_a_state_at_the_timeout_that_shows_no_ack(inbox, time, absent):
    assert is_proven_absent(4, 1_000, inbox, time) == absent


# ---------------------------------------------------------------- views


def test_margin_together_asks_less_than_apart():
    world = make_world(2)
    for vault in (0, 1):
        world.link("mm", "mm", vault)
        world.deposit("mm", 450, vault)
    world.trade("mm", "alice", CALL, 1, 50, 0)
    world.trade("alice", "mm", make_series(2100), 1, 20, 1)
    world.advance(60)
    world.round()
    world.advance(60)
    world.plan()
    view = compute_margin_view(world.ledger, world.snapshot, world.parameters, make_account("mm"))
    assert len(view.apart) == 2
    assert all(row.initial is not None for row in view.apart)
    assert view.together.initial > sum(row.initial for row in view.apart)


def test_positions_and_vault_rows_add_up():
    world = make_world(2)
    world.trade("alice", "bob", CALL, 1, 50)
    world.advance(60)
    world.round()
    ledger = world.get_ledger()
    rows = get_positions(ledger, world.parameters)
    assert sum(r.amount for r in rows if r.kind == "option") == 0
    cash = sum(r.amount for r in rows if r.kind in ("cash", "claimable"))
    vaults = get_vault_rows(ledger)
    assert cash == sum(v.held for v in vaults) == sum(v.owed for v in vaults) == 8_000 * UNIT
    mine = get_positions(ledger, world.parameters, ledger.portfolio_of[world.vaults[0].id, make_account("alice")])
    assert {r.kind for r in mine} == {"cash", "option"}
    assert all(r.item == TOKEN for r in mine if r.kind == "cash")


def test_packet_rows_follow_the_life_of_a_packet():
    world = make_world()
    world.request("alice", 100)
    world.advance(60)
    packets = world.certify(world.plan())
    listed = world.get_open()

    def get_state(**options):
        return get_open_rows(world.get_ledger(), listed, **options)[0].state

    assert get_state() is PacketState.CERTIFIED
    assert get_state(sent=[(world.vaults[0].id, 1)]) is PacketState.SENT
    world.advance(1_800)
    assert get_state() is PacketState.ABSENT
    world.vaults[0].time = listed.packets[0].timeout - 1
    world.deliver(packets)
    assert get_state() is PacketState.ACKNOWLEDGED
