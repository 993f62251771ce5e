"""Every trace and byte vector on every committed vault (also part of `make conformance`): EVM bytecode, wasm, a program in LiteSVM."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tests.conformance import optsettle_cosmos, optsettle_evm, optsettle_solana
from tests.conformance.case import Case, SkippedError
from tests.conformance.optsettle_vault import Runner
from tests.conformance.run import get_root

FOLDER = get_root() / "optsettle"
RUNNERS = {r.family: r for r in (optsettle_evm.RUNNER, optsettle_cosmos.RUNNER, optsettle_solana.RUNNER)}
TRACES = {family: list(r.discover_traces(FOLDER)) for family, r in RUNNERS.items()} if FOLDER.is_dir() else {}
RECV = {family: list(r.discover_recv(FOLDER)) for family, r in RUNNERS.items()} if FOLDER.is_dir() else {}
CASES = [case for found in (TRACES, RECV) for cases in found.values() for case in cases]
# how many there are at least: a discovery that finds less has lost some
N_CASES = {"evm": (36, 132), "cosmos": (37, 132), "solana": (36, 121)}

needs_vectors = pytest.mark.skipif(not CASES, reason="no optsettle vectors: set RELAYER_VECTORS")
each_family = pytest.mark.parametrize("runner", RUNNERS.values(), ids=RUNNERS)
CHANGES = [
    pytest.param(r, key, id=f"{family} {key}")
    for family, r in RUNNERS.items()
    for key in ("out", "head", "revert", "final", "value")
    if not (key == "head" and r.trace.has_own_head)
]


@needs_vectors
@each_family
def test_the_vectors_hold_traces_and_single_calls_for_each_family(runner: Runner) -> None:
    traces, recv = TRACES[runner.family], RECV[runner.family]
    assert ({case.name.split()[0] for case in traces}, {case.name.split()[0] for case in recv}) == (
        {"traces.json"},
        {"bytes.json"},
    )
    assert len(traces) >= N_CASES[runner.family][0]
    assert len(recv) >= N_CASES[runner.family][1]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_vault_does_what_the_vector_says(case: Case) -> None:
    try:
        case.run()
    except SkippedError as why:
        pytest.skip(str(why))


def read(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / name).read_text())


@needs_vectors
@pytest.mark.parametrize(("runner", "key"), CHANGES)
def test_a_vector_with_one_thing_changed_fails(runner: Runner, key: str) -> None:
    record = read("traces.json")
    trace = copy.deepcopy(next(t for t in record["traces"] if t["family"] == runner.family))
    if key == "final":
        trace["final"]["free"]["alice"]["USDC"] = str(int(trace["final"]["free"]["alice"]["USDC"]) + 1)
    elif key == "revert":
        step = next(s for s in trace["steps"] if s.get(key))
        del step["revert"]
        step |= {"value": None, "out": None, "head": "00" * 32}
    else:
        step = next(s for s in trace["steps"] if isinstance(s.get(key), str))
        step[key] = step[key][:-1] + ("0" if step[key][-1] != "0" else "1")
    with pytest.raises(AssertionError):
        runner.run_trace(record, trace)


@needs_vectors
@each_family
@pytest.mark.parametrize("expected", ["ok", "revert"])
def test_a_creation_that_ends_otherwise_than_the_vector_says_fails(runner: Runner, expected: str) -> None:
    record = read("bytes.json")
    case = next(c for c in record["creation_cases"] if c["expect"] == expected and not c["caps"])
    runner.run_creation(record["recv_setup"], case)
    other = {"ok": "revert", "revert": "ok"}[expected]
    with pytest.raises(AssertionError):
        runner.run_creation(record["recv_setup"], {**case, "expect": other})


@needs_vectors
@each_family
def test_a_packet_that_is_judged_otherwise_than_the_vector_says_fails(runner: Runner) -> None:
    """On a vault of another family or place, the flaws are carried into the signatures made anew."""
    record = read("bytes.json")
    setup, keys = record["recv_setup"], [bytes.fromhex(o["private_key"]) for o in record["operators"].values()]
    by_why = {case["why"]: case for case in record["recv_cases"]}
    good = by_why["good"]
    runner.run_recv(setup, keys, good)
    for why in ("high s", "v 0 or 1", "signed by op0, op1, op1", "a trailing byte", "signed for the next epoch"):
        with pytest.raises(AssertionError):
            runner.run_recv(setup, keys, {**by_why[why], "expect": good["expect"]})
