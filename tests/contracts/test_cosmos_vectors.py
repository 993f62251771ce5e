"""Every trace and byte vector that concerns the Cosmos vault, on its committed wasm (also part of `make conformance`)."""

from __future__ import annotations

import copy
import json

import pytest

from tests.conformance import optsettle_cosmos
from tests.conformance.case import Case, SkippedError
from tests.conformance.optsettle_cosmos import discover_recv, discover_traces
from tests.conformance.run import get_root

FOLDER = get_root() / "optsettle"
TRACES = list(discover_traces(FOLDER)) if FOLDER.is_dir() else []
CASES = [*TRACES, *discover_recv(FOLDER)] if FOLDER.is_dir() else []

needs_vectors = pytest.mark.skipif(not CASES, reason="no optsettle vectors: set RELAYER_VECTORS")


@needs_vectors
def test_the_vectors_hold_traces_and_single_calls_for_this_family() -> None:
    assert {case.name.split()[0] for case in CASES} == {"traces.json", "bytes.json"}
    assert len(TRACES) >= 37


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_vault_does_what_the_vector_says(case: Case) -> None:
    try:
        case.run()
    except SkippedError as why:
        pytest.skip(str(why))


def _get_record() -> tuple[dict, dict]:
    """Return the file of traces and its first trace of this family, to be changed."""
    record = json.loads((FOLDER / "traces.json").read_text())
    return record, copy.deepcopy(next(t for t in record["traces"] if t["family"] == "cosmos"))


def _find_step(trace: dict, key: str) -> dict:
    return next(s for s in trace["steps"] if s.get(key))


@needs_vectors
@pytest.mark.parametrize("key", ["out", "head", "revert", "final", "value"])
def test_a_vector_with_one_thing_changed_fails(key: str) -> None:
    record, trace = _get_record()
    if key == "final":
        trace["final"]["free"]["alice"]["USDC"] = str(int(trace["final"]["free"]["alice"]["USDC"]) + 1)
    elif key == "revert":
        step = _find_step(trace, "revert")
        del step["revert"]
        step |= {"value": None, "out": None, "head": "00" * 32}
    else:
        step = _find_step(trace, key)
        step[key] = step[key][:-1] + ("0" if step[key][-1] != "0" else "1")
    with pytest.raises(AssertionError):
        optsettle_cosmos._run_trace(record, trace)


@needs_vectors
def test_a_case_of_another_family_keeps_its_flaw_when_it_is_signed_anew() -> None:
    record = json.loads((FOLDER / "bytes.json").read_text())
    setup, keys = record["recv_setup"], [bytes.fromhex(o["private_key"]) for o in record["operators"].values()]
    by_why = {case["why"]: case for case in record["recv_cases"]}
    good = by_why["good"]
    optsettle_cosmos._run_recv(setup, keys, good)
    for why in ("high s", "v 0 or 1", "signed by op0, op1, op1", "a trailing byte", "signed for the next epoch"):
        with pytest.raises(AssertionError):
            optsettle_cosmos._run_recv(setup, keys, {**by_why[why], "expect": good["expect"]})
