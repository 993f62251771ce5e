"""The vaults of the three families do the same, byte for byte, whatever is called (protocol.md 4).

Random histories against the compiled bytecode, the committed wasm (`lock_step.py`) and the committed Solana program
(`lock_step_solana.py`) at once. What the comparison would see is shown with weak vaults and broken machines: each makes it go
red. `make soak` plays many more.
"""

from __future__ import annotations

import os
import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from solders.instruction import Instruction

from chains.cosmos.wasm_vm import MemoryStorage
from contracts.rust_build import ToolchainMissingError
from contracts.solana import client as c
from messages.bodies import Execute, Leg, encode_body
from messages.packet import Packet
from tests.contracts import lock_step_solana, solana_harness
from tests.contracts.evm_engines import HAS_REVM
from tests.contracts.lock_step import (
    ACCOUNTS,
    ASSETS,
    CAROL,
    KINDS,
    PLAN,
    SERIES,
    START,
    USERS,
    Diverged,
    Known,
    Pair,
    Signing,
    Step,
    check,
    pad,
    read_cosmos,
    read_evm,
    verify_invariants,
    verify_nothing_hidden,
)
from tests.contracts.lock_step_solana import UNSPEAKABLE, Field, Prediction, Trio
from tests.contracts.solana_twins import NUMBERS, build_twin
from tests.contracts.twins import get_twin

IS_THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
CHUNKS = 40 if IS_THOROUGH else 8  # parts that may run beside each other
SEQUENCES = (100 if IS_THOROUGH else 20) if HAS_REVM else (25 if IS_THOROUGH else 6)  # per part
STEPS = 40
SHORT_SEQUENCES = 250 if HAS_REVM else 20  # per part: many beginnings, where long histories go deep
SHORT_STEPS = 4
WIDE_SEQUENCES, WIDE_SHORT_SEQUENCES = SEQUENCES // 4, SHORT_SEQUENCES // 10  # per part, of two vaults alone
WIDE_CAP = 24  # a history in which caps beyond 64 bits are set
PATIENCE = 60  # histories until a weakness must have shown

# weaknesses of `twins` that a history can show (the others need tokens, chain ids or calldata that the families do not share),
# and the history that showed each first when this was written: it only makes the test quick
WEAKNESSES = {
    "zero signer": 0,
    "any order": 0,
    "any signer": 2,
    "high s": 0,
    "no sequence": 0,
    "no epoch": 6,
    "no envelope": 4,
    "no sum": 22,
    "no cap": 0,
    "trade stays open": 2,
    "any trade id": 24,
    "any canceller": 0,
    "any treasurer": 1,
    "claim stays": 2,
    "loose offsets": 45,
    "debtors escape": 53,
}


# weaknesses of `solana_twins` that history 0 does not show
WEAK_PROGRAMS = {
    "no epoch": 6,
    "no timeout": 15,
    "no sum": 28,
    "no order of legs": 8,
    "trade stays open": 2,
    "any trade id": 10,
    "stale trades": 2,
    "any canceller": 3,
    "debtors escape": 33,
    "pause for ever": 23,
}

# what a weak program forgets to write, and a history that shows it
FORGOTTEN = {
    "free cash": (Field(c.Tag.BALANCE, 0, 8), 0),
    "claimable cash": (Field(c.Tag.BALANCE, 8, 16), 0),
    "positions": (Field(c.Tag.POSITION, 0, 16), 0),
    "the count of negative positions": (Field(c.Tag.ACCOUNT, 0, 8), 0),
    "what is left of an offer": (Field(c.Tag.OFFER, 104, 112), 5),
    "that an offer is cancelled": (Field(c.Tag.OFFER, 140, 144), 11),
    "that a trade is over": (Field(c.Tag.TRADE, 48, 56), 2),
    "that a request is paid": (Field(c.Tag.REQUEST, 32, 40), 0),
    "the id of a newer request": (Field(c.Tag.REQUEST, 0, 32), 18),
    "caps that fall": (Field(c.Tag.ASSET, 0, 24), 0),
    "caps that follow": (Field(c.Tag.ASSET, 24, 56), 0),
    "the settlement windows": (Field(c.Tag.ASSET, 56, 88), 0),
    "the withdrawal windows": (Field(c.Tag.ASSET, 88, 120), 0),
    "when a packet was accepted": (Field(None, 88, 96), 0),
    "up to where trades are decided": (Field(None, 96, 104), 1),
    "the pause": (Field(None, 163, 164), 1),
    "who used its pause": (Field(None, 164, 168), 1),
    "when operators change": (Field(None, 176, 184), 6),
    "when the pause ends": (Field(None, 192, 200), 1),
    "the next treasurer": (Field(None, 640, 672), 6),
}


@cache
def get_pair() -> Pair:
    """Return one pair for many histories; each is taken back."""
    return Pair()


@cache
def get_trio() -> Trio:
    """Return the three vaults, for many histories too."""
    return Trio()


