"""The committed wasm of the Cosmos family asks the host for what every chain has, and has no way to be changed."""

from __future__ import annotations

import pytest
from wasmtime import Engine, Module

from contracts.cosmos import get_wasm
from contracts.cosmos.compile import WORKSPACE

HOST_FUNCTIONS = {
    "abort", "addr_canonicalize", "addr_humanize", "addr_validate", "db_read", "db_remove", "db_write", "debug",
    "ed25519_batch_verify", "ed25519_verify", "query_chain", "secp256k1_recover_pubkey", "secp256k1_verify",
}  # fmt: skip  # what every chain with CosmWasm 1 has


def _get_names(name: str) -> tuple[set[str], set[str]]:
    """Return (imported functions, exports) of a contract."""
    module = Module(Engine(), get_wasm(name))
    assert {i.module for i in module.imports} == {"env"}
    return {str(i.name) for i in module.imports}, {e.name for e in module.exports}


def test_the_vault_can_be_created_called_answered_and_read_and_nothing_else() -> None:
    imports, exports = _get_names("vault")
    memory = {"memory", "allocate", "deallocate", "interface_version_8"}
    assert {e for e in exports if not e.startswith("__")} == {"instantiate", "execute", "reply", "query", *memory}
    assert imports <= HOST_FUNCTIONS
    assert "db_write" in imports  # so the scan does see imports


@pytest.mark.parametrize("name", WORKSPACE.crates)
def test_the_wasm_demands_no_capability(name: str) -> None:
    _, exports = _get_names(name)
    assert not [e for e in exports if e.startswith("requires_")]
