"""Every trace and byte vector that concerns the EVM vault, on its bytecode (also part of `make conformance`)."""

from __future__ import annotations

import pytest

from tests.conformance.case import Case
from tests.conformance.optsettle_evm import discover_recv, discover_traces
from tests.conformance.run import get_root

FOLDER = get_root() / "optsettle"
CASES = [*discover_traces(FOLDER), *discover_recv(FOLDER)] if FOLDER.is_dir() else []


@pytest.mark.skipif(not CASES, reason="no optsettle vectors: set RELAYER_VECTORS")
def test_the_vectors_hold_traces_and_single_calls_for_this_family() -> None:
    kinds = {case.name.split()[0] for case in CASES}
    assert kinds == {"traces.json", "bytes.json"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_vault_does_what_the_vector_says(case: Case) -> None:
    case.run()