@pytest.mark.parametrize("part", range(CHUNKS))
def test_random_histories_never_part_the_three_vaults(part: int) -> None:
    trio = get_trio()
    for i in range(SEQUENCES):
        check(trio, part * SEQUENCES + i, STEPS)


@pytest.mark.parametrize("part", range(CHUNKS))
def test_thousands_of_short_histories_never_part_them_either(part: int) -> None:
    trio = get_trio()
    for i in range(SHORT_SEQUENCES):
        check(trio, 100_000 + part * SHORT_SEQUENCES + i, SHORT_STEPS)


@pytest.mark.parametrize("part", range(CHUNKS))
def test_amounts_of_96_bits_never_part_the_two_vaults_that_hold_them(part: int) -> None:
    pair = get_pair()
    for i in range(WIDE_SEQUENCES):
        check(pair, part * WIDE_SEQUENCES + i, STEPS)
    for i in range(WIDE_SHORT_SEQUENCES):
        check(pair, 100_000 + part * WIDE_SHORT_SEQUENCES + i, SHORT_STEPS)


def test_histories_reach_what_they_are_for() -> None:
    pair = get_trio()
    before = (pair.counts.done, pair.counts.refused)
    for seed in range(10_000, 10_000 + 8):
        check(pair, seed, STEPS)
    calls = {name for name, count in pair.counts.calls.items() if count}
    assert {"deposit", "offer", "take", "request_withdrawal", "recv", "link"} <= calls
    assert pair.counts.done > before[0]
    assert pair.counts.refused > before[1]


# ---- differences that are meant ---------------------------------------------------------------------------------------


def make_packet(number: int, *legs: Leg) -> Step:
    """Return the delivery of an Execute, rightly signed."""
    body = Execute(PLAN, (), tuple(sorted(legs, key=lambda leg: (leg.kind, leg.account, leg.id))))
    args = {"value": encode_body(body), "skip": 0, "life": 60, "copies": 1, "fields": {}, "replay": False}
    return Step(number, START, "recv", CAROL, {**args, "signing": Signing((0, 1, 2))})


def make_deposits(amount: int) -> list[Step]:
    """Return deposits of three users for CAROL."""
    args = {"asset": ASSETS[0], "amount": amount, "beneficiary": pad(CAROL)}
    return [Step(number, START, "deposit", by, args) for number, by in enumerate(USERS[:3], 1)]


