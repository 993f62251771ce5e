"""Every trace and packet that concerns the Solana vault, on its committed program (also part of `make conformance`)."""

from __future__ import annotations

import copy
import json

import pytest

pytest.importorskip("solders", reason="the Solana vault runs in LiteSVM of the package solders")

from tests.conformance import optsettle_solana
from tests.conformance.case import Case
from tests.conformance.run import get_root

FOLDER = get_root() / "optsettle"
TRACES = list(optsettle_solana.discover_traces(FOLDER)) if FOLDER.is_dir() else []
RECV = list(optsettle_solana.discover_recv(FOLDER)) if FOLDER.is_dir() else []

needs_vectors = pytest.mark.skipif(not TRACES, reason="no optsettle vectors: set RELAYER_VECTORS")


@needs_vectors
def test_the_vectors_hold_traces_for_this_family() -> None:
    assert len(TRACES) >= 36
    assert len(RECV) >= 121


@pytest.mark.parametrize("case", [*TRACES, *RECV], ids=lambda case: case.name)
def test_the_vault_does_what_the_vector_says(case: Case) -> None:
    case.run()


@needs_vectors
@pytest.mark.parametrize("expected", ["ok", "revert"])
def test_a_creation_that_ends_otherwise_than_the_vector_says_fails(expected: str) -> None:
    record = json.loads((FOLDER / "bytes.json").read_text())
    case = next(c for c in record["creation_cases"] if c["expect"] == expected and not c["caps"])
    optsettle_solana.run_creation(record["recv_setup"], case)
    other = {"ok": "revert", "revert": "ok"}[expected]
    with pytest.raises(AssertionError):
        optsettle_solana.run_creation(record["recv_setup"], {**case, "expect": other})


@needs_vectors
@pytest.mark.parametrize("key", ["out", "revert", "final", "value"])
def test_a_vector_with_one_thing_changed_fails(key: str) -> None:
    record = json.loads((FOLDER / "traces.json").read_text())
    trace = copy.deepcopy(next(t for t in record["traces"] if t["family"] == "solana"))
    if key == "final":
        trace["final"]["free"]["alice"]["USDC"] = str(int(trace["final"]["free"]["alice"]["USDC"]) + 1)
    elif key == "revert":
        step = next(s for s in trace["steps"] if s.get("revert"))
        del step["revert"]
        step |= {"value": None, "out": None, "head": "00" * 32}
    else:
        step = next(s for s in trace["steps"] if isinstance(s.get(key), str))
        step[key] = step[key][:-1] + ("0" if step[key][-1] != "0" else "1")
    with pytest.raises(AssertionError):
        optsettle_solana.run_trace(record, trace)
