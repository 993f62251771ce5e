"""The vaults of the Ethereum and of the Cosmos family do the same, byte for byte, whatever is called (protocol.md 4).

Random histories against the compiled bytecode and the committed wasm at once (`lock_step.py`). What the comparison would see is
shown with weak vaults and a broken machine: each makes it go red. `make soak` plays many more.
"""

from __future__ import annotations

import os
from functools import cache

import pytest

from chains.cosmos.wasm_vm import MemoryStorage
from tests.contracts.evm_engines import HAS_REVM
from tests.contracts.lock_step import (
    ACCOUNTS,
    ASSETS,
    KINDS,
    Diverged,
    Known,
    Pair,
    check,
    read_cosmos,
    read_evm,
    verify_invariants,
    verify_nothing_hidden,
)
from tests.contracts.twins import get_twin

IS_THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
CHUNKS = 40 if IS_THOROUGH else 8  # parts that may run beside each other
SEQUENCES = (100 if IS_THOROUGH else 20) if HAS_REVM else (25 if IS_THOROUGH else 6)  # per part
STEPS = 40
SHORT_SEQUENCES = 250 if HAS_REVM else 20  # per part: many beginnings, where long histories go deep
SHORT_STEPS = 4
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


@cache
def get_pair() -> Pair:
    """Return one pair for many histories; each is taken back."""
    return Pair()


@pytest.mark.parametrize("part", range(CHUNKS))
def test_random_histories_never_part_the_two_vaults(part: int) -> None:
    pair = get_pair()
    for i in range(SEQUENCES):
        check(pair, part * SEQUENCES + i, STEPS)


@pytest.mark.parametrize("part", range(CHUNKS))
def test_thousands_of_short_histories_never_part_them_either(part: int) -> None:
    pair = get_pair()
    for i in range(SHORT_SEQUENCES):
        check(pair, 100_000 + part * SHORT_SEQUENCES + i, SHORT_STEPS)


def test_histories_reach_what_they_are_for() -> None:
    pair = get_pair()
    before = (pair.counts.done, pair.counts.refused)
    for seed in range(10_000, 10_000 + 8):
        check(pair, seed, STEPS)
    calls = {name for name, count in pair.counts.calls.items() if count}
    assert {"deposit", "offer", "take", "request_withdrawal", "recv", "link"} <= calls
    assert pair.counts.done > before[0]
    assert pair.counts.refused > before[1]


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
