from __future__ import annotations

import pytest

from relayer.testnet.nodes import SidecarSizes, find_anvil, start_anvil, start_sidecar
from relayer.testnet.processes import Group

CHAIN_ID = 31401
SIZES = SidecarSizes(seconds_per_slot=1, slots_per_epoch=2, epochs_per_period=8)


@pytest.fixture(scope="session")
def anvil_program():
    found = find_anvil()
    if found is None:
        pytest.skip("anvil is not installed: `make testnet` installs it with npm, or put it on the PATH")
    return found


@pytest.fixture(scope="session")
def devnet(anvil_program, tmp_path_factory):
    """One node with its sidecar for the whole session: short epochs, so that finality takes six seconds."""
    with Group(tmp_path_factory.mktemp("devnet")) as group:
        node = start_anvil(group, "anvil", CHAIN_ID)
        yield node, start_sidecar(group, "sidecar", node, SIZES)