WIDE_OFFER = {
    "side": 1,
    "series": SERIES[0],
    "asset": ASSETS[0],
    "quantity": 2**64,
    "premium_per_contract": 1,
    "valid_until": START + 60,
}
# a history that ends with a call in which the program differs, and how: by name, with what it says
DIFFERENT = {
    "wide amount": ([Step(1, START, "offer", CAROL, WIDE_OFFER)], UNSPEAKABLE.word),
    "wide leg": ([make_packet(1, Leg(0, pad(CAROL), ASSETS[0], 2**63))], (2, 4, 0)),
    "full balance": ([*make_deposits(2**62 - 10**6), make_packet(4, Leg(0, pad(CAROL), ASSETS[0], 2**63 - 1))], (2, 11, 0)),
    "more than 32 legs": (
        [make_packet(1, *(Leg(0, bytes(31) + bytes([i]), ASSETS[0], 1) for i in range(1, 34)))],
        UNSPEAKABLE.word,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_difference_is_said_in_advance_and_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trio = get_trio()
    steps, told = DIFFERENT[name]
    before = trio.counts.differences.get(name, 0)
    said = []
    step_apart = trio.step_apart
    with monkeypatch.context() as patch:
        patch.setattr(trio, "step_apart", lambda step, said_: (said.append(said_), step_apart(step, said_)))
        trio.run(0, steps=steps)
    assert trio.counts.differences[name] == before + 1
    assert said == [Prediction(name, told) if isinstance(told, str) else Prediction(name, ack=told)]
    # and nothing passes that was not said, or was said otherwise
    with monkeypatch.context() as patch:
        patch.setattr(trio, "predict", lambda step: None)
        with pytest.raises(Diverged):
            trio.run(0, steps=steps)
    predict = trio.predict
    with monkeypatch.context() as patch:
        patch.setattr(trio, "predict", lambda step: (p := predict(step)) and replace(p, word="another", ack=None))
        with pytest.raises(Diverged):
            trio.run(0, steps=steps)


def test_caps_beyond_64_bits_are_a_difference_too() -> None:
    trio = get_trio()
    before = trio.counts.differences.get("wide cap", 0)
    check(trio, WIDE_CAP, STEPS)
    assert trio.counts.differences["wide cap"] > before


def test_a_packet_is_said_to_the_program_in_many_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    trio = get_trio()
    ways = []
    vary = lock_step_solana.vary_delivery

    def watch(instruction: Instruction, packet: Packet, chance: random.Random) -> Instruction:
        varied = vary(instruction, packet, chance)
        ways.append((varied.data != instruction.data, varied.accounts != instruction.accounts))
        return varied

    monkeypatch.setattr(lock_step_solana, "vary_delivery", watch)
    for seed in range(3):
        check(trio, seed, STEPS)
    assert set(ways) == {(False, False), (False, True), (True, False), (True, True)}


def test_a_refusal_with_another_word_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    trio = get_trio()
    monkeypatch.setattr(solana_harness, "_read_error", lambda error, logs: "rent")
    find(trio)


# ---- weak vaults ------------------------------------------------------------------------------------------------------


def find(pair: Pair, likely: int = 0) -> Diverged:
    """Return the first difference of a pair, after trying the history ``likely``."""
    for seed in (likely, *range(PATIENCE)):
        try:
            pair.run(STEPS, seed)
        except Diverged as error:
            return error
    raise AssertionError("the comparison saw nothing")


@pytest.mark.parametrize("weakness", WEAKNESSES)
def test_a_vault_without_one_check_parts_from_the_other(weakness: str) -> None:
    find(Pair(get_twin(weakness)), WEAKNESSES[weakness])


def test_the_twin_with_no_weakness_switched_on_keeps_step() -> None:
    pair = Pair(get_twin(""))
    for seed in range(4):
        check(pair, seed, STEPS)


def test_a_store_that_forgets_to_remove_parts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair()
    monkeypatch.setattr(MemoryStorage, "__delitem__", lambda store, key: None)
    find(pair)


def test_a_clock_that_is_a_second_late_parts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair()
    set_time = pair.cosmos.world.set_time
    monkeypatch.setattr(pair.cosmos.world, "set_time", lambda time: set_time(time - 1))
    find(pair)


@pytest.mark.parametrize("what", FORGOTTEN)
def test_a_program_that_forgets_to_write_something_parts_from_the_others(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trio = get_trio()
    part, likely = FORGOTTEN[what]
    monkeypatch.setattr(trio.program, "forgets", part)
    find(trio, likely)


def test_a_clock_of_the_program_that_is_a_second_late_parts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    trio = get_trio()
    set_time = trio.program.machine.set_time
    monkeypatch.setattr(trio.program.machine, "set_time", lambda time: set_time(time - 1))
    find(trio)


@pytest.mark.slow
def test_a_program_compiled_without_one_check_parts_from_the_others(tmp_path: Path) -> None:
    try:
        trio = Trio(program=build_twin(tmp_path))
    except ToolchainMissingError as error:
        pytest.skip(str(error))
    for seed in range(4):
        check(trio, seed, STEPS)  # no weakness is switched on
    for weakness, number in NUMBERS.items():
        trio.program.machine.set_weakness(number)
        find(trio, WEAK_PROGRAMS.get(weakness, 0))


def test_a_difference_is_told_with_a_short_history() -> None:
    pair = Pair(get_twin("any canceller"))
    steps = find(pair).steps
    shortest = pair.shrink(steps)
    assert len(shortest) < len(steps)
    assert {step.name for step in shortest} == {"offer", "cancel"}
    with pytest.raises(Diverged):
        pair.run(0, steps=shortest)


@pytest.mark.skipif(not HAS_REVM, reason="pyrevm is not installed")
def test_two_evms_give_one_history() -> None:
    slow, fast = Pair(engine="py-evm"), Pair(engine="revm")
    for seed in range(3):
        steps = slow.run(STEPS, seed)
        assert fast.run(0, steps=steps) == steps
    assert slow.counts == fast.counts


def test_a_state_that_breaks_an_invariant_is_seen() -> None:
    pair = Pair()
    known = Known()
    state = read_evm(pair.evm, known)
    verify_invariants(state)
    verify_nothing_hidden(pair.cosmos, read_cosmos(pair.cosmos, known))
    account, asset, kind = ACCOUNTS[0], ASSETS[0], KINDS[0]
    free, claimable = state["balance", account, asset]
    for key, value in (
        (("balance", account, asset), (free + 1, claimable)),
        (("position", account, kind), 1),
        (("negatives", account), 1),
    ):
        with pytest.raises(AssertionError):
            verify_invariants({**state, key: value})
    pair.cosmos.world.chain.stores[pair.cosmos.world.address][bytes([6]) + b"\x01" * 64] = bytes(24)
    with pytest.raises(AssertionError):
        verify_nothing_hidden(pair.cosmos, read_cosmos(pair.cosmos, known))


def test_a_record_of_the_program_that_nobody_named_is_seen() -> None:
    program = Trio().program
    state = program.read(Known())
    program.verify_nothing_hidden(state)
    hidden = c.get_balance_id(b"\x01" * 32, program.to_words(ASSETS[0]))
    program.world.open(hidden)
    program.verify_nothing_hidden(state)  # it holds nothing
    address = program.world.vault.find(hidden)
    data = program.machine.read(address)
    assert data is not None
    program.machine.put(address, solana_harness.PROGRAM, data[:-16] + b"\1" + data[-15:])
    with pytest.raises(AssertionError):
        program.verify_nothing_hidden(state)
